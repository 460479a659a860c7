"""Keypoints from .npz, their time stamps, and lenses between file and observation."""

import numpy as np
import pytest

from dposer_core.camera import PinholeCamera, camera_from_info
from dposer_core.errors import ObservationError
from dposer_core.recording import Person, Recording, read_npz

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(10, 600, (5, 133, 2))


def save(folder, **arrays):
    path = folder / 'keypoints.npz'
    np.savez(path, **arrays)
    return path


def test_one_person_per_frame_needs_no_person_axis(tmp_path):
    recording = read_npz(save(tmp_path, points=POINTS, confidence=np.ones((5, 133))))
    assert [len(people) for people in recording.frames] == [1] * 5
    np.testing.assert_array_equal(recording.frames[3][0].points, POINTS[3])


def test_people_slots_of_nan_are_nobody(tmp_path):
    points = np.stack([POINTS, np.full_like(POINTS, np.nan)], axis=1)
    points[2, 1] = 5.0
    recording = read_npz(save(tmp_path, points=points))
    assert [len(people) for people in recording.frames] == [1, 1, 2, 1, 1]


def test_layout_stamps_and_size_come_from_the_file(tmp_path):
    stamps = np.arange(5) * 40_000_000 + 7
    path = save(
        tmp_path, points=np.zeros((5, 18, 3)) + 1, layout='hri18', stamp_ns=stamps, size=[640, 480]
    )
    recording = read_npz(path)
    assert recording.source == 'npz, hri18' and recording.dim == 3
    assert recording.stamps_ns == tuple(stamps) and recording.size == (640, 480)


def test_camera_comes_from_the_file(tmp_path):
    path = save(tmp_path, points=POINTS, camera=[600.0, 610.0, 320.0, 240.0], size=[640, 480])
    assert read_npz(path).camera == PinholeCamera(600.0, 610.0, 320.0, 240.0, 640, 480)


def test_layout_argument_overrules_the_file(tmp_path):
    path = save(tmp_path, points=np.ones((1, 18, 2)), layout='hri18')
    assert read_npz(path, 'openpose18').source == 'npz, openpose18'


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'poses': np.zeros(3)}, "no array 'points'; it holds poses"),
        ({'points': np.zeros((5, 133))}, r'shape \(5, 133\); expected numbers with 3 or 4 axes'),
        ({'points': np.zeros((5, 133, 4))}, 'the last axis must be 2 or 3'),
        ({'points': np.array(['a'])}, 'expected numbers'),
        ({'points': POINTS, 'confidence': np.ones((5, 17))}, r'confidence has shape \(5, 1, 17\)'),
        ({'points': POINTS, 'stamp_ns': np.zeros(4, int)}, r'expected integers of shape \(5,\)'),
        ({'points': POINTS, 'stamp_ns': np.zeros(5)}, 'stamp_ns is float64'),
        ({'points': POINTS, 'size': [0, 480]}, r'size is \[0, 480\]'),
        ({'points': POINTS, 'camera': [0, 600, 320, 240]}, r'camera is \[0, 600'),
        ({'points': np.zeros((5, 99, 2))}, 'no known keypoint layout has 99'),
        ({'points': np.zeros((5, 18, 2))}, '18 keypoints can be'),
        ({'points': POINTS, 'layout': 'coco134'}, "unknown keypoint layout 'coco134'"),
    ],
)
def test_wrong_npz_says_what_it_holds(arrays, message, tmp_path):
    with pytest.raises(ObservationError, match=message):
        read_npz(save(tmp_path, **arrays))


@pytest.mark.parametrize('content', [b'', b'no zip at all', b'PK\x03\x04cut off'])
def test_damaged_npz_is_refused(content, tmp_path):
    path = tmp_path / 'keypoints.npz'
    path.write_bytes(content)
    with pytest.raises(ObservationError, match=r'not a readable \.npz'):
        read_npz(path)


def test_plain_npy_is_refused(tmp_path):
    path = tmp_path / 'keypoints.npz'
    with path.open('wb') as file:
        np.save(file, POINTS)
    with pytest.raises(ObservationError, match=r'not a readable \.npz'):
        read_npz(path)


def test_pickled_arrays_are_refused(tmp_path):
    with pytest.raises(ObservationError, match=r'not a readable \.npz'):
        read_npz(save(tmp_path, points=np.array([{'a': 1}], dtype=object)))


def test_missing_npz_is_named(tmp_path):
    with pytest.raises(ObservationError, match=r'nothing\.npz does not exist'):
        read_npz(tmp_path / 'nothing.npz')


def test_frames_without_stamps_follow_the_frame_rate():
    person = Person(POINTS[0], np.ones(133))
    recording = Recording('test', ((person,), (), (person,)))
    stamps = [stamp for stamp, _ in recording.observations(None, None, 25.0)]
    assert stamps == [40_000_000, 80_000_000, 120_000_000]


def test_lens_is_taken_out_and_what_it_cannot_show_is_absent():
    k9 = [600.0, 0, 320, 0, 600, 240, 0, 0, 1]
    camera, undistort = camera_from_info(k9, [-0.02, 0.01, -0.003, 0.001], 'fisheye', 640, 480)
    points = POINTS[0].copy()
    points[0] = [90_000.0, 0.0]
    recording = Recording('test', ((Person(points, np.ones(133)),),))
    ((_, (observation,)),) = recording.observations(camera, undistort, 30.0)
    assert observation.confidence[0] == 0 and np.isfinite(observation.points).all()
    np.testing.assert_allclose(observation.points[1:], undistort(points[1:]))
    assert observation.camera is camera
