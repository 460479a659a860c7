"""The tasks' loops against runs of the official code, on its recorded noise."""

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer_core.prior import network
from dposer_core.prior.checkpoint import load_official_weights
from dposer_core.prior.normalizer import Normalizer, load_official_normalizer, wholebody_normalizer
from dposer_core.prior.prior import DiffusionPrior
from dposer_core.prior.schedule import fixed_times
from dposer_core.tasks import completion, inverse_kinematics, mesh_recovery, motion, solvers
from dposer_core.tasks.completion import CompletionProtocol, complete
from dposer_core.tasks.optimise import Stages
from dposer_core.tasks.prior_term import DiffusionTerm, NoTerm

PARITY = Path(os.environ.get('DPOSER_PARITY', Path(__file__).parents[3] / 'shared' / 'parity'))
AFTER_LOOP = 1e-3  # of a row, as the golden files' notes allow after a loop
HAND_STAGES = 3

pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason=f'golden files not at {PARITY}')


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(PARITY / f'{name}.npz') as file:
        return dict(file)


def tensor(values) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def check(record_property, name: str, found, expected, tolerance: float = AFTER_LOOP) -> None:
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    assert found.shape == expected.shape
    size = np.linalg.norm(expected, axis=-1)
    error = float((np.linalg.norm(found - expected, axis=-1) / size).max())
    record_property(name, error)
    assert error <= tolerance, f'{name}: {error:.2e}'


@functools.cache
def reduced(name: str) -> torch.nn.Module:
    stem = f'wholebody_{name}' if name in ('fused', 'mixed') else name
    return network.from_weights(
        load_official_weights(PARITY / 'ckpt' / f'{stem}_reduced.ckpt')
    ).eval()


@functools.cache
def official_normalizer(part: str) -> Normalizer:
    def load(path: str) -> Normalizer:
        return load_official_normalizer(PARITY / 'normalizers' / f'{path}_normalizer')

    if part == 'face':
        return Normalizer.concatenate([load('face_data/jaw'), load('face_data/expression')])
    paths = {'body': 'body_data/body', 'hand': 'hand_data/hand', 'face_shape': 'face_data/betas'}
    return load(paths[part])


def replay(data: dict, prefix: str = '', skip: int = 0):
    """The recorded normal draws in their order; a wrong shape or number is an error."""
    draws = [data[k] for k in sorted(data) if k.startswith(f'{prefix}noise_0')][skip:]
    queue = iter(draws)

    def draw(shape):
        value = next(queue)
        while value.shape == (1,) != tuple(shape):  # a recorded time
            value = next(queue)
        assert value.shape == tuple(shape)
        return tensor(value)

    return draw, draws


@pytest.mark.parametrize('run', ['ts1', 'ts2', 'ts3', 'wb_lhand', 'wb_rhand', 'wb_face'])
def test_completion(run, record_property):
    data = golden('completion_optimize')
    source = f'{run}/' if run.startswith('wb') else ''
    observation, mask = tensor(data[f'{source}observation']), tensor(data[f'{source}mask'])
    draw, draws = replay(data, f'{run}/', skip=1)  # the official code draws one that it drops
    steps = sum(d.shape != (1,) for d in draws)
    times = {
        'ts1': [1e-3 + (1 - 1e-3) * float(d[0]) for d in draws if d.shape == (1,)],
        'ts2': fixed_times(0.1, steps),
    }.get(run)
    protocol = CompletionProtocol(stages=Stages(2, steps // 2, betas=(0.9, 0.99)))
    prior = DiffusionPrior(reduced('mixed' if run.startswith('wb') else 'body'))
    found = complete(prior, observation, mask, draw, protocol, times)
    check(record_property, f'completion_optimize:{run}', found, data[f'{run}/x'], AFTER_LOOP)


@pytest.mark.parametrize(
    ('run', 'solver'),
    [('scoresde', 'scoresde'), ('dps', 'dps'), ('mcg', 'mcg'), ('abp_dsg', 'dsg')],
)
def test_solvers(run, solver, record_property):
    data = golden('samplers')
    draw, _ = replay(data, f'{run}/')
    found = solvers.solve_completion(
        solver, DiffusionPrior(reduced('body')), tensor(data['observation']),
        tensor(data['mask']), draw, steps=12,
    )  # fmt: skip
    check(record_property, f'samplers:{run}', found, data[f'{run}/x'], AFTER_LOOP)


def linear(data: dict, pose: torch.Tensor, kind: str = '', name: str = 'body_pose'):
    base = tensor(data[f'bm/base{kind and "_v"}'])
    return base + (pose @ tensor(data[f'bm/W{kind}_{name}'])).reshape(len(pose), -1, 3)


def diffusion(net: str, protocol, steps: int, draw) -> DiffusionTerm:
    times = protocol.schedule.times(steps)
    normalizer = official_normalizer(net)
    return DiffusionTerm(DiffusionPrior(reduced(net)), normalizer, protocol.denoising, times, draw)


@pytest.mark.parametrize('run', ['partial', 'noisy10mm'])
def test_hand_ik(run, record_property):
    data = golden('loop_hand_ik')
    draw, draws = replay(data, f'{run}/')
    shown = tensor(data['mask'])[..., 0]
    protocol, visible = (
        (inverse_kinematics.HAND_HIDDEN, shown)
        if run == 'partial'
        else (inverse_kinematics.hand_noisy(10), torch.ones_like(shown))
    )
    protocol = shortened(protocol, HAND_STAGES, len(draws))
    term = diffusion('hand', protocol, len(draws), draw)
    found = inverse_kinematics.solve_ik(
        tensor(data['joints']), visible, {'pose': tensor(data['init'])},
        lambda v: linear(data, v['pose'], name='hand_pose'),
        inverse_kinematics.pose_term(term), protocol,
    )['pose']  # fmt: skip
    check(record_property, f'loop_hand_ik:{run}', found, data[f'{run}/x'], AFTER_LOOP)


def shortened(protocol, stages: int, steps: int):
    """`protocol` in `stages` stages of together `steps` steps."""
    short = dataclasses.replace(protocol.stages, stages=stages, steps=steps // stages)
    return dataclasses.replace(protocol, stages=short)


@pytest.mark.parametrize('run', ['partial', 'noisy'])
def test_face_ik(run, record_property):
    data = golden('loop_face_ik')
    draw, draws = replay(data, f'{run}/')
    shown = tensor(data['mask'])[..., 0]
    ik = inverse_kinematics
    protocol, visible = (
        (ik.FACE_HALF, shown) if run == 'partial' else (ik.face_noisy(2), torch.ones_like(shown))
    )
    steps = len(draws) // 2  # each net draws once per step
    protocol = shortened(protocol, 3, steps)

    def forward(v):
        return (
            linear(data, v['shape'], name='betas')
            + (linear(data, v['expression'], name='expression') - tensor(data['bm/base']))
            + (linear(data, v['jaw'], name='jaw_pose') - tensor(data['bm/base']))
        )

    start = {'shape': torch.zeros(4, 100), 'expression': torch.zeros(4, 100)}
    found = ik.solve_ik(
        tensor(data['joints']), visible, start | {'jaw': torch.zeros(4, 3)}, forward,
        ik.face_term(
            diffusion('face_shape', protocol, steps, draw),
            diffusion('face', protocol, steps, draw),
        ),
        protocol,
    )  # fmt: skip
    found = torch.cat([found[name] for name in FACE_ORDER], dim=-1)
    check(record_property, f'loop_face_ik:{run}', found, data[f'{run}/x'])


FACE_ORDER = ('jaw', 'expression', 'shape')


@pytest.mark.parametrize('run', ['noisy', 'partial'])
def test_motion(run, record_property):
    data = golden(f'loop_motion_{run}')
    draw, draws = replay(data)
    protocol = motion.NOISY_CODE[40] if run == 'noisy' else motion.PARTIAL['legs']
    protocol = shortened(protocol, 3, len(draws))
    found = motion.denoise_motion(
        tensor(data['joints']), tensor(data['init']),
        lambda pose: (linear(data, pose)[:, :22], linear(data, pose, 'v')),
        diffusion('body', protocol, len(draws), draw), protocol,
        tensor(data['mask'])[0, :, 0] if run == 'partial' else None,
    )  # fmt: skip
    expected = data['pose_out_before_smoothing']
    check(record_property, f'loop_motion_{run}', found, expected)


@pytest.mark.parametrize(
    ('key', 'smooth'),
    [
        ('gauss_w5_s3', lambda x: motion.smooth_gaussian(x, 5, 3.0)),
        ('gauss_w3_s2', lambda x: motion.smooth_gaussian(x, 3, 2.0)),
        ('moving_w3', lambda x: motion.smooth_moving(x, 3)),
    ],
)
def test_smoothing(key, smooth, record_property):
    data = golden('smoothing')
    check(record_property, f'smoothing:{key}', smooth(tensor(data['x'])), data[key], 1e-5)


@pytest.mark.parametrize('part', ['left_leg', 'legs', 'arms', 'torso', 'left_arm', 'hands'])
def test_body_masks_and_observations(part, record_property):
    data, name = golden('masks'), {'torso': 'trunk'}.get(part, part)
    mask = completion.body_mask(part)
    assert np.array_equal(mask.expand(2, -1), data[f'mask_body_{name}'])
    draw, _ = replay(data, f'obs_body_{name}/')
    found = completion.hide(tensor(data['x63']), mask, draw)
    check(record_property, f'masks:{part}', found, data[f'obs_body_{name}'], 1e-6)


@pytest.mark.parametrize('part', ['lhand', 'rhand', 'face'])
@pytest.mark.parametrize('with_wrist', [True, False])
def test_wholebody_masks(part, with_wrist):
    mask = completion.wholebody_mask(part, 100, with_wrist)
    expected = golden('masks')[f'mask_wb_{part}_root{int(with_wrist)}']
    assert np.array_equal(mask.expand(2, -1), expected)


@pytest.mark.parametrize('part', ['legs', 'left_arm', 'right_body'])
def test_hidden_joints_of_motion(part):
    hidden = np.flatnonzero(~golden('masks')[f'jmask_{part}'][0, :, 0])
    assert tuple(hidden) == motion.HIDDEN_JOINTS[part]


@pytest.mark.parametrize(
    ('mode', 'key'),
    [('fingertip', 'only_end_visible'), ('sparse', 'sparse'), ('partial', 'partial')],
)
def test_hidden_hand_points(mode, key):
    hidden = np.flatnonzero(~golden('masks')[f'hmask_{key}_pyseed0'][0, :, 0])
    assert list(hidden) == inverse_kinematics.hidden_hand_points(mode, seed=0)


def flat_points(data: dict, **inputs: torch.Tensor) -> torch.Tensor:
    """(B, P, 3) of the golden runs' linear body."""
    moved = sum(value @ tensor(data[f'bm/W_{name}']) for name, value in inputs.items())
    return tensor(data['bm/base']) + moved.unflatten(-1, (-1, 3))


def detected(data: dict, key: str = 'kp2d') -> mesh_recovery.Keypoints:
    keypoints = tensor(data[key])
    focal = torch.as_tensor(data['focal'], dtype=torch.float32).expand(len(keypoints))
    return mesh_recovery.Keypoints(
        keypoints[..., :2], keypoints[..., 2], focal, tensor(data['camera_center'])
    )


def split_start(data: dict, pose: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        'camera': tensor(data['init_cam']),
        'global_orient': pose[:, :3],
        'pose': pose[:, 3:],
        'betas': tensor(data['init_betas']),
    }


@pytest.mark.parametrize('run', ['', 'noprior/', 'sideview_noprior/'])
def test_body_mesh_recovery(run, record_property):
    data = golden('loop_smplify_body')
    steps = int(data['num_iters'])
    protocol = mesh_recovery.BODY.shortened(steps, [steps])
    protocol = dataclasses.replace(protocol, ignored=tuple(data['ign_joints']))
    draw, _ = replay(data)
    term = NoTerm() if run else diffusion('body', protocol, protocol.total, draw)
    seen = detected(data, f'{run}kp2d' if run.startswith('side') else 'kp2d')
    found = mesh_recovery.recover_body(
        seen, split_start(data, tensor(data['init_pose'])),
        lambda v: flat_points(
            data, body_pose=v['pose'], betas=v['betas'], global_orient=v['global_orient']
        ),
        inverse_kinematics.pose_term(term), protocol, is_official=True,
    )  # fmt: skip
    pose = torch.cat([found.variables['global_orient'], found.variables['pose']], dim=-1)
    name = f'loop_smplify_body:{run}'
    check(record_property, f'{name}pose', pose, data[f'{run}pose'])
    check(record_property, f'{name}betas', found.variables['betas'], data[f'{run}betas'])
    if not run.startswith('side'):  # the file has no camera of that run
        check(record_property, f'{name}cam', found.variables['camera'], data[f'{run}cam'])
    check(
        record_property, f'{name}error', found.reprojection[:, None], data[f'{run}reproj'][:, None]
    )


def test_hand_mesh_recovery(record_property):
    data = golden('loop_smplify_hand')
    steps = int(data['num_iters'])
    protocol = mesh_recovery.HAND.shortened(steps)
    draw, _ = replay(data)
    term = diffusion('hand', protocol, protocol.total, draw)
    found = mesh_recovery.recover(
        detected(data), split_start(data, tensor(data['init_pose'])),
        lambda v: flat_points(
            data, hand_pose=v['pose'], betas=v['betas'], global_orient=v['global_orient']
        ),
        inverse_kinematics.pose_term(term), protocol,
    )  # fmt: skip
    pose = torch.cat([found.variables['global_orient'], found.variables['pose']], dim=-1)
    check(record_property, 'loop_smplify_hand:cam', found.variables['camera'], data['cam'])
    check(record_property, 'loop_smplify_hand:pose', pose, data['pose'])
    check(record_property, 'loop_smplify_hand:betas', found.variables['betas'], data['betas'])
    check(
        record_property,
        'loop_smplify_hand:error',
        found.reprojection[:, None],
        data['reproj'][:, None],
    )


def test_wholebody_mesh_recovery(record_property):
    data = golden('loop_smplify_wholebody')
    steps = int(data['num_iters'])
    protocol = mesh_recovery.WHOLE_BODY.shortened(steps)
    protocol = dataclasses.replace(protocol, ignored=tuple(data['ign_joints']))
    draw, _ = replay(data)
    body, hand, face = (official_normalizer(part) for part in ('body', 'hand', 'face'))
    normalizer = wholebody_normalizer(body, hand, [face])
    term = DiffusionTerm(
        DiffusionPrior(reduced('mixed')), normalizer, protocol.denoising,
        protocol.schedule.times(protocol.total), draw,
    )  # fmt: skip
    full = tensor(data['init_full_pose'])
    pose = torch.cat([full[:, :66], full[:, 75:], full[:, 66:69]], dim=-1)
    found = mesh_recovery.recover(
        detected(data),
        split_start(data, pose) | {'expression': tensor(data['init_expression'])},
        lambda v: flat_points(
            data, wholebody_params=torch.cat([v['pose'], v['expression']], dim=-1),
            betas=v['betas'], global_orient=v['global_orient'],
        ),
        mesh_recovery.wholebody_term(term), protocol,
    )  # fmt: skip
    v, name = found.variables, 'loop_smplify_wholebody'
    check(record_property, f'{name}:cam', v['camera'], data['cam'])
    check(record_property, f'{name}:global_orient', v['global_orient'], data['global_orient'])
    parameters = torch.cat([v['pose'], v['expression']], dim=-1)
    check(record_property, f'{name}:pose', parameters, data['wholebody_params'])
    check(record_property, f'{name}:betas', v['betas'], data['betas'])
    check(record_property, f'{name}:error', found.reprojection[:, None], data['reproj'][:, None])
