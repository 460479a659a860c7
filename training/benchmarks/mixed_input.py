"""What 3D hands beside a 2D body are worth, on known truth.

    python -m training.benchmarks.mixed_input

The motion of `truth.py` seen as the 17 points of COCO (2 px of noise), alone and with the points
of both hands in 3D (5 mm). MPJPE is pelvis-aligned over the 22 body joints, fingers are aligned at
the wrist, pelvis and hands absolute.
"""

import argparse
import dataclasses

import numpy as np
from rich.console import Console
from rich.table import Table

from dposer_core import skeleton
from dposer_core.body_model import load_body
from dposer_core.config import Config
from dposer_core.evidence import LEFT_HAND_POINTS, RIGHT_HAND_POINTS
from dposer_core.fitter import PoseFitter
from dposer_core.metrics import mpjpe
from dposer_core.observation import Observation
from dposer_core.prior.runtime import load_prior
from training.benchmarks.live_truth import TUNING_CLIPS
from training.benchmarks.truth import SCENARIOS, truth_clips
from training.script import run_script

_BODY = np.r_[0:17]
_HANDS = np.r_[LEFT_HAND_POINTS, RIGHT_HAND_POINTS]
_WRISTS = [skeleton.JOINT_INDEX[f'{side}_wrist'] for side in ('left', 'right')]
_FINGERS = (skeleton.LEFT_HAND_JOINTS, skeleton.RIGHT_HAND_JOINTS)


def only(observation: Observation, points: np.ndarray) -> Observation:
    """The observation without other points."""
    confidence = np.zeros_like(observation.confidence)
    confidence[points] = observation.confidence[points]
    return dataclasses.replace(observation, confidence=confidence)


def errors(joints: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    """Of (T, 55, 3): body, pelvis, fingers from the wrist, hands absolute; mm."""
    body = slice(0, skeleton.JAW_JOINT)
    chains = [[wrist, *range(f.start, f.stop)] for wrist, f in zip(_WRISTS, _FINGERS, strict=True)]
    fingers = [mpjpe(joints[:, c], truth[:, c], 0).mean() * len(c) / (len(c) - 1) for c in chains]
    hands = [j for c in chains for j in c]
    metres = (
        mpjpe(joints[:, body], truth[:, body], 0).mean(),
        np.linalg.norm(joints[:, 0] - truth[:, 0], axis=1).mean(),
        np.mean(fingers),
        np.linalg.norm(joints[:, hands] - truth[:, hands], axis=2).mean(),
    )
    return tuple(1e3 * float(value) for value in metres)


def run(count: int, frames: int) -> dict[str, np.ndarray]:
    """Means over the clips, (4,) as of `errors`."""
    body, prior = load_body(), load_prior(Config().prior.checkpoint)
    pairs = zip(
        truth_clips(body, SCENARIOS['2d'], TUNING_CLIPS + count, frames),
        truth_clips(body, SCENARIOS['3d'], TUNING_CLIPS + count, frames),
        strict=True,
    )
    found: dict[str, list] = {'body alone': [], 'with hands beside it': []}
    for flat, deep in list(pairs)[TUNING_CLIPS:]:
        for name, rows in found.items():
            fitter, joints, truth = PoseFitter(body.tables, prior, Config()), [], []
            for k, observation in enumerate(flat.observations):
                seen = only(observation, _BODY)
                if name != 'body alone':
                    hands = only(deep.observations[k], _HANDS)
                    seen = dataclasses.replace(seen, beside=hands)
                result = fitter.step(seen)
                if result is not None:
                    joints.append(result.state.joints)
                    truth.append(flat.joints[k])
            rows.append(errors(np.array(joints), np.array(truth)))
    return {name: np.mean(rows, axis=0) for name, rows in found.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--clips', type=int, default=10)
    parser.add_argument('--frames', type=int, default=60)
    arguments = parser.parse_args()
    table = Table(title='mm')
    for column in ('', 'body', 'pelvis', 'fingers from the wrist', 'hands absolute'):
        table.add_column(column)
    for name, values in run(arguments.clips, arguments.frames).items():
        table.add_row(name, *(f'{value:.1f}' for value in values))
    Console(width=100).print(table)


if __name__ == '__main__':
    run_script(main)
