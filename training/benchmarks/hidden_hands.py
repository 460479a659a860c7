"""Hands that are hidden or invented, lost frames and cropped people: what does the fit say?

    python -m training.benchmarks.hidden_hands --json FILE

Held-out motion of `truth.py`, without the clips that constants of the fitter were chosen on.

Hidden: the left hand is not seen for a time. `hidden_called_hidden` is the share of those frames
in which no joint of its fingers is called observed, `seen_called_seen` that of the others in which
all are (a hand that is taken for an outlier is not). `within_1_sigma` is the share of coordinates
of hidden finger joints whose error is below the sigma published for that axis. A jump is what a
joint does at re-appearance beyond the true motion since the last hidden frame: it should be short,
or within the 95 % region published before. The hand is trusted again when no point of it counts as
an outlier.

Invented: from a frame on the left hand is one that the detector made up. `passed_on` is the share
of frames in which a joint of its fingers is called observed.

Lost: frames are dropped at random and in bursts. Cropped: points of a part are not seen.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from dposer_core import evidence, skeleton
from dposer_core.body_model import Body, load_body
from dposer_core.config import Config
from dposer_core.files import write_json
from dposer_core.fitter import PoseFitter
from dposer_core.observation import Observation
from dposer_core.people import PeopleFitter
from dposer_core.prior.runtime import load_prior
from dposer_core.state import BodyState, FitResult, Source, Status
from training.benchmarks.live_truth import TUNING_CLIPS
from training.benchmarks.recorded_views import FPS, load_recorded_views
from training.benchmarks.truth import SCENARIOS, TruthClip, truth_clips
from training.data.heldout import load_excerpts
from training.script import run_script

SECONDS = (0.1, 0.3, 1.0, 3.0)
_ONSET = 20  # frame from which the hand is hidden, or invented
_AFTER = 10  # frames seen after it
_LEFT, _RIGHT = np.r_[evidence.LEFT_HAND_POINTS], np.r_[evidence.RIGHT_HAND_POINTS]
_FINGERS = np.arange(skeleton.NUM_JOINTS)[skeleton.LEFT_HAND_JOINTS]
_WRISTS = (9, 10)
_REGION = float(chi2.ppf(0.95, 3))
_HINGES = [
    skeleton.JOINT_INDEX[f'{side}_{name}']
    for side in ('left', 'right')
    for name in ('knee', 'elbow')
]
_LIMIT_MARGIN = np.radians(20.0)  # beyond what people in the recordings did
_SEEN = (Source.OBSERVED, Source.PARTIAL)
CROPPED = {
    'nothing': np.zeros(0, dtype=int),
    'left side': np.r_[[1, 3], 5:17:2, 17:20, _LEFT],
    'legs': np.r_[13:23],
    'head': np.r_[0:5, 23:91],
}


def clips(body: Body, dim: int, count: int, frames: int = 60) -> list[TruthClip]:
    """Of `frames` frames; recordings that are too short are played to and fro."""
    found = truth_clips(body, SCENARIOS[f'{dim}d'], TUNING_CLIPS + count, frames)
    return [_played(clip, frames) for clip in list(found)[TUNING_CLIPS:]]


def _played(clip: TruthClip, frames: int) -> TruthClip:
    length = len(clip.observations)
    there_and_back = np.r_[:length, length - 2 : 0 : -1]
    order = there_and_back[np.arange(frames) % len(there_and_back)]
    first, second = (o.stamp_ns for o in clip.observations[:2])
    stamps = first + np.arange(frames) * (second - first)
    return dataclasses.replace(
        clip,
        pose_rotvec=clip.pose_rotvec[order],
        joints=clip.joints[order],
        observations=[
            dataclasses.replace(clip.observations[i], stamp_ns=int(stamp))
            for i, stamp in zip(order, stamps, strict=True)
        ],
    )


# --- hidden -------------------------------------------------------------------------------------


def _without(observation: Observation, points: np.ndarray) -> Observation:
    confidence = observation.confidence.copy()
    confidence[points] = 0.0
    return dataclasses.replace(observation, confidence=confidence)


def hidden(body: Body, prior, dim: int, seconds: float, count: int) -> dict:
    """The left hand is hidden for `seconds`; one row over all clips."""
    called_hidden, called_seen, within, expected, jumps, trusted = [], [], [], [], [], []
    back = _ONSET + round(seconds * 30.0)
    for clip in clips(body, dim, count, back + _AFTER):
        fitter, states = PoseFitter(body.tables, prior, Config()), []
        for k, observation in enumerate(clip.observations):
            if _ONSET <= k < back:
                observation = _without(observation, _LEFT)
            result = fitter.step(observation)
            state = result.state
            states.append(state)
            seen = np.isin(state.source[_FINGERS], _SEEN)
            if _ONSET <= k < back:
                called_hidden.append(not seen.any())
                within.append(_within_one_sigma(state, clip.joints[k]))
            elif (
                result.status != Status.INITIALISING
                and (observation.confidence[_LEFT] > 0.0).all()
            ):
                called_seen.append(bool(seen.all()))
        jump, is_expected = _jump(states[back - 1], states[back], clip.joints, back)
        jumps.append(jump)
        expected.append((jump <= 0.05) | is_expected)
        seen = [bool(np.isin(s.source[_FINGERS], _SEEN).all()) for s in states[back:]]
        trusted.append(seen.index(True) + 1 if any(seen) else _AFTER + 1)
    inside = np.concatenate(within)
    return {
        'dim': dim,
        'seconds': seconds,
        'clips': count,
        'hidden_called_hidden': float(np.mean(called_hidden)),
        'seen_called_seen': float(np.mean(called_seen)),
        'within_1_sigma': float(inside.mean()),
        'within_1_sigma_xyz': inside.mean(axis=0).round(3).tolist(),
        'jump_median_mm': float(np.median(jumps)) * 1e3,
        'jump_short_or_in_region': float(np.mean(expected)),
        'trusted_within_2_frames': float(np.mean(np.array(trusted) <= 2)),
        'trusted_after_frames': int(max(trusted)),
    }


def _within_one_sigma(state: BodyState, truth: np.ndarray) -> np.ndarray:
    """(15, 3) bool."""
    sigma = np.sqrt(np.einsum('nii->ni', state.position_covariance[_FINGERS]))
    return np.abs(state.joints - truth)[_FINGERS] <= sigma


def _jump(
    before: BodyState, after: BodyState, truth: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """(15,) m that the fingers moved beyond the truth, and whether that was in the 95 % region."""
    moved = (after.joints - before.joints - truth[k] + truth[k - 1])[_FINGERS]
    covariance = before.position_covariance[_FINGERS]
    distance = np.einsum('ni,nij,nj->n', moved, np.linalg.inv(covariance), moved)
    return np.linalg.norm(moved, axis=1), distance <= _REGION


# --- invented -----------------------------------------------------------------------------------

Invention = Callable[[int, np.ndarray, list[np.ndarray], float, np.random.Generator], np.ndarray]


def _other_hand(k, points, past, height, rng) -> np.ndarray:
    return points[_RIGHT]


def _other_hand_here(k, points, past, height, rng) -> np.ndarray:
    return points[_RIGHT] - points[_RIGHT[0]] + points[_WRISTS[0]]


def _frozen_there(k, points, past, height, rng) -> np.ndarray:
    return past[_ONSET - 1][_LEFT]


def _frozen_here(k, points, past, height, rng) -> np.ndarray:
    hand = past[_ONSET - 1][_LEFT]
    return hand - hand[0] + points[_WRISTS[0]]


def _jumping(k, points, past, height, rng) -> np.ndarray:
    return points[_LEFT] + rng.normal(0.0, 0.3 * height, points.shape[1])


def _elsewhere(k, points, past, height, rng) -> np.ndarray:
    return points[_LEFT] + 0.2 * height * np.eye(points.shape[1])[0]


def _large(k, points, past, height, rng) -> np.ndarray:
    return points[_WRISTS[0]] + 2.5 * (points[_LEFT] - points[_LEFT[0]])


def _small(k, points, past, height, rng) -> np.ndarray:
    return points[_WRISTS[0]] + 0.2 * (points[_LEFT] - points[_LEFT[0]])


def _backwards(k, points, past, height, rng) -> np.ndarray:
    return 2.0 * points[_LEFT[0]] - points[_LEFT]


def _scattered(k, points, past, height, rng) -> np.ndarray:
    return points[_WRISTS[0]] + rng.normal(0.0, 0.06 * height, (len(_LEFT), points.shape[1]))


INVENTIONS: dict[str, Invention] = {
    'the other hand': _other_hand,
    'the other hand, moved here': _other_hand_here,
    'frozen in its place': _frozen_there,
    'frozen on the wrist': _frozen_here,
    'jumping': _jumping,
    'on another place': _elsewhere,
    '2.5 times too large': _large,
    '5 times too small': _small,
    'pointing back': _backwards,
    'scattered points': _scattered,
}


def invented(body: Body, prior, dim: int, count: int) -> Iterator[dict]:
    """One row per kind, and one of hands as they are."""
    known = clips(body, dim, count)
    yield _passed_on(body, prior, dim, known, 'none: as seen', None)
    for name, invention in INVENTIONS.items():
        yield _passed_on(body, prior, dim, known, name, invention)


def _passed_on(body, prior, dim, known, name: str, invention: Invention | None) -> dict:
    passed, refused, shown = [], 0, 0
    for index, clip in enumerate(known):
        rng, past = np.random.default_rng(index), []
        fitter = PoseFitter(body.tables, prior, Config())
        for k, observation in enumerate(clip.observations):
            points, confidence = observation.points.copy(), observation.confidence.copy()
            past.append(points.copy())
            is_invented = invention is not None and k >= _ONSET
            if is_invented:
                scale = observation.camera.fy / clip.joints[k, 0, 2] if dim == 2 else 1.0
                points[_LEFT] = invention(k, points, past, clip.height * scale, rng)
                confidence[_LEFT] = 1.0
            result = fitter.step(
                dataclasses.replace(observation, points=points, confidence=confidence)
            )
            seen = np.isin(result.state.source[_FINGERS], _SEEN)
            if is_invented:
                passed.append(bool(seen.any()))
            elif (confidence[_LEFT] > 0.0).all():
                shown += 1
                refused += not seen.any()
    return {
        'dim': dim,
        'invented': name,
        'frames': len(passed) or shown,
        'passed_on': float(np.mean(passed)) if passed else None,
        'real_refused': refused / shown,
    }


def real_hands(body: Body, prior) -> dict:
    """Share of hands of a real detector that are refused, each camera fitted alone."""
    recorded, shown, refused = load_recorded_views(), 0, 0
    for view, points, confidence in zip(
        recorded.views, recorded.points, recorded.confidence, strict=True
    ):
        fitter, ideal = PoseFitter(body.tables, prior, Config()), view.to_ideal(points)
        for frame in range(len(points)):
            usable = np.isfinite(ideal[frame]).all(axis=1)
            seen = np.where(usable, confidence[frame], 0.0)
            fitter.step(
                Observation(
                    round((frame / FPS + 1.0) * 1e9),
                    np.where(usable[:, None], ideal[frame], 0.0),
                    seen,
                    view.camera,
                )
            )
            shown += sum(bool((seen[hand] > 0.0).all()) for hand in (_LEFT, _RIGHT))
            refused += sum(fitter.refused_hands)
    return {'hands': shown, 'refused': refused, 'share': refused / shown}


# --- lost frames, cropped people ----------------------------------------------------------------


def lost(body: Body, prior, dim: int, count: int) -> dict:
    """20 % of frames dropped at random, and a burst of ten: ids, starts, error growth."""
    errors: dict[bool, list[float]] = {False: [], True: []}
    ids, starts = 0, 0
    for index, clip in enumerate(clips(body, dim, count, 90)):
        rng = np.random.default_rng(index)
        keep = rng.uniform(size=len(clip.observations)) >= 0.2
        keep[:_ONSET] = True
        keep[40:50] = False
        found = {}
        for is_lossy in (False, True):
            people = PeopleFitter(body.tables, prior, Config())
            found[is_lossy] = [
                people.step(o.stamp_ns, [o])[0]
                if kept or not is_lossy
                else people.predict(o.stamp_ns)[0]
                for o, kept in zip(clip.observations, keep, strict=True)
            ]
        ids += len({r.body_id for r in found[True]}) - 1
        starts += sum(r.status in (Status.INITIALISING, Status.LOST) for r in found[True][_ONSET:])
        for k in np.flatnonzero(keep)[_ONSET:]:  # the frames that both have seen
            for is_lossy, results in found.items():
                errors[is_lossy].append(_body_error(results[k], clip.joints[k]))
    whole, lossy = np.mean(errors[False]), np.mean(errors[True])
    return {
        'dim': dim,
        'new_ids': ids,
        'restarts': starts,
        'error_mm': float(whole) * 1e3,
        'error_with_loss_mm': float(lossy) * 1e3,
        'growth': float(lossy / whole - 1.0),
    }


def _body_error(result: FitResult, truth: np.ndarray) -> float:
    body = slice(0, skeleton.JAW_JOINT)
    aligned = (result.state.joints - result.state.joints[0])[body] - (truth - truth[0])[body]
    return float(np.linalg.norm(aligned, axis=1).mean())


def cropped(body: Body, prior, dim: int, part: str, count: int) -> dict:
    """A part is out of view from `_ONSET` on: bends beyond the limits, and flips."""
    beyond, turned = 0, []
    least, most = _limits()
    for clip in clips(body, dim, count):
        fitter = PoseFitter(body.tables, prior, Config())
        for k, observation in enumerate(clip.observations):
            if k >= _ONSET:
                observation = _without(observation, CROPPED[part])
            state = fitter.step(observation).state
            if k >= _ONSET:
                bends = _bends(state.pose_rotvec)
                beyond += bool(((bends < least) | (bends > most)).any())
                true, found = (
                    Rotation.from_rotvec(p[0]) for p in (clip.pose_rotvec[k], state.pose_rotvec)
                )
                turned.append(float(np.degrees((true.inv() * found).magnitude())))
    return {
        'dim': dim,
        'cropped': part,
        'frames': len(turned),
        'beyond_limits': int(beyond),
        'flipped': int((np.array(turned) > 90.0).sum()),
        'root_error_p95_deg': float(np.percentile(turned, 95)),
    }


def _limits() -> tuple[np.ndarray, np.ndarray]:
    """Least and most of `_bends` in all recordings, and a margin."""
    bends = _bends(np.concatenate([excerpt.pose_rotvec for excerpt in load_excerpts()]))
    return bends.min(axis=0) - _LIMIT_MARGIN, bends.max(axis=0) + _LIMIT_MARGIN


def _bends(pose_rotvec: np.ndarray) -> np.ndarray:
    """(..., 33) rad: angles of all 21 body joints, and rotation vectors of the four hinges.

    Components of a ball joint say little: those of a raised arm change with its twist.
    """
    angles = np.linalg.norm(pose_rotvec[..., skeleton.BODY_JOINTS, :], axis=-1)
    hinges = pose_rotvec[..., _HINGES, :]
    return np.concatenate([angles, hinges.reshape(*hinges.shape[:-2], -1)], axis=-1)


PARTS = ('hidden', 'invented', 'lost', 'cropped')


def run(parts: list[str], dims: list[int], count: int) -> dict[str, list[dict]]:
    """Rows by part."""
    body, prior = load_body(), load_prior(Config().prior.checkpoint)
    rows: dict[str, list[dict]] = {part: [] for part in parts}
    for dim in dims:
        for part in parts:
            match part:
                case 'hidden':
                    found = [hidden(body, prior, dim, s, count) for s in SECONDS]
                case 'invented':
                    found = list(invented(body, prior, dim, count))
                case 'lost':
                    found = [lost(body, prior, dim, count)]
                case 'cropped':
                    found = [cropped(body, prior, dim, name, count) for name in CROPPED]
            for row in found:
                print(row, flush=True)
            rows[part] += found
    if 'invented' in parts:
        rows['real'] = [real_hands(body, prior)]
        print(rows['real'])
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--clips', type=int, default=10, help='besides those tuned on')
    parser.add_argument('--part', choices=PARTS, action='append', help='default: all')
    parser.add_argument('--dim', type=int, choices=(2, 3), action='append', help='default: both')
    parser.add_argument('--json', type=Path, help='write the rows here')
    arguments = parser.parse_args()
    rows = run(arguments.part or list(PARTS), arguments.dim or [3, 2], arguments.clips)
    if arguments.json:
        write_json(arguments.json, rows, indent=1)


if __name__ == '__main__':
    run_script(main)
