"""How people moved, from any source: a truth, a states file, a recording of the node."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core import evidence, skeleton
from dposer_core.config import InputConfig
from dposer_core.errors import DPoserError, MediaError
from dposer_core.states_io import States, read_states
from dposer_ros import bags
from dposer_ros.derived import POINT_JOINTS

STATE_TYPE = 'dposer_ros/msg/SmplxState'
STATES_TYPE = 'dposer_ros/msg/SmplxStateArray'
MOTION_TYPES = (STATES_TYPE, STATE_TYPE, bags.KEYPOINT_TYPE)
"""What a topic of motion may be."""

MAX_STEP = 0.1  # s, between two samples that are interpolated
_MAX_COORDINATE = 1e3  # m


@dataclass(frozen=True)
class Layout:
    """Which points a motion has."""

    name: str
    root: tuple[int, ...]
    """Their middle is the pelvis."""
    parts: dict[str, np.ndarray]
    """body, left_hand, right_hand -> points."""
    wrists: dict[str, int]
    """left_hand, right_hand -> the point that it hangs on."""
    joints: np.ndarray
    """(P,) joint whose source and sigma hold for each point."""

    def of_states(self, states: States) -> np.ndarray:
        """(N, P, 3) m, these points of the states."""
        return states.joints if self is JOINTS else states.landmarks


def _indices(points: slice) -> np.ndarray:
    return np.arange(points.start, points.stop)


JOINTS = Layout(
    'joints',
    (0,),
    {
        'body': np.arange(22),
        'left_hand': _indices(skeleton.LEFT_HAND_JOINTS),
        'right_hand': _indices(skeleton.RIGHT_HAND_JOINTS),
    },
    {
        'left_hand': skeleton.JOINT_INDEX['left_wrist'],
        'right_hand': skeleton.JOINT_INDEX['right_wrist'],
    },
    np.arange(skeleton.NUM_JOINTS),
)
LANDMARKS = Layout(
    'landmarks',
    (11, 12),  # the hips
    {
        'body': _indices(evidence.BODY_POINTS),
        'left_hand': _indices(evidence.LEFT_HAND_POINTS),
        'right_hand': _indices(evidence.RIGHT_HAND_POINTS),
    },
    {
        'left_hand': evidence.LEFT_HAND_POINTS.start,
        'right_hand': evidence.RIGHT_HAND_POINTS.start,
    },
    POINT_JOINTS,
)


@dataclass(frozen=True)
class Motion:
    """N samples in order of time; people share a stamp."""

    source: str
    """Where it comes from, for people to read."""
    stamp_ns: np.ndarray  # (N,) int64
    person: np.ndarray  # (N,) str
    points: np.ndarray  # (N, P, 3) m, NaN where not known
    layout: Layout
    frame_id: str | None = None
    """None: the source does not say."""

    @cached_property
    def people(self) -> dict[str, np.ndarray]:
        """Person -> rows."""
        return {str(name): np.flatnonzero(self.person == name) for name in np.unique(self.person)}

    def at(self, stamp_ns: int) -> dict[str, np.ndarray]:
        """Person -> points (P, 3) at this time, on the line between two samples."""
        found = {}
        for name, rows in self.people.items():
            points = self._of_person(rows, stamp_ns)
            if points is not None:
                found[name] = points
        return found

    def _of_person(self, rows: np.ndarray, stamp_ns: int) -> np.ndarray | None:
        stamps = self.stamp_ns[rows]
        after = int(np.searchsorted(stamps, stamp_ns))
        if after < len(rows) and stamps[after] == stamp_ns:
            return self.points[rows[after]]
        if after in (0, len(rows)):
            return None
        step = (stamps[after] - stamps[after - 1]) * 1e-9
        if step > MAX_STEP:
            return None
        share = (stamp_ns - stamps[after - 1]) * 1e-9 / step
        before, behind = self.points[rows[after - 1]], self.points[rows[after]]
        return before + share * (behind - before)


def of_states(states: States, source: str) -> Motion:
    """The joints of states."""
    return Motion(source, states.stamp_ns, states.body_id, states.joints, JOINTS)


def read_truth(text: str, bag: Path) -> Motion:
    """What `--truth` names: a states file, or a topic of the bag.

    Raises:
        MediaError: there is no such file or topic, or it holds no motion.
    """
    path = Path(text)
    if path.suffix == '.npz':
        return of_states(read_states(path), path.name)
    return read_topic(bag, text)


def read_other(path: Path) -> Motion:
    """What `--compare` names: the folder or states file of another run, or a bag of states.

    Raises:
        MediaError: there is none, or it holds no states.
    """
    if path.is_dir() and not bags.is_bag(path):
        path = path / 'states.npz'
    if not bags.is_bag(path):
        return of_states(read_states(path), str(path))
    types = bags.topic_types(path)
    for wanted in (STATES_TYPE, STATE_TYPE):
        found = [topic for topic, msgtype in sorted(types.items()) if msgtype == wanted]
        if found:
            return read_topic(path, found[0])
    raise MediaError(f'{path} holds no states: no topic is {STATES_TYPE} or {STATE_TYPE}')


def read_topic(bag: Path, topic: str) -> Motion:
    """Motion from a topic of states or of 3D keypoints.

    Raises:
        MediaError: no such topic, another type, 2D keypoints, or nothing in it.
    """
    types = bags.topic_types(bag)
    if topic not in types:
        near = ', '.join(sorted(t for t, kind in types.items() if kind in MOTION_TYPES)[:20])
        raise MediaError(
            f"{bag} has no topic '{topic}'; of states or keypoints it has {near or 'none'}"
        )
    if types[topic] not in MOTION_TYPES:
        raise MediaError(
            f"{bag}: topic '{topic}' is {types[topic]}, expected {' or '.join(MOTION_TYPES)}"
        )
    is_keypoints = types[topic] == bags.KEYPOINT_TYPE
    samples: list[tuple[int, str, np.ndarray]] = []
    frame_id = None
    for _, _, message in bags.read_messages(bag, [topic]):
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        frame_id = message.header.frame_id if frame_id is None else frame_id
        if message.header.frame_id != frame_id:
            raise MediaError(
                f"{bag}: '{topic}' is in {frame_id!r} at first and in "
                f'{message.header.frame_id!r} later; truth must stay in one frame'
            )
        people = _points_of(message) if is_keypoints else _joints_of(message)
        samples += [(stamp, name, points) for name, points in people]
    if not samples:
        raise MediaError(f"{bag}: nobody is in '{topic}'")
    unique = {(stamp, name): points for stamp, name, points in samples}
    order = sorted(unique)
    return Motion(
        source=topic,
        stamp_ns=np.array([stamp for stamp, _ in order], dtype=np.int64),
        person=np.array([name for _, name in order], dtype=np.str_),
        points=np.stack([unique[key] for key in order]),
        layout=LANDMARKS if is_keypoints else JOINTS,
        frame_id=frame_id,
    )


def _joints_of(message: Any) -> list[tuple[str, np.ndarray]]:
    from dposer_core.state import Status

    states = getattr(message, 'states', None)
    return [
        (state.body_id, _clean(np.asarray(state.positions, dtype=np.float64).reshape(-1, 3)))
        for state in ([message] if states is None else states)
        if state.status != Status.LOST
    ]


def _points_of(message: Any) -> list[tuple[str, np.ndarray]]:
    from dposer_ros.conversions import observations_from_msg

    if message.dim != 3:
        raise MediaError(f'keypoints of {message.dim} dimensions are no truth; give 3D ones')
    try:
        people, _ = observations_from_msg(message, None, InputConfig(confidence_threshold=0.0))
    except DPoserError as error:
        raise MediaError(f'truth keypoints cannot be read: {error}') from error
    return [
        (
            person.track_id or str(number),
            _clean(np.where(person.confidence[:, None] > 0, person.points, np.nan)),
        )
        for number, person in enumerate(people)
    ]


def _clean(points: np.ndarray) -> np.ndarray:
    """Points with NaN for those that are nowhere."""
    with np.errstate(invalid='ignore'):
        is_good = (np.abs(points) < _MAX_COORDINATE).all(axis=1)
    return np.where(is_good[:, None], points, np.nan)
