"""HuMoR and MVAE: states of motions, transitions, and the search for a motion among them."""

import numpy as np
import pytest
import torch

from dposer_core import rotations, skeleton
from dposer_core.baselines import MOTION_METHODS, load_baseline, new_network
from dposer_core.baselines.motion import FPS, KINDS, divergence, squared_errors
from dposer_core.body_model import Body, load_body
from dposer_core.errors import ModelFileError
from dposer_core.tasks.body_points import BodyPoints
from dposer_core.tasks.motion_rollout import RolloutProtocol, denoise_by_rollout
from dposer_core.tasks.optimise import Stages

SMALL = {'latent': 6, 'width': 16, 'components': 2, 'groups': 4}
CONFIGS = {
    'humor': SMALL,
    'mvae': SMALL
    | {
        'learned_prior': False, 'predicts_change': False, 'experts': 3, 'groups': 0,
        'activation': 'elu',
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def body() -> Body:
    try:
        return load_body('')
    except ModelFileError as error:
        pytest.skip(str(error))


def small(method: str, bones: np.ndarray | None = None):
    network = new_network(method, CONFIGS[method]).eval().requires_grad_(False)
    offsets = np.random.default_rng(0).normal(scale=0.2, size=(22, 3)) if bones is None else bones
    network.bones.copy_(torch.from_numpy(offsets.flatten()))
    return network


def motion(frames: int = 12, count: int = 2) -> torch.Tensor:
    """(count, frames, 63): every joint turns steadily."""
    speed = 0.5 * torch.randn(count, 1, 63)
    return speed * torch.arange(frames)[:, None] / FPS


def test_state_says_where_joints_are_and_where_they_go(body):
    joints = body.tables.joint_template
    offsets = joints - joints[skeleton.PARENTS]
    network, moving = small('humor', offsets[:22]), motion()
    states = network.states(moving)
    placed = BodyPoints(body).joints(moving.flatten(0, 1)).reshape(2, 12, 22, 3)
    placed = (placed - placed[:, :, :1])[:, :, 1:].flatten(-2)
    assert states.shape == (2, 11, 252)
    torch.testing.assert_close(states[..., KINDS['joints']], placed[:, 1:])
    torch.testing.assert_close(
        states[..., KINDS['velocities']], FPS * placed.diff(dim=1), atol=1e-4, rtol=1e-4
    )
    turns = rotations.rotvec_to_rotmat(moving[:, 1:].reshape(2, 11, 21, 3))
    torch.testing.assert_close(network.rotmat(states), turns)


@pytest.mark.parametrize('method', CONFIGS)
def test_decoded_states_hold_rotations(method):
    network = small(method)
    before = network.states(motion())[:, 0]
    after = network.decode(before, 3 * torch.randn(2, 6))
    rotmat = network.rotmat(after)
    torch.testing.assert_close(
        rotations.rotmat_to_rot6d(rotmat).flatten(-2), after[:, KINDS['rotations']]
    )
    torch.testing.assert_close(rotmat @ rotmat.mT, torch.eye(3).expand_as(rotmat))


def test_humor_stays_where_it_is_without_a_change_and_mvae_does_not():
    for method in CONFIGS:
        network = small(method)
        last = network.decoder.last
        last.weight.zero_()
        last.bias.zero_()
        before = network.states(motion())[:, 0]
        after = network.decode(before, torch.randn(2, 6))
        stays = torch.allclose(after, before, atol=1e-5)
        assert stays == (method == 'humor')


def test_prior_of_humor_depends_on_the_state_and_that_of_mvae_is_standard_normal():
    states = small('humor').states(motion())[:, 0]
    mean, std = small('mvae').expect(states)
    assert torch.equal(mean, torch.zeros(2, 6)) and torch.equal(std, torch.ones(2, 6))
    mean, std = small('humor').expect(states)
    assert not torch.allclose(mean[0], mean[1]) and (std > 0).all()


@pytest.mark.parametrize('method', CONFIGS)
def test_codes_of_a_motion_roll_out_to_what_was_retold(method):
    network, moving = small(method), motion()
    states = network.states(moving)
    followed = network.follow(states)
    rolled = network.rollout(states[:, 0], followed.latents)
    torch.testing.assert_close(rolled[:, 1:], followed.states)
    assert torch.equal(rolled[:, 0], states[:, 0])


def test_given_steps_begin_at_the_truth():
    network = small('humor')
    states = network.states(motion())
    given = torch.ones(2, 10, dtype=torch.bool)
    followed = network.follow(states, given=given)
    each = network.decode(states[:, 4], followed.latents[:, 4])
    torch.testing.assert_close(followed.states[:, 4], each)
    free = network.follow(states)
    assert not torch.allclose(free.states[:, 4], followed.states[:, 4])
    assert torch.equal(free.states[:, 0], followed.states[:, 0])  # the first is always given


def test_experts_are_mixed_by_their_shares():
    network = small('mvae')
    x, extra = torch.randn(2, 252), torch.randn(2, 6)
    shares = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.25, 0.75]])
    first = network.decoder._mixed(network.decoder.hidden[0], x, extra, shares)
    each = network.decoder.hidden[0](torch.cat([x, extra], dim=1)).reshape(2, 3, 16)
    torch.testing.assert_close(first[0], each[0, 0])
    torch.testing.assert_close(first[1], 0.25 * each[1, 1] + 0.75 * each[1, 2])


def test_divergence_is_that_of_torch():
    mean, expected = torch.randn(2, 5, 3).unbind()
    std, spread = (torch.rand(2, 5, 3) + 0.1).unbind()
    normal = torch.distributions.Normal
    exact = torch.distributions.kl_divergence(normal(mean, std), normal(expected, spread)).sum(1)
    torch.testing.assert_close(divergence(mean, std, expected, spread), exact)


def test_start_cost_is_least_at_the_mean_of_the_mixture():
    network = small('humor')
    network.start_mean.copy_(torch.randn(126))
    pose, velocity = network.start_mean[None].split(63, dim=1)
    assert network.start_cost(pose, velocity) < network.start_cost(pose + 0.1, velocity)
    assert network.start_cost(pose, velocity) < network.start_cost(pose, velocity + 0.1)


def test_errors_are_told_apart_by_kind():
    state = torch.zeros(1, 252)
    off = state.clone()
    off[:, 130] = 2.0
    errors = squared_errors(off, state)
    assert {kind: float(error) for kind, error in errors.items()} == {
        'rotations': 0.0, 'joints': 4.0, 'velocities': 0.0
    }  # fmt: skip


@pytest.mark.parametrize('method', CONFIGS)
def test_search_lowers_the_error_to_what_was_observed(method, body):
    joints = body.tables.joint_template
    network = small(method, (joints - joints[skeleton.PARENTS])[:22])
    points, truth = BodyPoints(body), motion(frames=6, count=1)
    observed = points.joints(truth[0])[None]
    start = truth + 0.2 * torch.randn(truth.shape)

    def error(steps: int) -> float:
        protocol = RolloutProtocol(horizons=2, stages=Stages(1, steps))
        found = denoise_by_rollout(observed, start, points.part, network, 0.01, protocol)
        assert found.shape == truth.shape
        return float((points.joints(found[0]) - observed[0]).norm(dim=-1).mean())

    assert error(40) < 0.7 * error(0)  # six numbers of an untrained network reach no further


@pytest.mark.parametrize('method', MOTION_METHODS)
def test_shipped_prior_prefers_a_steady_motion_to_a_shaken_one(method):
    prior = load_baseline(method, 'body')
    steady = motion(frames=8)
    shaken = steady + 0.3 * torch.randn(steady.shape)
    assert prior.loss(steady) < 0.1 * prior.loss(shaken)
