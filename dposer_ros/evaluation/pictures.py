"""Pictures of single frames: the fitted body over its keypoints, and from the side."""

from collections.abc import Sequence

import cv2
import numpy as np

from dposer_core import skeleton
from dposer_core.body_model import Body
from dposer_core.camera import PinholeCamera
from dposer_core.render import (
    BACKGROUND,
    Mesh,
    draw_keypoints,
    draw_mesh,
    source_colors,
)
from dposer_core.rotations import rotvec_to_rotmat
from dposer_core.state import Status
from dposer_ros.evaluation.run import Run

_SIZE = (420, 420)
_EXTENT = 2.1  # m, shown by a view around a person
_DISTANCE = 4.0  # m, of the viewer


def frame_picture(run: Run, body: Body, row: int) -> bytes:
    """JPEG of one state: with its keypoints as the camera sees them, and from the side.

    Args:
        run: the fitted bag.
        body: its body model.
        row: of `run.states`.
    """
    states = run.states
    stamp = int(states.stamp_ns[row])
    there = (states.stamp_ns == stamp) & (states.status != Status.LOST)
    rows = [row, *(r for r in np.flatnonzero(there) if r != row)]
    meshes = [_mesh(run, body, r) for r in rows]
    seen = dict(run.clip.frames).get(stamp, [])
    flat = [o for o in seen if o.dim == 2]
    front = (
        _through_camera(run.clip.camera, meshes, states.landmarks[row], flat)
        if run.clip.camera is not None and run.clip.camera.width
        else _around(run, row, meshes, 0.0)
    )
    picture = cv2.hconcat([front, _around(run, row, meshes[:1], np.pi / 2)])
    return cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _mesh(run: Run, body: Body, row: int) -> Mesh:
    s = run.states
    vertices = body.vertices(s.pose_rotvec[row], s.betas[row], s.expression[row], s.transl[row])
    colours = source_colors(s.source[row], np.asarray(body.weights).argmax(axis=1))
    return Mesh(vertices[0].astype(np.float64), np.asarray(body.faces), colours)


def _through_camera(
    camera: PinholeCamera, meshes: Sequence[Mesh], landmarks: np.ndarray, seen: Sequence
) -> np.ndarray:
    """A piece of the camera's picture around the person."""
    pixels = camera.project(landmarks)
    pixels = pixels[np.isfinite(pixels).all(axis=1)]
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    scale = _SIZE[0] / (1.25 * max(*(high - low), 20.0))
    corner = (low + high) / 2 - _SIZE[0] / (2 * scale)

    def shown(points: np.ndarray) -> np.ndarray:
        return (points - corner) * scale

    cx, cy = shown(np.array([camera.cx, camera.cy]))
    piece = PinholeCamera(camera.fx * scale, camera.fy * scale, cx, cy, *_SIZE)
    image = np.full((_SIZE[1], _SIZE[0], 3), BACKGROUND, np.uint8)
    for mesh in sorted(meshes, key=lambda m: -m.vertices[:, 2].mean()):
        image = draw_mesh(image, mesh, piece, opacity=0.8)
    for observation in seen:
        image = draw_keypoints(image, shown(observation.points), observation.confidence)
    return image


def _around(run: Run, row: int, meshes: Sequence[Mesh], yaw: float) -> np.ndarray:
    """The person upright, from the front or turned by `yaw`, whatever the frame's axes are."""
    pelvis = run.states.joints[row, 0]
    rotation = _upright(run, row, yaw)
    focal = _SIZE[0] * _DISTANCE / _EXTENT
    camera = PinholeCamera(focal, focal, (_SIZE[0] - 1) / 2, (_SIZE[1] - 1) / 2, *_SIZE)
    image = np.full((_SIZE[1], _SIZE[0], 3), BACKGROUND, np.uint8)
    for mesh in meshes:
        vertices = (mesh.vertices - pelvis) @ rotation.T + (0.0, 0.0, _DISTANCE)
        image = draw_mesh(image, Mesh(vertices, mesh.faces, mesh.colors), camera)
    return image


def _upright(run: Run, row: int, yaw: float) -> np.ndarray:
    """(3, 3) from the frame of the states to a viewer before the person: x right, y down."""
    joints = run.states.joints
    along = joints[:, skeleton.JOINT_INDEX['neck']] - joints[:, 0]
    up = np.median(along / np.linalg.norm(along, axis=1, keepdims=True), axis=0)
    up /= np.linalg.norm(up)
    facing = rotvec_to_rotmat(run.states.pose_rotvec[row, 0])[:, 2]  # SMPL-X looks along +z
    ahead = -(facing - (facing @ up) * up)
    if np.linalg.norm(ahead) < 1e-3:  # lying down
        ahead = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    ahead /= np.linalg.norm(ahead)
    down = -up
    right = np.cross(down, ahead)
    cos, sin = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    return turn @ np.stack([right, down, ahead])
