"""Accuracy of several cameras fused, on known truth: from all of them down to two.

    python -m training.benchmarks.multi_camera --json FILE

The motion of `truth.py` in a ring of cameras 3.3 m away, each with a detector of its own: noise of
1 % of the person's height, one point in fifty anywhere, a hand that a camera sees half of the time
only (for half a second on end), and everything else hidden now and then. What `MultiviewFusion`
makes of it goes to the live fitter. MPJPE is pelvis-aligned, over the 22 body joints; `pelvis` and
`hands` are absolute; `points` is the error of the fused keypoints before any fit; `honest` is the
share of them within the 68 % region of their covariance.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from dposer_core import skeleton
from dposer_core.body_model import Body, load_body
from dposer_core.camera import PinholeCamera
from dposer_core.config import Config, FusionConfig
from dposer_core.evidence import LEFT_HAND_POINTS, POINT_SIGMA, RIGHT_HAND_POINTS
from dposer_core.files import write_json
from dposer_core.fitter import PoseFitter
from dposer_core.multiview import MultiviewFusion, Sighting
from dposer_core.observation import Observation
from dposer_core.prior.runtime import load_prior
from dposer_core.triangulation import View
from training.benchmarks.live_truth import TUNING_CLIPS
from training.benchmarks.truth import SCENARIOS, TruthClip, truth_clips
from training.script import run_script

_CAMERAS = 4
_DISTANCE = 3.3  # m
_FRAME = 1 / 30  # s
_NOISE = 0.01  # of the height of the person
_OUTLIERS = 0.02
_HIDDEN = 0.05
_HAND_SEEN = 0.5
_SPELL = 15  # frames
_WARM_UP = 10  # frames left out of the figures
_HANDS = (LEFT_HAND_POINTS, RIGHT_HAND_POINTS)


@dataclass(frozen=True)
class Case:
    """Which cameras there are."""

    name: str
    cameras: tuple[int, ...] = (0, 1, 2, 3)
    late: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    """s by which each camera takes its pictures later than its stamps say."""
    dies: int | None = None
    """Camera without pictures from the middle of the clip on."""


CASES = (
    Case('4 cameras'),
    Case('3 cameras', (0, 1, 2)),
    Case('2 cameras, 90 degrees apart', (0, 1)),
    Case('4 cameras, two of them 30 ms off', late=(0.0, 0.03, 0.0, 0.03)),
    Case('4 cameras, one dies', dies=2),
    Case('2 cameras, one dies', (0, 1), dies=1),
)


def ring(centre: np.ndarray) -> list[View]:
    """Cameras around a point, level, in a world with y down."""
    views = []
    for angle in np.arange(_CAMERAS) * 2 * np.pi / _CAMERAS:
        rotation = Rotation.from_rotvec([0.0, angle, 0.0]).as_matrix()
        camera = PinholeCamera(1600.0, 1600.0, 540.0, 960.0, 1080, 1920)
        views.append(
            View(str(angle), camera, (), rotation, np.array([0, 0, _DISTANCE]) - rotation @ centre)
        )
    return views


def detections(view: View, points: np.ndarray, rng: np.random.Generator) -> list[Observation]:
    """What the detector of one camera makes of the truth (T, 133, 3)."""
    pixels = view.project(points)
    height_px = view.camera.fy * 1.7 / view.to_camera(points[:, 0])[:, 2]
    sigma = _NOISE * height_px[:, None] * POINT_SIGMA
    pixels = pixels + rng.normal(size=pixels.shape) * sigma[..., None]
    wild = rng.random(pixels.shape[:2]) < _OUTLIERS
    pixels[wild] = rng.uniform((0, 0), (view.camera.width, view.camera.height), (wild.sum(), 2))
    confidence = np.where(rng.random(pixels.shape[:2]) < _HIDDEN, 0.0, 1.0)
    for hand in _HANDS:
        seen = np.repeat(rng.random(len(points) // _SPELL + 1) < _HAND_SEEN, _SPELL)
        confidence[~seen[: len(points)], hand] = 0.0
    return [Observation(0, p, c, view.camera) for p, c in zip(pixels, confidence, strict=True)]


def later(points: np.ndarray, seconds: float) -> np.ndarray:
    """The truth (T, 133, 3) as it is `seconds` after each frame; less than a frame."""
    share = seconds / _FRAME
    following = np.concatenate([points[1:], points[-1:]])
    return points * (1.0 - share) + following * share


def fused(clip: TruthClip, case: Case, config: FusionConfig) -> Iterator[Observation | None]:
    """What the fusion makes of each frame; None where it finds nobody."""
    points = np.stack([observation.points for observation in clip.observations])
    views = ring(points.mean(axis=(0, 1)))
    seen = [
        detections(views[i], later(points, case.late[i]), np.random.default_rng([7, i]))
        for i in case.cameras
    ]
    fusion = MultiviewFusion(config)
    for k, observation in enumerate(clip.observations):
        sightings = [
            Sighting(views[i], [seen[column][k]])
            for column, i in enumerate(case.cameras)
            if i != case.dies or k < len(points) // 2
        ]
        people = fusion.step(observation.stamp_ns, sightings)
        yield people[0] if people else None


def figures(body: Body, prior, clip: TruthClip, case: Case, config: FusionConfig) -> dict:
    """Errors of one clip, mm."""
    fitter = PoseFitter(body.tables, prior, Config())
    rows, points, inside, found = [], [], [], 0
    for k, seen in enumerate(fused(clip, case, config)):
        found += seen is not None
        stamp = clip.observations[k].stamp_ns
        # A track of the fusion may change its id; here is one person only.
        result = fitter.predict(stamp) if seen is None else fitter.step(replace(seen, track_id=''))
        if seen is not None:
            present = seen.confidence > 0.0
            error = seen.points[present] - clip.observations[k].points[present]
            points.append(np.linalg.norm(error, axis=1).mean())
            whitened = np.linalg.solve(seen.sigma[present], error[..., None])[..., 0]
            inside.append((np.square(whitened).sum(axis=1) < chi2.ppf(0.68, 3)).mean())
        if result is not None and k >= _WARM_UP:
            joints, truth = result.state.joints, clip.joints[k]
            aligned = (joints - joints[:1]) - (truth - truth[:1])
            hands = np.linalg.norm(joints[skeleton.LEFT_HAND_JOINTS.start :] - truth[25:], axis=1)
            rows.append(
                (
                    np.linalg.norm(aligned[: skeleton.JAW_JOINT], axis=1).mean(),
                    np.linalg.norm(joints[0] - truth[0]),
                    hands.mean(),
                )
            )
    mpjpe, pelvis, hands = np.mean(rows, axis=0) * 1e3
    return {
        'mpjpe': mpjpe, 'pelvis': pelvis, 'hands': hands, 'points': np.mean(points) * 1e3,
        'honest': np.mean(inside), 'frames': found / len(clip.observations),
    }  # fmt: skip


def run(count: int, frames: int) -> list[dict]:
    """One row per case: means over the clips."""
    config = FusionConfig(sigma_px_relative=_NOISE)  # the detectors are as good as they say
    body, prior = load_body(), load_prior(Config().prior.checkpoint)
    exact = replace(SCENARIOS['3d'], noise=0.0)
    clips = list(truth_clips(body, exact, TUNING_CLIPS + count, frames))[TUNING_CLIPS:]
    rows = []
    for case in CASES:
        values = [figures(body, prior, clip, case, config) for clip in clips]
        means = {key: float(np.mean([v[key] for v in values])) for key in values[0]}
        rows.append({'case': case.name, **means})
    return rows


def _print(rows: list[dict]) -> None:
    table = Table(title='Cameras fused, on known truth (mm; shares)')
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(
            row['case'], *(f'{v:.2f}' if v < 1.5 else f'{v:.1f}' for v in list(row.values())[1:])
        )
    Console(width=120).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--clips', type=int, default=10, help='excerpts of 2 s')
    parser.add_argument('--frames', type=int, default=60, help='frames of each')
    parser.add_argument('--json', type=Path, help='write the rows here')
    arguments = parser.parse_args()
    rows = run(arguments.clips, arguments.frames)
    _print(rows)
    if arguments.json:
        write_json(arguments.json, rows, indent=1)


if __name__ == '__main__':
    run_script(main)
