"""Each data set read from small files of its published layout, which the test writes."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer_core.errors import ConfigError, ModelFileError
from training.data.mano import ManoHands, ManoSide, load_mano
from training.data.pose_batch import BadClipError, smplx_pose
from training.data.prepare import prepare, read_arrays, read_meta
from training.data.prepared import add_prepared
from training.data.registry import DATASETS, DataSetError, get_dataset
from training.data.safe_files import read_npz, read_pickle
from training.data.subsample import Subsample

RNG = np.random.default_rng(0)
MIRROR = np.tile([1.0, -1.0, -1.0], 15)


def angles(*shape: int) -> np.ndarray:
    return RNG.uniform(-0.5, 0.5, shape)


def write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npz':
        np.savez(path, **content)
    elif path.suffix == '.npy':
        np.save(path, content, allow_pickle=True)
    elif path.suffix == '.json':
        path.write_text(json.dumps(content))
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))


def prepared(name: str, root: Path, mano: ManoHands | None = None, **options) -> dict:
    path = root.parent / f'{name}.npz'
    prepare(get_dataset(name), root, path, mano, **options)
    return read_arrays(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / 'published'
    folder.mkdir()
    return folder


@pytest.fixture
def mano() -> ManoHands:
    side = [ManoSide(angles(45), np.linalg.qr(RNG.normal(size=(45, 45)))[0]) for _ in range(2)]
    return ManoHands(*side)


def test_amass_keeps_the_middle_of_each_clip_and_splits_by_subset(root):
    poses = {}
    for subset in ('CMU', 'HumanEva', 'SSM_synced', 'DanceDB'):
        poses[subset] = angles(100, 165)
        write(
            root / subset / 's1' / 'walk_stageii.npz',
            {'poses': poses[subset], 'betas': angles(16)},
        )
    arrays = prepared('amass', root)
    for split, subset in (('train', 'CMU'), ('valid', 'HumanEva'), ('test', 'SSM_synced')):
        body = arrays[f'{split}_body']
        middle = poses[subset][10:90, 3:66].astype(np.float32)
        rows = [int(np.flatnonzero((middle == row).all(axis=1))[0]) for row in body]
        assert len(rows) == 24 and len(set(rows)) == 24
    assert sorted(arrays['clips']) == ['CMU/s1/walk', 'HumanEva/s1/walk', 'SSM_synced/s1/walk']
    meta = read_meta(root.parent / 'amass.npz')
    assert 'KIT/<subject>/*_stageii.npz' in meta.missing and len(meta.missing) == 13


def test_humaneva_and_hps_are_cut_into_sequences_of_60(root):
    poses = angles(130, 165)
    write(root / 'HumanEva' / 'S1' / 'box_stageii.npz', {'poses': poses, 'betas': angles(16)})
    body = prepared('humaneva', root)['test_body']
    np.testing.assert_array_equal(body, poses[:120, 3:66].astype(np.float32))
    smpl = angles(70, 72)
    write(root / 'hps_smpl' / 'SUB1_hall.pkl', {'poses': smpl, 'transes': angles(70, 3)})
    write(root / 'SUB2_hall.npz', {'poses': smpl})
    body = prepared('hps', root)['test_body']
    np.testing.assert_array_equal(body, np.tile(smpl[:60, 3:66], (2, 1)).astype(np.float32))


def test_grab_has_all_parts_and_a_padded_expression(root):
    poses, expression = angles(10, 165), angles(10, 80)
    write(
        root / 'GRAB' / 's1' / 'cup_stageii.npz',
        {'poses': poses, 'betas': angles(16), 'expression': expression},
    )
    arrays = prepared('grab', root)
    row = int(
        np.flatnonzero((poses[:, 3:66].astype(np.float32) == arrays['train_body'][0]).all(1))[0]
    )
    np.testing.assert_array_equal(arrays['train_jaw'][0], poses[row, 66:69].astype(np.float32))
    np.testing.assert_array_equal(arrays['train_left_hand'][0], poses[row, 75:120].astype('f4'))
    np.testing.assert_array_equal(arrays['train_right_hand'][0], poses[row, 120:].astype('f4'))
    np.testing.assert_array_equal(arrays['train_expression'][0, :80], expression[row].astype('f4'))
    assert not arrays['train_expression'][:, 80:].any()
    whole = add_prepared({}, [root.parent / 'grab.npz'])['wholebody']
    assert whole.shape == (2, 256)
    assert not whole[:, 153:].any()  # its faces are not trained on
    np.testing.assert_array_equal(whole[:, 63:108], arrays['train_left_hand'])


def test_beat2_follows_the_split_file_of_each_language(root):
    folder = root / 'beat_english_v2.0.0'
    for name in ('1_a', '1_b', '1_c'):
        content = {
            'poses': np.full((10, 165), 0.1),
            'expressions': np.full((10, 100), float(name[0])),
        }
        write(folder / 'smplxflame_30' / f'{name}.npz', content)
    write(folder / 'train_test_split.csv', 'id,type\n1_a,train\n1_b,val\n1_c,test\n')
    arrays = prepared('beat2', root)
    clips = arrays['clips']
    for split, name in (('train', '1_a'), ('valid', '1_b'), ('test', '1_c')):
        assert clips[arrays[f'{split}_clip'][0]].endswith(name)
        assert arrays[f'{split}_expression'].shape == (2, 100)
    assert (add_prepared({}, [root.parent / 'beat2.npz'])['wholebody'][:, 156:] == 1.0).all()


def test_arctic_reads_pickled_arrays_by_protocol(root):
    def clip():
        return {
            'body_pose': angles(20, 63),
            'left_hand_pose': angles(20, 45),
            'right_hand_pose': angles(20, 45),
            'transl': angles(20, 3),
        }

    clips = {name: clip() for name in ('s01/box', 's05/box')}
    for name, content in clips.items():
        write(root / 'raw_seqs' / f'{name}.smplx.npy', content)
    splits = {'train': ['s01/box'], 'val': ['s05/box'], 'test': ['s03/box']}
    write(root / 'splits_json' / 'protocol_p1.json', splits)
    arrays = prepared('arctic', root)
    for split, name in (('train', 's01/box'), ('valid', 's05/box')):
        body = clips[name]['body_pose'][1:19].astype(np.float32)
        assert len(arrays[f'{split}_body']) == 8
        assert all((body == row).all(axis=1).any() for row in arrays[f'{split}_body'])
    assert read_meta(root.parent / 'arctic.npz').missing == ['raw_seqs/s03/box.smplx.npy']


def test_egobody_takes_every_third_frame_and_expands_the_hands(root, mano):
    hands = angles(7, 2, 12)
    for frame in range(7):
        content = {
            'body_pose': np.full((1, 63), 0.01 * frame, np.float32),
            'left_hand_pose': hands[frame, :1],
            'right_hand_pose': hands[frame, 1:],
            'jaw_pose': angles(1, 3),
            'expression': np.full((1, 10), frame),
        }
        results = root / 'smplx_interactee_train' / 'recording_1' / 'body_idx_0' / 'results'
        write(results / f'frame_{frame:05d}' / '000.pkl', content)
    with pytest.raises(ModelFileError, match='--mano'):
        prepared('egobody', root)
    arrays = prepared('egobody', root, mano)
    np.testing.assert_allclose(arrays['train_body'][:, 0], [0.0, 0.03, 0.06], rtol=1e-6)
    expected = hands[[0, 3, 6], 0] @ mano.left.components[:12] + mano.left.mean
    np.testing.assert_allclose(arrays['train_left_hand'], expected, atol=1e-6)
    assert arrays['train_expression'][:, :10].tolist() == [[0.0] * 10, [3.0] * 10, [6.0] * 10]
    assert read_meta(root.parent / 'egobody.npz').hands == 'absolute'
    official = prepared('egobody', root, mano, official_hands=True)
    np.testing.assert_allclose(official['train_left_hand'], expected - mano.left.mean, atol=1e-6)


def test_fit3d_turns_matrices_into_axis_angle(root):
    quarter = [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]  # about x
    content = {
        'body_pose': [[quarter] * 21] * 2,
        'left_hand_pose': [[np.eye(3).tolist()] * 15] * 2,
        'right_hand_pose': [[np.eye(3).tolist()] * 15] * 2,
        'jaw_pose': [[quarter]] * 2,
        'expression': [[0.5] * 10] * 2,
    }
    write(root / 'train' / 's04' / 'smplx' / 'squat.json', content)
    write(
        root / 'train' / 's03' / 'smplx' / 'squat.json',
        content | {'jaw_pose': [[[[1, 0, 0]] * 3]]},
    )
    arrays = prepared('fit3d', root)
    np.testing.assert_allclose(arrays['test_body'], np.tile([np.pi / 2, 0, 0], (2, 21)), atol=1e-6)
    np.testing.assert_allclose(arrays['test_jaw'], [[np.pi / 2, 0, 0]] * 2, atol=1e-6)
    assert 'no rotations' in read_meta(root.parent / 'fit3d.npz').skipped['s03/squat']


def test_freihand_becomes_absolute_with_mano(root, mano):
    rows = angles(5, 1, 61)
    write(root / 'FreiHAND_pub_v2' / 'training_mano.json', rows.tolist())
    write(root / 'FreiHAND_pub_v2_eval' / 'evaluation_mano.json', rows[:2].tolist())
    arrays = prepared('freihand', root)
    np.testing.assert_allclose(arrays['train_right_hand'], rows[:, 0, 3:48], atol=1e-7)
    np.testing.assert_allclose(arrays['test_betas'], rows[:2, 0, 48:58], atol=1e-7)
    assert read_meta(root.parent / 'freihand.npz').hands == 'mean-relative'
    arrays = prepared('freihand', root, mano)
    np.testing.assert_allclose(
        arrays['train_right_hand'], rows[:, 0, 3:48] + mano.right.mean, atol=1e-6
    )


def test_dexycb_expands_components_and_splits_each_fifth_sequence(root, mano):
    subject = root / '20200709-subject-01'
    coefficients = angles(5, 6, 1, 51)
    coefficients[:, :2] = 0.0  # the hand comes into view later
    for k in range(5):
        write(
            subject / f'2020_{k}' / 'pose.npz', {'pose_m': coefficients[k], 'pose_y': angles(6, 7)}
        )
        write(subject / f'2020_{k}' / 'meta.yml', 'mano_sides: [left]\nmano_calib: [one]\n')
    write(root / 'calibration' / 'mano_one' / 'mano.yml', f'betas: {[0.25] * 10}\n')
    arrays = prepared('dexycb', root, mano)
    assert len(arrays['train_left_hand']) == 16 and len(arrays['valid_left_hand']) == 4
    expected = coefficients[4, 2:, 0, 3:48] @ mano.left.components + mano.left.mean
    np.testing.assert_allclose(arrays['valid_left_hand'], expected, atol=1e-6)
    assert (arrays['valid_betas'] == 0.25).all()
    assert '*-subject-02/' in read_meta(root.parent / 'dexycb.npz').missing
    hand = add_prepared({}, [root.parent / 'dexycb.npz'])['hand']
    np.testing.assert_allclose(hand, arrays['train_left_hand'] * MIRROR, atol=1e-6)


def test_ho3d_leaves_out_frames_without_annotation(root):
    poses = angles(3, 48)
    for frame in range(3):
        pose = None if frame == 1 else poses[frame]
        content = {'handPose': pose, 'handBeta': angles(10), 'objName': '003_cracker_box'}
        write(root / 'train' / 'ABF10' / 'meta' / f'{frame:04d}.pkl', content)
    write(root / 'train.txt', 'ABF10/0000\nMC1/0000\n')
    arrays = prepared('ho3d', root)
    np.testing.assert_allclose(arrays['train_right_hand'], poses[[0, 2], 3:], atol=1e-7)
    assert read_meta(root.parent / 'ho3d.npz').missing == ['train/MC1/meta/']


def test_h2o3d_has_both_hands(root):
    left, right = angles(48), angles(48)
    content = {'leftHandPose': left, 'rightHandPose': right, 'handBeta': angles(10)}
    write(root / 'train' / 'BB10' / 'meta' / '0000.pkl', content)
    arrays = prepared('h2o3d', root)
    np.testing.assert_allclose(arrays['train_left_hand'][0], left[3:], atol=1e-7)
    np.testing.assert_allclose(arrays['train_right_hand'][0], right[3:], atol=1e-7)
    added = add_prepared({}, [root.parent / 'h2o3d.npz'])
    np.testing.assert_allclose(added['hand'], [left[3:] * MIRROR, right[3:]], atol=1e-6)
    np.testing.assert_allclose(added['two_hands'][0], [*left[3:], *right[3:]], atol=1e-6)


def test_reinterhand_splits_single_hands_as_released_and_never_shares_a_measured_pair(root):
    left, right = angles(40, 48), angles(40, 48)
    for frame in range(40):
        folder = root / 'm--1' / 'mano_fits' / 'params'
        for side, hands in (('left', left), ('right', right)):
            content = {'pose': hands[frame].tolist(), 'shape': [0.0] * 10, 'trans': [0.0] * 3}
            write(folder / f'{frame:06d}_{side}.json', content)
    arrays = prepared('reinterhand', root)
    every = torch.from_numpy(np.concatenate([left[:, 3:] * MIRROR, right[:, 3:]]).astype('f4'))
    shuffled = every[torch.randperm(80, generator=torch.Generator().manual_seed(42))]
    torch.manual_seed(0)
    parts = torch.utils.data.random_split(shuffled, [64, 8, 8])
    for split, part in zip(('train', 'valid', 'test'), parts, strict=True):
        np.testing.assert_array_equal(arrays[f'{split}_hand'], torch.stack(list(part)).numpy())
    pairs = np.concatenate(
        [arrays['train_left_hand'] * MIRROR, arrays['train_right_hand']]
    ).astype('f4')
    assert 0 < len(pairs) < 80
    trained = {row.tobytes() for row in arrays['train_hand']}
    assert all(row.tobytes() in trained for row in pairs + np.float32(0.0))


def test_reinterhand_reads_the_merged_file_without_running_it(root):
    left, right = torch.rand(10, 48), torch.rand(10, 48)
    torch.save({'left_pose': left, 'right_pose': right}, root / 'reinterhand_mocap.pt')
    arrays = prepared('reinterhand', root)
    hands = np.concatenate([arrays[f'{split}_hand'] for split in ('train', 'valid', 'test')])
    left, right = left.numpy()[:, 3:], right.numpy()[:, 3:]
    expected = np.concatenate([left * MIRROR, right]).astype('f4')
    np.testing.assert_array_equal(np.sort(hands, axis=0), np.sort(expected, axis=0))


def test_hamer_reads_packed_and_loose_files(root):
    poses = angles(4, 48)
    write(root / 'dataset_params' / 'ho3d.npz', {'hand_pose': poses, 'betas': angles(4, 10)})
    for k, is_right in enumerate((1, 0)):
        record = {
            'has_hand_pose': 1, 'has_betas': 1, 'hand_pose': poses[k], 'betas': angles(10),
            'right': is_right,
        }  # fmt: skip
        write(root / 'dataset_contents' / 'dex-train' / '000' / f'{k}.data.pyd', [record])
    arrays = prepared('hamer', root)
    names = list(arrays['clips'])
    of = {
        name: arrays['train_right_hand'][arrays['train_clip'] == k] for k, name in enumerate(names)
    }
    np.testing.assert_allclose(of['ho3d'], poses[:, 3:], atol=1e-7)
    np.testing.assert_allclose(
        of['dex-train/000'], [poses[0, 3:], poses[1, 3:] * MIRROR], atol=1e-7
    )


def test_flame_fits_give_jaw_expression_and_shape(root):
    pose, betas = angles(15), angles(400)
    write(root / 'FLORENCE' / 'FLAME_parameters' / 'a' / 'x.npz', {'pose': pose, 'betas': betas})
    merged = {'jaw_pose': angles(3, 3), 'expression': angles(3, 100), 'betas': angles(3, 300)}
    write(root / 'LYHM_VALID' / 'merged_flame_data.npz', merged)
    write(root / 'WCPAPRE_TRAIN' / 'FLAME_parameters' / '1_a.npz', {'pose': pose, 'betas': betas})
    mica = prepared('mica', root)
    np.testing.assert_allclose(mica['train_betas'][0], betas[:300], atol=1e-7)
    np.testing.assert_allclose(mica['valid_jaw'], merged['jaw_pose'], atol=1e-7)
    prepared('wcpa', root)
    added = add_prepared({}, [root.parent / 'mica.npz', root.parent / 'wcpa.npz'])
    np.testing.assert_allclose(added['face_shape'], betas[None, :100], atol=1e-7)
    np.testing.assert_allclose(added['face'][0], [*pose[6:9], *betas[300:]], atol=1e-7)


@pytest.mark.parametrize('is_text', [True, False])
def test_ehf_reads_the_aligned_meshes(root, is_text):
    vertices = angles(10475, 3).astype('f4')
    kind = 'ascii' if is_text else 'binary_little_endian'
    header = (
        f'ply\nformat {kind} 1.0\nelement vertex 10475\nproperty float x\nproperty float y\n'
        'property float z\nproperty uchar red\nelement face 0\n'
        'property list uchar int vertex_indices\nend_header\n'
    )
    if is_text:
        body = '\n'.join(f'{x!s} {y!s} {z!s} 7' for x, y, z in vertices.tolist()).encode()
    else:
        table = np.zeros(10475, [('v', '<f4', 3), ('red', 'u1')])
        table['v'] = vertices
        body = table.tobytes()
    for name in ('01', '02'):
        (root / f'{name}_img.jpg').touch()
        (root / f'{name}_align.ply').write_bytes(
            header.encode() + body[: None if name == '01' else -99]
        )
    arrays = prepared('ehf', root)
    np.testing.assert_array_equal(arrays['test_vertices'], vertices[None])
    meta = read_meta(root.parent / 'ehf.npz')
    assert 'fewer than its 10475 vertices' in meta.skipped['02'] and len(meta.missing) == 98


def test_now_lists_images_with_their_scans(root):
    name = 'FaMoS_1/multiview_neutral/IMG_1.jpg'
    write(root / 'imagepathsvalidation.txt', f'{name}\nFaMoS_2/selfie/IMG_2.jpg\n')
    release = root / 'NoW_Dataset' / 'final_release_version'
    for path in (
        release / 'iphone_pictures' / name,
        (release / 'detected_face' / name).with_suffix('.npy'),
        root / 'scans' / 'FaMoS_1' / 'scan.obj',
        root / 'scans_lmks_onlypp' / 'FaMoS_1' / 'scan.pp',
    ):
        path.parent.mkdir(parents=True)
        path.touch()
    arrays = prepared('now', root)
    assert arrays['clips'].tolist() == [name]
    assert arrays['test_surface'].tolist() == ['scans/FaMoS_1/scan.obj']
    assert 'IMG_2.jpg' in read_meta(root.parent / 'now.npz').missing[0]


@pytest.mark.parametrize('name', DATASETS)
def test_a_missing_or_empty_folder_says_what_is_expected_and_where_it_comes_from(name, tmp_path):
    dataset = DATASETS[name]
    first = dataset.tree.splitlines()[0]
    for folder in (tmp_path / 'nowhere', tmp_path):
        with pytest.raises(DataSetError) as error:
            prepare(dataset, folder, tmp_path / 'x.npz')
        assert first in str(error.value) and dataset.where in str(error.value)
        assert dataset.licence in str(error.value) and str(folder) in str(error.value)


def test_packed_archives_in_the_folder_are_named(tmp_path):
    (tmp_path / 'CMU.tar.bz2').touch()
    with pytest.raises(DataSetError, match=r'Unpack CMU\.tar\.bz2 first'):
        DATASETS['amass'].find(tmp_path)


def test_bad_clips_are_named_and_counted(root):
    good = {'poses': angles(10, 165), 'betas': angles(16)}
    folder = root / 'CMU' / '01'
    write(folder / 'good_stageii.npz', good)
    bad = angles(10, 165)
    bad[3, 10] = np.nan
    write(folder / 'nan_stageii.npz', good | {'poses': bad})
    write(folder / 'smplh_stageii.npz', good | {'poses': angles(10, 156)})
    write(folder / 'degrees_stageii.npz', good | {'poses': angles(10, 165) * 180})
    write(folder / 'other_stageii.npz', {'trans': angles(10, 3)})
    half = (folder / 'good_stageii.npz').read_bytes()
    (folder / 'half_stageii.npz').write_bytes(half[: len(half) // 2])
    arrays = prepared('amass', root)
    assert arrays['clips'].tolist() == ['CMU/01/good']
    skipped = read_meta(root.parent / 'amass.npz').skipped
    assert {name.rsplit('/')[-1] for name in skipped} == {
        'nan', 'smplh', 'degrees', 'other', 'half'
    }  # fmt: skip
    assert 'NaN or infinity in 1 of 10 frames, first in frame 3' in skipped['CMU/01/nan']
    assert '(10, 156)' in skipped['CMU/01/smplh']
    assert 'no axis-angle' in skipped['CMU/01/degrees']
    assert 'no poses in it' in skipped['CMU/01/other']
    assert 'download it again' in skipped['CMU/01/half']


def test_a_set_of_only_bad_clips_fails_with_the_reasons(root):
    write(root / 'CMU' / '01' / 'x_stageii.npz', {'poses': angles(10, 3)})
    with pytest.raises(DataSetError, match=r'none of 1 clips can be used: CMU/01/x \(poses have'):
        prepared('amass', root)
    assert not (root.parent / 'amass.npz').exists()
    assert not list(root.parent.glob('.*'))  # no partial file is left


class Trap:
    """Runs a command when unpickled in the plain way."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return (os.system, (f'touch {self.witness}',))


def test_pickles_run_nothing(tmp_path):
    witness = tmp_path / 'witness'
    path = tmp_path / 'x.pkl'
    path.write_bytes(pickle.dumps({'poses': np.arange(3.0), 'evil': Trap(witness)}))
    assert read_pickle(path)['poses'].tolist() == [0.0, 1.0, 2.0]
    np.savez(tmp_path / 'x.npz', poses=np.array([Trap(witness)], dtype=object))
    read_npz(tmp_path / 'x.npz', 'poses')
    assert not witness.exists()


def test_mano_files_load_without_chumpy(tmp_path):
    content = {'hands_mean': angles(45), 'hands_components': angles(45, 45)}
    for side in ('LEFT', 'RIGHT'):
        write(tmp_path / 'models' / f'MANO_{side}.pkl', content)
    np.testing.assert_array_equal(load_mano(tmp_path).right.mean, content['hands_mean'])
    with pytest.raises(ModelFileError, match='mano.is.tue.mpg.de'):
        load_mano(tmp_path / 'elsewhere')


def test_the_choice_of_frames_does_not_depend_on_other_clips():
    rule = Subsample(0.1, 0.9, 0.24)
    frames = rule.frames(1000, 'CMU/01/01_01')
    np.testing.assert_array_equal(frames, rule.frames(1000, 'CMU/01/01_01'))
    assert len(frames) == 240 and frames.min() >= 100 and frames.max() < 900
    assert (rule.frames(1000, 'CMU/01/01_02') != frames).any()


def test_packing_refuses_mixed_hand_conventions(root):
    write(root / 'training_mano.json', angles(3, 1, 61).tolist())
    write(
        root / 'dataset_params' / 'dex.npz', {'hand_pose': angles(2, 48), 'betas': angles(2, 10)}
    )
    files = [root.parent / 'freihand.npz', root.parent / 'hamer.npz']
    prepared('freihand', root)
    prepared('hamer', root)
    with pytest.raises(ConfigError, match='--mano'):
        add_prepared({}, files)
    packed = add_prepared({'hand': np.zeros((9, 45), 'f4')}, files, official_hands=True)
    assert packed['hand'].shape == (5, 45)  # synthetic hands gave way
    assert packed['hand_sources'].tolist() == ['freihand', 'hamer']
    assert packed['hand_source'].tolist() == [0, 0, 0, 1, 1]


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(DataSetError, match="did you mean 'amass'"):
        get_dataset('amas')
    assert get_dataset('H2O(3D)').name == 'h2o3d'


def test_an_unwritable_output_is_refused_before_the_work(root, tmp_path):
    write(root / 'training_mano.json', angles(3, 1, 61).tolist())
    (tmp_path / 'file').touch()
    with pytest.raises(DataSetError, match='cannot be written'):
        prepare(DATASETS['freihand'], root, tmp_path / 'file' / 'x.npz')


def test_a_full_disk_says_how_much_is_needed(root, tmp_path, monkeypatch):
    write(root / 'training_mano.json', angles(3, 1, 61).tolist())

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(np, 'savez_compressed', full)
    with pytest.raises(DataSetError, match='disk is full'):
        prepare(DATASETS['freihand'], root, tmp_path / 'x.npz')
    assert not list(tmp_path.glob('*.npz')) and not list(tmp_path.glob('.*'))


def test_smplx_width_is_checked():
    with pytest.raises(BadClipError, match='165'):
        smplx_pose(np.zeros((3, 72)))


def test_the_readme_names_every_set():
    text = (Path(__file__).parents[2] / 'training' / 'README.md').read_text()
    assert [name for name in DATASETS if f'`{name}`' not in text] == []
