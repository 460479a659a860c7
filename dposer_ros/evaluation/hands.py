"""Hands out of sight: what was published meanwhile, and what happened at their return."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from dposer_core import evidence
from dposer_core.observation import Observation
from dposer_core.state import FitResult, Source, Status
from dposer_ros.conversions import hand_source
from dposer_ros.evaluation.motion import JOINTS
from dposer_ros.evaluation.run import Run, tracks

SIDES = ('left_hand', 'right_hand')
_POINTS = (evidence.LEFT_HAND_POINTS, evidence.RIGHT_HAND_POINTS)

REGION_95 = chi2.ppf(0.95, 3)  # squared sigmas that hold 95 % of a normal distribution in 3D
_MAX_JUMP = 0.05  # m, at re-appearance, that nobody minds
_UNSEEN = (Source.COMPLETED, Source.PREDICTED, Source.DEFAULT)


@dataclass(frozen=True)
class Occlusion:
    """One hand from the first frame without it to its return."""

    body_id: str
    side: str
    start_ns: int
    seconds: float
    """Between the last frame before and the first after it, or the end."""
    frames: int
    jump_mm: float | None = None
    """Mean way of wrist and fingers into the first frame in which they count as seen; None: the
    hand never came back."""
    jump_inside: float | None = None
    """Share of these joints that moved 50 mm at most, or within their 95 % region."""
    frames_until_trusted: int | None = None
    """From the first frame whose input shows the hand; 1: it counts as seen in that very frame."""


def hidden_hands(run: Run) -> dict[str, Any]:
    """Figures of all hands that the keypoints do not show; None where there were none."""
    shown = hands_in_input(run)
    sources = hand_sources(run.results)
    there = (run.states.status != Status.LOST)[:, None]
    hidden, refused = ~shown & there, shown & there & np.isin(sources, _UNSEEN)
    found = occlusions(run, shown, sources)
    returned = [o for o in found if o.jump_mm is not None]
    waits = [o.frames_until_trusted for o in returned if o.frames_until_trusted is not None]
    return {
        'frames': int(hidden.sum()),
        'source': {
            kind.name.lower(): float(np.mean(sources[hidden] == kind)) if hidden.any() else None
            for kind in Source
        },
        'source_right': float(np.isin(sources[hidden], _UNSEEN).mean()) if hidden.any() else None,
        'occluded_for_error_s': _clock_error(run, shown),
        'detected_but_not_trusted_frames': int(refused.sum()),
        'occlusions': len(found),
        'longest_s': max((o.seconds for o in found), default=None),
        'returned': len(returned),
        'jump_mm': {
            'median': float(np.median([o.jump_mm for o in returned])),
            'max': max(o.jump_mm for o in returned),
        }
        if returned
        else None,
        'jump_inside': float(np.mean([o.jump_inside for o in returned])) if returned else None,
        'frames_until_trusted': max(waits, default=None),
    }


def hand_sources(results: list[FitResult]) -> np.ndarray:
    """(N, 2) `Source` of left and right hand, as HandState says it."""
    joints = [JOINTS.parts[side] for side in SIDES]
    rows = [[hand_source(r.state.source[j]) for j in joints] for r in results]
    return np.array(rows, dtype=np.uint8).reshape(-1, 2)


def hands_in_input(run: Run) -> np.ndarray:
    """(N, 2) whether the keypoints of each state's frame show its left and right hand."""
    shown = np.zeros((len(run.states), 2), dtype=bool)
    rows = iter(range(len(run.states)))
    observations = dict(run.clip.frames)
    for answer in run.answers:
        mine = [next(rows) for _ in answer.results]
        seen = observations.get(answer.stamp_ns, [])
        for row, observation in _pairs(answer.results, seen).items():
            for side, points in enumerate(_POINTS):
                shown[mine[row], side] = any(
                    (part.confidence[points] > run.threshold).any() for part in observation.parts
                )
    return shown


def occlusions(run: Run, shown: np.ndarray, sources: np.ndarray) -> list[Occlusion]:
    """Every stretch in which a hand counts as unseen; arrays as of `hand_sources`."""
    found = []
    for body, rows in tracks(run.states).items():
        for side in range(2):
            unseen = np.isin(sources[rows, side], _UNSEEN)
            edges = np.flatnonzero(np.diff(np.concatenate([[False], unseen, [False]]).astype(int)))
            for start, end in edges.reshape(-1, 2):
                found.append(_occlusion(run, body, side, rows, (start, end), shown[:, side]))
    return found


def _occlusion(
    run: Run,
    body: str,
    side: int,
    rows: np.ndarray,
    span: tuple[int, int],
    shown: np.ndarray,
) -> Occlusion:
    start, end = span
    states = run.states
    stamps = states.stamp_ns[rows]
    until = stamps[min(end, len(rows) - 1)]
    what = Occlusion(
        body_id=body,
        side=SIDES[side],
        start_ns=int(stamps[start]),
        seconds=float(until - stamps[max(start - 1, 0)]) * 1e-9,
        frames=int(end - start),
    )
    if end == len(rows) or start == 0:  # no return, or no time before: it was found hidden
        return what
    joints = [JOINTS.wrists[SIDES[side]], *JOINTS.parts[SIDES[side]]]
    last, first = rows[end - 1], rows[end]
    way = states.joints[first, joints] - states.joints[last, joints]
    sigmas = np.linalg.solve(states.position_covariance[last, joints], way[..., None])[..., 0]
    is_expected = (way * sigmas).sum(axis=1) <= REGION_95
    way = np.linalg.norm(way, axis=1)
    in_input = shown[rows[start:end]]
    # Counted back from the return: a hand shown and refused in the middle of it is another story.
    waited = len(in_input) - int(np.flatnonzero(~in_input).max(initial=-1)) - 1
    return Occlusion(
        **{
            **vars(what),
            'jump_mm': 1e3 * float(way.mean()),
            'jump_inside': float(((way <= _MAX_JUMP) | is_expected).mean()),
            'frames_until_trusted': 1 + waited,
        }
    )


def _clock_error(run: Run, shown: np.ndarray) -> float | None:
    """Largest difference of `occluded_for` from the time since the hand counted as seen."""
    sources = hand_sources(run.results)
    told = np.array([result.hand_occluded_s for result in run.results]).reshape(-1, 2)
    worst = None
    for rows in tracks(run.states).values():
        for side in range(2):
            seen_ns = None
            for row in rows:
                if sources[row, side] <= Source.PARTIAL:
                    seen_ns = run.states.stamp_ns[row]
                elif seen_ns is not None:
                    true = (run.states.stamp_ns[row] - seen_ns) * 1e-9
                    worst = max(worst or 0.0, abs(float(told[row, side]) - true))
    return worst


def _pairs(results: list[FitResult], seen: list[Observation]) -> dict[int, Observation]:
    """Number of the result -> the observation it is nearest to."""
    if not results or not seen:
        return {}
    cost = np.array(
        [[_distance(result, observation) for observation in seen] for result in results]
    )
    rows, columns = linear_sum_assignment(cost)
    return {
        int(i): seen[j]
        for i, j in zip(rows, columns, strict=True)
        if results[i].status not in (Status.PREDICTED, Status.LOST)
    }


def _distance(result: FitResult, observation: Observation) -> float:
    """Median distance of the seen body points to their landmarks, in units of the observation."""
    body = slice(0, 17)
    points = result.state.landmarks[body]
    if observation.dim == 2:
        points = observation.camera.project(points)
    distance = np.linalg.norm(points - observation.points[body], axis=1)
    known = distance[(observation.confidence[body] > 0) & np.isfinite(distance)]
    return float(np.median(known)) if len(known) else 1e6
