"""States survive their file; other files are refused by what they hold."""

import dataclasses

import numpy as np
import pytest

from dposer_core.camera import PinholeCamera
from dposer_core.errors import MediaError, StorageError
from dposer_core.state import BodyState, FitResult, FitStats, Quality, Status
from dposer_core.states_io import States, read_states, states_from_results, write_states

CAMERA = PinholeCamera(600.0, 610.0, 320.0, 240.0, 640, 480)


def result(stamp_ns: int) -> FitResult:
    rng = np.random.default_rng(stamp_ns)
    state = BodyState(
        stamp_ns=stamp_ns,
        pose_rotvec=rng.normal(size=(55, 3)),
        transl=rng.normal(size=3),
        betas=rng.normal(size=10),
        expression=rng.normal(size=12),
        joints=rng.normal(size=(55, 3)),
        landmarks=rng.normal(size=(133, 3)),
        joint_velocities=np.zeros((55, 3)),
        rotation_sigma=np.ones(55),
        position_covariance=np.eye(3) * rng.uniform(size=(55, 1, 1)),
        pelvis_covariance=np.eye(6),
        source=rng.integers(0, 5, 55).astype(np.uint8),
    )
    return FitResult(
        'p0001', '', Status.TRACKING, Quality.FULL, state, 1.0, 1.0, (0.0, 0.0), FitStats()
    )


def assert_equal(a: States, b: States) -> None:
    for name, value in dataclasses.asdict(a).items():
        other = dataclasses.asdict(b)[name]
        np.testing.assert_array_equal(value, other) if name != 'camera' else None
    assert a.camera == b.camera and a.model == b.model


@pytest.mark.parametrize('camera', [CAMERA, None])
def test_states_survive_the_file(camera, tmp_path):
    states = states_from_results([result(1), result(2)], 'open_body/0123abcd', camera)
    write_states(tmp_path / 's.npz', states)
    assert_equal(read_states(tmp_path / 's.npz'), states)


def test_no_states_are_a_valid_file(tmp_path):
    write_states(tmp_path / 's.npz', states_from_results([], 'm'))
    assert len(read_states(tmp_path / 's.npz')) == 0


def test_file_appears_whole_and_leaves_nothing_beside_it(tmp_path):
    write_states(tmp_path / 's.npz', states_from_results([result(1)], 'm'))
    assert [p.name for p in tmp_path.iterdir()] == ['s.npz']


def test_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(StorageError, match=r's\.npz cannot be written'):
        write_states(tmp_path / 'file' / 's.npz', states_from_results([], 'm'))


def test_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(MediaError, match=r's\.npz does not exist; make it with `dposer fit`'):
        read_states(tmp_path / 's.npz')


@pytest.mark.parametrize('content', [b'', b'text'])
def test_file_that_is_no_npz_is_refused(content, tmp_path):
    (tmp_path / 's.npz').write_bytes(content)
    with pytest.raises(MediaError, match=r'not a readable \.npz'):
        read_states(tmp_path / 's.npz')


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / 's.npz'
    write_states(path, states_from_results([result(1)], 'm'))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(MediaError, match=r'not a readable \.npz'):
        read_states(path)


def test_npz_of_something_else_lists_what_it_holds(tmp_path):
    np.savez(tmp_path / 's.npz', points=np.zeros(3))
    with pytest.raises(MediaError, match=r'not a states file: no stamp_ns.*it holds points'):
        read_states(tmp_path / 's.npz')


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('joints', np.zeros((1, 54, 3)), r'joints has shape \(1, 54, 3\), expected \(1, 55, 3\)'),
        ('betas', np.zeros((2, 10)), 'betas has shape'),
        ('transl', np.full((1, 3), np.nan), 'transl holds values that are not finite'),
        ('camera', np.zeros(4), 'camera is'),
    ],
)
def test_array_that_does_not_fit_is_named(name, value, message, tmp_path):
    path = tmp_path / 's.npz'
    write_states(path, states_from_results([result(1)], 'm', CAMERA))
    with np.load(path) as archive:
        arrays = {**archive, name: value}
    np.savez(path, **arrays)
    with pytest.raises(MediaError, match=message):
        read_states(path)
