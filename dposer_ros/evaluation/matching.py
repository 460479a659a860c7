"""Which state is whom: states against a truth or another run, with swaps and gaps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from dposer_core.state import Status
from dposer_core.states_io import States
from dposer_ros.evaluation.motion import Motion

# Monocular depth with an unknown height is off by this much at a distance of 10 m.
GATE = 1.5  # m, largest mean distance of a pair

# People who touch must not change partners back and forth; a pair that parts by more has swapped.
_KEPT = 0.1  # m, by which the partner of the frame before may be farther away


@dataclass(frozen=True)
class Swap:
    """A track that has gone over to another person."""

    stamp_ns: int
    body_id: str
    before: str
    after: str


@dataclass
class Person:
    """One person of the truth."""

    frames: int = 0
    """In which the person is there, of those that were evaluated."""
    matched: int = 0
    """Of these, with a state."""
    fitted: int = 0
    """Of these, with a state that is no prediction."""
    body_ids: list[str] = field(default_factory=list)
    """That the person had, in order."""
    longest_gap_s: float = 0.0
    """Without a fitted state, from when the person is there to when there is one."""


@dataclass(frozen=True)
class Match:
    """States beside the motion they belong to."""

    motion: Motion
    person: np.ndarray  # (N,) str, '' without a partner
    truth: np.ndarray  # (N, P, 3) m, NaN without a partner
    people: dict[str, Person]
    swaps: list[Swap]
    new_ids: int
    """Times that a person got a fresh body_id."""
    unmatched: int
    """States of nobody who is there, in frames for which there is truth."""

    @property
    def known(self) -> np.ndarray:
        """(N,) whether the state has a partner."""
        return self.person != ''


def match(states: States, stamps: Sequence[int], motion: Motion) -> Match:
    """Pair states with people, frame by frame, by the mean distance of body points.

    Args:
        states: of a run; those with status LOST stay alone.
        stamps: of all frames of the run, also those without states.
        motion: the truth, or another run.
    """
    count = len(states)
    person = np.full(count, '', dtype=object)
    truth = np.full((count, *motion.points.shape[1:]), np.nan)
    own = motion.layout.of_states(states)
    body = motion.layout.parts['body']
    is_there = states.status != Status.LOST
    log = _Log()
    for stamp in stamps:
        there = motion.at(stamp)
        rows = np.flatnonzero((states.stamp_ns == stamp) & is_there)
        pairs = _pairs(states, own[:, body], rows, there, body, log.partner)
        for row, name in pairs.items():
            person[row], truth[row] = name, there[name]
        log.add(int(stamp), states, rows, there, pairs)
    return Match(
        motion, person.astype(np.str_), truth, log.people, log.swaps, log.new_ids, log.unmatched
    )


def _pairs(
    states: States,
    own: np.ndarray,
    rows: np.ndarray,
    there: dict[str, np.ndarray],
    body: np.ndarray,
    partner: dict[str, str],
) -> dict[int, str]:
    """Row -> person of one frame."""
    if not len(rows) or not there:
        return {}
    names = list(there)
    cost = np.empty((len(rows), len(names)))
    for i, row in enumerate(rows):
        for j, name in enumerate(names):
            distance = np.linalg.norm(own[row] - there[name][body], axis=1)
            known = distance[np.isfinite(distance)]
            kept = _KEPT if partner.get(str(states.body_id[row])) == name else 0.0
            cost[i, j] = known.mean() - kept if len(known) else np.inf
    # The solver takes no infinity; what is out of reach costs the same for everybody.
    capped = np.minimum(cost, 10.0 * GATE)
    return {
        int(rows[i]): names[j]
        for i, j in zip(*linear_sum_assignment(capped), strict=True)
        if cost[i, j] <= GATE
    }


class _Log:
    """Counts over the frames what `match` reports."""

    def __init__(self) -> None:
        self.partner: dict[str, str] = {}  # body_id -> person
        self.people: dict[str, Person] = {}
        self.swaps: list[Swap] = []
        self.new_ids = 0
        self.unmatched = 0
        self._seen_ns: dict[str, int] = {}  # person -> fitted last, or first there

    def add(
        self,
        stamp: int,
        states: States,
        rows: np.ndarray,
        there: dict[str, np.ndarray],
        pairs: dict[int, str],
    ) -> None:
        if there:
            self.unmatched += len(rows) - len(pairs)
        row_of = {name: row for row, name in pairs.items()}
        self._seen_ns = {name: self._seen_ns.get(name, stamp) for name in there}
        for name in there:
            person = self.people.setdefault(name, Person())
            person.frames += 1
            row = row_of.get(name)
            if row is not None:
                self._pair(stamp, person, name, str(states.body_id[row]))
                is_fitted = states.status[row] != Status.PREDICTED
                person.matched += 1
                person.fitted += int(is_fitted)
                if is_fitted:
                    self._seen_ns[name] = stamp
            gap = (stamp - self._seen_ns[name]) * 1e-9
            person.longest_gap_s = max(person.longest_gap_s, gap)

    def _pair(self, stamp: int, person: Person, name: str, body_id: str) -> None:
        before = self.partner.get(body_id)
        if before not in (None, name):
            self.swaps.append(Swap(stamp, body_id, before, name))
        self.partner[body_id] = name
        if not person.body_ids or person.body_ids[-1] != body_id:
            self.new_ids += bool(person.body_ids) and before is None
            person.body_ids.append(body_id)
