"""Figures against a truth: errors by part and provenance, people, calibration of the sigmas."""

from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import norm

from dposer_core.errors import MediaError
from dposer_core.metrics import pa_mpjpe
from dposer_core.state import Source, Status
from dposer_core.states_io import States
from dposer_ros.evaluation.figures import spread, steady_accelerations
from dposer_ros.evaluation.matching import Match, match
from dposer_ros.evaluation.motion import Motion
from dposer_ros.evaluation.run import Run, tracks

LEVELS = np.linspace(0.05, 0.95, 19)
"""Shares of a normal distribution that the calibration curve asks for."""


class Accuracy:
    """States beside their truth.

    Args:
        states: of a run.
        stamps: of all its frames.
        motion: the truth, or another run.
    """

    def __init__(self, states: States, stamps: list[int], motion: Motion) -> None:
        self.states = states
        self.match: Match = match(states, stamps, motion)
        if not self.match.known.any():
            raise MediaError(
                f'nobody of {motion.source} is near a state: {_span(motion.stamp_ns)} against '
                f'{_span(states.stamp_ns)}; compare stamps and frames (metres, in the frame of '
                'the keypoints)'
            )
        layout = motion.layout
        self.layout = layout
        self.parts = {
            'body': layout.parts['body'],
            'hands': np.concatenate([layout.parts['left_hand'], layout.parts['right_hand']]),
        }
        self.parts['all'] = np.concatenate(list(self.parts.values()))
        self._own = layout.of_states(states)
        self.error = self._own - self.match.truth  # (N, P, 3) m
        root = list(layout.root)
        self.pelvis_error = self.error[:, root].mean(axis=1)  # (N, 3) m
        self.aligned = self.error - self.pelvis_error[:, None]
        self.source = states.source[:, layout.joints]  # (N, P)
        covariance = states.position_covariance[:, layout.joints]
        self.sigma = np.sqrt(np.einsum('npii->npi', covariance))  # (N, P, 3) m

    def figures(self) -> dict[str, Any]:
        """All figures, ready for JSON; lengths in mm."""
        found = self.match
        return {
            'source': found.motion.source,
            'points': self.layout.name,
            'people': {name: asdict(person) for name, person in found.people.items()},
            'id_swaps': len(found.swaps),
            'swaps': [asdict(swap) for swap in found.swaps],
            'new_ids': found.new_ids,
            'unmatched_states': found.unmatched,
            'error_mm': {name: self._errors(name) for name in self.parts},
            'pelvis_m': spread(np.linalg.norm(self.pelvis_error, axis=-1)),
            'by_source_mm': self._by_source(),
            'acceleration_error_mm_s2': self._acceleration_error(),
            'within_1_sigma': {
                'absolute': self.within(self.error),
                'pelvis_aligned': self.within(self.aligned),
            },
        }

    def mean_mm(self, part: str = 'all') -> np.ndarray:
        """(N,) pelvis-aligned error of each state, mm; NaN without truth."""
        return 1e3 * _mean(np.linalg.norm(self.aligned[:, self.parts[part]], axis=-1), axis=1)

    def within(self, error: np.ndarray) -> dict[str, dict[str, float | int] | None]:
        """Share of coordinates within one sigma, by provenance; a normal one has 0.683.

        Args:
            error: (N, P, 3) m.
        """
        inside = np.abs(error) <= self.sigma
        known = np.isfinite(error)
        found: dict[str, dict[str, float | int] | None] = {}
        for name, chosen in self._choices().items():
            these = chosen[..., None] & known
            count = int(these.sum())
            found[name] = {'share': float(inside[these].mean()), 'count': count} if count else None
        return found

    def curve(self, error: np.ndarray) -> dict[str, np.ndarray]:
        """Provenance -> share of coordinates within the interval of each of `LEVELS`."""
        with np.errstate(divide='ignore', invalid='ignore'):
            ratio = np.abs(error) / self.sigma
        reach = norm.ppf(0.5 + LEVELS / 2)
        found = {}
        for name, chosen in self._choices().items():
            values = ratio[chosen[..., None] & np.isfinite(ratio)]
            if len(values):
                found[name] = (values[:, None] <= reach).mean(axis=0)
        return found

    def _choices(self) -> dict[str, np.ndarray]:
        """Name -> (N, P) bool."""
        wanted = np.zeros(self.source.shape, dtype=bool)
        wanted[:, self.parts['all']] = True
        hands = np.zeros_like(wanted)
        hands[:, self.parts['hands']] = True
        by_source = {kind.name.lower(): wanted & (self.source == kind) for kind in Source}
        hidden = np.isin(self.source, (Source.COMPLETED, Source.PREDICTED))
        return {'all': wanted, **by_source, 'hidden_hands': hands & hidden}

    def _errors(self, part: str) -> dict[str, float | None]:
        points = self.parts[part]
        own, truth = self._own[:, points], self.match.truth[:, points]
        known = np.isfinite(truth).all(axis=-1).any(axis=-1)
        errors = {
            'pelvis_aligned': np.linalg.norm(self.aligned[:, points], axis=-1),
            'procrustes': pa_mpjpe(own[known], truth[known]),
            'absolute': np.linalg.norm(self.error[:, points], axis=-1),
        }
        if part == 'hands':
            sides = [self.error[:, i] for i in self._hands()]
            wrists = [self.error[:, [w]] for w in self._wrists()]
            hung = [a - b for a, b in zip(sides, wrists, strict=True)]
            errors['wrist_aligned'] = np.linalg.norm(np.concatenate(hung, axis=1), axis=-1)
        return {name: _mm(values) for name, values in errors.items()}

    def _hands(self) -> list[np.ndarray]:
        return [self.layout.parts[side] for side in ('left_hand', 'right_hand')]

    def _wrists(self) -> list[int]:
        return [self.layout.wrists[side] for side in ('left_hand', 'right_hand')]

    def _by_source(self) -> dict[str, dict[str, float | None]]:
        """Pelvis-aligned error of the points that were seen, completed and so on."""
        size = np.linalg.norm(self.aligned, axis=-1)
        found = {}
        for kind in Source:
            chosen = np.where(self.source == kind, size, np.nan)
            found[kind.name.lower()] = {
                part: _mm(chosen[:, points]) for part, points in self.parts.items()
            }
        return found

    def _acceleration_error(self) -> dict[str, float] | None:
        """Difference of the accelerations of body points, of tracks that stay with a person."""
        found = []
        for rows in tracks(self.states).values():
            mine = rows[self.match.known[rows]]
            accelerations = steady_accelerations(
                self.error[mine][:, self.parts['body']], self.states, mine
            )
            found.append(1e3 * np.linalg.norm(accelerations, axis=-1).ravel())
        return spread(np.concatenate(found))


def best_median_worst(errors: np.ndarray, states: States) -> dict[str, int]:
    """Rows of three fitted states by their error; empty without any."""
    fitted = ~np.isin(states.status, (Status.PREDICTED, Status.LOST)) & np.isfinite(errors)
    rows = np.flatnonzero(fitted)
    rows = rows[np.argsort(errors[rows], kind='stable')]
    if not len(rows):
        return {}
    return {'best': rows[0], 'median': rows[len(rows) // 2], 'worst': rows[-1]}


def accuracy_of(run: Run, motion: Motion) -> Accuracy:
    """The run beside its truth.

    Raises:
        MediaError: the truth is elsewhere: in time, in space, or in another frame.
    """
    frame_id = run.clip.frame_id
    if motion.frame_id is not None and motion.frame_id != frame_id:
        raise MediaError(
            f"truth '{motion.source}' is in frame {motion.frame_id!r}, the keypoints are in "
            f'{frame_id!r}: transform the truth'
        )
    return Accuracy(run.states, run.stamps, motion)


def _span(stamps: np.ndarray) -> str:
    return f'{stamps.min() * 1e-9:.3f} to {stamps.max() * 1e-9:.3f} s'


def _mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean without NaN, and NaN where there is nothing else."""
    known = np.isfinite(values)
    with np.errstate(invalid='ignore'):
        return np.where(known, values, 0.0).sum(axis=axis) / known.sum(axis=axis)


def _mm(metres: np.ndarray) -> float | None:
    mean = 1e3 * _mean(metres)
    return float(mean) if np.isfinite(mean) else None
