"""Scenes and figures of table S-13."""

import numpy as np
import pytest
import torch

from dposer_core.body_model import load_body
from dposer_core.errors import ModelFileError
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.tasks.prior_term import NoTerm
from training.benchmarks.face_ik import Method, Solver, StandardNormal


@pytest.fixture(scope='module')
def solver() -> Solver:
    torch.set_num_threads(1)
    try:
        return Solver(load_body(''), seed=1)
    except ModelFileError as error:
        pytest.skip(str(error))


def test_closed_form_denoiser_is_the_posterior_mean_of_a_standard_normal():
    prior = DiffusionPrior(StandardNormal())
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn((2, 200_000, 1), generator=generator)
    for t in (0.05, 0.15, 0.4):
        x_t = prior.sde.add_noise(x_0, t, noise)
        # Regression of x_0 on x_t is the posterior mean of Gaussian data; its slope is known
        # to 0.005 from this many draws.
        slope = float((x_0 * x_t).sum() / (x_t**2).sum())
        ones = torch.ones(1, 1)
        assert float(prior.denoise(ones, t)) == pytest.approx(slope, abs=0.005)


def test_points_are_the_landmarks_of_the_body_model(solver):
    rng = np.random.default_rng(0)
    jaw, betas = np.array([[0.3, 0.05, -0.05]]), rng.normal(0, 1, (1, 10))
    expression = rng.normal(0, 1, (1, 10))
    pose = np.zeros((1, 55, 3))
    pose[:, 22] = jaw
    body = load_body('')
    neck = body.joints(pose, betas, expression)[:, 12:13]
    expected = body.landmarks(pose, betas, expression)[:, 23:91] - neck
    variables = {'shape': betas, 'jaw': jaw, 'expression': expression}
    found = solver.points({name: torch.from_numpy(v).float() for name, v in variables.items()})
    assert found[:, 3:].numpy() == pytest.approx(expected, abs=1e-5)  # metres, single precision


def test_a_side_is_hidden_and_the_middle_remains(solver):
    left_hidden, right_hidden = solver.sides()
    assert bool((left_hidden | right_hidden).all())
    middle = left_hidden & right_hidden
    assert 10 < int(middle.sum()) < 20  # neck, head, jaw, nose, chin, lips
    assert abs(int(left_hidden.sum()) - int(right_hidden.sum())) <= 2


def test_little_noise_gives_little_error(solver):
    rng = np.random.default_rng(1)
    faces = np.concatenate([0.05 * rng.random((8, 3)), rng.normal(0, 0.5, (8, 10))], axis=1)
    method = Method(lambda protocol: (NoTerm(), NoTerm()))
    errors = [solver.errors_mm(faces.astype(np.float32), method, noise) for noise in (1, 5)]
    assert errors[0]['MPJPE'] < 1.0 < errors[1]['MPJPE'] < 5.0
