"""The comparison of whole-body networks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dposer_core.prior.architecture import WholeBodyLayout
from dposer_core.prior.normalizer import Normalizer, wholebody_normalizer
from dposer_core.prior.sde import SubVP
from training.benchmarks.task_data import read_wholebodies
from training.benchmarks.whole_body import measure

LAYOUT = WholeBodyLayout(10)


class _Copy(nn.Module):
    """Says that the clean right hand is the left one, and of the rest that it knows nothing."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        t = label / 999
        alpha, sigma = SubVP().alpha(t)[:, None], SubVP().sigma(t)[:, None]
        clean = torch.zeros_like(x)
        clean[:, LAYOUT.right_hand] = x[:, LAYOUT.left_hand] / alpha
        return (x - alpha * clean) / sigma


class _Mean(nn.Module):
    """Says that the clean vector is the mean."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return x / SubVP().sigma(label / 999)[:, None]


@pytest.fixture
def rows() -> np.ndarray:
    """Whole bodies whose hands mirror each other."""
    raw = np.random.default_rng(0).normal(size=(30, 166)).astype(np.float32) * 0.3
    mirror = np.tile([1.0, -1.0, -1.0], 15).astype(np.float32)
    raw[:, LAYOUT.right_hand] = raw[:, LAYOUT.left_hand] * mirror
    return raw


def _unit() -> Normalizer:
    parts = [Normalizer.z_score(np.zeros(n), np.ones(n)) for n in (63, 45, 13)]
    return wholebody_normalizer(*parts)


def test_hidden_hand_is_taken_from_the_network_and_the_rest_is_known(rows):
    copy, mean = (measure(net, _unit(), rows, has_face=True) for net in (_Copy(), _Mean()))
    assert copy['hidden'] < 0.05 and copy['hidden once'] < 0.05  # degrees, float32
    size = np.linalg.norm(rows[:, LAYOUT.right_hand].reshape(-1, 3), axis=-1)
    assert mean['hidden'] == pytest.approx(np.degrees(size).mean(), rel=0.01)
    assert mean['body, t = 0.2'] > 10.0


def test_rows_of_body_and_hands_get_a_still_face(tmp_path):
    names = {'body_pose': 63, 'left_hand_pose': 45, 'right_hand_pose': 45}
    arrays = {name: np.full((4, size), 1.0, np.float32) for name, size in names.items()}
    np.savez(tmp_path / 'a.npz', **arrays)
    rows = read_wholebodies(tmp_path / 'a.npz', 166)
    assert rows.shape == (4, 166)
    assert (rows[:, :153] == 1.0).all() and (rows[:, 153:] == 0.0).all()
