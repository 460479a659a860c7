"""Figures of tables 7 and 10."""

import numpy as np
import pytest
import torch

from dposer_core.body_model import load_body
from dposer_core.errors import ModelFileError
from dposer_core.tasks.completion import wholebody_mask
from training.benchmarks.whole_body_completion import hand_judge

DIM = 63 + 45 + 45 + 3 + 10


@pytest.fixture(scope='module')
def judge():
    torch.set_num_threads(1)
    try:
        return hand_judge()
    except ModelFileError as error:
        pytest.skip(str(error))


def rows(seed: int) -> torch.Tensor:
    return 0.3 * torch.randn((4, DIM), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('part', ['lhand', 'rhand'])
def test_truth_has_no_error_and_equal_hypotheses_no_distance(judge, part):
    truth = rows(0)
    errors = judge.errors(part, truth.repeat(2, 1, 1), truth, joints_only=False)
    assert max(errors.values()) < 0.01  # mm and cm, single precision


@pytest.mark.parametrize(('part', 'other'), [('lhand', 'rhand'), ('rhand', 'lhand')])
def test_only_the_hidden_hand_counts(judge, part, other):
    truth = rows(0)
    mine, theirs = (
        torch.where(wholebody_mask(p, 10, with_wrist=False), truth, rows(1)) for p in (part, other)
    )
    assert judge.errors(part, theirs[None].repeat(2, 1, 1), truth, False)['min'] < 0.01
    assert judge.errors(part, mine[None].repeat(2, 1, 1), truth, False)['min'] > 5.0


def test_error_is_that_of_the_body_models_joints(judge):
    truth, found = rows(0), rows(1)
    errors = judge.errors('lhand', found.repeat(2, 1, 1), truth, joints_only=True)
    joints = []
    for poses in (truth, found):
        full = np.zeros((len(poses), 55, 3))
        order = [*range(1, 22), *range(25, 55), 22]
        full[:, order] = poses[:, : 3 * len(order)].reshape(len(poses), -1, 3)
        joints.append(load_body('').joints(full)[:, [20, *range(25, 40)]])
    expected = 1000 * np.linalg.norm(joints[0] - joints[1], axis=-1).mean()
    assert errors['mean'] == pytest.approx(expected, rel=1e-4)
