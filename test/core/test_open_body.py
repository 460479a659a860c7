"""Steps of building the open body; the finished body is tested in test_body_model.py."""

from pathlib import Path

import numpy as np
import pytest

from dposer_core import skeleton
from dposer_core.errors import ModelFileError
from dposer_core.open_body import (
    EXPRESSIONS,
    NUM_EXPRESSION,
    Asset,
    build_open_body,
    is_current,
    joint_regressor,
    merge_weights,
    principal_components,
    sample_phenotypes,
)
from dposer_core.open_body import _shortest as shortest_rotation


def asset_of_bones(bones: list[str]) -> Asset:
    """One vertex per bone."""
    n = len(bones)
    return Asset(
        base=np.arange(n), faces=np.zeros((0, 3), int), weights=np.eye(n), bones=bones,
        vertices=np.zeros((1, n, 3)), heads=np.zeros((1, n, 3)), tails=np.zeros((1, n, 3)),
        actions={},
    )  # fmt: skip


@pytest.mark.parametrize(
    'bone, joint',
    [
        ('root', 'pelvis'), ('upperleg02.L', 'left_hip'), ('toe5-3.R', 'right_foot'),
        ('lowerarm02.R', 'right_elbow'), ('metacarpal3.L', 'left_wrist'),
        ('finger1-1.L', 'left_thumb1'), ('finger5-3.R', 'right_pinky3'), ('eye.R', 'right_eye'),
        ('oris01', 'jaw'), ('oris07.L', 'jaw'), ('oris03.L', 'head'), ('neck03', 'head'),
        ('breast.L', 'spine2'), ('levator05.L', 'head'),
    ],
)  # fmt: skip
def test_bone_goes_to_its_joint(bone: str, joint: str) -> None:
    weights = merge_weights(asset_of_bones([bone]))
    assert weights[0, skeleton.JOINT_INDEX[joint]] == 1.0


def test_shared_bones_keep_their_weight() -> None:
    weights = merge_weights(asset_of_bones(['spine04', 'shoulder01.L']))
    assert np.allclose(weights.sum(axis=1), 1.0)


def test_shortest_rotation_turns_source_into_target() -> None:
    rng = np.random.default_rng(0)
    for source, target in rng.normal(size=(10, 2, 3)):
        rotation = shortest_rotation(source, target)
        turned = rotation @ source / np.linalg.norm(source)
        assert np.allclose(turned, target / np.linalg.norm(target))
        assert np.isclose(np.linalg.det(rotation), 1.0)


def test_sampled_people_are_the_same_every_time() -> None:
    first, second = sample_phenotypes(), sample_phenotypes()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert all(values.min() >= 0.0 and values.max() <= 1.0 for values in first.values())


def test_components_have_unit_variance() -> None:
    rng = np.random.default_rng(0)
    people = rng.normal(size=(40, 300, 3))
    joints = people[:, :55] * 0.9
    mesh, dirs, rest, joint_dirs = principal_components(people, joints)
    # One person as mean plus coefficients: the coefficients of all people vary by 1.
    moved = people - joints[:, :1] - mesh
    flat = np.concatenate([dirs, joint_dirs]).reshape(-1, 10)
    everything = np.concatenate([moved, joints - joints[:, :1] - rest], axis=1).reshape(40, -1)
    coefficients = np.linalg.lstsq(flat, everything.T, rcond=None)[0]
    assert np.allclose(coefficients.std(axis=1, ddof=1), 1.0, atol=1e-6)


def test_regressor_gives_joints_of_every_shape() -> None:
    rng = np.random.default_rng(0)
    mesh, dirs = rng.normal(0, 0.5, (1200, 3)), rng.normal(0, 0.01, (1200, 3, 10))
    joints, joint_dirs = rng.normal(0, 0.2, (55, 3)), rng.normal(0, 0.01, (55, 3, 10))
    expression = rng.normal(0, 0.001, (1200, 3, NUM_EXPRESSION))
    regressor = joint_regressor(mesh, dirs, joints, joint_dirs, expression)
    assert np.allclose(regressor.sum(axis=1), 1.0, atol=1e-9)
    assert np.abs(regressor @ mesh - joints).max() < 0.001
    assert np.abs(np.einsum('jv,vic->jic', regressor, dirs) - joint_dirs).max() < 0.001


def test_every_expression_coefficient_has_a_distinct_name() -> None:
    assert len({e.name for e in EXPRESSIONS}) == len(EXPRESSIONS) == NUM_EXPRESSION


def test_jaw_is_no_expression() -> None:
    assert not any(action.startswith('jaw') for e in EXPRESSIONS for action in e.actions)


def test_other_files_are_not_current(tmp_path: Path) -> None:
    assert not is_current(tmp_path / 'none.npz')
    (tmp_path / 'rubbish.npz').write_bytes(b'rubbish')
    assert not is_current(tmp_path / 'rubbish.npz')
    np.savez(tmp_path / 'older.npz', version=0)
    assert not is_current(tmp_path / 'older.npz')


def test_unwritable_place_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(ModelFileError, match='--output'):
        build_open_body(tmp_path / 'file' / 'body.npz')
