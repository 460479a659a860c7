"""Checkpoint files: round trip, and an error with its reason for every way they can be wrong."""

import collections
import os

import numpy as np
import pytest
import torch

from dposer_core.errors import CheckpointError
from dposer_core.prior import checkpoint
from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.network import Combiner, TimeFC, WholeBody, correction_config, from_weights
from dposer_core.prior.torch_file import read_torch_file


def make(part: str = 'hand', dim: int = 45) -> checkpoint.PriorCheckpoint:
    torch.manual_seed(0)
    config = TimeFCConfig(dim, hidden=32, embed=16, blocks=1)
    weights = {k: v.numpy() for k, v in TimeFC(config).state_dict().items()}
    ones = np.ones(dim, np.float32)
    return checkpoint.PriorCheckpoint(
        part, config, weights, 0 * ones, ones, 'CC0', 'abc', {'steps': 3}
    )


@pytest.fixture
def file(tmp_path):
    checkpoint.save_checkpoint(tmp_path / 'hand.safetensors', make(), half=False)
    return tmp_path / 'hand.safetensors'


def test_round_trip_keeps_everything(file):
    saved, loaded = make(), checkpoint.load_checkpoint(file, part='hand', dim=45)
    assert (loaded.config, loaded.licence, loaded.notes) == (saved.config, 'CC0', {'steps': 3})
    assert set(loaded.weights) == set(saved.weights) - {'sigmas'}
    for key, value in loaded.weights.items():
        np.testing.assert_array_equal(value, saved.weights[key])
    assert len(loaded.sha256) == 64


def test_saving_leaves_no_partial_file(file):
    assert [path.name for path in file.parent.iterdir()] == ['hand.safetensors']


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r'absent\.safetensors not found'):
        checkpoint.load_checkpoint(tmp_path / 'absent.safetensors')


def test_truncated_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(
        CheckpointError, match=r'\(5000 bytes\) is truncated or not a safetensors file'
    ):
        checkpoint.load_checkpoint(file)


def test_altered_weights_are_refused(file):
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        CheckpointError, match='sha256 of the tensors is .* the header says .* altered'
    ):
        checkpoint.load_checkpoint(file)


def test_another_part_is_refused(file):
    with pytest.raises(CheckpointError, match="holds the part 'hand', expected 'body'"):
        checkpoint.load_checkpoint(file, part='body')


def test_another_dimension_is_refused(file):
    with pytest.raises(CheckpointError, match='has dimension 45, expected 63'):
        checkpoint.load_checkpoint(file, dim=63)


def test_part_with_the_wrong_dimension_cannot_be_saved(tmp_path):
    with pytest.raises(CheckpointError, match='a body prior has dimension 63, this file 45'):
        checkpoint.save_checkpoint(tmp_path / 'x.safetensors', make(part='body'))


def test_foreign_safetensors_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({'a': np.zeros(3)}, tmp_path / 'x.safetensors')
    with pytest.raises(CheckpointError, match='not a prior of this project'):
        checkpoint.load_checkpoint(tmp_path / 'x.safetensors')


class _Bomb:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f'touch {self.target}',)


def test_pickled_code_is_never_executed(tmp_path):
    target = tmp_path / 'executed'
    content = {'state_dict': {'w': torch.ones(2, 3)}, 'hyper_parameters': _Bomb(str(target))}
    torch.save(content, tmp_path / 'x.ckpt')
    loaded = read_torch_file(tmp_path / 'x.ckpt')
    np.testing.assert_array_equal(loaded['state_dict']['w'], np.ones((2, 3)))
    assert not target.exists()


def test_views_and_types_of_tensors_survive(tmp_path):
    base = torch.arange(24, dtype=torch.float64).reshape(4, 6)
    content = {'t': base.T[1:], 'half': base.half(), 'long': base.long(), 'empty': base[:0]}
    torch.save(content, tmp_path / 'x.pt')
    for key, value in read_torch_file(tmp_path / 'x.pt').items():
        np.testing.assert_array_equal(value, content[key].numpy())


def test_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    real = torch._utils._rebuild_tensor_v2

    class Liar:
        def __reduce__(self):
            values = torch.ones(4).untyped_storage()
            typed = torch.storage.TypedStorage(
                wrap_storage=values, dtype=torch.float32, _internal=True
            )
            return real, (typed, 0, (1000,), (1,), False, collections.OrderedDict())

    torch.save({'x': Liar()}, tmp_path / 'x.pt')
    with pytest.raises(CheckpointError, match='reaches beyond its 4 values'):
        read_torch_file(tmp_path / 'x.pt')


def test_truncated_official_file_is_refused(tmp_path):
    torch.save({'state_dict': {'w': torch.ones(2000)}}, tmp_path / 'x.ckpt')
    content = (tmp_path / 'x.ckpt').read_bytes()
    (tmp_path / 'x.ckpt').write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match='not a readable torch file'):
        checkpoint.load_official_weights(tmp_path / 'x.ckpt')


def test_ema_list_that_does_not_fit_is_refused(tmp_path):
    state = {f'model.{k}': v for k, v in TimeFC(make().config).state_dict().items()}
    torch.save(
        {'state_dict': state, 'model_ema': {'shadow_params': [torch.ones(1)]}}, tmp_path / 'x.ckpt'
    )
    with pytest.raises(CheckpointError, match='1 EMA tensors for 22 trainable ones'):
        checkpoint.load_official_weights(tmp_path / 'x.ckpt')


def test_incomplete_weights_name_the_missing_tensor():
    weights = make().weights
    weights.pop('b1_dense2.bias')
    with pytest.raises(CheckpointError, match=r'b1_dense2\.bias is missing'):
        from_weights(weights)


def test_fine_tuned_whole_body_starts_as_its_base():
    torch.manual_seed(0)
    config = {
        name: TimeFCConfig(dim, hidden=32, embed=16)
        for name, dim in (('b', 63), ('h', 45), ('f', 13))
    }
    base = Combiner(*(TimeFC(part) for part in config.values())).eval()
    fused = WholeBody(base, correction_config(base, hidden=32, embed=16)).eval()
    x, label = torch.randn(3, 166), torch.rand(3) * 999
    with torch.no_grad():
        torch.testing.assert_close(fused(x, label), base(x, label), rtol=0, atol=0)
    assert {name.split('.')[0] for name, p in fused.named_parameters() if p.requires_grad} == {
        'mask_fc', 'output_linear'
    }  # fmt: skip
