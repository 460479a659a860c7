"""The mixture that teaches a network equals textbook posteriors."""

import numpy as np
import torch

from dposer_core.prior.sde import SubVP
from training.augment import AugmentConfig, Augmenter
from training.evaluate import denoise_gaussian
from training.mixture import Mixture, TaughtDraws, TeacherConfig

_PLAIN = AugmentConfig()


def _data(poses: np.ndarray, config: AugmentConfig = _PLAIN) -> Augmenter:
    values = torch.from_numpy(poses.astype(np.float32))
    return Augmenter(values, torch.ones(len(values)), 'hand', config)


def _normal(count: int = 2000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 0.0], [0, 0, 2.0]])


def test_one_cluster_is_the_gaussian_posterior() -> None:
    data = _data(_normal())
    x = data.normalized().double().numpy()
    x_t = np.random.default_rng(1).normal(size=(5, 3))
    expected = denoise_gaussian(x.mean(0), np.cov(x, rowvar=False), x_t, 0.2)
    found = Mixture(data, TeacherConfig(clusters=1)).posterior_mean(
        torch.from_numpy(x_t).float(), 0.2
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32


def test_two_far_clusters_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    poses = rng.normal(scale=0.01, size=(200, 3)) + np.repeat([[-1.0], [1.0]], 100, axis=0)
    data = _data(poses)
    near = torch.tensor([[0.7, 0.9, 1.1]])  # noised from the upper cluster at (1, 1, 1)
    mixture = Mixture(data, TeacherConfig(clusters=2, borrowed=0.0))
    found = mixture.posterior_mean(near * SubVP().alpha(0.2), 0.2)
    np.testing.assert_allclose(found, np.ones((1, 3)), atol=0.05)


def test_unusual_sample_is_left_alone_where_widening_knows_such() -> None:
    config = AugmentConfig(noise_share=0.5, noise_sigma=2.0, noise_sigma_low=0.5)
    rng = np.random.default_rng(3)
    poses = np.tile(rng.normal(size=(400, 1)), (1, 8)) + rng.normal(scale=0.05, size=(400, 8))
    odd = torch.tensor([[1.5, -1.5] * 4])  # the values always go together, here they do not
    plain, wide = (
        Mixture(_data(poses, c), TeacherConfig(clusters=4)).posterior_mean(
            odd * SubVP().alpha(0.15), 0.15
        )
        for c in (_PLAIN, config)
    )
    assert (wide - odd).norm() < 0.5 * (plain - odd).norm()


def test_taught_draw_leads_to_the_noised_sample_it_stands_for() -> None:
    data = _data(_normal())
    draws = TaughtDraws(data, TeacherConfig(clusters=3, pool=64), 0.4, 0.5, seed=4)
    draw = draws.draw(32, torch.Generator().manual_seed(5))  # of a pool with one time
    x_t = SubVP().add_noise(draw.x_0, draw.t, draw.noise)
    mixture = Mixture(data, TeacherConfig(clusters=3, pool=64), seed=4)
    found = mixture.posterior_mean(x_t, float(draw.t[0]))
    np.testing.assert_allclose(found, draw.x_0, atol=1e-4)
