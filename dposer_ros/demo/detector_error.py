"""How wrong a real detector is, measured on real pictures.

`python -m dposer_ros.demo.detector_error training/benchmarks/results/detector_error.json`

Four calibrated cameras see one person. Each camera's points are compared with where the three
others together see them, so no detection is compared with itself. The difference holds the error
of the others, too; it is made smaller by what that is expected to be for four equal cameras.
"""

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dposer_core.config import FitConfig
from dposer_core.evidence import (
    FACE_POINTS,
    LEFT_HAND_POINTS,
    POINT_SIGMA,
    RIGHT_HAND_POINTS,
)
from dposer_core.files import write_json
from dposer_core.triangulation import Triangulated, View, triangulate_points
from dposer_ros.demo.clips import multiview_clips, multiview_rig
from dposer_ros.demo.lifetime import run_main
from dposer_ros.demo.multiview import MAX_ERROR, SIGMA_PX, detect_clip

STATURE = 1.7  # m; makes a share of the person's height out of pixels at a known distance
OUTLIER = 5.0  # robust sigmas
MIN_CONFIDENCE = 0.5
PARTS = {
    'head': slice(0, 5),
    'shoulders': slice(5, 7),
    'elbows': slice(7, 9),
    'wrists': slice(9, 11),
    'hips': slice(11, 13),
    'knees': slice(13, 15),
    'ankles': slice(15, 17),
    'feet': slice(17, 23),
    'face': FACE_POINTS,
    'left hand': LEFT_HAND_POINTS,
    'right hand': RIGHT_HAND_POINTS,
}


def residuals(
    views: Sequence[View], points: np.ndarray, confidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What each camera sees, less where the others see it, in heights of the person.

    Args:
        views: C cameras.
        points: (C, T, K, 2) raw pixels.
        confidence: (C, T, K).

    Returns:
        (C, T, K, 2), NaN where the camera or the others do not see the point; and (C, T) whether
        the camera has found a person.
    """
    found = np.full(points.shape, np.nan)
    for c, view in enumerate(views):
        others = [i for i in range(len(views)) if i != c]
        ideal = view.to_ideal(points[c])
        for t in range(points.shape[1]):
            truth = triangulate_points(
                [views[i] for i in others], points[others, t], confidence[others, t],
                sigma_px=SIGMA_PX, max_error=MAX_ERROR, min_cameras=len(others),
            )  # fmt: skip
            height_px = STATURE * view.camera.fy / view.to_camera(truth.points)[:, 2:]
            error = (ideal[t] - view.project(truth.points)) / height_px
            seen = confidence[c, t] >= MIN_CONFIDENCE
            found[c, t, seen] = (error / _inflation(view, truth))[seen]
    return found, (confidence > 0.0).any(axis=-1)


def _inflation(view: View, truth: Triangulated) -> np.ndarray:
    """(K, 1) how much larger a difference is for the error of the others, in pixels of `view`."""
    seen = view.to_camera(truth.points)
    flat = seen[:, :2] / seen[:, 2:]
    jacobian = view.R_cam_world[None, :2] - flat[..., None] * view.R_cam_world[None, 2:]
    jacobian = view.camera.fy * jacobian / seen[:, 2:, None]
    covariance = jacobian @ truth.covariance @ jacobian.transpose(0, 2, 1)
    variance = np.trace(covariance, axis1=1, axis2=2)[:, None] / 2.0
    return np.sqrt(1.0 + variance / SIGMA_PX**2)


def summary(residual: np.ndarray) -> dict[str, float]:
    """Figures of one part.

    Args:
        residual: (C, T, K, 2) in heights of the person.

    Returns:
        `sigma`, robust, per axis (a Rayleigh distribution has its median at 1.1774 sigma); `bias`,
        length of the mean of a point in a view; `outliers`, share beyond five sigmas;
        `correlation` with the frame before; `points`, how many residuals these are.
    """
    size = np.linalg.norm(residual, axis=-1)
    is_known = np.isfinite(size)
    sigma = float(np.median(size[is_known]) / np.sqrt(2.0 * np.log(2.0)))
    is_good = is_known & (size < OUTLIER * sigma)
    # A detector puts each point of each view off in its own way: take this out before asking
    # whether what remains comes back in the next frame.
    good = np.where(is_good[..., None], residual, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # a point that a view never sees
        mean = np.nanmean(good, axis=1, keepdims=True)
    centred = good - mean
    now, before = centred[:, 1:], centred[:, :-1]
    both = np.isfinite(now + before)
    return {
        'sigma': sigma,
        'bias': float(np.sqrt(np.nanmean((mean**2).sum(axis=-1)))),
        'outliers': float((size[is_known] >= OUTLIER * sigma).mean()),
        'correlation': float(np.corrcoef(now[both], before[both])[0, 1]),
        'points': int(is_known.sum()),
    }


def report(views: Sequence[View], points: np.ndarray, confidence: np.ndarray) -> dict:
    """The figures of every part, beside the sigma that the live fit assumes."""
    residual, has_person = residuals(views, points, confidence)
    assumed = POINT_SIGMA * FitConfig().sigma_px_relative
    parts = {}
    for name, part in PARTS.items():
        if np.isfinite(residual[:, :, part]).any():
            parts[name] = summary(residual[:, :, part])
            parts[name]['missing'] = float(
                (confidence[:, :, part] < MIN_CONFIDENCE)[has_person].mean()
            )
            parts[name]['assumed_sigma'] = float(assumed[part].mean())
    return {
        'unit': f'heights of a person of {STATURE} m at the distance of the point',
        'cameras': len(views),
        'frames': int(points.shape[1]),
        'frames_with_a_person': float(has_person.mean()),
        'parts': parts,
    }


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('output', type=Path, help='the .json file to write')
    output = parser.parse_args().output
    count, detections = 0, []  # for the progress bar of whoever starts this
    for clip in multiview_clips():
        detections.append(detect_clip(clip, count))
        count += len(detections[-1][0])
    length = min(len(points) for points, _ in detections)
    found = report(
        multiview_rig(),
        np.stack([points[:length] for points, _ in detections]),
        np.stack([confidence[:length] for _, confidence in detections]),
    )
    write_json(output, found)
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    run_main(main)
