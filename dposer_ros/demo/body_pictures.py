"""Pictures of a body model for its documentation."""

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from dposer_core.body_model import Body
from dposer_core.render import Mesh, draw_mesh, orbit_camera
from dposer_core.skeleton import JOINT_INDEX, JOINT_NAMES, NUM_JOINTS

_SKIN = (150, 180, 214)  # BGR
_BACKGROUND = (250, 250, 250)
_TO_OPTICAL = np.array([1.0, -1.0, -1.0])  # y up, facing +z -> y down, seen from the front
_DOT = (60, 60, 220)
_QUARTER = np.radians(-35.0)


def write_picture(body: Body, name: str, folder: Path) -> Path:
    """Draw the picture `name` of `PICTURES` into `folder`, with few colours to keep it small."""
    from PIL import Image

    path = folder / f'body_{name}.png'
    image = Image.fromarray(np.ascontiguousarray(PICTURES[name](body)[..., ::-1]))
    image.quantize(64).save(path, optimize=True)
    return path


def rest_picture(body: Body) -> np.ndarray:
    """T-pose: joints and landmarks from the front; mesh from the side; face and hand enlarged."""
    rest = np.zeros((NUM_JOINTS, 3))
    vertices, joints, points = (f(rest)[0] for f in (body.vertices, body.joints, body.landmarks))
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    wrist = joints[JOINT_INDEX['left_wrist']] + (0.09, 0.0, 0.02)
    # The hand from above: turned so that the back of the hand faces the viewer.
    top = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    return cv2.vconcat([
        cv2.hconcat([
            _tile(body, vertices, middle, 1.95, dots=(joints,), text='55 joints'),
            _tile(body, vertices, middle, 1.95, yaw=_QUARTER, text='rest pose'),
        ]),
        cv2.hconcat([
            _tile(body, vertices, _face(joints), 0.27, dots=(points[23:91],), text='68 landmarks'),
            _tile(
                body, vertices @ top.T, top @ wrist, 0.26,
                dots=(points[91:112] @ top.T,), text='21 hand points',
            ),
        ]),
    ])  # fmt: skip


def poses_picture(body: Body) -> np.ndarray:
    """Six poses."""
    tiles = []
    for name, pose in _poses().items():
        vertices = body.vertices(pose)[0]
        middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
        extent = 1.1 * max(np.ptp(vertices, axis=0)[:2].max(), 1.5)
        tiles.append(_tile(body, vertices, middle, extent, _QUARTER, text=name))
    return _grid(tiles, columns=3)


def betas_picture(body: Body) -> np.ndarray:
    """Each beta at +2 (above) and -2, at one scale."""
    rest = _pose(left_shoulder=(0, 0, -1.25), right_shoulder=(0, 0, 1.25))
    tiles = []
    for value in (2.0, -2.0):
        for k in range(body.tables.num_betas):
            vertices = body.vertices(rest, value * np.eye(body.tables.num_betas)[k])[0]
            middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
            tiles.append(_tile(body, vertices, middle, 1.05, size=(170, 340), high=2.1,
                               text=f'beta {k}: {value:+.0f}'))  # fmt: skip
    return _grid(tiles, columns=body.tables.num_betas)


def expressions_picture(body: Body) -> np.ndarray:
    """Each expression coefficient at +2 (above) and -2, and the jaw."""
    rest = np.zeros((NUM_JOINTS, 3))
    centre = _face(body.joints(rest)[0])
    number = body.tables.num_expression
    tiles = []
    for half in np.array_split(np.arange(number), 2):
        for value in (2.0, -2.0):
            for k in half:
                vertices = body.vertices(rest, None, value * np.eye(number)[k])[0]
                tiles.append(_tile(body, vertices, centre, 0.25, size=(240, 240),
                                   text=f'expression {k}: {value:+.0f}'))  # fmt: skip
    return _grid(tiles, columns=-(-number // 2))


def jaw_picture(body: Body) -> np.ndarray:
    """The jaw joint: shut, open, wide open, to the side."""
    moves = {
        'rest': _pose(),
        'jaw 0.15 rad': _pose(jaw=(0.15, 0, 0)),
        'jaw 0.35 rad': _pose(jaw=(0.35, 0, 0)),
        'jaw to the left': _pose(jaw=(0.1, 0.15, 0)),
    }
    centre = _face(body.joints(np.zeros((NUM_JOINTS, 3)))[0]) - (0, 0.01, 0)
    return _grid(
        [
            _tile(body, body.vertices(pose)[0], centre, 0.27, yaw, size=(240, 240), text=name)
            for yaw in (0.0, _QUARTER)
            for name, pose in moves.items()
        ],
        columns=len(moves),
    )


PICTURES: dict[str, Callable[[Body], np.ndarray]] = {
    'rest': rest_picture,
    'poses': poses_picture,
    'betas': betas_picture,
    'expressions': expressions_picture,
    'jaw': jaw_picture,
}


def _pose(**rotvecs: tuple[float, float, float]) -> np.ndarray:
    """(55, 3) rest pose with some joints turned, radians."""
    pose = np.zeros((NUM_JOINTS, 3))
    for name, rotvec in rotvecs.items():
        pose[JOINT_INDEX[name]] = rotvec
    return pose


def _poses() -> dict[str, np.ndarray]:
    hanging = {'left_shoulder': (0, 0, -1.25), 'right_shoulder': (0, 0, 1.25)}
    fists = {
        name: (0, 0, (-1.3 if name.startswith('left') else 1.3))
        for name in JOINT_NAMES
        if name[:-1].endswith(('index', 'middle', 'ring', 'pinky'))
    }
    return {
        'standing': _pose(**hanging),
        'walking': _pose(
            left_hip=(-0.5, 0, 0), right_hip=(0.35, 0, 0), left_knee=(0.25, 0, 0),
            right_knee=(0.6, 0, 0), left_shoulder=(0.5, 0, -1.2), right_shoulder=(-0.5, 0, 1.2),
            left_elbow=(0, -0.4, 0), right_elbow=(0, 0.7, 0),
        ),
        'squatting': _pose(
            pelvis=(0.4, 0, 0), left_hip=(-1.9, 0.2, 0.3), right_hip=(-1.9, -0.2, -0.3),
            left_knee=(2.1, 0, 0), right_knee=(2.1, 0, 0), left_ankle=(-0.5, 0, 0),
            right_ankle=(-0.5, 0, 0), left_shoulder=(0, -1.3, 0), right_shoulder=(0, 1.3, 0),
        ),
        'arms up': _pose(
            left_collar=(0, 0, 0.35), right_collar=(0, 0, -0.35),
            left_shoulder=(0, 0, 0.8), right_shoulder=(0, 0, -0.8),
        ),
        'fists, elbows bent': _pose(
            left_shoulder=(0, -0.4, -0.6), right_shoulder=(0, 0.4, 0.6),
            left_elbow=(0, -2.0, 0), right_elbow=(0, 2.0, 0), **fists,
        ),
        'turned and bent': _pose(
            spine1=(0.25, 0.2, 0.1), spine2=(0.25, 0.25, 0.1), spine3=(0.2, 0.2, 0.1),
            neck=(0.1, 0.3, 0), head=(0, 0.3, 0), **hanging,
        ),
    }  # fmt: skip


def _face(joints: np.ndarray) -> np.ndarray:
    """Middle of the face from the rest joints."""
    return joints[23:25].mean(axis=0) - (0.0, 0.03, 0.0)


def _tile(
    body: Body,
    vertices: np.ndarray,
    centre: np.ndarray,
    extent: float,
    yaw: float = 0.0,
    size: tuple[int, int] = (420, 420),
    high: float | None = None,
    dots: Iterable[np.ndarray] = (),
    text: str = '',
) -> np.ndarray:
    """One view of a mesh (V, 3) around `centre`: `extent` metres wide, or `high` metres high."""
    if high is not None:
        extent = high * size[0] / size[1]
    camera, rotation, translation = orbit_camera(centre * _TO_OPTICAL, extent, size, yaw)
    colors = np.broadcast_to(np.array(_SKIN, dtype=np.float64), vertices.shape)
    mesh = Mesh((vertices * _TO_OPTICAL) @ rotation.T + translation, body.faces, colors)
    image = draw_mesh(np.full((size[1], size[0], 3), _BACKGROUND, np.uint8), mesh, camera)
    for points in dots:
        for x, y in camera.project((points * _TO_OPTICAL) @ rotation.T + translation):
            cv2.circle(image, (round(x * 8), round(y * 8)), 20, _DOT, -1, cv2.LINE_AA, 3)
    if text:
        cv2.putText(image, text, (8, size[1] - 9), cv2.FONT_HERSHEY_SIMPLEX, size[0] / 420 * 0.25
                    + 0.28, (70, 70, 70), 1, cv2.LINE_AA)  # fmt: skip
    return image


def _grid(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    return cv2.vconcat([cv2.hconcat(row) for row in rows])
