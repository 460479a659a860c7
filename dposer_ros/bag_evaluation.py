"""Figures of fitted states that need no truth: jitter, provenance, coverage."""

from typing import Any

import numpy as np

from dposer_core.metrics import acceleration
from dposer_core.state import Source, Status
from dposer_core.states_io import States


def figures(states: States, frames: int) -> dict[str, Any]:
    """Coverage, provenance shares and jitter of a replayed clip.

    Args:
        states: of one replay, in order of time.
        frames: that were fed, with and without people.
    """
    fitted = ~np.isin(states.status, (Status.PREDICTED, Status.LOST))
    return {
        'frames': frames,
        'states': len(states),
        'bodies': sorted({str(body) for body in states.body_id}),
        'coverage': len(np.unique(states.stamp_ns[fitted])) / frames,
        'provenance': _shares(states.source),
        'provenance_hands': _shares(states.source[:, 25:]),
        'jitter_mm_per_frame2': _jitter_mm(states),
    }


def _shares(source: np.ndarray) -> dict[str, float]:
    return {kind.name.lower(): float(np.mean(source == kind)) for kind in Source}


def _jitter_mm(states: States) -> float | None:
    """Mean second difference of the joints of each body; None with fewer than three states."""
    sizes = [
        acceleration(states.joints[states.body_id == body]).ravel()
        for body in np.unique(states.body_id)
        if (states.body_id == body).sum() >= 3
    ]
    return 1e3 * float(np.concatenate(sizes).mean()) if sizes else None
