"""The node `dposer_fusion`: keypoints of several calibrated cameras in, 3D keypoints out.

One message: `_on_keypoints` (executor thread) judges its stamp and gives it to the synchroniser;
what that calls one instant goes to the worker thread, where `_fuse` converts, fuses and publishes.
The result is an ordinary KeypointFrame in `world_frame`, input of `dposer_wholebody`.
"""

import copy
import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo

from dposer_core.config import TURNS, FusionConfig
from dposer_core.errors import ConfigError, DPoserError, ObservationError
from dposer_core.multiview import MultiviewFusion, Sighting
from dposer_core.triangulation import View, read_placements
from dposer_ros.conversions import (
    Cameras,
    cameras_from_msg,
    header_at,
    keypoint_frame_msg,
    ns_from_stamp,
    observations_from_msg,
)
from dposer_ros.gate import StampGate
from dposer_ros.keypoint_source import KeypointSource
from dposer_ros.latest import LatestWorker
from dposer_ros.launch_arguments import camera_names
from dposer_ros.msg import KeypointFrame
from dposer_ros.parameters import declare
from dposer_ros.process import run_until_signal
from dposer_ros.refusals import Refusals, Refused, guarded, refuses_qos
from dposer_ros.synchroniser import Instant, Synchroniser
from dposer_ros.tf_frames import TfFrames

_TICK = 0.01  # s, of looking for instants that have waited long enough
_DIAGNOSTICS_PERIOD = 1.0  # s
_STOP_TIMEOUT = 0.5  # s
_QOS = QoSProfile(depth=5)


@dataclasses.dataclass
class _Camera:
    """What is known of one camera."""

    frames: Cameras | None = None
    placement: tuple[np.ndarray, np.ndarray] | None = None  # R_cam_world, t_cam_world
    gate: StampGate = dataclasses.field(default_factory=StampGate)


class FusionNode(Node):
    """See the module; topics and parameters are in docs/CAMERAS.md.

    Args:
        kwargs: for `rclpy.node.Node`.
    """

    autostart = True

    def __init__(self, **kwargs) -> None:
        super().__init__('dposer_fusion', **kwargs)
        self.refusals = Refusals(self.get_logger())
        self.published = 0
        self._config, self._error = declare(self, FusionConfig())
        self._cameras: dict[str, _Camera] = {}
        self._sources: dict[str, KeypointSource] = {}
        self._static: TfFrames | None = None
        self._sync: Synchroniser[KeypointFrame] | None = None
        self._fusion: MultiviewFusion | None = None
        self._jumps = 0
        self._published_ns = 0
        self._worker: LatestWorker[Instant[KeypointFrame]] | None = None

    @property
    def dropped(self) -> int:
        """Instants that a newer one replaced, and messages too late for theirs."""
        late = self._sync.dropped.total() if self._sync else 0
        return late + (self._worker.dropped if self._worker else 0)

    def start(self) -> bool:
        """Read the calibration and open the topics; False, with the reason logged, if it fails."""
        try:
            self._open()
        except DPoserError as error:
            self.get_logger().error(str(error))
            return False
        return True

    def close(self) -> None:
        """Stop listening and fusing."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop(_STOP_TIMEOUT)

    # --- starting ----------------------------------------------------------------------------

    def _open(self) -> None:
        if self._error is not None:
            raise self._error
        config = self._config
        names = camera_names(config.cameras)
        self._cameras = {name: _Camera() for name in names}
        if config.calibration:
            self._read_calibration(Path(config.calibration).expanduser())
        else:
            self._static = TfFrames(self)
        self._sync = Synchroniser(names, config.slop, config.max_wait)
        self._fusion = MultiviewFusion(config)
        self._publisher = self.create_publisher(KeypointFrame, 'keypoints', _QOS)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._worker = LatestWorker(self._fuse, lambda: None, self._on_worker_error)
        self._worker.start()
        for name in names:
            self._listen(name)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self.create_timer(_TICK, self._flush, clock=steady)
        self.create_timer(_DIAGNOSTICS_PERIOD, self._publish_diagnostics, clock=steady)

    def _read_calibration(self, path: Path) -> None:
        placements = read_placements(path)
        for name, camera in self._cameras.items():
            if name not in placements:
                raise ConfigError(
                    f"{path} does not say where camera '{name}' stands; it has "
                    f'{", ".join(placements) or "none"}'
                )
            camera.placement = placements[name]

    def _listen(self, name: str) -> None:
        topic = f'{name}/keypoints'
        self._sources[name] = KeypointSource(
            self,
            functools.partial(self._on_keypoints, name),
            self._config.input,
            refuses_qos(self.refusals.add, topic, is_input=True),
            topic,
        )
        on_info = functools.partial(self._on_camera_info, name)
        self.create_subscription(CameraInfo, f'{name}/camera_info', on_info, copy.copy(_QOS))

    # --- one frame: executor thread -----------------------------------------------------------

    @guarded
    def _on_keypoints(self, name: str, message: Any) -> None:
        if self._worker is None:
            return
        msg = self._sources[name].read(message)
        stamp_ns, now_ns = ns_from_stamp(msg.header.stamp), self.get_clock().now().nanoseconds
        self._cameras[name].gate.admit(stamp_ns, now_ns, self._config.input)
        self._hand_over(self._sync.add(name, stamp_ns, msg, time.monotonic()))

    @guarded
    def _on_camera_info(self, name: str, msg: CameraInfo) -> None:
        try:
            self._cameras[name].frames = cameras_from_msg(msg)
        except ObservationError as error:
            raise Refused('camera_info', f'{name}: {error}') from error

    @guarded
    def _flush(self) -> None:
        if self._worker is not None:
            self._hand_over(self._sync.due(time.monotonic()))

    def _hand_over(self, instants: list[Instant[KeypointFrame]]) -> None:
        if self._sync.jumps > self._jumps:
            self._jumps = self._sync.jumps
            self._worker.forget()
            self._worker.post(self._reset)
        for instant in instants:
            self._worker.put(instant)

    # --- one frame: worker thread -------------------------------------------------------------

    def _fuse(self, instant: Instant[KeypointFrame]) -> None:
        stamp_ns = instant.stamp_ns
        if stamp_ns <= self._published_ns:
            raise Refused('stamp_order', 'an instant is not newer than the one before')
        sightings = []
        for name, (_, msg) in instant.items.items():
            try:
                sightings.append(self._sighting(name, msg))
            except Refused as refusal:
                self.refusals.add(refusal.cause, f'{name}: {refusal}')
        people = self._fusion.step(stamp_ns, [s for s in sightings if s is not None])
        header = header_at(stamp_ns, self._config.world_frame)
        frame = keypoint_frame_msg(people, header)
        self.published += 1
        frame.seq = self.published
        self._published_ns = stamp_ns
        self._publisher.publish(frame)

    def _sighting(self, name: str, msg: KeypointFrame) -> Sighting | None:
        """What a camera sees, None for nobody; raises Refused."""
        if msg.dim != KeypointFrame.DIM_2D:
            raise Refused('dim', f'dim {msg.dim}: several cameras are fused from 2D keypoints')
        camera = self._cameras[name]
        observations, refused = observations_from_msg(msg, camera.frames, self._config.input)
        for refusal in refused:
            self.refusals.add(refusal.cause, f'{name}: {refusal}')
        placement = camera.placement or self._placement(camera.frames)
        if not observations:
            return None
        view = View(name, observations[0].camera, (), *placement)
        return Sighting(view, observations[: TURNS * self._config.input.max_people])

    def _placement(self, cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
        """Where /tf_static says that the camera stands."""
        found = self._static.lookup(cameras.frame_id, self._config.world_frame)
        if found is None:
            raise Refused(
                'no_extrinsics',
                f"/tf_static does not connect '{cameras.frame_id}', the frame of camera_info, and "
                f"'{self._config.world_frame}' (world_frame); publish it, or set calibration",
            )
        return found

    def _reset(self) -> None:
        self.get_logger().info('stamps went back: everybody starts anew')
        self._fusion.reset()
        self._published_ns = 0

    def _on_worker_error(self, error: Exception) -> None:
        self.refusals.add_error('fusion_failed', error)

    # --- reports ------------------------------------------------------------------------------

    def _publish_diagnostics(self) -> None:
        if self._sync is None:
            return
        silent = self._sync.silent(time.monotonic())
        alive = len(self._cameras) - len(silent)
        level = DiagnosticStatus.OK if not silent else DiagnosticStatus.WARN
        message = f'{alive} of {len(self._cameras)} cameras speak'
        if alive < 2:
            level = DiagnosticStatus.ERROR
        values = {
            'published': self.published, 'dropped': self.dropped, 'time_jumps': self._jumps,
            'silent': ', '.join(silent), **self.refusals.counts,
        }  # fmt: skip
        status = DiagnosticStatus(level=level, name=f'{self.get_name()}: fusion', message=message)
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until SIGINT or SIGTERM."""
    run_until_signal(FusionNode, args)


if __name__ == '__main__':
    main()
