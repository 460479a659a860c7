"""Figures that need no truth: coverage, provenance, jitter, residuals, refusals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dposer_core.metrics import accelerations
from dposer_core.state import Source, Status
from dposer_core.states_io import States
from dposer_ros.evaluation.hands import hidden_hands
from dposer_ros.evaluation.motion import JOINTS
from dposer_ros.evaluation.run import Run, tracks
from dposer_ros.events import KINDS

HANDS = np.concatenate([JOINTS.parts['left_hand'], JOINTS.parts['right_hand']])
PARTS = {'body': JOINTS.parts['body'], 'hands': HANDS}

MAX_STEP = 0.25  # s; over longer gaps nothing can be said about jitter


def figures(run: Run) -> dict[str, Any]:
    """All of them, ready for JSON."""
    states = run.states
    fitted = ~np.isin(states.status, (Status.PREDICTED, Status.LOST))
    frames = len(run.clip.frames)
    return {
        'model': states.model,
        'frames': frames,
        'frames_with_people': sum(bool(people) for _, people in run.clip.frames),
        'states': len(states),
        'bodies': sorted({str(body) for body in states.body_id}),
        'coverage': len(np.unique(states.stamp_ns[fitted])) / frames,
        'status': _shares(states.status, Status),
        'provenance': {
            name: _shares(states.source[:, joints], Source)
            for name, joints in {'all': slice(None), **PARTS}.items()
        },
        'jitter_mm_s2': jitter(states.joints, states),
        'residual': _residuals(run),
        'hidden_hands': hidden_hands(run),
        'events': _events(run),
        'refused': refusals(run.clip.refused),
    }


def jitter(points: np.ndarray, states: States) -> dict[str, dict[str, float] | None]:
    """Size of the acceleration of each part, by the real time stamps; it holds real motion too.

    Args:
        points: (N, 55, 3) m.
        states: whose they are.

    Returns:
        Part -> median, mean and p95 in mm/s^2; None where no body has three states in a row.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
    for rows in tracks(states).values():
        sizes = 1e3 * np.linalg.norm(steady_accelerations(points[rows], states, rows), axis=-1)
        for name, joints in PARTS.items():
            found[name].append(sizes[:, joints].ravel())
    return {name: spread(np.concatenate(values or [[]])) for name, values in found.items()}


def steady_accelerations(points: np.ndarray, states: States, rows: np.ndarray) -> np.ndarray:
    """(T - 2 or less, P, 3) m/s^2 of one track, without those across a gap.

    Args:
        points: (T, P, 3) m.
        states: of everybody.
        rows: (T,) of the track.
    """
    seconds = (states.stamp_ns[rows] - states.stamp_ns[rows[:1]]) * 1e-9
    if len(rows) < 3:
        return np.zeros((0, *points.shape[1:]))
    steps = np.diff(seconds)
    return accelerations(points, seconds)[(steps[1:] <= MAX_STEP) & (steps[:-1] <= MAX_STEP)]


def refusals(refused: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Cause -> how often, and the first reason in words."""
    found: dict[str, dict[str, Any]] = {}
    for text, count in refused.items():
        cause, _, reason = text.partition(': ')
        entry = found.setdefault(cause, {'count': 0, 'example': reason[:300]})
        entry['count'] += count
    return found


def _shares(values: np.ndarray, kinds: type) -> dict[str, float]:
    return {kind.name.lower(): float(np.mean(values == kind)) for kind in kinds}


def spread(values: np.ndarray) -> dict[str, float] | None:
    """Median, mean and 95th percentile of the finite values; None without any."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    median, p95 = np.percentile(values, (50, 95))
    return {'median': float(median), 'mean': float(values.mean()), 'p95': float(p95)}


def _residuals(run: Run) -> dict[str, dict[str, float] | None]:
    """Root mean square over the points of a state, of all fitted states."""
    stats = [result.stats for result in run.results if result.stats.iterations]
    return {
        'reprojection_px': spread(np.array([s.reprojection_rms_px for s in stats])),
        'points_mm': spread(1e3 * np.array([s.residual_rms_m for s in stats])),
    }


def _events(run: Run) -> dict[str, int]:
    kinds: Sequence[str] = [KINDS[e.kind] for answer in run.answers for e in answer.events]
    return dict(sorted(Counter(kinds).items()))
