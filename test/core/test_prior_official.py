"""Official weights: imported with the right statistics or refused, fetched whole or not at all."""

import http.server
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer_core.errors import CheckpointError
from dposer_core.prior import checkpoint, official, runtime
from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.network import Combiner, TimeFC, WholeBody, correction_config
from dposer_core.prior.prior import DiffusionPrior

DIMS = {'body': 63, 'hand': 45, 'face': 103}


def network_of(dim: int) -> TimeFC:
    torch.manual_seed(dim)
    return TimeFC(TimeFCConfig(dim, hidden=256, embed=32)).eval()


def save_official(path: Path, network: torch.nn.Module) -> Path:
    """As Lightning writes it, with the averages of what was trained."""
    state = {f'model.{key}': value for key, value in network.state_dict().items()}
    shadow = [p.detach() for _, p in network.named_parameters() if p.requires_grad]
    torch.save({'state_dict': state, 'model_ema': {'shadow_params': shadow}}, path)
    return path


@pytest.fixture
def normalizers(tmp_path) -> Path:
    """A data folder whose statistics begin like the published ones."""
    sizes = {'body': 63, 'hand': 45, 'jaw': 3, 'expression': 100, 'face_shape': 100}
    for name, known in official.STATISTICS.items():
        mean, std = torch.zeros(sizes[name]), torch.ones(sizes[name])
        mean[:3], std[:3] = torch.tensor(known.mean), torch.tensor(known.std)
        folder = tmp_path / 'data' / known.folder
        folder.mkdir(parents=True)
        torch.save({'mean_poses': mean, 'std_poses': std}, folder / 'axis_normalize2.pt')
    return tmp_path / 'data'


def test_imported_body_denoises_like_the_official_network(normalizers, tmp_path):
    network = network_of(63)
    source = save_official(tmp_path / 'last.ckpt', network)
    done = official.import_official(source, normalizers, tmp_path / 'own', 'paper', 10)
    live = runtime.load_prior(done.files[0])
    x = np.random.default_rng(0).standard_normal((2, 63)).astype(np.float32)
    with torch.no_grad():
        expected = DiffusionPrior(network).denoise(torch.from_numpy(x), 0.1).numpy()
    x_t = x / np.float32(DiffusionPrior(network).sde.alpha(0.1))
    # The file holds 16 bits: 5e-4 relative per weight.
    assert np.linalg.norm(live.denoise(x_t, 0.1) - expected) <= 2e-3 * np.linalg.norm(expected)
    np.testing.assert_allclose(live.mean[:3], official.STATISTICS['body'].mean, atol=1e-6)


def test_whole_body_becomes_a_composition(normalizers, tmp_path):
    base = Combiner(*(network_of(dim) for dim in DIMS.values()))
    network = WholeBody(base, correction_config(base, hidden=256, embed=32)).eval()
    torch.nn.init.normal_(network.output_linear.weight, std=0.1)
    source = save_official(tmp_path / 'last.ckpt', network)
    done = official.import_official(source, normalizers, tmp_path / 'own', 'x', 100)
    live = runtime.load_prior(done.files[0], num_expression=100)
    x = np.random.default_rng(0).standard_normal((2, live.dim)).astype(np.float32)
    mask = np.array([[1, 0, 1, 1], [0, 1, 1, 0]])
    with torch.no_grad():
        expected = DiffusionPrior(network).predict_noise(
            torch.from_numpy(x), 0.1, torch.from_numpy(mask)
        )
    difference = np.linalg.norm(live.predict_noise(x, 0.1, mask) - expected.numpy())
    assert difference <= 2e-3 * float(expected.norm())  # 16 bits


def test_official_face_is_refused_for_the_open_body(normalizers, tmp_path):
    source = save_official(tmp_path / 'last.ckpt', network_of(103))
    with pytest.raises(CheckpointError, match='100 expression coefficients of FLAME, the body m'):
        official.import_official(source, normalizers, tmp_path / 'own', 'x', 10)
    assert not (tmp_path / 'own').exists()


def test_statistics_of_another_origin_are_warned_about(normalizers, tmp_path):
    source = save_official(tmp_path / 'last.ckpt', network_of(63))
    folder = normalizers / 'body_data' / 'body_normalizer'
    same = official.import_official(source, normalizers, tmp_path / 'a', 'x', 10)
    assert 'the same first values' in same.warnings[0]  # made here: other bytes
    content = {'mean_poses': torch.ones(63), 'std_poses': torch.ones(63)}
    torch.save(content, folder / 'axis_normalize2.pt')
    other = official.import_official(source, folder, tmp_path / 'b', 'x', 10)
    assert 'its mean begins with [1.0, 1.0, 1.0]' in other.warnings[0]


def test_missing_statistics_are_named(tmp_path):
    source = save_official(tmp_path / 'last.ckpt', network_of(63))
    with pytest.raises(CheckpointError, match=r'body_normalizer/axis_normalize2\.pt not found'):
        official.import_official(source, tmp_path, tmp_path / 'own', 'x', 10)


@pytest.mark.parametrize('seed', range(4))
def test_random_and_damaged_files_are_checkpoint_errors(normalizers, tmp_path, seed):
    """Whatever bytes are wrong: refused with a message, or read with finite values."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(0)
    small = TimeFC(TimeFCConfig(63, hidden=32, embed=16, blocks=1))
    whole = save_official(tmp_path / 'whole.ckpt', small).read_bytes()
    file = tmp_path / 'x.ckpt'
    refused = 0
    for trial in range(40):
        content = bytearray(whole)
        kind = trial % 4
        if kind == 0:
            content = bytearray(rng.bytes(int(rng.integers(0, 4000))))
        elif kind == 1:
            content = content[: int(rng.integers(0, len(content)))]
        elif kind == 2:
            for place in rng.integers(0, len(content), 30):
                content[place] = int(rng.integers(256))
        else:  # the pickle itself, where the archive's checksum does not tell
            start = whole.index(b'state_dict')
            for place in rng.integers(start - 40, start + 600, 3):
                content[place] = int(rng.integers(256))
        file.write_bytes(bytes(content))
        try:
            done = official.import_official(file, normalizers, tmp_path / 'own', 'x', 10)
        except CheckpointError:
            refused += 1
        else:
            loaded = checkpoint.load_checkpoint(done.files[0])
            assert all(np.isfinite(value).all() for value in loaded.weights.values())
    assert refused >= 30


def test_nan_weights_are_refused(normalizers, tmp_path):
    network = network_of(63)
    with torch.no_grad():
        network.b1_dense1.weight[3, 4] = float('nan')
    source = save_official(tmp_path / 'last.ckpt', network)
    with pytest.raises(CheckpointError, match=r'b1_dense1\.weight is not finite'):
        official.import_official(source, normalizers, tmp_path / 'own', 'x', 10)


# --- the hub ---

CONTENT = bytes(range(256)) * 4000


class _Hub(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; /cut announces all of it and sends half."""

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get('Range'))
        start = int((self.headers.get('Range') or 'bytes=0-')[6:-1])
        if self.path == '/absent':
            self.send_error(404)
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == '/cut' else body)

    def log_message(self, *arguments) -> None: ...


@pytest.fixture
def hub():
    server = http.server.HTTPServer(('127.0.0.1', 0), _Hub)
    server.ranges = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_interrupted_download_goes_on(hub, tmp_path):
    address = f'http://127.0.0.1:{hub.server_port}'
    file = tmp_path / 'body.ckpt'
    with pytest.raises(CheckpointError, match='bytes came; run it again'):
        official.fetch(f'{address}/cut', file)
    assert not file.exists()
    seen = []
    sha256 = official.fetch(f'{address}/whole', file, lambda have, whole: seen.append(whole))
    assert file.read_bytes() == CONTENT
    assert hub.ranges == [None, f'bytes={len(CONTENT) // 2}-']
    assert set(seen) == {len(CONTENT)}
    assert file.with_name('body.ckpt.sha256').read_text() == f'{sha256}  body.ckpt\n'


def test_file_that_the_hub_lacks_is_named(hub, tmp_path):
    with pytest.raises(CheckpointError, match='/absent: the server answers 404'):
        official.fetch(f'http://127.0.0.1:{hub.server_port}/absent', tmp_path / 'x.ckpt')


def test_no_network_is_explained(tmp_path):
    # Port 9 of this machine: nobody answers.
    with pytest.raises(CheckpointError, match='cannot be reached .* check the network'):
        official.fetch('http://127.0.0.1:9/body.ckpt', tmp_path / 'x.ckpt')
