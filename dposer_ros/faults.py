"""What can go wrong between a detector and the node, as functions on keypoint messages.

`dposer inject` applies them to a live topic, the tests to messages of their own. Every function
takes a message and gives the ones to send in its place; it may change the message it was given.
"""

import array
import copy
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dposer_core.errors import ConfigError
from dposer_core.keypoints import LAYOUTS
from dposer_ros.conversions import header_at, ns_from_stamp
from dposer_ros.msg import KeypointFrame, PersonKeypoints

JUMP = 30.0  # s, of the clock
FUTURE, STALE = 10.0, 10.0  # s
BURST = 10  # messages
OVERLOAD = 4
PIXELS = 4000.0

NASTY = (
    math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 1e-45, 1e30, -1e30, 3.4e38, 2.0, 0.5, 1e7,
)  # fmt: skip
"""Numbers that break what does not expect them."""

NASTY_TEXT = ('', '../../etc/passwd', 'ä' * 300, '%s%n', '${HOME}', "'; rm -rf /", '\x1b[2J')


@dataclass
class Line:
    """What a fault remembers between messages."""

    chance: 'Chance'
    count: int = 0
    held: list[KeypointFrame] = field(default_factory=list)


Fault = Callable[[KeypointFrame, Line], list[KeypointFrame]]


def _shifted(msg: KeypointFrame, seconds: float) -> list[KeypointFrame]:
    stamp_ns = max(ns_from_stamp(msg.header.stamp) + int(seconds * 1e9), 0)
    msg.header = header_at(stamp_ns, msg.header.frame_id)
    return [msg]


def _some_points(msg: KeypointFrame, line: Line, value: float) -> list[KeypointFrame]:
    """A third of the coordinates of everybody becomes `value`."""
    for person in msg.people:
        points = np.array(person.points, dtype=np.float32)
        points[line.chance.many.random(len(points)) < 1 / 3] = value
        person.points = points.tolist()
    return [msg]


def _all_points(msg: KeypointFrame, value: float) -> list[KeypointFrame]:
    for person in msg.people:
        person.points = [value] * len(person.points)
    return [msg]


def _nan_points(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    return _some_points(msg, line, math.nan)


def _inf_points(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    return _some_points(msg, line, math.inf)


def _huge_points(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    return _all_points(msg, 1e30)


def _confidence(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    for person in msg.people:
        person.confidence = line.chance.many.choice(NASTY, len(person.confidence)).tolist()
    return [msg]


def _covariance(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    size = msg.dim * (msg.dim + 1) // 2
    for person in msg.people:
        count = len(person.points) // max(msg.dim, 1) * size
        person.covariance = line.chance.many.choice(NASTY, count).astype(np.float32).tolist()
    return [msg]


def _count(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    for person in msg.people:
        person.points = person.points[: line.chance.many.integers(len(person.points) + 1)]
    return [msg]


def _unit(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    msg.unit = int(line.chance.many.integers(256))
    return [msg]


def _dim(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    msg.dim = int(line.chance.many.integers(256))
    return [msg]


def _layout(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    msg.layout = str(line.chance.many.choice([*LAYOUTS, 'nonsense', '']))
    return [msg]


def _size(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    msg.image_width, msg.image_height = (int(n) for n in line.chance.many.integers(2**32, size=2))
    return [msg]


def _drop(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    return [msg] if line.chance.many.random() >= 0.2 else []


def _burst(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    """`BURST` messages are held back and come at once; then as many pass."""
    if line.count // BURST % 2 == 0:
        line.held.append(msg)
        return []
    held, line.held = line.held, []
    return [*held, msg]


def _overload(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    """`OVERLOAD` messages for one, a millisecond apart."""
    return [_shifted(copy.deepcopy(msg), i * 1e-3)[0] for i in range(OVERLOAD)]


def _silence(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    return []


def _zero(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    msg.header = header_at(0, msg.header.frame_id)
    return [msg]


def _stale(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    return _shifted(msg, -STALE)


def _future(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    return _shifted(msg, FUTURE)


def _duplicate(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    return [msg, copy.deepcopy(msg)]


def _shuffle(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    line.held.append(msg)
    if len(line.held) < 4:
        return []
    held, line.held = line.held, []
    return [held[i] for i in line.chance.many.permutation(len(held))]


def _jump_back(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    return _shifted(msg, -JUMP)


def _jump_ahead(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    return _shifted(msg, JUMP)


def _swap_ids(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    names = [person.track_id for person in msg.people]
    for person, index in zip(msg.people, line.chance.many.permutation(len(names)), strict=True):
        person.track_id = names[index]
    return [msg]


def _crowd(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    """Everybody ten times, side by side."""
    people = []
    for i in range(10):
        for person in copy.deepcopy(msg).people:
            points = np.array(person.points, dtype=np.float32).reshape(-1, max(msg.dim, 1))
            points[:, 0] += 10.0 * i
            person.points = points.ravel().tolist()
            people.append(person)
    msg.people = people
    return [msg]


def _mirror(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    msg.mirrored = not msg.mirrored
    return [msg]


def _frame(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    msg.header.frame_id = str(line.chance.many.choice(['', 'other_frame', msg.header.frame_id]))
    return [msg]


def _garbage(msg: KeypointFrame, line: Line) -> list[KeypointFrame]:
    found = random_frame(line.chance)
    found.header = msg.header
    return [found]


FAULTS: dict[str, tuple[str, Fault]] = {
    'nan': ('a third of the coordinates is not a number', _nan_points),
    'inf': ('a third of the coordinates is infinite', _inf_points),
    'huge': ('all coordinates are 1e30', _huge_points),
    'confidence': ('confidences that are none', _confidence),
    'covariance': ('covariances that are none', _covariance),
    'count': ('too few coordinates', _count),
    'unit': ('another unit', _unit),
    'dim': ('another dimension', _dim),
    'layout': ('another layout', _layout),
    'size': ('another size of the picture', _size),
    'garbage': ('random messages', _garbage),
    'drop': ('a fifth of the messages is lost', _drop),
    'burst': (f'{BURST} messages come late and at once, {BURST} in time', _burst),
    'overload': (f'{OVERLOAD} messages for one', _overload),
    'silence': ('nothing comes', _silence),
    'zero': ('stamps are 0', _zero),
    'stale': (f'stamps are {STALE:.0f} s old', _stale),
    'future': (f'stamps are {FUTURE:.0f} s ahead', _future),
    'duplicate': ('every message comes twice', _duplicate),
    'shuffle': ('four messages come in any order', _shuffle),
    'jump_back': (f'stamps are {JUMP:.0f} s behind from now on', _jump_back),
    'jump_ahead': (f'stamps are {JUMP:.0f} s ahead from now on', _jump_ahead),
    'swap_ids': ('the detector mixes up its identities', _swap_ids),
    'crowd': ('everybody ten times', _crowd),
    'mirror': ('the picture is said to be mirrored', _mirror),
    'frame': ('another frame_id, or none', _frame),
}
"""Name -> what it does, and the function."""


class Injector:
    """Applies one fault to a stream.

    Args:
        name: of the fault.
        share: of the messages it meets; the others pass.
        seed: of all chance.

    Raises:
        ConfigError: no such fault, or no such share.
    """

    def __init__(self, name: str, share: float = 1.0, seed: int = 0) -> None:
        if name not in FAULTS:
            raise ConfigError(f"fault '{name}': choose one of {', '.join(FAULTS)}")
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f'share {share}: must lie in [0, 1]')
        self._fault = FAULTS[name][1]
        self._share = share
        self._line = Line(Chance(seed))

    def __call__(self, msg: KeypointFrame) -> list[KeypointFrame]:
        """What to send in the place of `msg`."""
        line = self._line
        if self._share < 1.0 and line.chance.many.random() >= self._share:
            return [msg]
        out = self._fault(msg, line)
        line.count += 1
        return out


# --- messages out of nothing ---------------------------------------------------------------------

_LAYOUT_NAMES = tuple(LAYOUTS)
_NASTY_ARRAY = np.array(NASTY, dtype=np.float32)


class Chance:
    """Two generators of one seed: Python's for single numbers, numpy's for arrays (speed)."""

    def __init__(self, seed: int) -> None:
        self.one = random.Random(seed)
        self.many = np.random.default_rng(seed)


def random_frame(chance: Chance) -> KeypointFrame:
    """A message any part of which may be wrong; often enough everything is right."""
    one = chance.one
    layout = one.choice(_LAYOUT_NAMES) if one.random() < 0.9 else _text(one)
    dim = one.choice((2, 3)) if one.random() < 0.95 else one.randrange(256)
    unit = {2: one.randrange(2), 3: 2}.get(dim, 0) if one.random() < 0.9 else one.randrange(256)
    msg = KeypointFrame(layout=layout, dim=dim, unit=unit)
    if one.random() < 0.05:
        msg.names = [_text(one) for _ in range(one.randrange(5))]
    if one.random() < 0.2:
        msg.image_width, msg.image_height = (one.choice((0, 960, 2**32 - 1)) for _ in '12')
    msg.rectified, msg.mirrored = one.random() < 0.2, one.random() < 0.1
    msg.seq = one.randrange(2**63) if one.random() < 0.1 else 0
    msg.header = header_at(one.randrange(1, 2**31) * 10**9, 'camera')
    count = len(LAYOUTS[layout].names) if layout in LAYOUTS else one.randrange(1, 40)
    people = one.choice((0, 1, 1, 1, 2, 3))
    msg.people = [_random_person(chance, count, dim) for _ in range(people)]
    return msg


def _random_person(chance: Chance, count: int, dim: int) -> PersonKeypoints:
    one, many = chance.one, chance.many
    person = PersonKeypoints()
    if one.random() < 0.1:
        person.track_id = _text(one)
    if one.random() < 0.1:
        count = one.randrange(300)
    scale = PIXELS if dim == 2 else 3.0
    person.points = _spoilt(chance, scale * many.random(count * min(dim, 4), dtype=np.float32))
    if one.random() < 0.8:
        person.confidence = _spoilt(chance, many.random(count, dtype=np.float32))
    if one.random() < 0.1:
        size = count * dim * (dim + 1) // 2 if one.random() < 0.8 else one.randrange(50)
        person.covariance = _spoilt(chance, many.random(min(size, 2000), dtype=np.float32))
    return person


def _spoilt(chance: Chance, values: np.ndarray) -> array.array:
    """The values, often with some of them replaced, seldom with all."""
    share = chance.one.choice((0.0, 0.0, 0.1, 0.4, 1.0))
    if share and len(values):
        bad = np.flatnonzero(chance.many.random(len(values), dtype=np.float32) < share)
        values[bad] = _NASTY_ARRAY[chance.many.integers(len(NASTY), size=len(bad))]
    # The one type that a message takes without looking at every number.
    return array.array('f', values.tobytes())


def _text(one: random.Random) -> str:
    text = one.choice(NASTY_TEXT) if one.random() < 0.7 else ''
    return text + 'x' * one.randrange(20)


def random_json(one: random.Random, good: str) -> str:
    """Text that resembles the JSON `good`, or any characters at all."""
    kind = one.randrange(4)
    if kind == 0:
        return one.randbytes(one.randrange(200)).decode('latin-1')
    if kind == 1:  # cut off
        return good[: one.randrange(len(good) + 1)]
    if kind == 2:  # nested beyond reason
        return ''.join(one.choices(('[', '{"a":', '[[', '{'), k=200))
    characters = list(good)
    for _ in range(one.randrange(1, 8)):
        characters[one.randrange(len(characters))] = one.choice('0123456789eE+-.,:[]{}"ntfalsuNI ')
    return ''.join(characters)
