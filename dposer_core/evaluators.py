"""The figures of the paper's tables, in millimetres, from points and meshes in metres.

One function per protocol; the distances themselves are in `metrics.py`. Source: PROTOCOLS 3 and 4
(DPoser-X and its released evaluation code). Sets of vertices and joint regressors are arguments:
they belong to the body model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dposer_core import metrics, skeleton
from dposer_core.errors import ConfigError

_MM = 1000.0
Ids = Sequence[int] | np.ndarray | slice
_ALL = slice(None)

EHF_ROTVEC = np.array([-2.98747896, 0.01172457, -0.05704687])
"""From the axes of EHF's scans to those of its camera, rad."""


def mean_mm(predicted: np.ndarray, truth: np.ndarray, points: Ids = _ALL) -> np.ndarray:
    """(...) mean distance of some points (..., P, 3): MPJPE of joints, MPVPE of vertices."""
    _check(predicted, truth)
    return _MM * metrics.mpjpe(predicted[..., points, :], truth[..., points, :])


@dataclass(frozen=True)
class Spread:
    """Error of several hypotheses, each field (N,) mm."""

    best: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    """Of the population."""


def hypotheses_mm(predicted: np.ndarray, truth: np.ndarray, points: Ids = _ALL) -> Spread:
    """Completion: `predicted` (N, S, P, 3) of S hypotheses against `truth` (N, P, 3)."""
    if predicted.ndim != 4:
        raise ConfigError(f'hypotheses of shape {predicted.shape}; expected (N, S, P, 3)')
    error = mean_mm(predicted, np.broadcast_to(truth[:, None], predicted.shape), points)
    return Spread(error.min(axis=1), error.mean(axis=1), error.std(axis=1))


def visible_hidden_mm(
    predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray
) -> dict[str, np.ndarray]:
    """Inverse kinematics of hand and face: 'all', 'visible' and 'hidden' (N,).

    Args:
        predicted: (N, P, 3) metres.
        truth: (N, P, 3) metres.
        visible: (P,) bool. Of a set without points there is no figure.
    """
    sets = {'all': _ALL, 'visible': np.flatnonzero(visible), 'hidden': np.flatnonzero(~visible)}
    return {
        name: mean_mm(predicted, truth, points)
        for name, points in sets.items()
        if isinstance(points, slice) or len(points)
    }


def body_recovery_mm(predicted: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Body mesh recovery as on EHF: 'PA-MPJPE', and 'MPJPE' with the pelvis in place, (N,).

    Args:
        predicted: (N, 22, 3) joints in metres, pelvis first; from a mesh: regressor @ vertices.
        truth: (N, 22, 3) metres, the same axes; see `EHF_ROTVEC`.
    """
    _check(predicted, truth)
    return {
        'PA-MPJPE': _MM * metrics.pa_mpjpe(predicted, truth),
        'MPJPE': _MM * metrics.mpjpe(predicted, truth, root=0),
    }


@dataclass(frozen=True)
class WholeBodyRegions:
    """What the figures of a whole body are taken on."""

    left_hand: Ids
    """Vertices."""
    right_hand: Ids
    face: Ids
    joints: np.ndarray
    """(55, V) regressor."""
    body14: np.ndarray
    """(14, V) regressor of the 14 joints."""
    left_hand21: np.ndarray
    """(21, V) regressor of the hand's joints and tips."""
    right_hand21: np.ndarray


def wholebody_recovery_mm(
    predicted: np.ndarray, truth: np.ndarray, regions: WholeBodyRegions
) -> dict[str, np.ndarray]:
    """Whole-body mesh recovery as on ARCTIC; every figure (N,), hands are the mean of both.

    'PA-MPVPE' of all, hands and face; 'MPVPE' of the same with the pelvis, each wrist or the neck
    in place; 'PA-MPJPE' of the 14 body joints and of the hands' 21 points.

    Args:
        predicted: (N, V, 3) metres.
        truth: (N, V, 3) metres.
        regions: of the body model.
    """
    _check(predicted, truth)
    parts = {
        'all': [(_ALL, 'pelvis')],
        'hand': [(regions.left_hand, 'left_wrist'), (regions.right_hand, 'right_wrist')],
        'face': [(regions.face, 'neck')],
    }
    found: dict[str, np.ndarray] = {}
    for name, areas in parts.items():
        aligned = [metrics.pa_mpjpe(predicted[:, ids], truth[:, ids]) for ids, _ in areas]
        placed = [_rooted(predicted, truth, ids, regions.joints, root) for ids, root in areas]
        found[f'PA-MPVPE {name}'] = _MM * np.mean(aligned, axis=0)
        found[f'MPVPE {name}'] = _MM * np.mean(placed, axis=0)
    regressed: Mapping[str, list[np.ndarray]] = {
        'body': [regions.body14],
        'hand': [regions.left_hand21, regions.right_hand21],
    }
    for name, regressors in regressed.items():
        aligned = [metrics.pa_mpjpe(r @ predicted, r @ truth) for r in regressors]
        found[f'PA-MPJPE {name}'] = _MM * np.mean(aligned, axis=0)
    return found


def _rooted(
    predicted: np.ndarray, truth: np.ndarray, ids: Ids, regressor: np.ndarray, root: str
) -> np.ndarray:
    """(N,) metres: vertices with one joint moved onto its true place."""
    row = regressor[skeleton.JOINT_INDEX[root]]
    move = (row @ truth - row @ predicted)[:, None]
    return metrics.mpjpe(predicted[:, ids] + move, truth[:, ids])


def _check(predicted: np.ndarray, truth: np.ndarray) -> None:
    if predicted.shape != truth.shape or predicted.shape[-1] != 3:
        raise ConfigError(
            f'points of shape {predicted.shape} against {truth.shape}; both must be (..., P, 3)'
        )
