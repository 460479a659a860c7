"""`dposer weights` shows, checks and imports priors; the shipped ones are sound and small."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dposer_core.prior.checkpoint import WEIGHTS_DIR
from dposer_ros import cli

MEBI = 1024**2


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))
    return tmp_path / 'data' / 'dposer_ros' / 'weights'


def run(*arguments: str):
    return CliRunner().invoke(cli.build_app('weights'), ['weights', *arguments])


def test_shipped_weights_are_small():
    sizes = [file.stat().st_size for file in WEIGHTS_DIR.rglob('*.*')]
    assert max(sizes) <= 15 * MEBI
    assert sum(sizes) <= 40 * MEBI


def test_list_names_every_file_with_its_licence_and_card(tmp_path):
    assert run('list', '--json', str(tmp_path / 'rows.json')).exit_code == 0
    rows = {row['file']: row for row in json.loads((tmp_path / 'rows.json').read_text())}
    stored = {str(f) for f in WEIGHTS_DIR.glob('*.*') if f.suffix in ('.json', '.safetensors')}
    assert stored <= set(rows)
    for file in stored:
        assert rows[file]['licence'], file
        assert rows[file]['card'], file
        assert rows[file]['part'] != '?', rows[file]['data']


def test_everything_shipped_verifies():
    done = run('verify')
    assert done.exit_code == 0, done.output
    assert 'FAIL' not in done.output


def test_altered_file_is_named_with_exit_status_2(tmp_path, capsys):
    content = bytearray((WEIGHTS_DIR / 'hand.safetensors').read_bytes())
    content[-1000] ^= 4
    (tmp_path / 'hand.safetensors').write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        cli.main(['weights', 'verify', str(tmp_path / 'hand.safetensors')])
    assert stopped.value.code == 2
    assert 'the file was altered, get it again' in capsys.readouterr().err


def test_imported_weights_are_listed_and_verified(tmp_path, own_folder):
    from dposer_core.prior.architecture import TimeFCConfig
    from dposer_core.prior.network import TimeFC

    torch.manual_seed(0)
    network = TimeFC(TimeFCConfig(63, hidden=256, embed=32))
    state = {f'model.{key}': value for key, value in network.state_dict().items()}
    shadow = [p.detach() for p in network.parameters()]
    torch.save({'state_dict': state, 'model_ema': {'shadow_params': shadow}}, tmp_path / 'b.ckpt')
    folder = tmp_path / 'statistics'
    folder.mkdir()
    statistics = {'mean_poses': torch.zeros(63), 'std_poses': torch.ones(63)}
    torch.save(statistics, folder / 'axis_normalize2.pt')
    done = run('import', str(tmp_path / 'b.ckpt'), '--normalizers', str(folder), '--name', 'mine')
    assert done.exit_code == 0, done.output
    assert 'warning: ' in done.output  # not the published statistics
    assert (own_folder / 'mine.safetensors').is_file()
    assert run('verify', 'mine').exit_code == 0
    assert 'mine' in run('list').output


def test_unknown_name_on_the_hub_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        cli.main(['weights', 'fetch', 'fused'])
    assert 'choose one of body, hand, face, face_shape, mixed' in capsys.readouterr().err


def test_live_priors_by_name_have_one_interface():
    from dposer_core.prior.runtime import load_prior

    for name in sorted(file.stem for file in WEIGHTS_DIR.glob('*.json')):
        prior = load_prior(name, num_expression=10)
        x = np.zeros((2, prior.dim), np.float32)
        assert prior.denoise(x, 0.1, mask=np.ones((2, 4))).shape == (2, 166)
