"""Each JSON dialect as its detector writes it, and files that are none."""

import json
from pathlib import Path

import numpy as np
import pytest

from dposer_core.errors import ObservationError
from dposer_core.json_keypoints import read_json
from dposer_core.keypoints import NEUTRAL_CONFIDENCE, POINT_INDEX

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(10, 900, (133, 2)).round(2)
SCORES = RNG.uniform(0.3, 1.0, 133).round(3)
TRIPLES = np.c_[POINTS, SCORES]


def flat(rows: np.ndarray) -> list[float]:
    return rows.ravel().tolist()


def wholebody(**extra) -> dict:
    return {
        'keypoints': flat(TRIPLES[:17]),
        'foot_kpts': flat(TRIPLES[17:23]),
        'face_kpts': flat(TRIPLES[23:91]),
        'lefthand_kpts': flat(TRIPLES[91:112]),
        'righthand_kpts': flat(TRIPLES[112:]),
        **extra,
    }


def openpose_person(parts: bool = True) -> dict:
    def named(names: str) -> np.ndarray:
        return np.array(
            [TRIPLES[POINT_INDEX[n]] if n in POINT_INDEX else [1, 1, 1] for n in names]
        )

    body = (
        'nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist '
        'mid_hip right_hip right_knee right_ankle left_hip left_knee left_ankle '
        'right_eye left_eye right_ear left_ear left_big_toe left_small_toe left_heel '
        'right_big_toe right_small_toe right_heel'
    )
    pupils = np.ones((2, 3))
    return {
        'person_id': [-1],
        'pose_keypoints_2d': flat(named(body.split())),
        'face_keypoints_2d': flat(np.r_[TRIPLES[23:91], pupils]) if parts else [],
        'hand_left_keypoints_2d': flat(TRIPLES[91:112]) if parts else [],
        'hand_right_keypoints_2d': flat(TRIPLES[112:]) if parts else [],
        'pose_keypoints_3d': [],
    }


def mmpose_person() -> dict:
    return {
        'keypoints': POINTS.tolist(),
        'keypoint_scores': SCORES.tolist(),
        'bbox': [[1, 2, 3, 4]],
        'bbox_score': 0.9,
    }


VITPOSE = [{'bbox': [1, 2, 3, 4, 0.9], 'keypoints': TRIPLES.tolist()}]
ONE_FRAME = {
    'ViTPose': VITPOSE,
    'MMPose': [mmpose_person()],
    'MMPose video': [{'frame_id': 0, 'instances': [mmpose_person()]}],
    'MMPose demo': {
        'meta_info': {},
        'instance_info': [{'frame_id': 1, 'instances': [mmpose_person()]}],
    },
    'COCO-WholeBody annotation': {
        'images': [{'id': 7, 'width': 960, 'height': 540}],
        'annotations': [wholebody(image_id=7)],
    },
    'COCO-WholeBody result': [wholebody(image_id=7, category_id=1, score=0.9)],
    'OpenPose': {'version': 1.3, 'people': [openpose_person()]},
}


def write(folder: Path, data, name: str = 'keypoints.json') -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


@pytest.mark.parametrize('dialect', ONE_FRAME)
def test_every_dialect_gives_the_same_133_points(dialect, tmp_path):
    recording = read_json(write(tmp_path, ONE_FRAME[dialect]))
    ((person,),) = recording.frames
    np.testing.assert_allclose(person.points, POINTS)
    np.testing.assert_allclose(person.confidence, SCORES)


def test_vitpose_confidence_above_one_is_clipped(tmp_path):
    high = TRIPLES.copy()
    high[0, 2] = 1.055
    recording = read_json(write(tmp_path, [{'keypoints': high.tolist()}]))
    assert recording.frames[0][0].confidence[0] == 1.0


def test_lists_of_lists_of_people_are_frames(tmp_path):
    recording = read_json(write(tmp_path, [VITPOSE, [], VITPOSE * 2]))
    assert [len(people) for people in recording.frames] == [1, 0, 2]


def test_alphapose_results_are_grouped_by_image(tmp_path):
    person = {'keypoints': flat(TRIPLES[:17]), 'score': 2.9, 'category_id': 1}
    images = ['0.jpg', '1.jpg', '1.jpg', '2.jpg']
    recording = read_json(write(tmp_path, [{**person, 'image_id': image} for image in images]))
    assert [len(people) for people in recording.frames] == [1, 2, 1]


def test_frames_without_people_in_an_mmpose_video_stay_empty(tmp_path):
    frames = [{'frame_id': i, 'instances': [mmpose_person()]} for i in (4, 7)]
    recording = read_json(write(tmp_path, frames))
    assert [len(people) for people in recording.frames] == [1, 0, 0, 1]


def test_images_without_annotation_stay_empty_and_give_the_size(tmp_path):
    images = [{'id': i, 'width': 960, 'height': 540} for i in (3, 4, 5)]
    recording = read_json(
        write(tmp_path, {'images': images, 'annotations': [wholebody(image_id=4)]})
    )
    assert [len(people) for people in recording.frames] == [0, 1, 0]
    assert recording.size == (960, 540)


def test_invalid_hand_of_an_annotation_is_absent(tmp_path):
    recording = read_json(write(tmp_path, [wholebody(lefthand_valid=False, righthand_valid=True)]))
    confidence = recording.frames[0][0].confidence
    assert not confidence[91:112].any() and confidence[112:].all()


def test_openpose_without_hands_and_face_is_body_only(tmp_path):
    recording = read_json(write(tmp_path, {'people': [openpose_person(parts=False)]}))
    confidence = recording.frames[0][0].confidence
    assert confidence[:23].all() and not confidence[23:].any()


def test_openpose_frame_without_people_is_an_empty_frame(tmp_path):
    assert read_json(write(tmp_path, {'people': []})).frames == ((),)


def test_openpose_person_id_is_the_track(tmp_path):
    person = {**openpose_person(), 'person_id': [3]}
    assert read_json(write(tmp_path, {'people': [person]})).frames[0][0].track_id == '3'


def test_folder_is_read_in_natural_order(tmp_path):
    for frame in (10, 2, 1):
        people = [openpose_person()] * frame
        write(tmp_path, {'people': people}, f'clip_{frame}_keypoints.json')
    recording = read_json(tmp_path)
    assert [len(people) for people in recording.frames] == [1, 2, 10]


@pytest.mark.parametrize(('scale', 'dim'), [(300.0, 2), (0.5, 3)])
def test_tfjs_frames_are_pixels_or_metres_by_their_size(scale, dim, tmp_path):
    frames = (RNG.uniform(-1, 1, (4, 33, 3)) * scale).tolist()
    recording = read_json(write(tmp_path, frames))
    assert recording.dim == dim and len(recording.frames) == 4
    person = recording.frames[0][0]
    np.testing.assert_allclose(person.points[5], frames[0][11][:dim])  # left shoulder
    assert person.confidence[5] == NEUTRAL_CONFIDENCE


# --- files that are none ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', r'keypoints\.json is empty; accepted: ViTPose'),
        ('{"people": [', r'keypoints\.json is not JSON'),
        ('[' * 100_000, r'keypoints\.json is not JSON'),
        ('{"foo": 1, "bar": 2}', r'an object with foo, bar\. Accepted: ViTPose'),
        ('[]', r'a list of 0\. Accepted'),
        ('[1, 2]', r'a list of 2, the first int'),
        ('"hello"', r"str 'hello'"),
        ('[{"keypoints": [[1, 2], [3, 4]]}]', r'expected x, y, confidence'),
        ('{"people": [{"pose": 1}]}', r'damaged keypoint file .*pose_keypoints_2d'),
        ('{"people": [{"pose_keypoints_2d": [1, 2]}]}', r'x, y, confidence for each point'),
        ('[{"keypoints": [1, 2, 3], "keypoint_scores": [1]}]', r'no known keypoint layout has 3'),
        ('[[[1, 2, 3], [4, 5, 6]]]', r'shape \(1, 2, 3\); expected frames x 33'),
        ('[[[1, 2, 3], [4, 5]]]', r'damaged'),
        ('[{"frame_id": 2, "instances": []}, {"frame_id": 1}]', r'frame_id does not'),
    ],
)  # fmt: skip
def test_files_of_no_dialect_say_what_was_seen(text, message, tmp_path):
    with pytest.raises(ObservationError, match=message):
        read_json(write(tmp_path, text))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ObservationError, match=r'nothing\.json does not exist'):
        read_json(tmp_path / 'nothing.json')


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / 'keypoints.json'
    path.write_bytes(b'\xff\xfe\x00\x01')
    with pytest.raises(ObservationError, match='not a readable text file'):
        read_json(path)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(ObservationError, match=r'holds no \.json file'):
        read_json(tmp_path)


def test_folder_of_videos_is_refused(tmp_path):
    write(tmp_path, [VITPOSE, VITPOSE])
    with pytest.raises(ObservationError, match='holds 2 frames; in a folder every file is one'):
        read_json(tmp_path)
