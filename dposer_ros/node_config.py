"""Every default of the node beside the fit, with unit, range and help. Imports nothing of ROS."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dposer_core.config import Config, param, parameters

TF_MODES = ('none', 'root', 'rep155', 'smplx', 'smplx_hands')
PRIMARY_POLICIES = ('nearest', 'largest', 'first')


@dataclass(frozen=True)
class TfConfig:
    """What is broadcast in /tf."""

    mode: str = param(
        'rep155',
        'frames of each person; root: body_<id> alone, rep155: its links too, smplx: all joints '
        'but the fingers, smplx_hands: all',
        choices=TF_MODES,
        live=True,
    )
    rate_limit: float = param(
        0.0,
        'broadcasts per second at most; 0: every frame',
        unit='Hz',
        low=0.0,
        high=1e3,
        live=True,
    )


@dataclass(frozen=True)
class OutputsConfig:
    """Topics that are off unless asked for."""

    hand_poses: bool = param(False, 'publish /human/hand_poses (OpenXR joints of both hands)')
    keypoints_completed: bool = param(False, 'publish /human/keypoints_completed')
    capsules: bool = param(False, 'publish /human/capsules')
    completed_hands: bool = param(
        True, 'publish hands of which nothing was seen in the frame too', live=True
    )


@dataclass(frozen=True)
class HriConfig:
    """The topics of REP-155."""

    enable: bool = param(True, 'publish /humans/bodies/... if hri_msgs is installed')


@dataclass(frozen=True)
class PrimaryConfig:
    """Whom the topics of one person follow."""

    policy: str = param(
        'nearest', 'who is primary until ~/set_primary names a body', choices=PRIMARY_POLICIES
    )


@dataclass(frozen=True)
class DiagnosticsConfig:
    """When diagnostics warn."""

    expected_rate: float = param(
        0.0,
        'input rate below which diagnostics warn; 0: any',
        unit='Hz',
        low=0.0,
        high=1e3,
        live=True,
    )
    tolerance: float = param(
        0.1,
        'accepted share of the expected rate, and of the period for jitter',
        low=0.0,
        high=1.0,
        live=True,
    )


@dataclass(frozen=True)
class StorageConfig:
    """Where services put files."""

    folder: str = param('', 'folder of saved shapes and snapshots; empty: ~/.ros/dposer_ros')


@dataclass(frozen=True)
class SnapshotConfig:
    """What ~/snapshot can look back on."""

    seconds: float = param(
        10.0, 'inputs and states remembered; 0: none', unit='s', low=0.0, high=300.0
    )


@dataclass(frozen=True)
class WorkerConfig:
    """Where the fit runs, and when it is given up."""

    isolation: str = param(
        'thread',
        'process: its crash is survived, at 1 to 2 ms per frame',
        choices=('thread', 'process'),
    )
    hang_timeout: float = param(
        1.0,
        'a fit that takes longer hangs: an error, and in a process a restart',
        unit='s',
        low=0.1,
        high=60.0,
        live=True,
    )
    max_restarts: int = param(3, 'restarts of the process per minute', low=0, high=60)


@dataclass(frozen=True)
class DegradeConfig:
    """When the fit takes fewer iterations; the load is its work over the period of the input."""

    enable: bool = param(True, 'reduce the quality while the fit cannot keep up', live=True)
    down_above: float = param(
        0.9, 'load above which quality is reduced', low=0.1, high=10.0, live=True
    )
    up_below: float = param(
        0.6, 'load of the reduced fit below which quality is full again', low=0.0, high=10.0,
        live=True,
    )  # fmt: skip


@dataclass(frozen=True)
class TimeConfig:
    """What happens when time starts again."""

    on_jump: str = param(
        'reset',
        'stamps that go back by more than 1 s (a bag in a loop, a clock set back); reset: '
        'everybody starts anew; drop: such frames are refused until time has caught up',
        choices=('reset', 'drop'),
    )


@dataclass(frozen=True)
class NodeConfig:
    """What concerns the ROS node alone."""

    autostart: bool = param(False, 'configure and activate without being asked')
    output_frame: str = param(
        '',
        'frame of everything that is published, as /tf connects it to the frame of the '
        'keypoints; empty: that frame itself',
    )
    time: TimeConfig = TimeConfig()
    tf: TfConfig = TfConfig()
    outputs: OutputsConfig = OutputsConfig()
    hri: HriConfig = HriConfig()
    primary: PrimaryConfig = PrimaryConfig()
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()
    storage: StorageConfig = StorageConfig()
    snapshot: SnapshotConfig = SnapshotConfig()
    worker: WorkerConfig = WorkerConfig()
    degrade: DegradeConfig = DegradeConfig()


def known_parameters() -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Name -> (default, metadata) of every parameter of the node."""
    both = itertools.chain(parameters(NodeConfig()), parameters(Config()))
    return {name: (value, metadata) for name, value, metadata in both}
