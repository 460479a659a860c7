"""The body model against the `smplx` package, and what it says about files it cannot use."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer_core import skeleton
from dposer_core.body_model import (
    Body,
    landmark_joints,
    landmark_vertices,
    load_body,
    open_body_path,
)
from dposer_core.errors import ModelFileError
from dposer_core.keypoints import POINT_INDEX
from dposer_core.rotations import rotvec_to_rotmat
from test.synthetic_smplx import write_synthetic_smplx

# smplx works in float32: a chain of ten bones of a metre keeps about 1e-6 m.
TOLERANCE_M = 1e-5

# Order of the extra joints that smplx appends to the 55: see its VertexJointSelector.
SMPLX_EXTRA = {
    'nose': 55, 'right_eye': 56, 'left_eye': 57, 'right_ear': 58, 'left_ear': 59,
    'left_big_toe': 60, 'left_small_toe': 61, 'left_heel': 62,
    'right_big_toe': 63, 'right_small_toe': 64, 'right_heel': 65,
    **{f'left_{f}4': 66 + i for i, f in enumerate(('thumb', 'index', 'middle', 'ring', 'pinky'))},
    **{f'right_{f}4': 71 + i for i, f in enumerate(('thumb', 'index', 'middle', 'ring', 'pinky'))},
}  # fmt: skip


@pytest.fixture(scope='module')
def synthetic_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_smplx(tmp_path_factory.mktemp('body') / 'synthetic.npz')


@pytest.fixture(scope='module')
def synthetic(synthetic_path: Path) -> Body:
    return load_body(synthetic_path)


def random_input(batch: int = 4, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return (
        rng.normal(0, 0.4, (batch, 55, 3)),
        rng.normal(0, 1.0, (batch, 10)),
        rng.normal(0, 1.0, (batch, 10)),
        rng.normal(0, 1.0, (batch, 3)),
    )


def smplx_output(path: Path, pose: np.ndarray, *rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, 55 + 21 + 51, 3) joints and (B, V, 3) vertices of the smplx package."""
    smplx = pytest.importorskip('smplx')
    with tempfile.TemporaryDirectory() as folder:  # smplx looks for files by this name
        (Path(folder) / 'smplx').mkdir()
        (Path(folder) / 'smplx' / 'SMPLX_NEUTRAL.npz').symlink_to(path.resolve())
        model = smplx.create(
            folder, model_type='smplx', ext='npz', num_betas=10, num_expression_coeffs=10,
            use_pca=False, flat_hand_mean=True, batch_size=len(pose),
        )  # fmt: skip
    betas, expression, transl, pose = (
        torch.as_tensor(x, dtype=torch.float32) for x in (*rest, pose)
    )
    output = model(
        betas=betas, expression=expression, transl=transl, global_orient=pose[:, 0],
        body_pose=pose[:, 1:22].flatten(1), jaw_pose=pose[:, 22], leye_pose=pose[:, 23],
        reye_pose=pose[:, 24], left_hand_pose=pose[:, 25:40].flatten(1),
        right_hand_pose=pose[:, 40:].flatten(1),
    )  # fmt: skip
    return output.joints.detach().numpy(), output.vertices.detach().numpy()


def assert_agrees_with_smplx(body: Body, path: Path) -> None:
    inputs = random_input()
    expected, vertices = smplx_output(path, *inputs)
    assert np.abs(body.joints(*inputs) - expected[:, :55]).max() < TOLERANCE_M
    assert np.abs(body.vertices(*inputs) - vertices).max() < TOLERANCE_M
    landmarks = body.landmarks(*inputs)
    for name, index in SMPLX_EXTRA.items():
        error = np.abs(landmarks[:, POINT_INDEX[name]] - expected[:, index]).max()
        assert error < TOLERANCE_M, name
    assert np.abs(landmarks[:, 40:91] - expected[:, 76:127]).max() < TOLERANCE_M


def test_synthetic_body_agrees_with_smplx(synthetic: Body, synthetic_path: Path) -> None:
    assert_agrees_with_smplx(synthetic, synthetic_path)


def test_narrow_shapedirs_are_ten_betas_and_ten_expressions(tmp_path: Path) -> None:
    path = write_synthetic_smplx(tmp_path / 'narrow.npz', wide=False)
    assert_agrees_with_smplx(load_body(path), path)


def test_folded_landmarks_equal_those_of_the_mesh(synthetic: Body, synthetic_path: Path) -> None:
    inputs = random_input()
    landmarks, mesh = synthetic.landmarks(*inputs), synthetic.vertices(*inputs)
    with np.load(synthetic_path) as arrays:
        points = landmark_vertices(arrays)
    assert len(points) + len(landmark_joints()) == 133
    for n, (vertices, weights) in points.items():
        assert np.abs(landmarks[:, n] - weights @ mesh[:, vertices]).max() < TOLERANCE_M


def test_torch_equals_numpy(synthetic: Body) -> None:
    inputs = random_input()
    joints, landmarks = synthetic.torch_forward(*map(torch.as_tensor, inputs))
    assert np.abs(joints.numpy() - synthetic.joints(*inputs)).max() < 1e-12
    assert np.abs(landmarks.numpy() - synthetic.landmarks(*inputs)).max() < 1e-12


def test_torch_is_differentiable_at_rest(synthetic: Body) -> None:
    inputs = [torch.zeros(1, *s, requires_grad=True) for s in ((55, 3), (10,), (10,), (3,))]
    joints, landmarks = synthetic.torch_forward(*inputs)
    (joints.square().sum() + landmarks.square().sum()).backward()
    for tensor in inputs:
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()


def test_single_pose_equals_batch(synthetic: Body) -> None:
    inputs = random_input()
    batch = synthetic.vertices(*inputs)
    assert np.abs(synthetic.vertices(*(x[2] for x in inputs))[0] - batch[2]).max() < 1e-6


def test_root_rotation_turns_about_the_pelvis(synthetic: Body) -> None:
    pose = np.zeros((55, 3))
    rest = synthetic.joints(pose)[0]
    pose[0] = (0.0, 1.0, 0.5)
    expected = (rest - rest[0]) @ rotvec_to_rotmat(pose[0]).T + rest[0]
    assert np.abs(synthetic.joints(pose)[0] - expected).max() < 1e-12


def test_mean_hand_pose_is_not_added(synthetic: Body) -> None:
    assert np.abs(synthetic.tables.hands_mean).max() > 0.1
    hand = synthetic.joints(np.zeros((55, 3)))[0, skeleton.LEFT_HAND_JOINTS]
    assert np.abs(hand - synthetic.tables.joint_template[skeleton.LEFT_HAND_JOINTS]).max() < 1e-12


def test_missing_open_body_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    with pytest.raises(ModelFileError, match='dposer body build'):
        load_body()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r'SMPLX_NEUTRAL\.npz'):
        load_body(tmp_path / 'SMPLX_NEUTRAL.npz')


def test_file_without_smplx_keys_names_them(tmp_path: Path) -> None:
    np.savez(tmp_path / 'smpl.npz', v_template=np.zeros((6890, 3)), f=np.zeros((10, 3)))
    with pytest.raises(ModelFileError, match=r'lacks shapedirs.*lmk_faces_idx'):
        load_body(tmp_path / 'smpl.npz')


def test_truncated_file_is_refused(tmp_path: Path, synthetic_path: Path) -> None:
    content = synthetic_path.read_bytes()
    for share in (0.0, 0.3, 0.99):
        (tmp_path / 'cut.npz').write_bytes(content[: int(share * len(content))])
        with pytest.raises(ModelFileError, match='cannot be read'):
            load_body(tmp_path / 'cut.npz')


def test_damaged_file_is_refused(tmp_path: Path, synthetic_path: Path) -> None:
    content = bytearray(synthetic_path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # the zip's checksum finds it
    (tmp_path / 'damaged.npz').write_bytes(content)
    with pytest.raises(ModelFileError, match='cannot be read'):
        load_body(tmp_path / 'damaged.npz')


def test_wrong_shape_is_named(tmp_path: Path, synthetic_path: Path) -> None:
    with np.load(synthetic_path) as archive:
        arrays = dict(archive) | {'weights': np.zeros((9960, 24))}
    np.savez(tmp_path / 'other.npz', **arrays)
    with pytest.raises(ModelFileError, match=r'weights has shape \(9960, 24\), expected any x 55'):
        load_body(tmp_path / 'other.npz')


# The open body: `make setup` builds it.


@pytest.fixture(scope='module')
def open_body() -> Body:
    return load_body()


def joint(body: Body, name: str) -> np.ndarray:
    return body.tables.joint_template[skeleton.JOINT_INDEX[name]]


def stature_and_volume(body: Body, beta: int, value: float) -> tuple[float, float]:
    """Of the rest mesh: height in metres, enclosed volume in litres."""
    betas = np.zeros(10)
    betas[beta] = value
    mesh = body.vertices(np.zeros((55, 3)), betas)[0].astype(np.float64)
    a, b, c = np.moveaxis(mesh[body.faces], 1, 0)
    volume = np.einsum('fi,fi->f', a, np.cross(b, c)).sum() / 6
    return float(np.ptp(mesh[:, 1])), float(volume * 1000)


def test_open_body_agrees_with_smplx(open_body: Body) -> None:
    assert_agrees_with_smplx(open_body, open_body_path())


def test_open_body_folded_landmarks_equal_those_of_the_mesh(open_body: Body) -> None:
    inputs = random_input()
    landmarks, mesh = open_body.landmarks(*inputs), open_body.vertices(*inputs)
    with np.load(open_body_path()) as arrays:
        points = landmark_vertices(arrays)
    for n, (vertices, weights) in points.items():
        assert np.abs(landmarks[:, n] - weights @ mesh[:, vertices]).max() < TOLERANCE_M


def test_open_body_carries_its_own_name(open_body: Body) -> None:
    assert open_body.tables.name == 'open_body'
    assert open_body.posedirs is None


def test_open_body_axes(open_body: Body) -> None:
    points = dict(zip(POINT_INDEX, open_body.landmarks(np.zeros((55, 3)))[0], strict=True))
    assert joint(open_body, 'left_wrist')[0] > 0.5
    assert joint(open_body, 'right_wrist')[0] < -0.5
    assert joint(open_body, 'head')[1] > joint(open_body, 'pelvis')[1] + 0.4
    assert points['nose'][2] > points['left_ear'][2] + 0.05
    assert points['left_big_toe'][2] > points['left_heel'][2] + 0.15
    assert points['left_small_toe'][0] > points['left_big_toe'][0] + 0.04
    assert points['left_ear'][0] > points['left_eye'][0] > points['nose'][0]


@pytest.mark.parametrize('side, sign', [('left', 1.0), ('right', -1.0)])
def test_open_body_arms_lie_along_x(open_body: Body, side: str, sign: float) -> None:
    for a, b in (('shoulder', 'elbow'), ('elbow', 'wrist'), ('wrist', 'middle1')):
        bone = joint(open_body, f'{side}_{b}') - joint(open_body, f'{side}_{a}')
        assert bone[0] * sign / np.linalg.norm(bone) > np.cos(np.radians(5.0)), (a, b)


def test_open_body_hand_is_flat(open_body: Body) -> None:
    for finger in ('index', 'middle', 'ring', 'pinky'):
        bones = np.diff([joint(open_body, f'left_{finger}{i}') for i in (1, 2, 3)], axis=0)
        bones /= np.linalg.norm(bones, axis=1, keepdims=True)
        assert bones[0] @ bones[1] > np.cos(np.radians(3.0))
        assert abs(bones[0, 1]) < np.sin(np.radians(5.0))  # palm down


def test_open_body_is_symmetric(open_body: Body) -> None:
    joints = open_body.tables.joint_template
    mirrored = joints[skeleton.mirror_joints()] * (-1.0, 1.0, 1.0)
    assert np.abs(joints - mirrored).max() < 0.001


def test_open_body_face_points_are_ordered_as_ibug(open_body: Body) -> None:
    face = open_body.landmarks(np.zeros((55, 3)))[0, 23:91]
    assert (np.diff(face[:17, 0]) > 0).all()  # the person's right ear to the left one
    assert face[8, 1] == face[:17, 1].min()  # chin
    assert (np.diff(face[17:27, 0]) > 0).all()
    assert face[17:27, 1].min() > face[36:48, 1].max()  # brows over eyes
    assert (np.diff(face[27:31, 1]) < 0).all() and face[30, 2] == face[:, 2].max()  # nose tip
    assert face[36:42, 0].max() < 0 < face[42:48, 0].min()  # the person's right eye first
    assert face[48, 0] < face[51, 0] < face[54, 0]
    assert face[51, 1] > face[62, 1] >= face[66, 1] > face[57, 1]  # lips, from top to bottom


def test_open_body_first_beta_is_stature(open_body: Body) -> None:
    low, rest, high = (stature_and_volume(open_body, 0, v)[0] for v in (-2.0, 0.0, 2.0))
    assert 1.65 < rest < 1.78
    assert high - low > 0.25
    for other in range(1, 10):
        change = [stature_and_volume(open_body, other, v)[0] for v in (-2.0, 2.0)]
        assert abs(change[1] - change[0]) < 0.4 * (high - low)


def test_open_body_has_a_beta_for_build(open_body: Body) -> None:
    changes = []
    for beta in range(1, 10):
        (short, light), (tall, heavy) = (stature_and_volume(open_body, beta, v) for v in (-2, 2))
        changes.append(((heavy - light) / light, abs(tall - short)))
    # Some beta makes the body a quarter heavier while its height stays within 5 cm.
    assert any(volume > 0.25 and height < 0.05 for volume, height in changes)


def test_open_body_joints_do_not_move_with_expression(open_body: Body) -> None:
    assert np.abs(open_body.tables.joint_dirs[:, :, 10:]).max() < 0.0002


def test_open_body_jaw_opens_the_mouth(open_body: Body) -> None:
    pose = np.zeros((55, 3))
    pose[skeleton.JAW_JOINT] = (0.3, 0.0, 0.0)
    rest, opened = open_body.landmarks(np.zeros((55, 3)))[0], open_body.landmarks(pose)[0]
    gap = (opened - rest)[23 + 62] - (opened - rest)[23 + 66]
    assert gap[1] > 0.01
    assert np.abs((opened - rest)[23 + 27]).max() < 1e-6  # the nose bridge stays


def test_pose_tables_of_the_open_body_are_small(open_body: Body) -> None:
    """The fitter's cost grows with the bones per landmark."""
    assert open_body.tables.point_bones.shape[1] <= 4
