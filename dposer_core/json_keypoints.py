"""Keypoint files in JSON: every dialect that detectors write, told apart by their content.

| dialect | looks like |
| --- | --- |
| ViTPose, AlphaPose | list of {keypoints: K x [x, y, score] or flat}, with image_id: a video |
| MMPose inferencer | list of {keypoints: K x [x, y], keypoint_scores: K} |
| MMPose video, demo | list of, or {instance_info: list of}, {frame_id, instances} |
| COCO-WholeBody | annotations (or a list of them) with keypoints, foot_kpts, face_kpts, ... |
| OpenPose 1.x | {people: [{pose_keypoints_2d, hand_left_keypoints_2d, ...}]} |
| tfjs-models | frames x 33 x [x, y, z], pixels, or metres about the hip |

A folder is read file by file in natural order, each file being one frame.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core.errors import ObservationError
from dposer_core.keypoints import layout_for_count, to_hub
from dposer_core.recording import Person, Recording

_ACCEPTED = (
    'ViTPose or AlphaPose list, MMPose inferencer or demo file, COCO-WholeBody annotation or '
    'result, OpenPose 1.x file or folder, tfjs-models 33-point frames'
)

# A picture has coordinates of hundreds; a body about its own hip never reaches this, in metres.
_LARGEST_METRES = 10.0

# COCO-WholeBody: field of each part in hub order, its number of points and its validity flag.
_WHOLEBODY_PARTS = (
    ('keypoints', 17, None),
    ('foot_kpts', 6, 'foot_valid'),
    ('face_kpts', 68, 'face_valid'),
    ('lefthand_kpts', 21, 'lefthand_valid'),
    ('righthand_kpts', 21, 'righthand_valid'),
)

# OpenPose: field and number of points of each part after the body, in the order of 'full137'.
_OPENPOSE_PARTS = (
    ('hand_left_keypoints_2d', 21),
    ('hand_right_keypoints_2d', 21),
    ('face_keypoints_2d', 70),
)


def read_json(path: Path, layout: str | None = None) -> Recording:
    """The keypoints in a JSON file, or in a folder of them.

    Args:
        path: file, or folder with one file per frame.
        layout: of dialects that do not say; None: told from the number of points.

    Raises:
        ObservationError: missing, broken, empty, or in no known dialect; says what was seen.
    """
    if path.is_dir():
        return _read_folder(path, layout)
    return parse_json(_load(path), path, layout)


def _read_folder(folder: Path, layout: str | None) -> Recording:
    files = sorted(folder.glob('*.json'), key=_natural_order)
    if not files:
        raise ObservationError(f'{folder} holds no .json file; expected one per frame')
    parts = []
    for file in files:
        part = parse_json(_load(file), file, layout)
        if len(part.frames) != 1:
            raise ObservationError(
                f'{file} holds {len(part.frames)} frames; in a folder every file is one frame. '
                'Give the file itself'
            )
        parts.append(part)
    frames = tuple(frame for part in parts for frame in part.frames)
    return Recording(f'{parts[0].source}, folder', frames, size=parts[0].size)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """frame_2 before frame_10."""
    return [(int(t), '') if t.isdigit() else (-1, t) for t in re.split(r'(\d+)', path.name)]


def _load(path: Path) -> Any:
    try:
        text = path.read_text(encoding='utf-8')
    except FileNotFoundError as error:
        raise ObservationError(f'{path} does not exist') from error
    except (OSError, UnicodeDecodeError) as error:
        raise ObservationError(f'{path} is not a readable text file: {error}') from error
    if not text.strip():
        raise ObservationError(f'{path} is empty; accepted: {_ACCEPTED}')
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ObservationError(f'{path} is not JSON: {error}') from error


def parse_json(data: Any, path: Path | str, layout: str | None) -> Recording:
    """The keypoints in decoded JSON; `path` is named in errors.

    Raises:
        ObservationError: damaged, or in no known dialect.
    """
    for is_dialect, parse in _DIALECTS:
        if is_dialect(data):
            try:
                return parse(data, layout)
            except ObservationError as error:
                raise ObservationError(f'{path}: {error}') from error
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise ObservationError(
                    f'{path}: damaged keypoint file ({type(error).__name__}: {error}); '
                    f'accepted: {_ACCEPTED}'
                ) from error
    raise ObservationError(
        f'{path}: no known keypoint file; it is {_description(data)}. Accepted: {_ACCEPTED}'
    )


def _description(data: Any) -> str:
    if isinstance(data, dict):
        keys = ', '.join(list(data)[:8]) or 'no keys'
        return f'an object with {keys}'
    if isinstance(data, list):
        return f'a list of {len(data)}' + (f', the first {_description(data[0])}' if data else '')
    return f'{type(data).__name__} {str(data)[:40]!r}'


# --- OpenPose ---------------------------------------------------------------------------------


def _is_openpose(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get('people'), list)


def _openpose(data: dict, layout: str | None) -> Recording:
    people = tuple(_openpose_person(person, layout) for person in data['people'])
    return Recording('OpenPose', (people,))


def _openpose_person(person: dict, layout: str | None) -> Person:
    body = _triples(person['pose_keypoints_2d'])
    parts = [_openpose_part(person.get(name) or [], size) for name, size in _OPENPOSE_PARTS]
    track_id = person.get('person_id', [-1])
    track_id = track_id[0] if isinstance(track_id, list) and track_id else track_id
    track_id = '' if track_id in (-1, []) else str(track_id)
    if len(body) == 25:
        rows = np.concatenate([body, *parts])
        return Person(*to_hub(rows[:, :2], rows[:, 2], 'openpose_full137'), track_id)
    kind = layout or ('openpose18' if len(body) == 18 else 'openpose25')
    return Person(*to_hub(body[:, :2], body[:, 2], kind), track_id)


def _openpose_part(flat: Sequence[float], size: int) -> np.ndarray:
    """(size, 3); a part that was not looked for is a list without numbers: absent."""
    rows = _triples(flat)[:size]
    return np.concatenate([rows, np.zeros((size - len(rows), 3))])


# --- MMPose -----------------------------------------------------------------------------------


def _is_mmpose_video(data: Any) -> bool:
    frames = data.get('instance_info') if isinstance(data, dict) else data
    return isinstance(frames, list) and bool(frames) and _has(frames[0], 'instances')


def _mmpose_video(data: Any, layout: str | None) -> Recording:
    frames = data['instance_info'] if isinstance(data, dict) else data
    # Frames without people may have no entry; frame_id counts from 0 or from 1.
    ids = [int(frame.get('frame_id', i)) for i, frame in enumerate(frames)]
    if ids != sorted(set(ids)):
        raise ObservationError('frame_id does not increase from frame to frame')
    by_id = {i: frame['instances'] for i, frame in zip(ids, frames, strict=True)}
    people = tuple(
        tuple(_mmpose_person(person, layout) for person in by_id.get(i, ()))
        for i in range(ids[0], ids[-1] + 1)
    )
    return Recording('MMPose video', people)


def _is_mmpose(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and _has(data[0], 'keypoint_scores')


def _mmpose(data: list, layout: str | None) -> Recording:
    return Recording('MMPose', (tuple(_mmpose_person(person, layout) for person in data),))


def _mmpose_person(person: dict, layout: str | None) -> Person:
    points = np.array(person['keypoints'], dtype=np.float64)
    scores = np.array(person['keypoint_scores'], dtype=np.float64)
    track_id = person.get('track_id', person.get('instance_id', ''))
    return Person(*to_hub(points, scores, layout or layout_for_count(len(points))), str(track_id))


# --- COCO-WholeBody ---------------------------------------------------------------------------


def _is_wholebody(data: Any) -> bool:
    people = data.get('annotations') if isinstance(data, dict) else data
    return isinstance(people, list) and bool(people) and _has(people[0], 'keypoints', 'foot_kpts')


def _is_coco(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get('annotations'), list)


def _coco(data: Any, layout: str | None) -> Recording:
    people = data['annotations'] if isinstance(data, dict) else data
    images = data.get('images', []) if isinstance(data, dict) else []
    frames = _by_image(
        people,
        lambda person: _coco_person(person, layout),
        [image['id'] for image in images],
    )
    sizes = {(int(i['width']), int(i['height'])) for i in images if _has(i, 'width', 'height')}
    size = sizes.pop() if len(sizes) == 1 else None
    return Recording('COCO annotation', frames, size=size)


def _coco_person(person: dict, layout: str | None) -> Person:
    track_id = str(person.get('track_id', ''))
    if 'foot_kpts' not in person:
        rows = _triples(person['keypoints'])
        layout = layout or layout_for_count(len(rows))
        return Person(*to_hub(rows[:, :2], rows[:, 2], layout), track_id)
    parts = []
    for name, size, valid in _WHOLEBODY_PARTS:
        part = _triples(person[name])
        if len(part) != size:
            raise ObservationError(f'{name} has {len(part)} points, expected {size}')
        if valid and not person.get(valid, True):
            part[:, 2] = 0.0
        parts.append(part)
    rows = np.concatenate(parts)
    return Person(*to_hub(rows[:, :2], rows[:, 2], 'coco_wholebody133'), track_id)


# --- ViTPose, AlphaPose -----------------------------------------------------------------------


def _is_vitpose(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and _has(data[0], 'keypoints')


def _vitpose(data: list, layout: str | None) -> Recording:
    if _has(data[0], 'image_id'):
        frames = _by_image(data, lambda person: _coco_person(person, layout), [])
    else:
        frames = (tuple(_vitpose_person(person, layout) for person in data),)
    return Recording('ViTPose', frames)


def _is_vitpose_frames(data: Any) -> bool:
    if not isinstance(data, list) or not all(isinstance(frame, list) for frame in data):
        return False
    people = [person for frame in data for person in frame]
    return bool(people) and all(_has(person, 'keypoints') for person in people)


def _vitpose_frames(data: list, layout: str | None) -> Recording:
    frames = tuple(tuple(_vitpose_person(person, layout) for person in frame) for frame in data)
    return Recording('ViTPose frames', frames)


def _vitpose_person(person: dict, layout: str | None) -> Person:
    if 'keypoint_scores' in person:
        return _mmpose_person(person, layout)
    return _coco_person({**person, 'keypoints': np.ravel(person['keypoints']).tolist()}, layout)


# --- tfjs-models ------------------------------------------------------------------------------


def _is_tfjs(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and isinstance(data[0], list)
        and bool(data[0])
        and isinstance(data[0][0], list)
        and bool(data[0][0])
        and isinstance(data[0][0][0], (int, float))
    )


def _tfjs(data: list, layout: str | None) -> Recording:
    frames = np.array(data, dtype=np.float64)
    if frames.ndim != 3 or frames.shape[1] != 33 or frames.shape[2] < 3:
        raise ObservationError(
            f'nested lists of shape {frames.shape}; expected frames x 33 x [x, y, z]'
        )
    is_metric = np.nanmax(np.abs(frames[:, :, :3])) < _LARGEST_METRES
    points = frames[:, :, :3] if is_metric else frames[:, :, :2]
    people = tuple((Person(*to_hub(p, None, layout or 'mediapipe33')),) for p in points)
    return Recording('tfjs-models, ' + ('metres' if is_metric else 'pixels'), people)


# --- shared -----------------------------------------------------------------------------------

_DIALECTS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str | None], Recording]], ...] = (
    (_is_openpose, _openpose),
    (_is_mmpose_video, _mmpose_video),
    (_is_mmpose, _mmpose),
    (_is_wholebody, _coco),
    (_is_coco, _coco),
    (_is_vitpose, _vitpose),
    (_is_vitpose_frames, _vitpose_frames),
    (_is_tfjs, _tfjs),
)
"""Tests and readers, the more specific first."""


def _has(value: Any, *keys: str) -> bool:
    return isinstance(value, dict) and all(key in value for key in keys)


def _triples(flat: Sequence[float]) -> np.ndarray:
    """(K, 3) x, y, confidence from a flat list of 3 K numbers."""
    values = np.array(flat, dtype=np.float64)
    if values.ndim != 1 or len(values) % 3:
        raise ObservationError(
            f'keypoints of shape {values.shape}; expected x, y, confidence for each point'
        )
    return values.reshape(-1, 3)


def _by_image(
    people: list[dict], convert: Callable[[dict], Person], order: list[Any]
) -> tuple[tuple[Person, ...], ...]:
    """People grouped by `image_id`; images in `order`, then as they first appear."""
    frames: dict[Any, list[Person]] = {image: [] for image in order}
    for person in people:
        frames.setdefault(person.get('image_id', 0), []).append(convert(person))
    return tuple(tuple(frame) for frame in frames.values())
