"""Sheets of small pictures of hands and faces, to look at what a generator or a prior makes.

Each hand is shown twice, from the palm and from the thumb's side; each face from the front. The
mesh is that of a body model; everything is drawn on the CPU (`dposer_core.render`).
"""

import math

import cv2
import numpy as np

from dposer_core import skeleton
from dposer_core.body_model import Body
from dposer_core.camera import PinholeCamera
from dposer_core.render import BACKGROUND, Mesh, draw_mesh, draw_text, hand_joints, part_of_mesh

_SKIN = (150.0, 175.0, 215.0)  # BGR
_DISTANCE = 1.0  # of the camera, metres
_HAND_EXTENT = 0.235  # metres that a picture of a hand shows
_FACE_EXTENT = 0.27
# Rows: the camera's x (right), y (down) and z (forward) in SMPL-X axes. The flat right hand points
# to -x with the palm down and the thumb towards +z.
_FROM_PALM = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_FROM_THUMB = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
_FROM_FRONT = _FROM_THUMB


def hand_sheet(
    body: Body, poses: np.ndarray, columns: int = 10, size: int = 150, labels: list[str] = ()
) -> np.ndarray:
    """One BGR picture of all hands.

    Args:
        body: whose right hand is shown.
        poses: (N, 45) or (N, 15, 3) right-hand axis-angle relative to the flat hand, rad.
        columns: hands in a row; each takes two pictures of `size` pixels.
        size: width and height of one picture.
        labels: texts under the hands, if any.
    """
    pose = np.zeros((len(poses), skeleton.NUM_JOINTS, 3))
    pose[:, skeleton.RIGHT_HAND_JOINTS] = np.asarray(poses).reshape(len(poses), 15, 3)
    wrist = skeleton.JOINT_INDEX['right_wrist']
    centre = body.tables.joint_template[wrist] + np.array([-0.075, -0.02, 0.0])
    views = [(_FROM_PALM, centre, _HAND_EXTENT), (_FROM_THUMB, centre, _HAND_EXTENT)]
    vertices = body.vertices(pose)
    return _sheet(body, vertices, hand_joints('right'), views, columns, size, labels)


def face_sheet(body: Body, faces: np.ndarray, columns: int = 10, size: int = 150) -> np.ndarray:
    """One BGR picture of all `faces` (N, 3 + E): jaw axis-angle, rad, and expression."""
    faces = np.asarray(faces, dtype=float)
    pose = np.zeros((len(faces), skeleton.NUM_JOINTS, 3))
    pose[:, skeleton.JAW_JOINT] = faces[:, :3]
    centre = body.tables.joint_template[skeleton.EYE_JOINTS].mean(axis=0) + [0.0, -0.04, 0.0]
    vertices = body.vertices(pose, expression=faces[:, 3:])
    joints = [skeleton.JOINT_INDEX['head'], skeleton.JAW_JOINT, *range(23, 25)]
    return _sheet(body, vertices, joints, [(_FROM_FRONT, centre, _FACE_EXTENT)], columns, size, ())


def _sheet(
    body: Body,
    vertices: np.ndarray,
    joints: list[int],
    views: list[tuple[np.ndarray, np.ndarray, float]],
    columns: int,
    size: int,
    labels: list[str],
) -> np.ndarray:
    """Pictures of `vertices` (N, V, 3) from all `views` (R_cam_world, centre, extent)."""
    moved_by = body.weights.argmax(axis=1)
    colors = np.tile(np.array(_SKIN), (vertices.shape[1], 1))
    rows = math.ceil(len(vertices) / columns)
    width = size * len(views)
    sheet = np.full((rows * size, columns * width, 3), BACKGROUND, np.uint8)
    for n, points in enumerate(vertices):
        row, column = divmod(n, columns)
        for k, (rotation, centre, extent) in enumerate(views):
            half = (size - 1) / 2
            focal = size * _DISTANCE / extent
            camera = PinholeCamera(focal, focal, half, half, size, size)
            seen = (points - centre) @ rotation.T + [0.0, 0.0, _DISTANCE]
            mesh = part_of_mesh(Mesh(seen, body.faces, colors), moved_by, joints)
            used, faces = np.unique(mesh.faces, return_inverse=True)
            mesh = Mesh(seen[used], faces.reshape(-1, 3), colors[used])
            left = column * width + k * size
            tile = sheet[row * size : (row + 1) * size, left : left + size]
            tile[:] = draw_mesh(tile, mesh, camera)
        if labels:
            tile = sheet[row * size : (row + 1) * size, column * width : (column + 1) * width]
            draw_text(tile, labels[n], (4, size - 6), 0.35)
    cv2.rectangle(sheet, (0, 0), (sheet.shape[1] - 1, sheet.shape[0] - 1), BACKGROUND, 1)
    return sheet
