"""Table 'live': the live fitter beside the fits that may take their time, on what both know.

Not a table of the paper. Single frames: 133 keypoints of held-out motion (`truth.py`, shapes
unknown) in 3D (inverse kinematics), in 2D (mesh recovery) and in 2D with a part out of view
(completion); every frame is the first that a fitter sees, and the reference is the paper's
optimisation of 500 steps. Sequences: the noisy joints of table 3 as 12 points, root unknown; the
reference is the optimisation of that table, over all 60 frames or over those up to the one that
counts. The live fitter gives the newest frame, or the one four frames before it.

Goals: at most 5 % above the reference on equal information; with a lag of 4 frames at most 15 %
above the smoother that sees all 60, with at most twice its error of acceleration, 100 times
faster.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from dposer_core.config import Config
from dposer_core.fitter import PoseFitter
from dposer_core.observation import Observation
from dposer_core.offline import OfflineFitter
from dposer_core.prior.runtime import load_prior
from training.benchmarks.generation import BODY_NEED, PACKED_NEED
from training.benchmarks.live_truth import TUNING_CLIPS, Found, errors
from training.benchmarks.motion_denoising import AsLive, Case, Clips, Live, Motions, noisy
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.benchmarks.truth import SCENARIOS, Scenario, TruthClip, truth_clips

_STEPS = 500
_EVERY = 15  # frames of a clip that count
_LAG = 4
_NOISES_MM = (20, 40, 100)
_TASKS = {  # scenario: task and figure
    '3d': ('IK', 'mpjpe'),
    '2d': ('mesh recovery', 'pa_mpjpe'),
    '2d_height': ('mesh recovery, height known', 'mpjpe'),
    '2d_lower_body_hidden': ('completion, legs', 'hidden'),
    '2d_left_hand_hidden': ('completion, hand', 'hidden'),
}
_FIT, _SMOOTHER, _PAST = '500-step fit', '60-frame smoother', '60-frame smoother, past only'
_MS = Column('ms per frame', 'lower', 'ms', 1)
_MS_ONLINE = Column('ms per new frame', 'lower', 'ms', 1)
_UNTOLD = ', noise not told'

Joints = Callable[[Sequence[Observation], float], Iterable[np.ndarray]]
"""Frames and the person's height (0: unknown) -> (55, 3) joints of each."""


def _task(name: str) -> Column:
    task, figure = _TASKS[name]
    return Column(f'{task} {"PA-MPJPE" if figure == "pa_mpjpe" else "MPJPE"}', 'lower', 'mm', 1)


def _motion(set_name: str, noise_mm: int, figure: str) -> Column:
    unit = 'mm' if figure == 'MPJPE' else 'mm/frame²'
    return Column(f'{set_name} {noise_mm} mm {figure}', 'lower', unit, 1)


def _over(column: Column) -> Column:
    return Column(f'{column.name}, above the reference', 'lower', '%', 1)


class Frames:
    """Single frames of known truth."""

    def __init__(self, body, count: int) -> None:
        """`count` clips of 60 frames, those that constants were chosen on left out."""
        self._body, self._prior = body, load_prior(Config().prior.checkpoint)
        self.count = count
        self._clips = cache(self._made)

    def live(self, is_noise_told: bool) -> Joints:
        """The live fitter; every frame is the first of a stream."""

        def run(frames: Sequence[Observation], height: float) -> Iterable[np.ndarray]:
            config = Config()
            model = dataclasses.replace(config.model, person_height=height)
            config = dataclasses.replace(config, model=model)
            for frame in frames:
                seen = frame if is_noise_told else dataclasses.replace(frame, sigma=None)
                result = PoseFitter(self._body.tables, self._prior, config).step(seen)
                assert result is not None, 'every frame shows enough to start on'
                yield result.state.joints

        return run

    def reference(self, steps: int = _STEPS) -> Joints:
        """The paper's optimisation."""

        def run(frames: Sequence[Observation], height: float) -> Iterable[np.ndarray]:
            fitter = OfflineFitter(self._body, self._prior, steps, person_height=height)
            yield from fitter.fit(frames).joints

        return run

    def row(self, label: str, joints: Joints) -> Row:
        """Errors by task, means over the clips, and the processor's time for a frame."""
        values, seconds, count = {}, 0.0, 0
        next(iter(joints(self._clips('3d')[0].observations[:1], 0.0)))  # compiles what it needs
        for name, (_, figure) in _TASKS.items():
            found, took = self._found(SCENARIOS[name], joints)
            values[_task(name).name] = float(np.mean([one[figure] for one in found]))
            seconds, count = seconds + took, count + len(found)
        frames = count * len(range(_EVERY - 1, 60, _EVERY))
        return Row(label, values | {_MS.name: 1000 * seconds / frames})

    def _found(self, scenario: Scenario, joints: Joints) -> tuple[list[dict[str, float]], float]:
        """Errors of each clip, and the seconds that they took."""
        clips = self._clips(scenario.name)
        # Clips of unknown height go through the reference as one batch.
        groups = [[clip] for clip in clips] if scenario.is_height_known else [clips]
        found, seconds = [], 0.0
        for group in groups:
            chosen = [range(_EVERY - 1, len(clip.observations), _EVERY) for clip in group]
            frames = [c.observations[k] for c, ks in zip(group, chosen, strict=True) for k in ks]
            height = group[0].height if scenario.is_height_known else 0.0
            began = time.process_time()
            placed = iter(list(joints(frames, height)))
            seconds += time.process_time() - began
            found += [
                errors(scenario, clip, {k: Found(next(placed)) for k in ks})
                for clip, ks in zip(group, chosen, strict=True)
            ]
        return found, seconds

    def _made(self, name: str) -> list[TruthClip]:
        everything = truth_clips(self._body, SCENARIOS[name], TUNING_CLIPS + self.count, 60)
        return list(everything)[TUNING_CLIPS:]


class Sequences:
    """Noisy joints of whole clips."""

    def __init__(self, motions: Motions) -> None:
        self._motions = motions

    def smoother(self, clips: Clips) -> Tensor:
        """(clips, frames, 22, 3), all frames at once."""
        return AsLive(self._motions.dposer()).fit(clips, self._motions.denoiser.points)

    def past_only(self, clips: Clips) -> Tensor:
        """As `smoother`, NaN but in the frames that count, each by itself and those before it."""
        return AsLive(self._motions.dposer(), False)(clips, self._motions.denoiser.points).joints

    def live(self, lag: int, is_noise_told: bool) -> Callable[[Clips], Tensor]:
        """The live fitter, `lag` frames late; NaN at the end of a clip, where it is not yet."""

        def sigma(case: Case) -> float:
            return case.noise_mm / 1000

        def run(clips: Clips) -> Tensor:
            fitter = Live(self._motions.body, sigma if is_noise_told else None, lag)
            joints = torch.full_like(clips.truth, torch.nan)
            for index in range(len(clips.truth)):
                for frame, placed in enumerate(fitter.stream(clips, index)):
                    joints[index, frame] = placed
            return joints

        return run

    def row(self, label: str, method: Callable[[Clips], Tensor], runs_a_frame: float) -> Row:
        """Errors by set and noise; frames too near the end for the lag count for nobody.

        `runs_a_frame`: how often the method must run for a stream, per clip's worth of frames.
        """
        values, seconds, frames = {}, 0.0, 0
        for name in self._motions.sets:
            for noise in _NOISES_MM:
                clips = self._motions.denoiser.clips(name, noisy(noise))
                began = time.process_time()
                found = method(clips)
                seconds += time.process_time() - began
                frames += clips.truth.shape[0] * clips.truth.shape[1]
                values |= {
                    _motion(name, noise, figure).name: value
                    for figure, value in motion_errors(found, clips.truth).items()
                }
        if label != _PAST:  # which computes four frames of a clip only
            values[_MS.name] = 1000 * seconds / frames
            values[_MS_ONLINE.name] = values[_MS.name] * runs_a_frame
        return Row(label, values)


def motion_errors(found: Tensor, truth: Tensor) -> dict[str, float]:
    """MPJPE (mm) and error of acceleration (mm/frame^2) of clips (C, T, 22, 3) metres.

    MPJPE is that of every 15th frame, without those in which some method has none yet; so the
    figures of all methods are of the same frames. Acceleration needs frames in a row.
    """
    counted = range(_EVERY - 1, truth.shape[1] - _LAG, _EVERY)
    distance = 1000 * torch.linalg.norm(found - truth, dim=-1)
    values = {'MPJPE': float(distance[:, counted].mean())}
    late = slice(_EVERY - 1, truth.shape[1] - _LAG)
    if not found[:, late].isnan().any():
        second = (found - truth)[:, late].diff(n=2, dim=1)
        values['acceleration'] = 1000 * float(torch.linalg.norm(second, dim=-1).mean())
    return values


def _against(rows: Sequence[Row], reference: Row, columns: Sequence[Column]) -> tuple[Row, ...]:
    """`rows` with how far each is above `reference`, in percent."""

    def more(row: Row) -> dict[str, float]:
        return {
            _over(c).name: 100 * (row.values[c.name] / reference.values[c.name] - 1)
            for c in columns
            if c.name in row.values and c.name in reference.values
        }

    return tuple(dataclasses.replace(row, values=row.values | more(row)) for row in rows)


@table('live', 'The live fitter on equal information', [PACKED_NEED, BODY_NEED])
def plan(options: Options) -> Plan:
    """Single frames against 500 steps; sequences against the optimisation of table 3."""
    torch.set_num_threads(1)
    motions = Motions(options)
    frames = Frames(motions.body, 5 if options.is_quick else 20)
    sequences = Sequences(motions)
    tasks = [_task(name) for name in _TASKS]
    sets = [(name, noise) for name in motions.sets for noise in _NOISES_MM]
    places = [_motion(*case, 'MPJPE') for case in sets]
    turns = [_motion(*case, 'acceleration') for case in sets]

    def single() -> list[Row]:
        reference = frames.row(_FIT, frames.reference())
        rows = [
            frames.row(f'live fitter, frame alone{suffix}', frames.live(told))
            for told, suffix in ((True, ''), (False, _UNTOLD))
        ]
        return [reference, *_against(rows, reference, tasks)]

    def streams() -> list[Row]:
        smoother = sequences.row(_SMOOTHER, sequences.smoother, 60)
        past = sequences.row(_PAST, sequences.past_only, 60)
        found = [smoother, past]
        for told, suffix in ((True, ''), (False, _UNTOLD)):
            for lag, reference, late in ((0, past, ''), (_LAG, smoother, f', lag of {_LAG}')):
                row = sequences.row(
                    f'live fitter, stream{late}{suffix}', sequences.live(lag, told), 1
                )
                found += _against([row], reference, [*places, *turns])
        return found

    return motions.plan(
        [
            *tasks, *(_over(c) for c in tasks), *places, *(_over(c) for c in places),
            *turns, *(_over(c) for c in turns), _MS, _MS_ONLINE,
        ],
        (),
        [Job('single frames', single), Job('sequences', streams)],
        f'Single frames: {frames.count} held-out clips on bodies of random shape, every '
        f'{_EVERY}th frame, 133 points with noise of 5 mm (3D) or 2 px; reference: {_STEPS} steps '
        'of Adam with the same prior. MPJPE from the pelvis; of completion the hidden joints.',
        f'Sequences: 12 joints, mean shape known, root unknown; MPJPE of every {_EVERY}th frame '
        'but the last, no alignment. The stream is compared with the smoother on the same past '
        f'frames, the stream with a lag of {_LAG} frames with the smoother on all 60.',
        'Acceleration: error of the second difference, of frames in a row.',
        'ms per frame: processor time of one thread, of a clip done at once; per new frame: of a '
        'stream, for which a smoother must run again on the last 60 frames.',
        'The reference is not told the noise, whose weights were made for it; so the live fitter '
        'has rows in which it assumes its configured noise.',
    )  # fmt: skip
