"""Tables 9 and S-1: diffusion times and denoising steps of DPoser's loop, on several tasks.

The tasks are those of tables 3 (40 mm), 8 (from scratch) and S-5 (left leg); one thing about the
term is changed at a time.
"""

import dataclasses
from functools import cached_property

import torch

from dposer_core.tasks.completion import CompletionProtocol, body_mask
from dposer_core.tasks.mesh_recovery import WHOLE_BODY, RecoveryProtocol
from dposer_core.tasks.motion import MotionProtocol
from dposer_core.tasks.optimise import TimeSchedule
from dposer_core.tasks.prior_term import Denoising
from training.benchmarks.body_completion import HYPOTHESES, Judge, body_judge, diffusion
from training.benchmarks.generation import BODY_NEED, PACKED_NEED
from training.benchmarks.motion_denoising import Motions, noisy
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, table
from training.benchmarks.task_data import MEASURE_ONLY, body_sets, paper_rows
from training.benchmarks.whole_body_recovery import QUICK_COUNT, SCRATCH, WholeBodies

_PART = 'left_leg'
_STATISTICS = {'min': 'mm', 'mean': 'mm', 'std': 'mm', 'APD': 'cm'}
_RECOVERED = {'all': 'PA-MPVPE all', 'hands': 'PA-MPVPE hands'}
_MOVED = ('MPVPE', 'MPJPE')


class _Tasks:
    """The tasks, each set up when it is first asked for."""

    def __init__(self, options: Options) -> None:
        self.options = options
        count = QUICK_COUNT if options.is_quick else 100
        self._people = WholeBodies(options, ('composed', 'examples'), count)
        self._motions = Motions(options)
        self._people.dposer()  # its hashes belong to the plan
        self.hashes = self._people.hashes | self._motions.hashes
        self._poses = body_sets(options, 40 if options.is_quick else 500)

    def recovery_columns(self) -> list[Column]:
        """Of whole bodies."""
        return [_recovery(name, key) for name in self._people.sets for key in _RECOVERED]

    def recover(self, label: str, protocol: RecoveryProtocol) -> dict[str, float]:
        """Whole bodies from scratch."""
        prior = self._people.dposer('mixed', protocol)
        row = self._people.row(label, prior, (SCRATCH,))
        return {
            _recovery(name, key).name: row.values[f'{name} {SCRATCH} {measure}']
            for name in self._people.sets
            for key, measure in _RECOVERED.items()
        }

    def motion_columns(self) -> list[Column]:
        """Of clips."""
        return [_motion(name, key) for name in self._motions.sets for key in _MOVED]

    def move(self, label: str, **change: TimeSchedule | Denoising | float) -> dict[str, float]:
        """Clips with 40 mm of noise; `change` of the protocol."""

        def changed(protocol: MotionProtocol) -> MotionProtocol:
            return dataclasses.replace(protocol, **change)

        method, values = self._motions.dposer(changed), {}
        for name in self._motions.sets:
            errors = self._motions.denoiser.errors_mm(label, method, name, noisy(40))
            values |= {_motion(name, key).name: errors[key] for key in _MOVED}
        return values

    def completion_columns(self) -> list[Column]:
        """Of hidden legs."""
        return [_completion(name, key) for name in self._poses for key in _STATISTICS]

    @cached_property
    def _judge(self) -> Judge:
        return body_judge()

    def complete(self, protocol: CompletionProtocol) -> dict[str, float]:
        """A hidden left leg."""
        method, values = diffusion(self.options, protocol=protocol)[0], {}
        for name, poses in self._poses.items():
            truth = torch.from_numpy(poses)
            found = method(truth, body_mask(_PART), HYPOTHESES)
            errors = self._judge.errors(_PART, found, truth, joints_only=False)
            values |= {_completion(name, key).name: errors[key] for key in _STATISTICS}
        return values

    def plan(self, columns: list[Column], paper: tuple[Row, ...], jobs: list[Job]) -> Plan:
        """A table of them."""
        people, clips = self._people.sets, self._motions.sets
        return Plan(
            columns=tuple(columns),
            paper=paper,
            jobs=tuple(jobs),
            data=f'{len(next(iter(people.values())))} whole bodies of each: {", ".join(people)}; '
            f'{len(next(iter(clips.values())))} clips of each: {", ".join(clips)}; the paper has '
            'ARCTIC and AMASS',
            checkpoint_sha256=self.hashes,
            settings=(
                'Recovery: DPoser-X-mixed from scratch, as in table 8. Motion: 40 mm of noise, '
                'as in table 3. Completion: left leg, ten hypotheses, vertices, as in table S-5.',
                MEASURE_ONLY if 'examples' in clips else 'The published examples are not here.',
            ),
        )


def _recovery(name: str, key: str) -> Column:
    return Column(f'{name} recovery PA-MPVPE {key}', 'lower', 'mm')


def _motion(name: str, key: str) -> Column:
    return Column(f'{name} motion {key}', 'lower', 'mm')


def _completion(name: str, key: str) -> Column:
    better = {'std': '', 'APD': 'higher'}.get(key, 'lower')
    return Column(f'{name} completion {key}', better, _STATISTICS[key])


_ON_PAPER = [
    *(_recovery('ARCTIC', key) for key in _RECOVERED),
    *(_motion('AMASS', key) for key in _MOVED),
]


@table('9', 'Schedules of diffusion times', [PACKED_NEED, BODY_NEED])
def table_9(options: Options) -> Plan:
    """Random, fixed, uniform and truncated."""
    tasks = _Tasks(options)
    paper = {
        'random': (62.28, 16.63, 43.33, 23.87),
        'fixed': (61.69, 15.71, 45.69, 22.54),
        'uniform': (62.13, 17.32, 39.72, 20.80),
        'truncated': (60.98, 15.60, 38.21, 19.87),
    }

    def run(name: str) -> Row:
        motion: dict[str, TimeSchedule | float] = {}
        recovery = WHOLE_BODY
        if name != 'truncated':
            recovery = dataclasses.replace(WHOLE_BODY, schedule=TimeSchedule(name))
            motion = {'schedule': TimeSchedule(name)}
        if name == 'random':  # the released code halves the weight then
            motion['prior_scale'] = 0.5
        return Row(name, tasks.recover(name, recovery) | tasks.move(name, **motion))

    return tasks.plan(
        [*tasks.recovery_columns(), *tasks.motion_columns(), *_ON_PAPER],
        paper_rows(_ON_PAPER, paper),
        [Job(name, lambda name=name: run(name)) for name in paper],
    )


@table('S-1', 'Denoising steps in the loop', [PACKED_NEED, BODY_NEED])
def table_s1(options: Options) -> Plan:
    """One, five and ten steps."""
    tasks = _Tasks(options)
    on_paper = [*_ON_PAPER, *(_completion('AMASS', key) for key in _STATISTICS)]
    paper = {
        1: (60.98, 15.60, 38.21, 19.87, 38.79, 78.31, 27.13, 6.53),
        5: (61.39, 15.70, 40.22, 21.21, 40.15, 85.01, 31.96, 7.72),
        10: (61.52, 15.74, 40.69, 21.34, 41.04, 87.36, 32.51, 8.07),
    }

    def several(denoising: Denoising, steps: int) -> Denoising:
        return dataclasses.replace(denoising, steps=steps)

    def run(steps: int) -> Row:
        label = f'{steps} steps'
        recovery = several(WHOLE_BODY.denoising, steps)
        motion = several(noisy(40).noisy.denoising, steps)
        completion = CompletionProtocol(denoising=several(CompletionProtocol().denoising, steps))
        return Row(
            label,
            tasks.recover(label, dataclasses.replace(WHOLE_BODY, denoising=recovery))
            | tasks.move(label, denoising=motion)
            | tasks.complete(completion),
        )

    return tasks.plan(
        [
            *tasks.recovery_columns(),
            *tasks.motion_columns(),
            *tasks.completion_columns(),
            *on_paper,
        ],
        paper_rows(on_paper, {f'{steps} steps': figures for steps, figures in paper.items()}),
        [Job(f'{steps} steps', lambda steps=steps: run(steps)) for steps in paper],
    )
