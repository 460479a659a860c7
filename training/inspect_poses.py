"""Pictures of body poses and of retargeted clips, from the front and from the side.

Hands and faces are drawn by `training.pictures`. World: y up, as in `SmplxMotion`.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from dposer_core import skeleton
from dposer_core.body_model import Body
from dposer_core.camera import PinholeCamera
from dposer_core.render import BACKGROUND, Mesh, draw_mesh, draw_text
from dposer_core.video import VideoWriter
from training.data.motion import SmplxMotion

_SKIN = (150.0, 175.0, 215.0)  # BGR
_LEFT = (140.0, 205.0, 140.0)  # the left limbs, so that the sides can be told apart
_DISTANCE = 6.0  # of the camera, metres
_EXTENT = 2.1  # metres that a picture shows, more if a body needs them
# Rows: the camera's x (right), y (down) and z (forward) in the world.
_FRONT = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
_SIDE = np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
VIEWS = (_FRONT, _SIDE)


def body_sheet(
    body: Body, poses: np.ndarray, columns: int = 8, size: int = 240, labels: list[str] = ()
) -> np.ndarray:
    """One BGR picture of bodies (N, 63), each from the front and from its left side."""
    full = np.zeros((len(poses), skeleton.NUM_JOINTS, 3))
    full[:, 1:22] = np.asarray(poses).reshape(-1, 21, 3)
    return _sheet(body, full, columns, size, labels)


def wholebody_sheet(body: Body, rows: np.ndarray, columns: int = 8, size: int = 300) -> np.ndarray:
    """One BGR picture of whole bodies (N, 156 + E); expressions of another size are left out."""
    full = np.zeros((len(rows), skeleton.NUM_JOINTS, 3))
    full[:, 1:22] = rows[:, :63].reshape(-1, 21, 3)
    full[:, skeleton.LEFT_HAND_JOINTS] = rows[:, 63:108].reshape(-1, 15, 3)
    full[:, skeleton.RIGHT_HAND_JOINTS] = rows[:, 108:153].reshape(-1, 15, 3)
    full[:, skeleton.JAW_JOINT] = rows[:, 153:156]
    return _sheet(body, full, columns, size, ())


def clip_sheet(
    body: Body, motion: SmplxMotion, moments: int = 12, columns: int = 6, size: int = 240
) -> np.ndarray:
    """One BGR picture of moments of a clip, evenly spread, each from the front and the side."""
    frames = np.linspace(0, len(motion.pelvis) - 1, min(moments, len(motion.pelvis))).astype(int)
    labels = [f'{motion.name} {frame / motion.fps:.1f} s' for frame in frames]
    return _sheet(body, _facing(motion)[frames], columns, size, labels)


def write_clip_film(
    body: Body, motion: SmplxMotion, path: Path, step: Callable[[], None], size: int = 480
) -> None:
    """A film of the clip, front and side view next to each other; `step` after each frame."""
    poses = _facing(motion)
    with VideoWriter(path, 2 * size, size, motion.fps) as writer:
        for n, picture in enumerate(_pictures(body, poses, size)):
            draw_text(picture, f'{motion.source} {motion.name} {n / motion.fps:.1f} s', (8, 20))
            writer.write(picture)
            step()


def _facing(motion: SmplxMotion) -> np.ndarray:
    """(T, 55, 3) poses with the clip's mean heading turned to the front."""
    root = _rotmats(motion.pose_rotvec[:, 0])
    forward = root[:, :, 2].mean(axis=0)
    heading = math.atan2(forward[0], forward[2])
    cos, sin = math.cos(-heading), math.sin(-heading)
    turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    poses = motion.pose_rotvec.copy()
    poses[:, 0] = [cv2.Rodrigues(turn @ matrix)[0][:, 0] for matrix in root]
    return poses


def _rotmats(rotvec: np.ndarray) -> np.ndarray:
    """(T, 3, 3) of (T, 3)."""
    return np.array([cv2.Rodrigues(np.asarray(v, dtype=np.float64))[0] for v in rotvec])


def _pictures(body: Body, poses: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Of each pose (55, 3) one BGR picture (size, 2 size, 3)."""
    owner = body.weights.argmax(axis=1)
    is_left = np.array([name.startswith('left_') for name in skeleton.JOINT_NAMES])
    colors = np.where(is_left[owner][:, None], _LEFT, _SKIN)
    half = (size - 1) / 2
    for pose in poses:
        vertices = body.vertices(pose[None])[0]
        centre = (vertices.max(axis=0) + vertices.min(axis=0)) / 2
        extent = max(_EXTENT, 1.3 * float(np.ptp(vertices, axis=0).max()))
        focal = size * _DISTANCE / extent
        camera = PinholeCamera(focal, focal, half, half, size, size)
        picture = np.full((size, 2 * size, 3), BACKGROUND, np.uint8)
        for k, rotation in enumerate(VIEWS):
            seen = (vertices - centre) @ rotation.T + [0.0, 0.0, _DISTANCE]
            tile = picture[:, k * size : (k + 1) * size]
            tile[:] = draw_mesh(tile, Mesh(seen, body.faces, colors), camera)
        yield picture


def _sheet(
    body: Body, poses: np.ndarray, columns: int, size: int, labels: list[str]
) -> np.ndarray:
    columns = min(columns, len(poses))
    rows = math.ceil(len(poses) / columns)
    sheet = np.full((rows * size, columns * 2 * size, 3), BACKGROUND, np.uint8)
    for n, picture in enumerate(_pictures(body, poses, size)):
        row, column = divmod(n, columns)
        if labels:
            draw_text(picture, labels[n], (6, size - 8), 0.4)
        place = slice(column * 2 * size, (column + 1) * 2 * size)
        sheet[row * size : (row + 1) * size, place] = picture
    return sheet
