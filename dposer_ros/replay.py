"""Recorded keypoints through the fitter, without ROS and deadline: the same every time."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

from dposer_core.camera import PinholeCamera, Undistort, assumed_camera
from dposer_core.config import Config, from_mapping
from dposer_core.errors import ConfigError, ObservationError
from dposer_core.json_keypoints import read_json
from dposer_core.observation import Observation
from dposer_core.people import PeopleFitter
from dposer_core.recording import Recording, read_npz
from dposer_core.state import FitResult, Status
from dposer_ros import bags

if TYPE_CHECKING:
    from dposer_ros.conversions import Cameras

_MAX_OFF = 10.0  # s, between the stamps of a bag and their times of recording

Frame = tuple[int, list[Observation]]
"""Stamp in nanoseconds and the people of one frame."""


@dataclass(frozen=True)
class Clip:
    """Keypoints ready to be fitted."""

    source: str
    """What was read, for people to read."""
    frames: list[Frame]
    """In order of time."""
    camera: PinholeCamera | None
    """Of 2D keypoints."""
    refused: Counter[str] = field(default_factory=Counter)
    """Cause -> frames or people of a bag that could not be used."""
    frame_id: str = ''
    """Frame of the states: that of the keypoints in a bag."""


@dataclass(frozen=True)
class CameraChoice:
    """What the user says about the camera; everything may be left open."""

    camera: PinholeCamera | None = None
    """Given as fx, fy, cx, cy."""
    focal: float | None = None
    """Focal length in pixels; the principal point is then the middle of the picture."""
    size: tuple[int, int] | None = None
    """Width and height of the picture, pixels."""

    def resolve(self, camera: PinholeCamera | None, size: tuple[int, int] | None) -> PinholeCamera:
        """The camera for a file with this camera and picture size (None: it does not say).

        Raises:
            ObservationError: there is nothing to make a camera of.
        """
        if self.camera is not None:
            return self.camera
        if camera is not None and self.size is None:
            return camera
        size = self.size or size
        if size is None:
            raise ObservationError(
                '2D keypoints need a camera and the file has none: give --camera fx,fy,cx,cy, or '
                '--size WIDTHxHEIGHT of the video (with --focal F in pixels where it is known)'
            )
        return assumed_camera(*size, self.focal)


def read_clip(
    path: Path,
    choice: CameraChoice,
    config: Config,
    layout: str | None = None,
    fps: float = 30.0,
    topic: str = '',
    camera_topic: str = '',
) -> Clip:
    """Keypoints of a bag, an .npz file, a JSON file or a folder of JSON files.

    Args:
        path: told apart by their names.
        choice: camera of 2D keypoints; in a bag it replaces the recorded camera_info.
        config: confidence threshold of bags.
        layout: of files that do not say; None: told from the number of points.
        fps: of files without time stamps.
        topic: keypoint topic of a bag; empty: the only one.
        camera_topic: camera_info topic of a bag; empty: the only one.

    Raises:
        ObservationError: keypoints or camera cannot be used.
        MediaError: the bag cannot be read.
    """
    if not path.exists():
        raise ObservationError(f'{path} does not exist; give keypoints: JSON, npz or a ROS 2 bag')
    if not fps > 0:
        raise ObservationError(f'--fps {fps}: must be positive')
    if bags.is_bag(path):
        return _read_bag(path, choice, config, topic, camera_topic)
    recording = read_npz(path, layout) if path.suffix == '.npz' else read_json(path, layout)
    return clip_from_recording(recording, choice, fps)


def clip_from_recording(recording: Recording, choice: CameraChoice, fps: float = 30.0) -> Clip:
    """A recording with its camera and time stamps."""
    camera = None
    if recording.dim == 2:
        camera = choice.resolve(recording.camera, recording.size)
    frames = list(recording.observations(camera, None, fps))
    if not frames:
        raise ObservationError('the file holds no frames')
    return Clip(recording.source, _in_order(frames), camera)


def _read_bag(
    path: Path, choice: CameraChoice, config: Config, topic: str, camera_topic: str
) -> Clip:
    refused: Counter[str] = Counter()
    frames = list(_bag_frames(path, choice, config, topic, camera_topic, refused))
    kept = _continuous(frames, refused)
    if not kept:
        reasons = '; '.join(refused) or 'its keypoint topic is empty'
        raise ObservationError(f'{path}: no frame can be used ({reasons[:1000]})')
    people = [(frame.stamp_ns, frame.observations) for frame in kept]
    camera = next((frame.camera for frame in reversed(kept) if frame.camera), None)
    return Clip('ROS 2 bag', people, camera, refused, kept[0].frame_id)


class _BagFrame(NamedTuple):
    stamp_ns: int
    recorded_ns: int
    frame_id: str
    dim: int
    observations: list[Observation]
    camera: PinholeCamera | None
    """Of 2D keypoints."""


def _bag_frames(
    path: Path,
    choice: CameraChoice,
    config: Config,
    topic: str,
    camera_topic: str,
    refused: Counter[str],
) -> Iterator[_BagFrame]:
    """What the conversion of the live node makes of the bag; counts what it refuses."""
    from dposer_ros.conversions import cameras_from_msg, ns_from_stamp, observations_from_msg
    from dposer_ros.refusals import Refused

    adapters = adapter_of_type(config)
    given = _given_cameras(choice)
    info, cameras, read = None, given, None
    for recorded in bags.read_keypoints(path, topic, camera_topic, tuple(adapters)):
        if read is None:
            read = _reader(recorded.msgtype, adapters[recorded.msgtype], config)
        try:
            if given is None and recorded.camera is not info:
                info, cameras = recorded.camera, None
                cameras = cameras_from_msg(info)
            msg = read(recorded)
            observations, bad_people = observations_from_msg(msg, cameras, config.input)
        except Refused as refusal:
            refused[f'{refusal.cause}: {refusal}'] += 1
            continue
        except ObservationError as error:
            refused[f'camera_info: {error}'] += 1
            continue
        refused.update(f'{person.cause}: {person}' for person in bad_people)
        yield _BagFrame(
            ns_from_stamp(msg.header.stamp),
            recorded.recorded_ns,
            msg.header.frame_id,
            msg.dim,
            observations,
            cameras.raw[0] if cameras and msg.dim == 2 else None,
        )


def _continuous(frames: list[_BagFrame], refused: Counter[str]) -> list[_BagFrame]:
    """The frames that follow each other; counts the others.

    One stamp from far ahead would make all that follow it old, so each is judged by the time of
    its recording first: stamps may lie anywhere from that, but all in the same place.
    """
    if not frames:
        return []
    usual_ns = int(np.median([frame.stamp_ns - frame.recorded_ns for frame in frames]))
    kept: list[_BagFrame] = []
    for frame in frames:
        off = (frame.stamp_ns - frame.recorded_ns - usual_ns) * 1e-9
        first = kept[0] if kept else frame
        if frame.stamp_ns <= 0:
            refused['stamp_zero: header.stamp is not after 0'] += 1
        elif abs(off) > _MAX_OFF:
            cause = 'stamp_future' if off > 0 else 'stamp_stale'
            refused[f'{cause}: {abs(off):.0f} s off, by the times of recording'] += 1
        elif (frame.frame_id, frame.dim) != (first.frame_id, first.dim):
            refused[
                f'input_changed: {frame.dim}D keypoints in {frame.frame_id!r} after '
                f'{first.dim}D ones in {first.frame_id!r}'
            ] += 1
        elif kept and frame.stamp_ns <= kept[-1].stamp_ns:
            refused['stamp_order: frame stamp not newer than the one before'] += 1
        else:
            kept.append(frame)
    return kept


def adapter_of_type(config: Config) -> dict[str, str]:
    """Message type -> the value of `input.type` that reads it, the preferred type first."""
    from dposer_ros.adapters import ADAPTERS, AUTO, NATIVE, NATIVE_TYPE

    types = {NATIVE: NATIVE_TYPE, **{name: a.type for name, a in ADAPTERS.items()}}
    names = types if config.input.type == AUTO else [config.input.type]
    if not types.keys() >= set(names):
        raise ConfigError(
            f"input.type '{config.input.type}' is for the live node: give --topic "
            "/humans/bodies/<id>/skeleton2d and input.type 'hri' for one body of a bag"
        )
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(types[name], name)
    return found


def _given_cameras(choice: CameraChoice) -> 'Cameras | None':
    """The user's camera in the place of camera_info; None: that of the bag."""
    from dposer_ros.conversions import Cameras

    if choice.camera is None and choice.size is None:
        return None
    lens: tuple[PinholeCamera, Undistort] = (choice.resolve(None, None), np.asarray)
    return Cameras(raw=lens, rectified=lens)


def _reader(msgtype: str, adapter: str, config: Config) -> Callable[[bags.Recorded], Any]:
    """How to get a recorded message as the node would have read it."""
    from rclpy.serialization import deserialize_message

    from dposer_ros.adapters import NATIVE, Context, convert, message_class
    from dposer_ros.conversions import header_at

    if adapter == NATIVE:
        return lambda recorded: recorded.message
    kind, store = message_class(msgtype), bags.with_type(bags.typestore(), msgtype)

    def read(recorded: bags.Recorded) -> Any:
        # Bytes of rosbags, not those of the file, which nothing has checked.
        message = deserialize_message(bytes(store.serialize_cdr(recorded.message, msgtype)), kind)
        arrival = header_at(recorded.recorded_ns, '').stamp
        context = Context(arrival, config.input.frame_id, config.input.layout)
        return convert(adapter, message, context)

    return read


def _in_order(frames: list[Frame]) -> list[Frame]:
    for (before, _), (after, _) in itertools.pairwise(frames):
        if after <= before:
            raise ObservationError(
                f'time stamps do not increase: {after} ns follows {before} ns; sort the frames'
            )
    return frames


def read_config(path: Path | None, base: Any = None) -> Any:
    """Parameters from a ROS 2 parameter file, or from a YAML file with our parameters alone.

    Args:
        path: the file; None: the defaults.
        base: which parameters; None: those of the fit, `Config()`.

    Raises:
        ConfigError: not readable, or with keys or values that do not exist.
    """
    base = Config() if base is None else base
    if path is None:
        return base
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f'{path} is not a readable YAML file: {error}') from error
    if not isinstance(values, dict):
        raise ConfigError(f'{path}: expected parameters by name, got {type(values).__name__}')
    blocks = [v for v in values.values() if isinstance(v, dict) and 'ros__parameters' in v]
    groups = set(type(base).__dataclass_fields__)
    is_strict = not blocks and isinstance(base, Config)
    for block in blocks or [values]:
        mine = block.get('ros__parameters', block) or {}
        # A node has parameters of its own beside those of the fit: use_sim_time, topics, ...
        values = {k: v for k, v in mine.items() if is_strict or k.split('.')[0] in groups}
    return from_mapping(values, base)


def load_fitter(config: Config, with_prior: bool = True) -> tuple[Callable[[], PeopleFitter], str]:
    """How to make a fitter for `config`, and the body model's name as the messages spell it."""
    from dposer_core.body_model import load_body
    from dposer_core.prior.runtime import load_prior

    tables = load_body(config.model.path).tables
    prior = None
    if with_prior and config.prior.weight > 0.0:
        prior = load_prior(config.prior.checkpoint, config.prior.backend, tables.num_expression)
    make = partial(PeopleFitter, tables, prior, config)
    return make, f'{tables.name}/{tables.sha256[:8]}'


@dataclass
class Replay:
    """What came out of a clip, and how long it took."""

    results: list[FitResult] = field(default_factory=list)
    """Every answer, frame by frame."""
    frames: int = 0
    """Frames that were fed."""
    frames_with_people: int = 0
    """Frames with somebody in them."""
    answered: int = 0
    """Of these, frames in which somebody was fitted."""
    warm_seconds: list[float] = field(default_factory=list)
    """Step time of frames in which everybody was known from the frame before."""
    cold_seconds: list[float] = field(default_factory=list)
    """Step time of frames in which somebody was started from nothing."""
    cpu_seconds: list[float] = field(default_factory=list)
    """CPU time of every frame with people: what a busy machine takes nothing away from."""
    stage_seconds: dict[str, list[float]] = field(default_factory=dict)
    """Stage -> seconds, one entry for each fitted person."""
    wall_seconds: float = 0.0
    """All frames together."""

    @property
    def fit_seconds(self) -> list[float]:
        """Step time of every frame with people."""
        return self.warm_seconds + self.cold_seconds

    def add(
        self, observations: list[Observation], results: list[FitResult], took: float, cpu: float
    ) -> None:
        """Count one frame that took so many seconds, and so many of CPU time."""
        self.frames += 1
        self.results += results
        if not observations:
            return
        fitted = [r for r in results if r.status not in (Status.PREDICTED, Status.LOST)]
        self.frames_with_people += 1
        self.answered += bool(fitted)
        self.cpu_seconds.append(cpu)
        is_cold = any(not result.stats.warm_started for result in fitted)
        (self.cold_seconds if is_cold else self.warm_seconds).append(took)
        for result in fitted:
            for stage, seconds in result.stats.stage_seconds.items():
                self.stage_seconds.setdefault(stage, []).append(seconds)


def replay(
    fitter: PeopleFitter, frames: Iterable[Frame], progress: Callable[[], None] = lambda: None
) -> Replay:
    """Fit every frame in order, with all configured iterations.

    Args:
        fitter: fresh or reset.
        frames: in order of time.
        progress: called after each frame.
    """
    outcome = Replay()
    begin = time.perf_counter()
    silence_ns = round(fitter.config.occlusion.lost_timeout * 1e9)
    newest_ns = None
    for stamp_ns, observations in frames:
        if newest_ns is not None and stamp_ns - newest_ns > silence_ns:
            # The live node would have said so while nothing came.
            outcome.results += fitter.predict(newest_ns + silence_ns)
        newest_ns = stamp_ns
        start, cpu_start = time.perf_counter(), time.process_time()
        results = fitter.step(stamp_ns, observations)
        cpu = time.process_time() - cpu_start
        outcome.add(observations, results, time.perf_counter() - start, cpu)
        progress()
    outcome.wall_seconds = time.perf_counter() - begin
    return outcome


def warm_up(make: Callable[[], PeopleFitter], frames: list[Frame], count: int = 3) -> None:
    """Fit a few frames for nothing: the first ones compile code and fill caches."""
    replay(make(), [frame for frame in frames if frame[1]][:count])


def crowd(frames: Iterable[Frame], people: int) -> Iterator[Frame]:
    """The first person of each frame `people` times, side by side, far enough to stay apart."""
    step = None
    for stamp_ns, observations in frames:
        if observations and step is None:
            step = 3.0 if observations[0].dim == 3 else 2.0 * _extent(observations[0])
        yield stamp_ns, [_shifted(o, i, step) for o in observations[:1] for i in range(people)]


def _extent(observation: Observation) -> float:
    return float(np.ptp(observation.points[observation.confidence > 0], axis=0).max(initial=0.0))


def _shifted(observation: Observation, index: int, step: float) -> Observation:
    points = observation.points + np.eye(observation.dim)[0] * index * step
    return replace(observation, points=points, track_id=f'{observation.track_id}{index}')
