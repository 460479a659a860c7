"""Published predictions: read as they are, and refused when they are something else."""

import json

import numpy as np
import pytest

from dposer_core.body_model import load_body
from dposer_core.errors import ConfigError, ModelFileError
from training.benchmarks.mesh_recovery import Studio
from training.benchmarks.predictions import FORMATS, read_predictions

RNG = np.random.default_rng(0)


def cliff(count: int = 4, **changes) -> dict[str, np.ndarray]:
    arrays = {
        'pose': RNG.normal(0, 0.3, (count, 72)), 'shape': RNG.normal(0, 1, (count, 10)),
        'global_t': np.tile([0.0, 0.0, 3.0], (count, 1)),
    }  # fmt: skip
    return arrays | changes


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_cliff_has_root_21_of_23_joints_and_a_place(tmp_path):
    arrays = cliff()
    found = read_predictions(saved(tmp_path / 'a.npz', **arrays), 'cliff', 4)
    assert found['global_orient'] == pytest.approx(arrays['pose'][:, :3], abs=1e-6)
    assert found['pose'] == pytest.approx(arrays['pose'][:, 3:66], abs=1e-6)
    assert found['camera'] == pytest.approx(arrays['global_t'])


def test_smplerx_has_a_file_an_image_in_the_order_of_names(tmp_path):
    sizes = {
        'global_orient': (1, 3), 'body_pose': (21, 3), 'left_hand_pose': (15, 3),
        'right_hand_pose': (15, 3), 'jaw_pose': (1, 3), 'expression': (1, 10), 'betas': (1, 10),
        'transl': (1, 3),
    }  # fmt: skip
    for index in range(3):
        saved(
            tmp_path / f'{index:05}.npz', **{k: np.full(s, 0.1 * index) for k, s in sizes.items()}
        )
    found = read_predictions(tmp_path, 'smplerx', 3)
    assert found['body_pose'].shape == (3, 63)
    assert found['betas'][:, 0] == pytest.approx([0.0, 0.1, 0.2])


def test_hand4whole_is_a_list_in_json(tmp_path):
    one = {'pose': [0.1] * 48, 'shape': [0.2] * 10, 'cam_trans': [0.0, 0.0, 1.0]}
    path = tmp_path / 'p.json'
    path.write_text(json.dumps([one, one]))
    assert read_predictions(path, 'hand4whole', 2)['pose'].shape == (2, 45)


def test_mica_keeps_the_first_hundred_of_its_coefficients(tmp_path):
    code = RNG.normal(0, 1, (2, 300))
    np.save(tmp_path / 'identity.npy', code)
    found = read_predictions(tmp_path / 'identity.npy', 'mica', 2)
    assert found['shape'] == pytest.approx(code[:, :100], abs=1e-6)


@pytest.mark.parametrize(
    ('arrays', 'said'),
    [
        (cliff(5), '5 predictions, there are 4 images'),
        (cliff(pose=np.tile(np.eye(3), (4, 24, 1, 1))), 'rotation matrices'),
        (cliff(pose=np.full((4, 72), 40.0)), 'degrees'),
        (cliff(pose=np.zeros((4, 66))), r'\(N, 72\) is expected'),
        (cliff(shape=np.full((4, 10), 60.0)), '60 sigmas'),
        (cliff(shape=np.full((4, 10), np.nan)), 'not finite'),
        ({'smpl_pose': np.zeros((4, 72))}, "has 'pose'.*the file has: smpl_pose"),
        (cliff(pose=np.array(['x'] * 72)), 'is expected'),
    ],
)
def test_other_lengths_and_conventions_are_refused(tmp_path, arrays, said):
    with pytest.raises(ConfigError, match=said):
        read_predictions(saved(tmp_path / 'a.npz', **arrays), 'cliff', 4)


def test_missing_damaged_and_pickled_files_are_errors_of_the_user(tmp_path):
    (tmp_path / 'bad.npz').write_bytes(b'PK\x03\x04 no archive')
    (tmp_path / 'bad.json').write_text('{')
    (tmp_path / 'list.json').write_text('[1, 2]')
    np.save(tmp_path / 'object.npy', np.array([{}], dtype=object), allow_pickle=True)
    for name in ('none.npz', 'bad.npz', 'bad.json', 'list.json', 'object.npy'):
        with pytest.raises(ConfigError, match=name):
            read_predictions(tmp_path / name, 'mica', 1)
    with pytest.raises(ConfigError, match=', '.join(FORMATS)):
        read_predictions(tmp_path / 'x.npz', 'hmr', 1)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ConfigError, match='holds no'):
        read_predictions(tmp_path / 'empty', 'cliff', 1)


def test_table_2_starts_where_the_file_says(tmp_path):
    arrays = cliff(3)
    path = saved(tmp_path / 'cliff.npz', **arrays)
    try:
        studio = Studio(load_body(''), {'CMU': np.zeros((3, 63), np.float32)}, 1, path)
    except ModelFileError as error:
        pytest.skip(str(error))
    start = studio.start('initialised', np.zeros(63))
    assert start['pose'].numpy() == pytest.approx(arrays['pose'][:, 3:66], abs=1e-6)
    assert start['camera'].numpy() == pytest.approx(arrays['global_t'])
    assert start['betas'].numpy() == pytest.approx(arrays['shape'], abs=1e-6)
