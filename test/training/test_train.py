"""The training loop: resuming, errors of users, and what it writes."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import training.run_folder
import training.train
from dposer_core.errors import CheckpointError, ConfigError
from dposer_core.prior.checkpoint import load_checkpoint
from training.augment import AugmentConfig, Augmenter
from training.losses import draw_times
from training.result import write_result
from training.run_folder import RunFolder, TrainingError, read_curves
from training.settings import from_values, read_settings
from training.sources import PartSource, draw_step, open_source
from training.train import make_fabric, rate_factor, train
from training.train_config import TrainConfig
from training.validation import Validation

NETWORK = {'hidden': 64, 'embed': 8, 'blocks': 1}
CONFIG = TrainConfig(
    part='hand', network=NETWORK, steps=6, batch=8, warmup=2, save_every=2, log_every=3, threads=1
)
COMMAND = 'from dposer_ros.cli import main; main()'


def _source(shift: float = 0.0) -> PartSource:
    poses = torch.randn(40, 45, generator=torch.Generator().manual_seed(5)) + shift
    config = AugmentConfig(noise_share=0.5)
    return PartSource(Augmenter(poses, torch.ones(40), 'hand', config))


class _KilledError(Exception):
    pass


def _kill_at(step: int):
    def on_step(number: int, row: dict[str, float]) -> None:
        if number == step:
            raise _KilledError

    return on_step


def _assert_equal(a: torch.nn.Module, b: torch.nn.Module) -> None:
    for name, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize('precision', ['32', 'bf16', pytest.param('16', marks=pytest.mark.gpu)])
def test_stopped_and_resumed_run_equals_an_uninterrupted_one(tmp_path, precision) -> None:
    config = dataclasses.replace(CONFIG, precision=precision)
    whole, _ = train(config, _source(), RunFolder(_made(tmp_path / 'whole')))
    cut = RunFolder(_made(tmp_path / 'cut'))
    with pytest.raises(_KilledError):
        train(config, _source(), cut, on_step=_kill_at(5))
    resumed, figures = train(config, _source(), cut)
    assert figures['steps'] == config.steps
    _assert_equal(whole, resumed)
    curves = [read_curves(tmp_path / name / 'metrics.csv') for name in ('whole', 'cut')]
    assert curves[0]['step'] == [3, 6]
    for key in ('step', 'loss', 'gradient_norm', 'learning_rate'):
        assert curves[0][key] == curves[1][key]


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def _write_run(folder: Path, **settings) -> tuple[Path, Path]:
    """A packed file of hands, and a configuration for it."""
    rng = np.random.default_rng(2)
    hands = rng.normal(size=(200, 45)).astype(np.float32)
    np.savez(folder / 'packed.npz', hand=hands)
    values = dict(
        part='hand', network=NETWORK, batch=16, warmup=2, threads=1, log_every=5, save_every=3
    )
    (folder / 'run.yaml').write_text(yaml.safe_dump(values | settings))
    return folder / 'run.yaml', folder / 'packed.npz'


def _dposer(*arguments: object) -> list[str]:
    return [sys.executable, '-c', COMMAND, 'train', *map(str, arguments)]


def test_run_killed_by_the_system_ends_with_the_same_bits(tmp_path: Path) -> None:
    config_file, data = _write_run(tmp_path, steps=3000, save_every=20)
    cut = tmp_path / 'cut'
    command = _dposer(config_file, '--data', data, '--out', cut)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(read_curves(cut / 'metrics.csv').get('step', ())) < 12:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    config = dataclasses.replace(read_settings(config_file, TrainConfig), steps=3000)
    with np.load(data) as packed:
        source = open_source(config, dict(packed))
    reached = RunFolder(cut).load_state()['step']
    assert 0 < reached < 3000
    config = dataclasses.replace(config, steps=reached + 40)  # both to the same end
    whole = RunFolder(_made(tmp_path / 'whole'))
    # The killed run followed the schedule of 3000 steps up to here.
    with pytest.raises(_KilledError):
        train(dataclasses.replace(config, steps=3000), source, whole, on_step=_kill_at(reached))
    first, second = (RunFolder(p).load_state() for p in (cut, tmp_path / 'whole'))
    _same_bits(first, second, reached)
    ends = [train(config, source, RunFolder(path))[0] for path in (cut, tmp_path / 'whole')]
    _assert_equal(*ends)


def _same_bits(first: dict, second: dict, step: int) -> None:
    assert first['step'] == second['step'] == step
    for part in ('network', 'ema'):
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name])


@pytest.mark.slow
def test_run_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path) -> None:
    config_file, data = _write_run(tmp_path, steps=1500, validate_every=700)
    run = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    subprocess.run(_dposer(config_file, '--data', data, '--out', whole), check=True, **run)
    rng = np.random.default_rng(0)
    command = _dposer(config_file, '--data', data, '--out', cut)
    kills = 0
    while not (cut / 'hand.safetensors').exists():
        process = subprocess.Popen(command, **run)
        while process.poll() is None and not (cut / 'run.yaml').exists():
            time.sleep(0.05)
        try:
            process.wait(timeout=0.0 if kills > 5 else rng.uniform(0.0, 4.0))
        except subprocess.TimeoutExpired:
            if kills > 5:
                process.wait()
                continue
            process.kill()
            process.wait()
            kills += 1
        command = _dposer('--resume', cut)
    assert kills > 3
    results = [load_checkpoint(folder / 'hand.safetensors') for folder in (whole, cut)]
    assert results[0].sha256 == results[1].sha256
    errors = [read_curves(folder / 'validation.csv') for folder in (whole, cut)]
    assert errors[0] == errors[1]


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path: Path) -> None:
    # Processes drop different values. Groups of four channels, as two are all but signs.
    network = {'hidden': 128, 'embed': 8, 'blocks': 1, 'dropout': 0.0}
    settings = dict(network=network, steps=40, warmup=5, accelerator='cpu')
    config_file, data = _write_run(tmp_path, **settings)
    two = tmp_path / 'two'
    command = _dposer(config_file, '--data', data, '--out', two, '--devices', 2)
    # The launcher starts the second process from the command line, so it must be a file.
    script = tmp_path / 'dposer.py'
    script.write_text(COMMAND)
    command[1:3] = [str(script)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=200)
    config = dataclasses.replace(read_settings(config_file, TrainConfig), batch=32)
    with np.load(data) as packed:
        source = open_source(config, dict(packed))
    one = tmp_path / 'one'
    train(config, source, RunFolder(_made(one)))
    # Float32 sums in another order, carried through 40 steps of Adam.
    states = [RunFolder(folder).load_state()['network'] for folder in (one, two)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)
    rows = [read_curves(folder / 'metrics.csv')['loss'] for folder in (one, two)]
    np.testing.assert_allclose(*rows, rtol=1e-4)


def test_processes_share_the_rows_of_a_step() -> None:
    whole = draw_step(_source(), dataclasses.replace(CONFIG, batch=16), step=3)
    halves = [draw_step(_source(), CONFIG, step=3, rank=rank, world=2) for rank in (0, 1)]
    for field in ('x_0', 't', 'noise'):
        both = torch.cat([getattr(half, field) for half in halves])
        torch.testing.assert_close(both, getattr(whole, field), rtol=0, atol=0)


def test_state_is_whole_when_the_next_one_is_cut_short(tmp_path, monkeypatch) -> None:
    folder = RunFolder(_made(tmp_path / 'run'))
    folder.save_state({'step': 1, 'x': torch.ones(3)})

    def cut(path, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, 'replace', cut)
    with pytest.raises(KeyboardInterrupt):
        folder.save_state({'step': 2, 'x': torch.zeros(3)})
    monkeypatch.undo()
    state = RunFolder(folder.path).load_state()
    assert state['step'] == 1 and torch.equal(state['x'], torch.ones(3))


def test_full_disk_keeps_the_last_state_and_says_so(tmp_path, monkeypatch) -> None:
    folder = RunFolder(_made(tmp_path / 'run'))

    def full(descriptor: int) -> None:
        if (folder.state_file).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(training.run_folder.os, 'fsync', full)
    with pytest.raises(
        TrainingError, match=r'disk is full; the state of step 2 is kept.*--resume'
    ):
        train(CONFIG, _source(), folder)
    monkeypatch.undo()
    assert [path.name for path in folder.path.glob('.*.partial')] == []
    resumed, _ = train(CONFIG, _source(), folder)
    whole, _ = train(CONFIG, _source(), RunFolder(_made(tmp_path / 'whole')))
    _assert_equal(whole, resumed)


def test_device_without_memory_gives_advice(tmp_path, monkeypatch) -> None:
    def full(self, draw):
        if self.step == 3:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return update(self, draw)

    update = training.train.Trainer.update
    monkeypatch.setattr(training.train.Trainer, 'update', full)
    with pytest.raises(TrainingError, match=r'batch: 8 .*step 2 is kept. Set batch: 4'):
        train(CONFIG, _source(), RunFolder(_made(tmp_path / 'run')))


def test_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, learning_rate=float('inf'))
    with pytest.raises(TrainingError, match='the loss is nan .*learning_rate'):
        train(config, _source(), RunFolder(_made(tmp_path / 'run')))


def test_other_data_cannot_be_slipped_under_a_run(tmp_path: Path) -> None:
    folder = RunFolder(_made(tmp_path / 'run'))
    with pytest.raises(_KilledError):
        train(CONFIG, _source(), folder, on_step=_kill_at(3))
    with pytest.raises(ConfigError, match='not what the run began with'):
        train(CONFIG, _source(shift=0.5), folder)


def test_damaged_state_is_named(tmp_path: Path) -> None:
    folder = RunFolder(_made(tmp_path / 'run'))
    folder.save_state({'step': 1})
    folder.state_file.write_bytes(folder.state_file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r'state.pt is damaged'):
        folder.load_state()


def test_lines_of_a_lost_stretch_are_forgotten(tmp_path: Path) -> None:
    folder = RunFolder(_made(tmp_path / 'run'))
    for step in (10, 20, 30):
        folder.log('metrics', step, {'loss': 1.0})
    with (folder.path / 'metrics.csv').open('a') as file:
        file.write('4')  # a row that a kill cut short
    folder.trim(20)
    assert read_curves(folder.path / 'metrics.csv') == {'step': [10, 20], 'loss': [1.0, 1.0]}


def test_finished_run_holds_checkpoint_metrics_and_plot(tmp_path: Path) -> None:
    from training.curves import plot_curves

    source = _source()
    rows = torch.randn(30, 45, generator=torch.Generator().manual_seed(6)).numpy()
    folder = RunFolder(_made(tmp_path / 'run'))
    validation = Validation('hand', rows, source)
    config = dataclasses.replace(CONFIG, validate_every=3)
    network, figures = train(config, source, folder, validation=validation)
    loaded = load_checkpoint(write_result(config, network, source, figures, folder.path))
    assert loaded.notes['steps'] == CONFIG.steps and loaded.part == 'hand'
    expected = network.post_dense.bias.detach().numpy()
    np.testing.assert_allclose(loaded.weights['post_dense.bias'], expected, atol=1e-3)  # 16 bits
    errors = read_curves(folder.path / 'validation.csv')
    assert errors['step'] == [3, 6] and 0.0 < errors['rms_0.1'][0] < errors['rms_0.3'][0]
    picture = plot_curves(folder.path).read_bytes()
    assert picture.startswith(b'\x89PNG') and len(picture) > 5000


def test_gaussian_skip_starts_as_good_as_a_gaussian(tmp_path: Path) -> None:
    network = {**NETWORK, 'gaussian_skip': True}
    config = dataclasses.replace(CONFIG, network=network, steps=1)  # the first step stands still
    source = _source()
    validation = Validation('hand', source.normalizer.denormalize(_rows(source)), source)
    trained, figures = train(config, source, RunFolder(_made(tmp_path / 'a')), None, validation)
    errors = read_curves(tmp_path / 'a' / 'validation.csv')
    assert errors['of_gaussian_0.2'][0] == pytest.approx(1.0, abs=0.01)
    loaded = load_checkpoint(write_result(config, trained, source, figures, tmp_path))
    np.testing.assert_allclose(
        loaded.weights['gaussian.mean'], trained.gaussian.mean.numpy(), atol=1e-3
    )


def _rows(source: PartSource) -> np.ndarray:
    return source.batch(500, torch.Generator().manual_seed(1))[0].numpy()


def test_rate_starts_at_zero_and_ends_at_zero() -> None:
    config = dataclasses.replace(CONFIG, steps=1000, warmup=100)
    assert rate_factor(0, config) == 0.0
    assert rate_factor(100, config) == pytest.approx(0.5 * (1 + np.cos(0.1 * np.pi)))
    assert rate_factor(1000, config) == pytest.approx(0.0)
    assert rate_factor(900, dataclasses.replace(config, schedule='constant')) == 1.0


def test_stated_share_of_times_is_low() -> None:
    t = draw_times(4000, torch.Generator().manual_seed(0), low_t=0.4, low_share=0.75)
    # 75 % and two fifths of the others; 4 standard deviations.
    assert (t < 0.4).float().mean() == pytest.approx(0.85, abs=0.023)
    assert t.min() > 0 and t.max() <= 1


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('part: hand\nwarmupp: 3', "unknown key 'warmupp'; did you mean 'warmup'"),
        ('part: hand\nnetwork: {hiden: 32}', "unknown key 'hiden'; did you mean 'hidden'"),
        ('part: hand\nloss: {name: eps_mze}', "loss.name = 'eps_mze' is .* 'eps_mse'"),
        ('part: hand\nbatch: many', "'batch' = 'many': expected int, got str"),
        ('part: hand\nlearning_rate: 2e-4', 'write it with a point'),
        ('part: foot', "part = 'foot' is unknown"),
        ('steps: 10', "'part' is missing"),
        ('- 1', 'holds a list'),
        ('part: [', 'is not YAML'),
        ('part: hand\nbatch: 0', 'batch = 0: must be at least 1'),
        ('part: wholebody\nmixed: {sets: {a: {mask: "11"}}}', 'four of 0 and 1'),
    ],
)
def test_wrong_configuration_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / 'a.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_settings(path, TrainConfig)


def test_variant_goes_over_the_values_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / 'a.yaml'
    path.write_text(
        'part: hand\nnetwork: {hidden: 32, embed: 8}\n'
        'variants: {wide: {steps: 7, network: {hidden: 64}}}'
    )
    config = read_settings(path, TrainConfig, 'wide')
    assert config.steps == 7 and config.network == {'hidden': 64, 'embed': 8}
    with pytest.raises(ConfigError, match=r"no variant 'wid'; it has: \['wide'\]"):
        read_settings(path, TrainConfig, 'wid')


def test_settings_of_a_run_read_back_the_same(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / 'run')
    folder.create({'config': dataclasses.asdict(CONFIG)})
    assert from_values(TrainConfig, folder.settings()['config'], 'run.yaml') == CONFIG
    with pytest.raises(ConfigError, match='holds a run already'):
        folder.create({})


def test_cuda_that_is_not_there_is_said(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ConfigError, match="'16' needs CUDA; use 'bf16'"):
        make_fabric(dataclasses.replace(CONFIG, precision='16'))
    with pytest.raises(ConfigError, match='no CUDA device'):
        make_fabric(dataclasses.replace(CONFIG, accelerator='cuda'))
