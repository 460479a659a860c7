"""Is the published uncertainty true? Reliability of the joints' covariances.

    python -m training.benchmarks.uncertainty --json FILE --plot FILE.png

The error of each joint's position and rotation along each axis, divided by its published sigma:
68 % of errors should be within one, 95 % within two. Known truth is the held-out motion of
`truth.py`, without the clips that constants of the fitter were chosen on. Real detections are
those of one camera of `recorded_views.py` at a time; truth is there what the four cameras agree on
(body points, whose error is small against that of one camera).
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.progress import track
from scipy.spatial.transform import Rotation
from scipy.stats import norm

from dposer_core import evidence, skeleton
from dposer_core.body_model import Body, load_body
from dposer_core.config import Config, from_mapping
from dposer_core.evidence import LEFT_HAND_POINTS
from dposer_core.files import write_json
from dposer_core.fitter import PoseFitter
from dposer_core.observation import Observation
from dposer_core.prior.runtime import load_prior
from dposer_core.state import BodyState, Source
from training.benchmarks.live_truth import TUNING_CLIPS
from training.benchmarks.recorded_views import FPS, load_recorded_views
from training.benchmarks.truth import SCENARIOS, Scenario, truth_clips
from training.script import run_script

REAL = 'real detections, one camera'
CASES = {
    '3D points': SCENARIOS['3d'],
    '3D, left hand hidden': Scenario('', 3, 0.005, np.r_[LEFT_HAND_POINTS]),
    '3D, legs hidden': Scenario('', 3, 0.005, np.r_[13:23]),
    '2D points': SCENARIOS['2d'],
    '2D, height known': SCENARIOS['2d_height'],
    '2D, left hand hidden': SCENARIOS['2d_left_hand_hidden'],
    '2D, lower body hidden': SCENARIOS['2d_lower_body_hidden'],
}
LEVELS = np.linspace(0.05, 0.95, 19)
_WARM_UP = 10  # frames left out: betas and velocities settle
_MIN_COUNT = 200
_BODY_POINTS = list(range(5, 17))  # of the real pictures: shoulders to ankles
_BODY_JOINTS = [
    next(joint for joint, own in evidence.OWN_POINTS.items() if point in own)
    for point in _BODY_POINTS
]


@dataclass(frozen=True)
class Errors:
    """Errors of one frame in units of what is published as their sigma."""

    z: np.ndarray  # (N, 3)
    source: np.ndarray  # (N,) Source
    size: np.ndarray  # (N, 3) the errors themselves, m or rad


def _of_positions(error: np.ndarray, covariance: np.ndarray, source: np.ndarray) -> Errors:
    return Errors(error / np.sqrt(np.einsum('nii->ni', covariance)), source, error)


def _of_rotations(state: BodyState, truth: np.ndarray) -> Errors:
    """Of the joints that bend; `truth` (55, 3)."""
    joints = skeleton.PRIOR_JOINTS
    estimate, true = (Rotation.from_rotvec(p[joints]) for p in (state.pose_rotvec, truth))
    error = (true.inv() * estimate).as_rotvec()
    return Errors(error / state.rotation_sigma[joints, None], state.source[joints], error)


Found = Iterator[dict[str, Errors]]  # of each frame, by kind: position, rotation


def on_truth(body: Body, prior, scenario: Scenario, count: int, frames: int) -> Found:
    """All joints of held-out clips."""
    for clip in list(truth_clips(body, scenario, TUNING_CLIPS + count, frames))[TUNING_CLIPS:]:
        height = clip.height if scenario.is_height_known else 0.0
        fitter = PoseFitter(body.tables, prior, from_mapping({'model.person_height': height}))
        for k, observation in enumerate(clip.observations):
            result = fitter.step(observation)
            if result is not None and k >= _WARM_UP:
                s = result.state
                error = s.joints - clip.joints[k]
                yield {
                    'position': _of_positions(error, s.position_covariance, s.source),
                    'rotation': _of_rotations(s, clip.pose_rotvec[k]),
                }


def on_pictures(body: Body, prior) -> Found:
    """Body points of each of the four real cameras, fitted alone, every second frame."""
    recorded = load_recorded_views()
    frames = range(0, recorded.points.shape[1], 2)
    truth = {frame: recorded.truth(frame) for frame in frames}
    for view, points, confidence in zip(
        recorded.views, recorded.points, recorded.confidence, strict=True
    ):
        fitter = PoseFitter(body.tables, prior, Config())
        ideal = view.to_ideal(points)
        for k, frame in enumerate(frames):
            usable = np.isfinite(ideal[frame]).all(axis=1)
            result = fitter.step(
                Observation(
                    round((frame / FPS + 1.0) * 1e9),
                    np.where(usable[:, None], ideal[frame], 0.0),
                    np.where(usable, confidence[frame], 0.0),
                    view.camera,
                )
            )
            if result is None or k < _WARM_UP:
                continue
            s, true = result.state, view.to_camera(truth[frame])[_BODY_POINTS]
            known = np.isfinite(true).all(axis=1)
            yield {
                'position': _of_positions(
                    (s.landmarks[_BODY_POINTS] - true)[known],
                    s.position_covariance[_BODY_JOINTS][known],
                    s.source[_BODY_JOINTS][known],
                )
            }


def rows_of(case: str, found: Found) -> list[dict]:
    """One row for each kind and source that occurs often enough."""
    collected: dict[str, list[Errors]] = defaultdict(list)
    for frame in found:
        for kind, errors in frame.items():
            collected[kind].append(errors)
    rows = []
    for kind, errors in collected.items():
        z, source, size = (
            np.concatenate([getattr(e, name) for e in errors]) for name in ('z', 'source', 'size')
        )
        for value in (Source.OBSERVED, Source.PARTIAL, Source.COMPLETED):
            chosen = source == value
            if chosen.sum() < _MIN_COUNT:
                continue
            z_abs, error = np.abs(z[chosen]), size[chosen]
            within = [float((z_abs < norm.ppf(0.5 + level / 2)).mean()) for level in LEVELS]
            rows.append(
                {
                    'case': case,
                    'of': kind,
                    'source': value.name.lower(),
                    'values': int(z_abs.size),
                    'within_1_sigma': float((z_abs < 1.0).mean()),
                    'within_1_sigma_xyz': (z_abs < 1.0).mean(axis=0).tolist(),
                    'within_2_sigma': float((z_abs < 2.0).mean()),
                    'rms_error': float(np.sqrt(np.square(error).mean())),
                    'rms_sigma': float(np.sqrt(np.square(error / z[chosen]).mean())),
                    'within_levels': within,
                }
            )
    return rows


def plot(rows: list[dict], path: Path) -> None:
    """Reliability of the positions: what share lies within the region said to hold a share."""
    sources = ('observed', 'partial', 'completed')
    figure, axes = plt.subplots(1, 3, figsize=(12, 5), sharey=True, layout='constrained')
    colours = dict(zip(dict.fromkeys(r['case'] for r in rows), plt.cm.tab10.colors, strict=False))
    for axis, source in zip(axes, sources, strict=True):
        axis.plot([0, 1], [0, 1], color='grey', linestyle='--', linewidth=1)
        for row in rows:
            if (row['of'], row['source']) == ('position', source):
                axis.plot(LEVELS, row['within_levels'], '.-', color=colours[row['case']])
        axis.set(title=f'joints {source}', xlabel='share said to be within', xlim=(0, 1))
        axis.set(ylim=(0, 1), box_aspect=1)
    axes[0].set_ylabel('share found within')
    handles = [plt.Line2D([], [], color=colour, marker='.') for colour in colours.values()]
    figure.legend(handles, colours, loc='outside lower center', ncols=4, fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def markdown(rows: list[dict]) -> str:
    """The table of docs/UNCERTAINTY.md."""
    lines = [
        '| | of | joints | within 1 sigma | x / y / z | within 2 sigma | error | sigma |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        scale, unit = (1e3, 'mm') if row['of'] == 'position' else (np.degrees(1.0), 'deg')
        axes = ' / '.join(f'{value:.0%}' for value in row['within_1_sigma_xyz'])
        lines.append(
            f'| {row["case"]} | {row["of"]} | {row["source"]} | {row["within_1_sigma"]:.0%} '
            f'| {axes} | {row["within_2_sigma"]:.0%} | {row["rms_error"] * scale:.1f} {unit} '
            f'| {row["rms_sigma"] * scale:.1f} {unit} |'
        )
    return '\n'.join(lines) + '\n'


def run(count: int, frames: int) -> list[dict]:
    """Rows of all cases."""
    body, prior = load_body(), load_prior(Config().prior.checkpoint)
    rows = rows_of(REAL, on_pictures(body, prior))
    for name, scenario in track(CASES.items(), 'cases', console=Console(stderr=True)):
        rows += rows_of(name, on_truth(body, prior, scenario, count, frames))
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--clips', type=int, default=10, help='excerpts of 2 s, besides those tuned on'
    )
    parser.add_argument('--frames', type=int, default=60, help='frames of each')
    parser.add_argument('--json', type=Path, help='write the rows here')
    parser.add_argument('--plot', type=Path, help='draw the reliability of positions here')
    arguments = parser.parse_args()
    rows = run(arguments.clips, arguments.frames)
    print(markdown(rows), end='')
    if arguments.plot:
        plot(rows, arguments.plot)
    if arguments.json:
        write_json(arguments.json, rows, indent=1)


if __name__ == '__main__':
    run_script(main)
