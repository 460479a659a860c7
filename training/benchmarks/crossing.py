"""Two people crossing: does each body id stay with its body?

    python -m training.benchmarks.crossing --json FILE

Half of the crossings are of people who sway, half of people who move as in held-out recordings;
all walk past each other, one behind the other at `gap` metres. In 2D what the nearer one covers of
the farther one is not seen. The detector's ids are exchanged at random: for a frame now and then,
and in every second crossing for good from the middle on. Its order of the people is random in
every frame.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dposer_core import skeleton
from dposer_core.body_model import Body, load_body
from dposer_core.config import Config
from dposer_core.files import write_json
from dposer_core.kinematics import Kinematics, exp_many
from dposer_core.observation import NUM_POINTS, Observation
from dposer_core.people import PeopleFitter
from dposer_core.prior.runtime import load_prior
from dposer_core.state import Status
from training.benchmarks.truth import CAMERA, in_camera
from training.data.heldout import load_excerpts
from training.script import run_script

FRAMES = 44
FPS = 30.0
_SPEED = 1.2  # m/s of each
_DISTANCE = 4.0  # m of the nearer one
_LEVEL = 0.15  # m, of the pelvis below the camera
_NOISE = {2: 2.0, 3: 0.005}  # px, m
_COVERED_PX = 25.0  # points this near to a limb of the nearer one are not seen
_SWAP_ONCE = 0.1  # chance in a frame
_UNCLEAR = 0.04  # of the distance: people on top of each other
_START_NS = 1_000_000_000
_LIMBS = [(5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 13), (13, 15), (12, 14),
          (14, 16), (5, 12), (6, 11), (11, 12), (5, 6)]  # fmt: skip


@dataclass(frozen=True)
class Crossing:
    """Two people (A, B) over time."""

    name: str
    pelvis: np.ndarray  # (T, 2, 3) m
    frames: list[list[Observation]]


def crossings(
    body: Body, dim: int, count: int, gaps: tuple[float, float], seed: int = 0
) -> Iterator[Crossing]:
    """`count` crossings with gaps drawn from an interval."""
    kinematics, excerpts = Kinematics(body.tables), load_excerpts()
    for index in range(count):
        rng = np.random.default_rng([seed, dim, index])
        gap = float(rng.uniform(*gaps))
        is_mocap = bool(index % 2)
        people = [
            _person(kinematics, excerpts if is_mocap else None, side, gap, dim, rng)
            for side in range(2)
        ]
        name = f'{"mocap" if is_mocap else "sway"}-{index}'
        yield _seen(name, dim, people, index % 4 >= 2, rng)


def _person(kinematics, excerpts, side: int, gap: float, dim: int, rng) -> tuple:
    """Pelvis (T, 3) and landmarks (T, 133, 3) of one who walks across the picture."""
    seconds = np.arange(FRAMES) / FPS
    walk = (seconds - seconds.mean()) * _SPEED * rng.uniform(0.8, 1.2) * (1 if side else -1)
    depth = _DISTANCE + (gap if side else 0.0)
    if excerpts is None:
        pose = _sway(seconds, rng)
        sway = np.zeros((FRAMES, 3))
    else:
        excerpt = excerpts[rng.integers(len(excerpts))]
        pose, pelvis = in_camera(excerpt.pose_rotvec[:FRAMES].copy(), excerpt.pelvis[:FRAMES], rng)
        trend = np.polynomial.polynomial.polyfit(seconds, pelvis, 1)
        sway = pelvis - trend[0] - np.outer(seconds, trend[1])
        sway *= min(1.0, 0.05 / max(np.abs(sway).max(), 1e-9))  # the gap is to be kept
    centre = np.array([0.0, _LEVEL, depth]) + np.stack([walk, 0 * walk, 0 * walk], axis=1) + sway
    betas = np.clip(rng.standard_normal(skeleton.NUM_BETAS), -2.0, 2.0)
    coefficients = np.zeros(kinematics.num_coefficients)
    coefficients[: skeleton.NUM_BETAS] = betas
    landmarks = [
        kinematics.landmarks(kinematics.pose(root, exp_many(rotvec), coefficients))
        for rotvec, root in zip(pose, centre, strict=True)
    ]
    return centre, np.array(landmarks)


def _sway(seconds: np.ndarray, rng) -> np.ndarray:
    pose = np.zeros((len(seconds), skeleton.NUM_JOINTS, 3))
    swing = np.sin(2 * np.pi * (seconds * rng.uniform(0.5, 1.0) + rng.uniform()))
    for side, sign in (('left', 1.0), ('right', -1.0)):
        joint = skeleton.JOINT_INDEX
        pose[:, joint[f'{side}_shoulder'], 2] = -1.1 * sign
        pose[:, joint[f'{side}_shoulder'], 1] = 0.4 * swing
        pose[:, joint[f'{side}_elbow'], 1] = -0.5 * sign
        pose[:, joint[f'{side}_hip'], 0] = 0.35 * sign * swing
        pose[:, joint[f'{side}_knee'], 0] = 0.3
    upright = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0]))
    heading = Rotation.from_rotvec([0.0, rng.uniform(0, 2 * np.pi), 0.0])
    pose[:, 0] = (upright * heading).as_rotvec()
    return pose


def _seen(name: str, dim: int, people: list[tuple], is_for_good: bool, rng) -> Crossing:
    frames = []
    for k in range(FRAMES):
        points = [person[1][k] for person in people]
        confidences = [np.ones(NUM_POINTS), np.ones(NUM_POINTS)]
        if dim == 2:
            points = [CAMERA.project(p) for p in points]
            confidences[1][_covered(points[1], points[0])] = 0.0
        names = ['a', 'b']
        if rng.uniform() < _SWAP_ONCE or (is_for_good and k >= FRAMES // 2):
            names.reverse()
        sigma = np.full(NUM_POINTS, _NOISE[dim])
        stamp_ns, camera = _START_NS + round(k / FPS * 1e9), CAMERA if dim == 2 else None
        observations = []
        for p, c, id in zip(points, confidences, names, strict=True):
            noisy = np.where(c[:, None] > 0, p + rng.normal(0.0, _NOISE[dim], p.shape), 0.0)
            observations.append(Observation(stamp_ns, noisy, c, camera, sigma, id))
        order = rng.permutation(2)
        frames.append([observations[i] for i in order])
    return Crossing(name, np.stack([p[0] for p in people], axis=1), frames)


def _covered(points: np.ndarray, nearer: np.ndarray) -> np.ndarray:
    """(133,) points behind a limb or the trunk of the nearer person."""
    starts, ends = (nearer[[limb[i] for limb in _LIMBS]] for i in range(2))
    way = ends - starts
    share = np.einsum('pld,ld->pl', points[:, None] - starts, way)
    share /= np.maximum((way**2).sum(axis=1), 1e-9)
    nearest = starts + np.clip(share, 0, 1)[..., None] * way
    return (np.linalg.norm(points[:, None] - nearest, axis=-1) < _COVERED_PX).any(axis=1)


def follow(body: Body, prior, crossing: Crossing) -> dict[str, int]:
    """Frames in which a body id was on the other person, whether that was the end, and new ids."""
    fitter = PeopleFitter(body.tables, prior, Config())
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    wrong = 0
    for observations, pelvis in zip(crossing.frames, crossing.pelvis, strict=True):
        for result in fitter.step(observations[0].stamp_ns, observations):
            if result.status in (Status.PREDICTED, Status.LOST):
                continue
            found = result.state.joints[0]
            # Across the ray alone: one camera knows little of the distance.
            apart = np.abs(found[0] / found[2] - pelvis[:, 0] / pelvis[:, 2])
            if abs(apart[0] - apart[1]) < _UNCLEAR:
                continue
            last[result.body_id] = int(np.argmin(apart))
            wrong += first.setdefault(result.body_id, last[result.body_id]) != last[result.body_id]
    return {'swapped': int(first != last), 'wrong_frames': wrong, 'new_ids': len(first) - 2}


def run(count: int, gaps: tuple[float, float], dims: list[int]) -> list[dict]:
    """One row per dimension."""
    body, prior = load_body(), load_prior(Config().prior.checkpoint)
    rows = []
    for dim in dims:
        found = [(c, follow(body, prior, c)) for c in crossings(body, dim, count, gaps)]
        rows.append(
            {
                'dim': dim,
                'crossings': count,
                'gap_m': list(gaps),
                'swapped': sum(f['swapped'] for _, f in found),
                'frames_with_the_wrong_id': sum(f['wrong_frames'] for _, f in found),
                'crossings_with_a_new_id': sum(f['new_ids'] > 0 for _, f in found),
                'which': [c.name for c, f in found if f['swapped']],
            }
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=100, help='crossings per dimension')
    parser.add_argument('--gap', type=float, nargs=2, default=(0.3, 1.0), help='m, from and to')
    parser.add_argument('--dim', type=int, choices=(2, 3), action='append', help='default: both')
    parser.add_argument('--json', type=Path, help='write the rows here')
    arguments = parser.parse_args()
    rows = run(arguments.count, tuple(arguments.gap), arguments.dim or [3, 2])
    for row in rows:
        print(row)
    if arguments.json:
        write_json(arguments.json, rows, indent=1)


if __name__ == '__main__':
    run_script(main)
