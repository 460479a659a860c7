"""Accuracy of the live fitter, and of the offline one, on known truth.

    python -m training.benchmarks.live_truth --json FILE

Held-out real motion on the open body of random shape, seen as 133 keypoints (see `truth.py`). The
fitter's constants were chosen on the first `TUNING_CLIPS` excerpts; those are left out here. MPJPE
is pelvis-aligned, PA-MPJPE Procrustes-aligned, both over the 22 body joints; `pelvis` is the
absolute error of joint 0, `depth` its part along the ray, `depth_sigma` what is published for
that, and `honest` the share of frames in which the sigma is the larger one; `hidden` is the
pelvis-aligned error of the joints that were out of view (of a hidden hand: wrist-aligned);
`jitter` is the mean second difference, that of the truth beside it. Live and offline are compared
on the same frames: the live fitter has seen the frames before them too, the offline one fits each
frame alone, as in the paper.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dposer_core import skeleton
from dposer_core.body_model import Body, load_body
from dposer_core.config import Config, from_mapping
from dposer_core.files import write_json
from dposer_core.fitter import PoseFitter
from dposer_core.metrics import acceleration, mpjpe, pa_mpjpe
from dposer_core.offline import OfflineFitter
from dposer_core.prior.runtime import load_prior
from training.benchmarks.truth import SCENARIOS, Scenario, TruthClip, truth_clips
from training.script import run_script

TUNING_CLIPS = 6
_NUM_BODY = skeleton.JAW_JOINT  # pelvis and the 21 body joints come first
_LEGS = [
    skeleton.JOINT_INDEX[f'{side}_{name}']
    for side in ('left', 'right')
    for name in ('knee', 'ankle', 'foot')
]
_OFFLINE_EVERY = 15  # frames: the offline fit takes a hundred times as long


@dataclass(frozen=True)
class Found:
    """What a fitter found in one frame."""

    joints: np.ndarray  # (55, 3) m
    pelvis_covariance: np.ndarray | None = None  # (3, 3) m^2


Method = Callable[[list[TruthClip], Scenario], list[dict[int, Found]]]


def live(body: Body, prior) -> Method:
    """Frame index -> what the live fitter, run over each clip, found there."""

    def run(clips: list[TruthClip], scenario: Scenario) -> list[dict[int, Found]]:
        found = []
        for clip in clips:
            height = clip.height if scenario.is_height_known else 0.0
            fitter = PoseFitter(body.tables, prior, from_mapping({'model.person_height': height}))
            results = [fitter.step(observation) for observation in clip.observations]
            states = {k: r.state for k, r in enumerate(results) if r is not None}
            found.append(
                {k: Found(s.joints, s.pelvis_covariance[:3, :3]) for k, s in states.items()}
            )
        return found

    return run


def offline(body: Body, prior, use_prior: bool, steps: int) -> Method:
    """Frame index -> what is found in every `_OFFLINE_EVERY`th frame, each fitted alone.

    The frames of all clips go into one batch, unless each clip has its own known height.
    """

    def fit(clips: list[TruthClip], height: float) -> list[dict[int, Found]]:
        fitter = OfflineFitter(body, prior, steps, use_prior, person_height=height)
        chosen = [range(_OFFLINE_EVERY - 1, len(c.observations), _OFFLINE_EVERY) for c in clips]
        frames = [c.observations[k] for c, ks in zip(clips, chosen, strict=True) for k in ks]
        joints = iter(np.asarray(fitter.fit(frames).joints))
        return [{k: Found(next(joints)) for k in ks} for ks in chosen]

    def run(clips: list[TruthClip], scenario: Scenario) -> list[dict[int, Found]]:
        if scenario.is_height_known:
            return [fit([clip], clip.height)[0] for clip in clips]
        return fit(clips, 0.0)

    return run


def errors(scenario: Scenario, clip: TruthClip, found: dict[int, Found]) -> dict[str, float]:
    """Means over the frames found, mm; `honest` is a share."""
    frames = sorted(found)
    predicted, truth = np.array([found[k].joints for k in frames]), clip.joints[frames]
    body, true_body = predicted[:, :_NUM_BODY], truth[:, :_NUM_BODY]
    values = {
        'mpjpe': mpjpe(body, true_body, 0).mean(),
        'pa_mpjpe': pa_mpjpe(body, true_body).mean(),
        'pelvis': np.linalg.norm(predicted[:, 0] - truth[:, 0], axis=1).mean(),
    }
    if 'hand' in scenario.name:
        hand = [skeleton.JOINT_INDEX['left_wrist'], *range(25, 40)]
        values['hidden'] = mpjpe(predicted[:, hand], truth[:, hand], 0).mean() * 16 / 15
    if 'lower' in scenario.name:
        legs = [0, *_LEGS]
        values['hidden'] = (
            mpjpe(predicted[:, legs], truth[:, legs], 0).mean() * len(legs) / len(_LEGS)
        )
    if len(frames) == len(clip.observations):
        values['jitter'] = acceleration(body).mean()
        values['jitter_truth'] = acceleration(true_body).mean()
    millimetres = {name: float(value) * 1e3 for name, value in values.items()}
    return millimetres | _depth([found[k] for k in frames], truth[:, 0])


def _depth(found: list[Found], pelvis: np.ndarray) -> dict[str, float]:
    """Error of the pelvis along the ray, mm, and what the fitter says about it."""
    rays = pelvis / np.linalg.norm(pelvis, axis=1, keepdims=True)
    error = np.abs(np.einsum('ti,ti->t', np.stack([f.joints[0] for f in found]) - pelvis, rays))
    depth = {'depth': float(error.mean()) * 1e3}
    if any(f.pelvis_covariance is None for f in found):
        return depth
    sigma = np.sqrt([ray @ f.pelvis_covariance @ ray for f, ray in zip(found, rays, strict=True)])
    honest = float((error < sigma).mean())
    return depth | {'depth_sigma': float(sigma.mean()) * 1e3, 'honest': honest}


def run(count: int, frames: int, steps: int, names: list[str]) -> list[dict]:
    """One row per scenario, method and set of frames: means over the clips, mm.

    Without `steps` the offline fitter is left out.
    """
    body, prior = load_body(), load_prior(Config().prior.checkpoint)
    methods: dict[str, Method] = {
        'live, prior': live(body, prior),
        'live, no prior': live(body, None),
    }
    if steps:
        methods[f'offline {steps}, prior'] = offline(body, prior, True, steps)
        methods[f'offline {steps}, no prior'] = offline(body, prior, False, steps)
    rows = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task('scenarios x methods', total=len(names) * len(methods))
        for name in names:
            scenario = SCENARIOS[name]
            collected: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
            everything = truth_clips(body, scenario, TUNING_CLIPS + count, frames)
            clips = list(everything)[TUNING_CLIPS:]
            for method, fit in methods.items():
                for clip, found in zip(clips, fit(clips, scenario), strict=True):
                    if method.startswith('live'):
                        collected[method, 'all'].append(errors(scenario, clip, found))
                    common = {k: j for k, j in found.items() if (k + 1) % _OFFLINE_EVERY == 0}
                    collected[method, 'common'].append(errors(scenario, clip, common))
                progress.advance(task)
            for (method, which), values in collected.items():
                means = {key: float(np.mean([v[key] for v in values])) for key in values[0]}
                rows.append({'scenario': name, 'method': method, 'frames': which, **means})
    return rows


def _print(rows: list[dict]) -> None:
    table = Table(title='Error on known truth, mm (frames: all, or those the offline fitter did)')
    columns = [
        'mpjpe', 'pa_mpjpe', 'pelvis', 'depth', 'depth_sigma', 'honest', 'hidden', 'jitter',
        'jitter_truth',
    ]  # fmt: skip
    for column in ['scenario', 'method', 'frames', *columns]:
        table.add_column(column)
    for row in rows:
        cells = [f'{row[c]:.{2 if c == "honest" else 1}f}' if c in row else '' for c in columns]
        table.add_row(row['scenario'], row['method'], row['frames'], *cells)
    Console(width=120).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--clips', type=int, default=10, help='excerpts of 2 s, besides those tuned on'
    )
    parser.add_argument('--frames', type=int, default=60, help='frames of each')
    parser.add_argument(
        '--steps', type=int, default=500, help='Adam steps of the offline fitter; 0: none'
    )
    parser.add_argument('--scenario', choices=SCENARIOS, action='append', help='default: all')
    parser.add_argument('--json', type=Path, help='write the rows here')
    arguments = parser.parse_args()
    rows = run(
        arguments.clips, arguments.frames, arguments.steps, arguments.scenario or list(SCENARIOS)
    )
    _print(rows)
    if arguments.json:
        write_json(arguments.json, rows, indent=1)


if __name__ == '__main__':
    run_script(main)
