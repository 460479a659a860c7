"""GFPose and HuProSO3: their keypoints, the maps of the flow, and the sampler of the score."""

import math

import numpy as np
import pytest
import roma
import torch

from dposer_core.baselines import LIFTERS, lifting, load_baseline
from dposer_core.baselines.gfpose import GfPose, GfPoseConfig
from dposer_core.baselines.huproso3 import HuProSo3, HuProSo3Config, affine_map, moebius_map
from dposer_core.body_model import load_body
from dposer_core.tasks.body_points import KeypointBody
from training.data.heldout import load_excerpts
from training.lifting import rows_of

VOLUME = 8 * math.pi**2  # of the rotations, rad^3
MANY = 8_000


def seen_points(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and confidence; one point of each body is missing."""
    torch.manual_seed(1)
    confidence = torch.ones(count, 25)
    confidence[:, 4] = 0.0
    return 300.0 * torch.rand(count, 25, 2), confidence


def condition(pixels, confidence, focal: float = 1000.0) -> torch.Tensor:
    count = len(pixels)
    return lifting.condition(
        pixels, confidence, torch.full((count,), focal), torch.full((count, 2), 150.0)
    )


def test_condition_forgets_place_distance_and_camera() -> None:
    pixels, confidence = seen_points()
    found = condition(pixels, confidence)
    torch.testing.assert_close(condition(0.5 * pixels + 40.0, confidence, 700.0), found)
    rays = found[:, :50].reshape(-1, 25, 2)
    seen = rays[:, [i for i in range(25) if i != 4]]
    torch.testing.assert_close(seen.mean(dim=1), torch.zeros(3, 2), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(seen.square().sum(-1).mean(1), torch.ones(3))


def test_unseen_points_do_not_count() -> None:
    pixels, confidence = seen_points()
    found = condition(pixels, confidence)
    pixels[:, 4] = torch.nan
    torch.testing.assert_close(condition(pixels, confidence), found)
    assert (found[:, 8:10] == 0.0).all() and (found[:, 54] == 0.0).all()


def test_rows_come_back_as_they_were_packed() -> None:
    bodies = lifting.Bodies(torch.randn(2, 22, 3), torch.randn(2, 22, 3), torch.randn(2, 75))
    for found, given in zip(lifting.unpack(lifting.pack(bodies)), bodies, strict=True):
        assert torch.equal(found, given)


def turned(x, kind: str):
    """Rotations after a map, log |det|, and the rotations after its inverse."""
    torch.manual_seed(2)
    if kind == 'affine':
        matrix = torch.eye(4) + 0.24 * torch.tanh(torch.randn(4, 4))
        moved, change = affine_map(x, matrix.expand(len(x), 4, 4))
        return moved, change, affine_map(moved, torch.linalg.inv(matrix))[0]
    column, centre = int(kind[-1]), torch.tensor([0.8, -1.0, 2.0]).expand(len(x), 3)
    moved, change = moebius_map(x, centre, column)
    return moved, change, moebius_map(moved, -centre, column)[0]


@pytest.mark.parametrize('kind', ['affine', 'moebius 0', 'moebius 1', 'moebius 2'])
def test_maps_keep_rotations_and_their_volume(kind) -> None:
    torch.manual_seed(3)
    x = roma.random_rotmat(MANY)
    moved, change, back = turned(x, kind)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=0.0)
    torch.testing.assert_close(torch.linalg.det(moved), torch.ones(MANY))
    assert (moved - x).abs().mean() > 0.05
    # Over all rotations the factors of volume must come to one.
    assert change.exp().mean() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize('kind', ['affine', 'moebius 0', 'moebius 1', 'moebius 2'])
def test_volume_of_a_map_is_that_of_automatic_differentiation(kind) -> None:
    """At every rotation; the mean over all of them would hide errors that cancel."""
    torch.manual_seed(7)
    for x in roma.random_rotmat(5):
        here, change, _ = turned(x[None], kind)

        def moved(tangent, x=x, here=here[0]):
            """Turn seen from where the map takes `x`, rad, of a turn at `x`."""
            after, _, _ = turned((x @ torch.linalg.matrix_exp(crossing(tangent)))[None], kind)
            relative = here.T @ after[0]
            return ((relative - relative.T) / 2)[[2, 0, 1], [1, 2, 0]]

        jacobian = torch.autograd.functional.jacobian(moved, torch.zeros(3))
        expected = torch.linalg.det(jacobian).abs().log()
        torch.testing.assert_close(change[0], expected, atol=1e-4, rtol=0.0)  # float32


def crossing(v: torch.Tensor) -> torch.Tensor:
    """(3, 3) whose product with w is the cross product of (3,) v and w."""
    return torch.linalg.cross(v.expand(3, 3), torch.eye(3)).T


@pytest.fixture
def flow() -> HuProSo3:
    """Far from the identity."""
    torch.manual_seed(4)
    network = HuProSo3(HuProSo3Config(hidden=16, embed=4))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.18)
    return network.requires_grad_(False)


def test_density_of_a_joint_integrates_to_one(flow) -> None:
    torch.manual_seed(5)
    rotations = roma.random_rotmat(22).expand(MANY, 22, 3, 3).clone()
    rotations[:, 7] = roma.random_rotmat(MANY)  # an ankle, given its knee
    density = flow.log_density(rotations, torch.randn(75).expand(MANY, 75))[:, 7].exp()
    assert VOLUME * density.mean() == pytest.approx(1.0, abs=0.1)
    assert density.std() * VOLUME > 0.3  # and is not the uniform one


def test_samples_have_the_density_that_is_claimed(flow) -> None:
    """E_p[f] of samples equals E_uniform[f p] for a function of the root's rotation."""
    torch.manual_seed(6)
    seen = torch.randn(75).expand(MANY, 75)
    drawn = roma.rotvec_to_rotmat(flow.rotvecs(seen, seed=1)[:, 0])
    uniform = torch.eye(3).repeat(MANY, 22, 1, 1)
    uniform[:, 0] = roma.random_rotmat(MANY)
    weight = VOLUME * flow.log_density(uniform, seen)[:, 0].exp()
    expected = (weight[:, None, None] * uniform[:, 0]).mean(0)
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.05, rtol=0.0)


def test_seed_decides_the_hypothesis(flow) -> None:
    seen = torch.randn(2, 75)
    assert torch.equal(flow.rotvecs(seen, 1), flow.rotvecs(seen, 1))
    assert not torch.equal(flow.rotvecs(seen, 1), flow.rotvecs(seen, 2))


def test_score_is_sampled_with_its_own_spread() -> None:
    """A network that knows the noise of a normal distribution draws from it."""
    network, mean, std = GfPose(GfPoseConfig(hidden=8, embed=4)), 0.7, 0.5

    def noise(x, t, seen):
        alpha, sigma = (f(t)[:, None] for f in (network.sde.alpha, network.sde.sigma))
        return sigma * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)

    network.forward = noise
    joints = network.joints(torch.zeros(300, 75), seed=0) / network.config.unit_m
    assert (joints[:, 0] == 0.0).all()
    assert joints[:, 1:].mean() == pytest.approx(mean, abs=0.02)
    assert joints[:, 1:].std() == pytest.approx(std, abs=0.02)


def test_loss_without_a_generator_is_a_figure() -> None:
    torch.manual_seed(0)
    network, rows = GfPose(GfPoseConfig(hidden=8, embed=4)), torch.randn(50, 207)
    assert network.loss(rows) == network.loss(rows)
    other = network.loss(rows, torch.Generator().manual_seed(1))
    assert other != network.loss(rows)


@pytest.mark.parametrize('name', LIFTERS)
def test_shipped_lifter_knows_which_keypoints_are_whose(name) -> None:
    """Its loss of bodies grows when they get the keypoints of others."""
    network = load_baseline(name)
    poses = torch.from_numpy(load_excerpts()[0].pose_rotvec[:, 1:22].reshape(-1, 63)).float()
    body = KeypointBody(load_body())
    rows = rows_of(body, poses[:64], np.random.default_rng(0))
    bodies = lifting.unpack(rows)
    others = lifting.pack(bodies._replace(seen=bodies.seen.roll(32, dims=0)))
    with torch.no_grad():
        assert network.loss(rows) < network.loss(others)
