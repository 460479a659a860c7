"""Films and pictures from states, without ROS: layout, and that the panels are there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dposer_core.body_model import Body, load_body
from dposer_core.camera import PinholeCamera
from dposer_core.errors import MediaError
from dposer_core.states_io import States
from dposer_core.video import VideoWriter, video_info
from dposer_ros.demo.film import main_first, write_film, write_picture
from dposer_ros.demo.pictures import around, whole
from dposer_ros.demo.states_film import recording_from_states
from test.synthetic_smplx import write_synthetic_smplx

WIDE = PinholeCamera(200.0, 200.0, 79.5, 44.5, 160, 90)
TALL = PinholeCamera(200.0, 200.0, 44.5, 79.5, 90, 160)


@pytest.fixture(scope='module')
def body(tmp_path_factory: pytest.TempPathFactory) -> Body:
    path = tmp_path_factory.mktemp('body') / 'synthetic.npz'
    return load_body(str(write_synthetic_smplx(path)))


@pytest.fixture
def states(body: Body) -> States:
    """Three moments of a standing person, three metres from the camera."""
    pose = np.zeros((3, 55, 3))
    pose[:, 0, 0] = np.pi  # upright in an optical frame
    transl = np.tile([0.0, 0.0, 3.0], (3, 1))
    zeros = {'betas': np.zeros((3, 10)), 'expression': np.zeros((3, body.tables.num_expression))}
    return States(
        stamp_ns=np.array([1, 2, 3]) * 40_000_000,
        body_id=np.array(['p0001'] * 3),
        status=np.array([1, 1, 3], np.uint8),
        pose_rotvec=pose,
        transl=transl,
        **zeros,
        joints=body.joints(pose, transl=transl, **zeros),
        landmarks=body.landmarks(pose, transl=transl, **zeros),
        source=np.zeros((3, 55), np.uint8),
        position_covariance=np.zeros((3, 55, 3, 3)),
        model='synthetic',
        camera=WIDE,
    )


@pytest.mark.parametrize(('camera', 'size'), [(WIDE, (1280, 720)), (TALL, (1168, 720))])
def test_a_film_has_one_frame_for_each_state(
    tmp_path: Path, body: Body, states: States, camera: PinholeCamera, size: tuple[int, int]
) -> None:
    steps = []
    recording = recording_from_states(replace(states, camera=camera))
    write_film(recording, body, tmp_path / 'film.mp4', lambda: steps.append(1))
    info = video_info(tmp_path / 'film.mp4')
    assert (info.frames, info.rate) == (3, 25.0)
    assert (info.width, info.height) == size
    assert len(steps) == 3


def test_a_picture_has_a_row_for_each_moment(tmp_path: Path, body: Body, states: States) -> None:
    import cv2

    recording = recording_from_states(states)
    for rows in (1, 3):
        write_picture(recording, body, tmp_path / f'{rows}.png', rows)
    one, three = (cv2.imread(str(tmp_path / f'{rows}.png')) for rows in (1, 3))
    assert three.shape[0] == 3 * one.shape[0]
    assert one.std() > 5  # not an empty canvas


def test_states_find_their_frames_of_the_video(tmp_path: Path, states: States) -> None:
    with VideoWriter(tmp_path / 'clip.mp4', 160, 90, 25.0) as writer:
        for value in (0, 60, 120, 180):
            writer.write(np.full((90, 160, 3), value, np.uint8))
    recording = recording_from_states(states, tmp_path / 'clip.mp4', start=0.0)
    assert len(recording.images) == 4
    assert sorted(recording.states) == [40_000_000, 80_000_000, 120_000_000]
    assert recording.image(80_000_000).mean() == pytest.approx(120, abs=4)


def test_a_video_of_another_time_is_refused(tmp_path: Path, states: States) -> None:
    with VideoWriter(tmp_path / 'clip.mp4', 160, 90, 25.0) as writer:
        writer.write(np.zeros((90, 160, 3), np.uint8))
        writer.write(np.zeros((90, 160, 3), np.uint8))
    with pytest.raises(MediaError, match='--start'):
        recording_from_states(states, tmp_path / 'clip.mp4', start=100.0)


def test_a_seen_person_goes_before_a_predicted_one(states: States) -> None:
    recording = recording_from_states(states)
    seen, predicted = recording.states[40_000_000][0], recording.states[120_000_000][0]
    near = replace(predicted, joints=predicted.joints - np.array([0.0, 0.0, 1.0]))
    assert main_first([near, seen]) == [seen, near]


def test_a_window_shows_pixels_where_it_says() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    image[30:34, 100:104] = 255
    for window in (
        whole(image, (320, 180)),
        whole(image, (80, 80)),
        around(np.array([[90.0, 20.0], [120.0, 50.0]]), image, (200, 200)),
    ):
        rows, columns = np.nonzero(window.image(image)[..., 0] > 127)
        expected = window.points(np.array([101.5, 31.5]))
        assert (columns.mean(), rows.mean()) == pytest.approx(tuple(expected), abs=0.6)


def test_a_windows_camera_agrees_with_its_pixels() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    window = around(np.array([[90.0, 20.0], [120.0, 50.0]]), image, (200, 100))
    point = np.array([0.1, -0.2, 2.0])
    assert window.camera(WIDE).project(point) == pytest.approx(window.points(WIDE.project(point)))
