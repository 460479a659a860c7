"""Golden files of the official code: every formula of the prior reproduces their numbers.

The files are not part of the repository: `DPOSER_PARITY` or ../shared/parity. Without them these
tests skip. Tolerances: 1e-5 relative per call (float32 sums in another order), row by row, because
outputs at t = 1 are 5000 times those at t = 0; 1e-3 after optimisation loops.
"""

import functools
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer_core import generation_metrics, rotations
from dposer_core.errors import CheckpointError, ConfigError
from dposer_core.prior import backends, checkpoint, network, normalizer, sampling, schedule, sde
from dposer_core.prior.architecture import TimeFCConfig, label_of, sigma_table
from dposer_core.prior.prior import WEIGHTINGS, DiffusionPrior

PARITY = Path(os.environ.get('DPOSER_PARITY', Path(__file__).parents[3] / 'shared' / 'parity'))
PER_CALL = 1e-5
AFTER_LOOP = 1e-3
# The reduced correction networks normalise groups of two channels, which is a sign function: the
# same formula in float64 leaves the golden rows by up to 3e-3. At full size 1e-5 holds.
TWO_CHANNEL_GROUPS = 1e-3

pytestmark = pytest.mark.skipif(
    not PARITY.is_dir(),
    reason=f'golden files not found at {PARITY}; set DPOSER_PARITY to their folder',
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(PARITY / f'{name}.npz', allow_pickle=False) as file:
        return dict(file)


def tensor(values) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def row_error(found, expected) -> float:
    """Largest error of a row relative to the size of that row."""
    found = np.asarray(found, dtype=np.float64)
    expected = np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    found, expected = (a.reshape(-1, a.shape[-1] if a.ndim > 1 else 1) for a in (found, expected))
    scale = np.maximum(np.linalg.norm(expected, axis=-1), 1e-6)
    return float((np.linalg.norm(found - expected, axis=-1) / scale).max())


def check(record_property, name: str, found, expected, tolerance: float = PER_CALL) -> None:
    error = row_error(found, expected)
    record_property(name, error)
    assert error <= tolerance, f'{name}: {error:.2e} > {tolerance:.0e}'


@functools.cache
def reduced(name: str, ema: bool = True) -> torch.nn.Module:
    """A reduced network from its official checkpoint."""

    def weights(stem: str) -> dict[str, np.ndarray]:
        file = 'body_v1_reduced.pth' if stem == 'body_v1' else f'{stem}_reduced.ckpt'
        return checkpoint.load_official_weights(PARITY / 'ckpt' / file, ema=ema)

    if name == 'base':  # official code always assembles it from EMA weights
        parts = (reduced(part, True) for part in ('body', 'hand', 'face'))
        return network.Combiner(*parts).eval()
    if name == 'fullface':
        return network.FullFace(reduced('face', ema), reduced('face_shape', ema)).eval()
    return network.from_weights(
        weights(f'wholebody_{name}' if name in ('fused', 'mixed') else name)
    )


@pytest.mark.parametrize('ema', [True, False])
@pytest.mark.parametrize(
    'name', ['body', 'hand', 'face', 'face_shape', 'base', 'fused', 'mixed', 'body_v1']
)
def test_official_checkpoint_reproduces_outputs(name, ema, record_property):
    data, kind = golden(f'models/{name}'), 'ema' if ema else 'raw'
    net = reduced(name, ema)
    limit = TWO_CHANNEL_GROUPS if name in ('fused', 'mixed') else PER_CALL
    with torch.no_grad():
        out = net(tensor(data['x']), label_of(tensor(data['t'])))
        check(record_property, f'models/{name}', out, data[f'out_{kind}'], limit)
        if 'mask' in data:
            out = net(tensor(data['x']), label_of(tensor(data['t'])), tensor(data['mask']))
            check(record_property, f'models/{name}:mask', out, data[f'out_masked_{kind}'], limit)
        if f'score_{kind}' in data:
            t = tensor(data['t_score'])
            score = sde.SubVP().score(net(tensor(data['x']), label_of(t)), t)
            check(record_property, f'models/{name}:score', score, data[f'score_{kind}'], limit)


def test_full_face_reproduces_outputs(record_property):
    data = golden('models/fullface')
    with torch.no_grad():
        out = reduced('fullface')(tensor(data['x']), label_of(tensor(data['t'])))
    check(record_property, 'models/fullface', out, data['out'])


@pytest.mark.parametrize('name', ['body_rot6d', 'body_fourier'])
def test_variant_reproduces_outputs(name, record_property):
    data = golden(f'models/{name}')
    weights = {key[3:]: value for key, value in data.items() if key.startswith('sd/')}
    with torch.no_grad():
        out = network.from_weights(weights)(tensor(data['x']), label_of(tensor(data['t'])))
    check(record_property, f'models/{name}', out, data['out'])


# --- full-size networks ---


def recipe_weights(name: str) -> dict[str, np.ndarray]:
    """The golden files' recipe: every tensor from the CRC32 of its key."""
    listing = json.loads((PARITY / 'state_dict_shapes.json').read_text())[name]['state_dict']
    weights = {}
    for key, shape in listing.items():
        if key.endswith('sigmas'):
            continue
        source = key.replace('output_linear.', 'zero_linear.')
        values = np.random.RandomState(zlib.crc32(source.encode())).standard_normal(shape)
        if len(shape) == 2:
            values /= np.sqrt(shape[1])
        else:
            values *= 0.1
            values += 1.0 if 'gnorm' in key and key.endswith('weight') else 0.0
        weights[key] = values.astype(np.float32)
    return weights


@pytest.mark.parametrize('name', ['body', 'body_rot6d', 'fullface', 'wholebody_mixed'])
def test_full_size_network_reproduces_outputs(name, record_property):
    """The other full-size files repeat these networks (hand, face: inside the whole body)."""
    data = golden(f'full_size/{name}')
    net = network.from_weights(recipe_weights(name))
    with torch.no_grad():
        out = net(tensor(data['x']), label_of(tensor(data['t'])))
        check(record_property, f'full_size/{name}', out, data['out'])
        if 'mask' in data:
            out = net(tensor(data['x']), label_of(tensor(data['t'])), tensor(data['mask']))
            check(record_property, f'full_size/{name}:mask', out, data['out_masked'])


def test_state_dicts_and_ema_order_are_the_official_ones():
    listing = json.loads((PARITY / 'state_dict_shapes.json').read_text())
    sizes = {'body': 63, 'hand': 45, 'face': 103}
    with torch.device('meta'):
        parts = {name: network.TimeFC(TimeFCConfig(dim)) for name, dim in sizes.items()}
        base = network.Combiner(*parts.values())
        nets = parts | {'wholebody_base': base}
        nets['wholebody_mixed'] = network.WholeBody(base, network.correction_config(base))
    for name in (*sizes, 'wholebody_base', 'wholebody_mixed'):
        net, expected = nets[name], listing[name]
        assert {k: list(v.shape) for k, v in net.state_dict().items()} == expected['state_dict']
        assert list(net.state_dict()) == list(expected['state_dict'])
        if name != 'wholebody_base':  # its parameters were frozen by the line above
            trainable = [k for k, v in net.named_parameters() if v.requires_grad]
            if name == 'wholebody_mixed':
                assert trainable == expected['param_order_trainable']
        assert sum(v.numel() for v in net.parameters()) == expected['n_params']


# --- SDE, schedules ---


@pytest.mark.parametrize('name', ['subvp', 'vp', 've'])
def test_sde_reproduces_official_functions(name, record_property):
    data = golden('sde')
    process = {'subvp': sde.SubVP, 'vp': sde.VP, 've': sde.VE}[name]()
    t, x = tensor(data['t']), tensor(data['x'])
    f, g = process.discretise(x, t)
    found = {
        'mean': process.add_noise(x, t, torch.zeros_like(x)), 'std': process.sigma(t),
        'drift': process.drift(x, t), 'diffusion': process.diffusion(t),
        'prior_logp': process.prior_logp(x), 'disc_G': g,
    }  # fmt: skip
    for key, value in found.items():
        # The step of VE is a root of a difference of squares: it loses three digits.
        tolerance = 1e-4 if (name, key) == ('ve', 'disc_G') else PER_CALL
        check(record_property, f'sde:{name}_{key}', value, data[f'{name}_{key}'], tolerance)
    # f of VP is a small difference of x; it is as exact as x is.
    check(record_property, f'sde:{name}_disc_f', x + f, x + tensor(data[f'{name}_disc_f']))
    if name != 've':
        check(
            record_property, f'sde:{name}_alpha', process.alpha(t)[:, None], data[f'{name}_alpha']
        )


def test_reverse_process_reproduces_official_functions(record_property):
    data, process = golden('sde'), sde.SubVP()
    t, x, score = (tensor(data[key]) for key in ('t', 'x', 'score'))
    for flow in (False, True):
        drift = process.reverse_drift(x, t, score, probability_flow=flow)
        check(record_property, f'sde:rev_drift_{flow}', drift, data[f'rev_drift_pf{int(flow)}'])
    f, g = process.reverse_discretise(x, t, score)
    check(record_property, 'sde:rev_disc_f', f, data['rev_disc_f_pf0'])
    check(record_property, 'sde:rev_disc_G', g, data['rev_disc_G_pf0'])


def test_weights_and_tables_reproduce_official_values(record_property):
    data, process = golden('sde'), sde.SubVP()
    seen = data['t'] > 0  # SNR is infinite at 0
    snr = process.snr(tensor(data['t']))[seen]
    for weighting, key in (
        ('sqrt_snr', 'w_comp_sqrt1pSNR'),
        ('sqrt_snr_squared', 'w_hmr_sqrt1pSNR2'),
    ):
        check(record_property, f'sde:{key}', WEIGHTINGS[weighting](snr)[:, None], data[key][seen])
    np.testing.assert_array_equal(label_of(data['t']), data['labels'])
    check(record_property, 'sde:sigmas', sigma_table(), data['sigmas'])
    divisor = sigma_table()[label_of(data['t']).astype(int)]
    check(record_property, 'sde:divisor', divisor, data['output_divisor_sigmas_at_label'])
    for embed in (32, 256, 512):
        config = TimeFCConfig(4, hidden=32, embed=embed)
        found = np.stack([backends.time_features(config, {}, float(t)) for t in data['t']])
        # An angle of 999 rad in float32 is known to 6e-5 only; libraries round it differently.
        check(record_property, f'sde:temb_{embed}', found, data[f'temb_{embed}'], 1e-4)


def test_truncated_schedules_reproduce_official_times(record_property):
    data = golden('t_schedules')
    for name in (key for key in data if not key.endswith('_args')):
        t_max, t_min, steps = data[f'{name}_args']
        found = schedule.truncated_times(t_max, t_min, int(steps))
        check(record_property, f't_schedules:{name}', found, data[name])


# --- L_DPoser, normalisers, completion, samplers ---


def test_denoising_reproduces_official_values(record_property):
    data, prior = golden('dposer_losses'), DiffusionPrior(reduced('body'))
    x_t, t = tensor(data['xt']), tensor(data['t'])
    with torch.no_grad():
        check(record_property, 'dposer_losses:x0hat', prior.denoise(x_t, t), data['x0hat'])
        for t_end, key in ((1e-3, 'multi_t_end1e-3_N10'), (t / 20, 'multi_t_end_t20_N10')):
            found = prior.denoise_steps(x_t, t, t_end, 10)
            check(record_property, f'dposer_losses:{key}', found, data[key])


HMR = {'weighting': 'sqrt_snr_squared', 'reduction': 'sum_per_row'}


@pytest.mark.parametrize(
    ('name', 'vector', 'net', 't', 'options'),
    [
        ('comp_w1_multi0', 'x', 'body', 0.11, {'weighting': 'sqrt_snr'}),
        ('comp_w0_multi0', 'x', 'body', 0.11, {'weighting': 'constant'}),
        ('comp_w1_multi1', 'x', 'body', 0.11, {'weighting': 'sqrt_snr', 'steps': 10}),
        ('comp_w0_multi1', 'x', 'body', 0.11, {'weighting': 'constant', 'steps': 10}),
        ('ik_w1', 'x', 'body', 0.11, {'weighting': 'sqrt_snr'}),
        ('ik_w0', 'x', 'body', 0.11, {'weighting': 'constant'}),
        ('hmr_body_multi0', 'x', 'body', 0.11, HMR),
        ('hmr_body_multi1', 'x', 'body', 0.11, HMR | {'steps': 10, 't_end': 0.011}),
        ('hmr_body_forward_t0.1', 'body_pose', 'body', 0.1, HMR),
        ('hmr_hand_forward_t0.1', 'hand_pose', 'hand', 0.1, HMR),
        ('face_exp_forward_t0.1', 'face103', 'face', 0.1, HMR),
        ('face_shape_forward_t0.1', 'shape100', 'face_shape', 0.1, HMR),
        ('hmr_wb_mixed_forward_t0.1', 'wb256', 'mixed', 0.1, HMR),
        ('hmr_wb_base_forward_t0.1', 'wb256', 'base', 0.1, HMR),
    ],
)
def test_dposer_loss_reproduces_official_value(name, vector, net, t, options, record_property):
    data = golden('dposer_losses')
    x = tensor(data[vector])
    if vector != 'x':  # the others are raw poses
        x = official_normalizers()[net].normalize(x)
    loss = DiffusionPrior(reduced(net)).loss(x, t, tensor(data[f'{name}/noise_0000']), **options)
    check(record_property, f'dposer_losses:{name}', loss[None], data[f'{name}/value'][None])


def test_gradient_of_dposer_loss_is_the_official_one(record_property):
    data = golden('dposer_losses')
    x = tensor(data['x']).requires_grad_()
    DiffusionPrior(reduced('body')).loss(x, 0.11, tensor(data['comp_grad/noise_0000'])).backward()
    check(record_property, 'dposer_losses:gradient', x.grad, data['comp_grad/grad'])


@functools.cache
def official_normalizers() -> dict[str, normalizer.Normalizer]:
    folder, load = PARITY / 'normalizers', normalizer.load_official_normalizer
    body, hand = (
        load(folder / 'body_data/body_normalizer'),
        load(folder / 'hand_data/hand_normalizer'),
    )
    jaw, expression, shape = (
        load(folder / f'face_data/{name}_normalizer') for name in ('jaw', 'expression', 'betas')
    )
    whole = normalizer.wholebody_normalizer(body, hand, [jaw, expression])
    concatenate = normalizer.Normalizer.concatenate
    return {
        'body': body, 'hand': hand, 'face': concatenate([jaw, expression]), 'face_shape': shape,
        'mixed': whole, 'base': whole, 'two_hands': concatenate([hand.mirrored(), hand]),
        'fullface': concatenate([jaw, expression, shape]),
    }  # fmt: skip


@pytest.mark.parametrize('kind', [np.asarray, tensor], ids=['numpy', 'torch'])
def test_normalizers_reproduce_official_values(kind, record_property):
    data, known = golden('normalizers'), official_normalizers()

    def same(found, key: str) -> None:
        check(record_property, f'normalizers:{key}', found, data[key])

    for rot6d in (False, True):
        for min_max in (False, True):
            key = f'body_{"rot6d" if rot6d else "axis"}_{"minmax" if min_max else "z"}'
            folder = PARITY / 'normalizers/body_data/body_normalizer'
            found = normalizer.load_official_normalizer(folder, rot6d=rot6d, min_max=min_max)
            same(found.normalize(kind(data['body_axis'])), f'{key}_norm')
            same(found.denormalize(kind(data[f'{key}_norm'])), f'{key}_denorm')
    same(known['body'].normalize(kind(data['body3d_in'])), 'body3d_norm')
    for name, key in (('mixed', 'wb'), ('fullface', 'fullface')):
        same(known[name].normalize(kind(data[key])), f'{key}_norm')
        same(known[name].denormalize(kind(data[f'{key}_norm'])), f'{key}_denorm')
    same(known['two_hands'].normalize(kind(data['twohand'])), 'twohand_norm')


@pytest.mark.parametrize('kind', [np.asarray, tensor], ids=['numpy', 'torch'])
def test_rotations_reproduce_official_values(kind, record_property):
    data = golden('normalizers')

    def same(found, key: str) -> None:
        expected = data[key]
        check(record_property, f'rotations:{key}', np.asarray(found).reshape(len(expected), -1),
              expected.reshape(len(expected), -1))  # fmt: skip

    rotvec = kind(data['aa'])
    same(rotations.rotvec_to_rotmat(rotvec), 'aa_to_mat')
    same(rotations.rotvec_to_rot6d(rotvec), 'aa_to_rot6d')
    same(np.roll(np.asarray(rotations.rotvec_to_quat_xyzw(rotvec)), 1, -1), 'aa_to_quat')
    same(rotations.rotmat_to_rotvec(kind(data['aa_to_mat'])), 'mat_to_aa')
    same(rotations.rot6d_to_rotvec(kind(data['aa_to_rot6d'])), 'rot6d_to_aa')
    same(rotations.rot6d_to_rotmat(kind(data['rand6d'])), 'rand6d_to_mat')
    same(rotations.rot6d_to_rotvec(kind(data['rand6d'])), 'rand6d_to_aa')


def completed(prior, observation, mask, times, noises, per_stage: int) -> torch.Tensor:
    """The paper's completion: Adam in normalised space, visible entries put back at the end."""
    x = observation.clone().requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.1, betas=(0.9, 0.99))
    for step, (t, noise) in enumerate(zip(times, noises, strict=True)):
        stage = 1 + step // per_stage
        data_loss = ((x - observation) ** 2 * mask).mean()
        loss = 100 / stage * data_loss + 0.1 * stage * prior.loss(x, float(t), noise, 'sqrt_snr')
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.where(mask, observation, x.detach())


@pytest.mark.parametrize('run', ['ts1', 'ts2', 'ts3', 'wb_lhand', 'wb_rhand', 'wb_face'])
def test_completion_loop_reproduces_official_result(run, record_property):
    data = golden('completion_optimize')
    source = f'{run}/' if run.startswith('wb') else ''
    observation, mask = tensor(data[f'{source}observation']), tensor(data[f'{source}mask'])
    draws = [data[key] for key in sorted(data) if key.startswith(f'{run}/noise_0')][
        1:
    ]  # first: unused
    noises = [tensor(draw) for draw in draws if draw.shape == observation.shape]
    times = {
        'ts1': [1e-3 + (1 - 1e-3) * float(draw[0]) for draw in draws if draw.shape == (1,)],
        'ts2': schedule.fixed_times(0.1, len(noises)),
    }.get(run, schedule.truncated_times(0.15, 0.05, len(noises)))
    prior = DiffusionPrior(reduced('mixed' if run.startswith('wb') else 'body'))
    found = completed(prior, observation, mask, times, noises, len(noises) // 2)
    check(record_property, f'completion_optimize:{run}', found, data[f'{run}/x'], AFTER_LOOP)


@pytest.mark.parametrize(
    ('run', 'options'),
    [
        ('em', {}),
        ('em_eps5e-3', {'min_time': 5e-3}),
        ('em_pf', {'probability_flow': True}),
        ('reverse_diffusion+none', {'reverse_diffusion': True}),
    ],
)
def test_predictor_reproduces_official_samples(run, options, record_property):
    data, draw = golden('samplers'), recorded_draws(run)
    prior = DiffusionPrior(reduced('body'))
    found = sampling.predictor_corrector(prior, (4, 63), draw, steps=12, **options)
    check(record_property, f'samplers:{run}', found, data[f'{run}/x'], AFTER_LOOP)


@pytest.mark.parametrize(
    ('run', 'corrector'),
    [
        ('euler_maruyama+langevin', sampling.LangevinCorrector()),
        ('euler_maruyama+ald', sampling.AnnealedLangevinCorrector()),
    ],
)
def test_corrector_refuses_the_few_steps_that_are_nan_in_the_official_code(run, corrector):
    """With 12 steps beta is 20/12, so the official step sizes are roots of negative numbers."""
    assert np.isnan(golden('samplers')[f'{run}/x']).all()
    prior = DiffusionPrior(reduced('body'))
    with pytest.raises(ConfigError, match='use more than 20 steps'):
        sampling.predictor_corrector(
            prior, (4, 63), recorded_draws(run), steps=12, corrector=corrector
        )


# Groups of two channels make the reduced network a step function of its input, and the flow
# along it an equation whose solution does not depend continuously on rounding: the official
# formula with the instruction set of MKL changed ends 39 % from itself. So these two can only be
# held to that. What is well posed, the slope, is held to 1e-3 by `em_pf`.
STEP_FUNCTION = 0.5


@pytest.mark.slow
def test_probability_flow_ends_as_near_as_rounding_lets_it(record_property):
    data, prior = golden('samplers'), DiffusionPrior(reduced('body'))
    found = sampling.probability_flow(prior, tensor(data['ode/z']), tolerance=1e-4)
    check(record_property, 'samplers:ode', found, data['ode/x'], STEP_FUNCTION)


@pytest.mark.slow
def test_likelihood_is_as_near_as_rounding_lets_it(record_property):
    data, prior = golden('samplers'), DiffusionPrior(reduced('body'))
    probe = 2 * tensor(data['lik/noise_0000']) - 1  # recorded as 0 and 1
    bits, latent = sampling.bits_per_dim(prior, tensor(data['lik/data']), probe)
    check(record_property, 'samplers:lik/z', latent, data['lik/z'], 1e-2)
    # The trace of a step function's Jacobian is noise; most of the figure is the latent's.
    check(record_property, 'samplers:lik/bpd', bits, data['lik/bpd'], 0.1)


def recorded_draws(run: str):
    """The official noises of a run in their order."""
    data = golden('samplers')
    draws = iter([tensor(data[key]) for key in sorted(data) if key.startswith(f'{run}/noise_0')])
    return lambda shape: next(draws)


# --- metrics of generation ---


def test_generation_metrics_reproduce_official_values(record_property):
    data = golden('metrics')
    real, fake = data['real'], data['fake']
    found = generation_metrics.prdc(real, fake)
    four = [found.precision, found.recall, found.density, found.coverage]
    for key in ('prdc_torch', 'prdc_numpy'):
        check(record_property, f'metrics:{key}', four, data[key])
    fid = generation_metrics.fid(real, fake)
    check(record_property, 'metrics:fid', [fid], data['fid'].reshape(1))
    apd = generation_metrics.average_pairwise_distance(data['joints'])
    check(record_property, 'metrics:apd', [apd], data['apd'].reshape(1))
    poses, rows = data['dnn_gen'], data['dnn_data']
    angle = generation_metrics.nearest_rotation_distance(poses, rows)
    check(record_property, 'metrics:dnn_rotation', angle, data['dnn_rotation'])
    plain = generation_metrics.nearest_distance(poses, rows)
    check(record_property, 'metrics:dnn_absolute', plain, data['dnn_absolute'])


def test_official_checkpoint_becomes_ours(tmp_path, record_property):
    """Converted to our format and read back, it gives the official numbers."""
    data, statistics = golden('models/body'), official_normalizers()['body']
    source = PARITY / 'ckpt' / 'body_reduced.ckpt'
    converted = checkpoint.from_official(source, 'body', statistics)
    checkpoint.save_checkpoint(tmp_path / 'body.safetensors', converted, half=False)
    stored = checkpoint.load_checkpoint(tmp_path / 'body.safetensors', part='body', dim=63)
    np.testing.assert_array_equal(stored.mean, statistics.offset)
    with torch.no_grad():
        out = network.from_weights(stored.weights)(tensor(data['x']), label_of(tensor(data['t'])))
    check(record_property, 'models/body:converted', out, data['out_ema'])


def test_checkpoint_of_another_part_is_refused():
    with pytest.raises(CheckpointError, match='a body prior has dimension 63, this file 45'):
        hand = PARITY / 'ckpt' / 'hand_reduced.ckpt'
        checkpoint.from_official(hand, 'body', official_normalizers()['hand'])
