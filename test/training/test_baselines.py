"""Training of the competing priors: losses, distances, resuming, what is shipped."""

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

import training.evaluate
from dposer_core import rotations, skeleton
from dposer_core.baselines import LIFTERS, MOTION_METHODS, load_baseline
from dposer_core.baselines.distance_field import quat_wxyz
from dposer_core.errors import ConfigError
from test.packed_bodies import packed_bodies
from training import baseline_data, baselines
from training.baseline_data import PairConfig, PoseData, distances, pose_distance
from training.baseline_recipes import BodyPoints, geodesic_angle, normal_divergence
from training.script import run_script

PARITY = Path(os.environ.get('DPOSER_PARITY', Path(__file__).parents[3] / 'shared' / 'parity'))
CONFIGS = sorted(Path(baselines.__file__).with_name('configs').glob('baselines/*.yaml'))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A made-up skeleton (the open body is built at set-up), few whole bodies, one thread."""
    offsets = np.random.default_rng(0).normal(scale=0.2, size=(skeleton.NUM_JOINTS, 3))
    monkeypatch.setattr(training.evaluate, 'open_body_offsets', lambda: offsets)
    monkeypatch.setattr(baseline_data, '_COMPOSED', 60)
    monkeypatch.setattr(baseline_data, '_COMPOSED_HELD_OUT', 20)
    monkeypatch.setattr(baseline_data, '_HELD_OUT_PAIRS', 40)
    monkeypatch.setattr('training.baseline_recipes._FID_ROWS', 50)
    runs = [walk(frames) for frames in (30, 12, 40)]
    monkeypatch.setattr('training.motion_data.load_runs', lambda *_: runs)
    heldout = SimpleNamespace(subject='cmu02', body=walk(20).numpy())
    monkeypatch.setattr('training.motion_data.load_excerpts', lambda: [heldout])
    torch.set_num_threads(1)


def walk(frames: int) -> torch.Tensor:
    """(frames, 63) of joints that swing."""
    phase = torch.linspace(0, 6, 63) + 0.2 * torch.arange(frames)[:, None]
    return 0.3 * phase.sin()


@pytest.fixture
def packed(tmp_path) -> Path:
    rng = np.random.default_rng(0)

    def poses(count: int, dim: int) -> np.ndarray:
        return rng.normal(scale=0.3, size=(count, dim)).astype(np.float32)

    arrays = {
        **packed_bodies(poses(300, 63), poses(60, 63)),
        'hand': poses(3000, 45),
        'face': poses(3000, 13),
    }
    path = tmp_path / 'packed.npz'
    np.savez(path, **arrays)
    return path


def write_config(path: Path, method: str, part: str, **values) -> Path:
    sizes = {
        'gmm': {'components': 2},
        'gan_s': {'neurons': 8, 'latent': 4},
        'posendf': {'widths': [8]},
        'nrdf': {'widths': [8]},
        'humor': {'width': 16, 'latent': 4, 'components': 2, 'groups': 4},
        'gfpose': {'hidden': 8, 'embed': 4},
        'huproso3': {'hidden': 8, 'embed': 4, 'layers': 2},
        'mvae': {'width': 8, 'latent': 4, 'components': 2, 'groups': 0, 'experts': 2},
    }.get(method, {'neurons': 8, 'latent': 4})
    content = {
        'method': method, 'part': part, 'steps': 4, 'batch': 8, 'save_every': 2, 'network': sizes,
        'mixture': {'rows': 200}, 'pairs': {'pool': 100, 'pairs': 50, 'candidates': 8},
        'gan': {'rounds': 2}, 'motion': {'frames': 4, 'statistics': 200, 'start_steps': 2},
        **values,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ('method', 'part'),
    [
        ('gmm', 'hand'), ('vposer', 'body'), ('vposer', 'face'), ('vposer', 'wholebody'),
        ('cvposer', 'body'), ('gan_s', 'body'), ('posendf', 'body'), ('nrdf', 'hand'),
        ('gfpose', 'body'), ('huproso3', 'body'),
        ('humor', 'body'), ('mvae', 'body'),
    ],
)  # fmt: skip
def test_stopped_run_ends_like_one_that_was_not(method, part, packed, tmp_path, monkeypatch):
    config = write_config(tmp_path / 'run.yaml', method, part)
    whole = baselines.run(config, packed, tmp_path / 'whole')

    class Stopped(Exception):
        pass

    def stop(folder, name, step, values):
        if step >= 3:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(baselines, '_LOG_EVERY', 3)
        patch.setattr(baselines.RunFolder, 'log', stop)
        with pytest.raises(Stopped):
            baselines.run(config, packed, tmp_path / 'parts')
    resumed = baselines.run(config, packed, tmp_path / 'parts')
    assert resumed['sha256'] == whole['sha256']
    assert all(np.isfinite(v) for k, v in whole.items() if k not in ('file', 'sha256'))
    prior = load_baseline(method, part, whole['file'])
    dim = {'body': 63, 'hand': 45, 'face': 13, 'wholebody': 166}[part]
    dim = 207 if method in LIFTERS else dim
    shape = (2, 5, dim) if method in MOTION_METHODS else (2, dim)
    assert torch.isfinite(prior.loss(torch.zeros(shape)))
    assert whole['sha256'][:16] in Path(whole['file']).with_suffix('.md').read_text()


def test_training_lowers_the_loss_of_held_out_poses(packed, tmp_path):
    figures = {}
    for steps in (1, 60):
        config = write_config(
            tmp_path / f'{steps}.yaml', 'vposer', 'hand', steps=steps, batch=64,
            learning_rate=3.0e-3, network={'neurons': 64, 'latent': 32}, vae={'kl': 0.0},
        )  # fmt: skip
        figures[steps] = baselines.run(config, packed, tmp_path / f'{steps}')
    assert figures[60]['reconstruction_deg'] < 0.8 * figures[1]['reconstruction_deg']


@pytest.mark.parametrize('method', MOTION_METHODS)
def test_training_teaches_to_retell_a_motion(method, packed, tmp_path):
    figures = {}
    for steps in (1, 20):
        config = write_config(
            tmp_path / f'{steps}.yaml', method, 'body', steps=steps, batch=16, learning_rate=0.02
        )
        figures[steps] = baselines.run(config, packed, tmp_path / f'{steps}')
    assert figures[20]['retold_mm'] < 0.7 * figures[1]['retold_mm']


def test_mixture_finds_two_clusters(packed, tmp_path):
    rng = np.random.default_rng(1)
    hands = rng.normal(scale=0.1, size=(3000, 45)) + np.where(rng.random((3000, 1)) < 0.3, 1, -1)
    arrays = dict(np.load(packed))
    np.savez(packed, **arrays | {'hand': hands.astype(np.float32)})
    config = write_config(tmp_path / 'run.yaml', 'gmm', 'hand', steps=20, mixture={'rows': 2000})
    gmm = load_baseline('gmm', 'hand', baselines.run(config, packed, tmp_path / 'run')['file'])
    order = gmm.mix.argsort()
    torch.testing.assert_close(gmm.mix[order], torch.tensor([0.3, 0.7]), atol=0.04, rtol=0)
    torch.testing.assert_close(
        gmm.means[order], torch.tensor([[1.0], [-1.0]]).expand(2, 45), atol=0.03, rtol=0
    )


def test_folder_of_another_run_is_refused(packed, tmp_path):
    baselines.run(write_config(tmp_path / 'a.yaml', 'gmm', 'hand'), packed, tmp_path / 'run')
    other = write_config(tmp_path / 'b.yaml', 'gmm', 'hand', seed=1)
    with pytest.raises(ConfigError, match='other settings'):
        baselines.run(other, packed, tmp_path / 'run')


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'method': 'vposr'}, "unknown method 'vposr'"),
        ({'method': 'nrdf', 'part': 'face'}, 'body, hand'),
        ({'batchsize': 3}, "did you mean 'batch'"),
    ],
)
def test_bad_settings_are_named(values, words, packed, tmp_path):
    config = {'method': 'gmm', 'part': 'hand', 'steps': 2} | values
    path = tmp_path / 'run.yaml'
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=words):
        baselines.run(path, packed, tmp_path / 'run')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_names_its_file(path):
    config = baselines.read_settings(path, baselines.BaselineConfig)
    assert path.stem == f'{config.method}_{config.part}'
    assert config.licence


def test_geodesic_angle_is_that_of_scipy_and_bounded():
    turns = torch.randn(20, 3)
    angle = geodesic_angle(rotations.rotvec_to_rotmat(turns), torch.eye(3).expand(20, 3, 3))
    expected = turns.norm(dim=-1)
    torch.testing.assert_close(
        angle, torch.minimum(expected, 2 * np.pi - expected), atol=1e-3, rtol=0
    )
    same = torch.eye(3).expand(2, 3, 3).clone().requires_grad_()
    geodesic_angle(same, torch.eye(3).expand(2, 3, 3)).sum().backward()
    assert torch.isfinite(same.grad).all()


@pytest.mark.skipif(not PARITY.is_dir(), reason='golden files not found')
def test_geodesic_angle_is_that_of_the_official_code():
    with np.load(PARITY / 'baselines' / 'geodesic.npz') as file:
        a, b, each, mean = (torch.from_numpy(file[key]) for key in ('a', 'b', 'none', 'mean'))
    torch.testing.assert_close(geodesic_angle(a, b), each, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(geodesic_angle(a, b).mean(), mean, rtol=1e-5, atol=1e-6)


def test_divergence_is_that_of_torch():
    mean, std = torch.randn(5, 3), torch.rand(5, 3) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, std), normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(normal_divergence(mean, std), expected)


def test_points_turn_with_the_last_joint():
    points = BodyPoints('body', 1.0)
    rotmat = torch.eye(3).repeat(2, 21, 1, 1)
    rotmat[1, 20] = rotations.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 1.0]))  # right wrist
    around, joints = points(rotmat)
    assert torch.equal(joints[0], joints[1])  # nothing hangs on the wrist
    moved = (around[0] - around[1]).norm(dim=-1)
    assert int((moved > 1e-6).sum()) == 2  # the points along x and y, not z


@pytest.mark.parametrize('method', ['posendf', 'nrdf'])
def test_distance_to_the_pool_is_that_of_a_full_search(method):
    generator = torch.Generator().manual_seed(0)
    pool = quat_wxyz(0.4 * torch.randn((50, 63), generator=generator))
    query = quat_wxyz(0.4 * torch.randn((7, 63), generator=generator))
    config = PairConfig(candidates=50)
    every = pose_distance(method, query[:, None], pool[None]).sort(dim=1).values
    nearest = every[:, 0] if method == 'nrdf' else every[:, :5].mean(1)
    torch.testing.assert_close(distances(method, query, pool, config), nearest)
    assert (pose_distance(method, pool, pool) < 2e-2).all()  # acos near 1 in float32


def test_pairs_are_made_once_and_anew_when_settings_change(packed, tmp_path, monkeypatch):
    with np.load(packed) as file:
        data = PoseData(file, 'hand', 0)
    config = PairConfig(pool=100, pairs=20, candidates=4)
    first = baseline_data.load_pairs(tmp_path, 'nrdf', data, config, 0)
    with monkeypatch.context() as patch:
        patch.setattr(baseline_data, 'distances', None)  # must not be called
        again = baseline_data.load_pairs(tmp_path, 'nrdf', data, config, 0)
    assert torch.equal(first.distance, again.distance)
    wider = dataclasses.replace(config, mean_angle_rad=2.0)
    other = baseline_data.load_pairs(tmp_path, 'nrdf', data, wider, 0)
    assert other.distance.mean() > first.distance.mean()


def test_command_ends_in_one_line_on_a_missing_file(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / 'run.yaml', 'gmm', 'hand')
    monkeypatch.setattr('sys.argv', ['x', str(config), '--data', str(tmp_path / 'none.npz')])
    with pytest.raises(SystemExit) as stop:
        run_script(baselines.main)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith('error: ') and captured.err.count('\n') == 1


def test_command_prints_figures_as_json(packed, tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / 'run.yaml', 'gmm', 'hand')
    out = str(tmp_path / 'out')
    monkeypatch.setattr('sys.argv', ['x', str(config), '--data', str(packed), '--out', out])
    baselines.main()
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert figures['steps'] == 4
