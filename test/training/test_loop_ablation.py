"""What tables 9 and S-1 change about the loop, and nothing else."""

import dataclasses

import pytest

from dposer_core.tasks.completion import CompletionProtocol
from dposer_core.tasks.mesh_recovery import WHOLE_BODY
from dposer_core.tasks.motion import NOISY_PAPER
from training.benchmarks import loop_ablation
from training.benchmarks.tables import Options, Plan


class Recorder:
    """Stands for the tasks; keeps the protocols that it is given."""

    def __init__(self, options: Options) -> None:
        self.seen: dict[str, tuple] = {}

    def recover(self, label, protocol):
        self.seen[label] = (protocol,)
        return {}

    def move(self, label, **change):
        self.seen[label] += (dataclasses.replace(NOISY_PAPER[40], **change),)
        return {}

    def complete(self, protocol):
        label = next(reversed(self.seen))
        self.seen[label] += (protocol,)
        return {}

    def recovery_columns(self):
        return []

    motion_columns = completion_columns = recovery_columns

    def plan(self, columns, paper, jobs):
        for job in jobs:
            job.run()
        return Plan((), paper, tuple(jobs), '', self.seen)


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(loop_ablation, '_Tasks', Recorder)
    return lambda table: table(Options()).checkpoint_sha256


def test_truncated_row_is_the_protocol_itself(recorded):
    found = recorded(loop_ablation.table_9)
    assert found['truncated'] == (WHOLE_BODY, NOISY_PAPER[40])


def test_other_schedules_change_the_times_alone_but_random_halves_the_weight(recorded):
    found = recorded(loop_ablation.table_9)
    for name in ('random', 'fixed', 'uniform'):
        recovery, motion = found[name]
        assert recovery.schedule.strategy == motion.schedule.strategy == name
        assert dataclasses.replace(recovery, schedule=WHOLE_BODY.schedule) == WHOLE_BODY
        assert motion.prior_scale == (0.5 if name == 'random' else 1.0)


def test_steps_change_the_denoiser_alone(recorded):
    found = recorded(loop_ablation.table_s1)
    plain = (WHOLE_BODY, NOISY_PAPER[40], CompletionProtocol())
    assert found['1 steps'] == plain
    for steps in (5, 10):
        for protocol, usual in zip(found[f'{steps} steps'], plain, strict=True):
            assert protocol.denoising.steps == steps
            assert dataclasses.replace(protocol, denoising=usual.denoising) == usual
