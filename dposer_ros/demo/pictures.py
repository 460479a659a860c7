"""Pictures of a run: one frame of the video, and the rows of the still picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dposer_core import skeleton
from dposer_core.body_model import Body
from dposer_core.camera import PinholeCamera
from dposer_core.render import (
    BACKGROUND,
    Mesh,
    draw_from_side,
    draw_legend,
    draw_mesh,
    draw_text,
    hand_joints,
    part_of_mesh,
    source_colors,
)
from dposer_core.state import Status

BODY_EXTENT = 2.3  # metres shown by the shorter side of the side view
HAND_EXTENT = 0.27  # metres shown by a hand's picture
SIDES = ('left', 'right')


@dataclass(frozen=True)
class Pose:
    """What is drawn of one person. Camera frame, metres, radians."""

    pose_rotvec: np.ndarray  # (55, 3)
    transl: np.ndarray  # (3,)
    betas: np.ndarray  # (10,)
    expression: np.ndarray  # (E,)
    joints: np.ndarray  # (55, 3)
    source: np.ndarray  # (55,)
    status: int


class Painter:
    """Draws poses with one body model."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._vertex_joints = np.asarray(body.weights).argmax(axis=1)

    def mesh(self, pose: Pose) -> Mesh:
        """The skinned body, coloured by how its joints were obtained."""
        vertices = self._body.vertices(pose.pose_rotvec, pose.betas, pose.expression, pose.transl)
        return Mesh(
            np.asarray(vertices, dtype=np.float64).reshape(-1, 3),
            np.asarray(self._body.faces),
            source_colors(pose.source, self._vertex_joints),
        )

    def overlay(
        self, image: np.ndarray, meshes: Sequence[Mesh], camera: PinholeCamera
    ) -> np.ndarray:
        """All meshes over the image, the farthest first."""
        for mesh in sorted(meshes, key=lambda m: -m.vertices[:, 2].mean()):
            image = draw_mesh(image, mesh, camera, opacity=0.92)
        return image

    def side(self, mesh: Mesh, pose: Pose, size: tuple[int, int]) -> np.ndarray:
        """The body from its right, that is with the camera to the left of the picture."""
        return draw_from_side(mesh, pose.joints[0], BODY_EXTENT, size)

    def hand(self, mesh: Mesh, pose: Pose, side: str, size: tuple[int, int]) -> np.ndarray:
        """One hand and its forearm alone, as the camera would see them from near by."""
        joints = [*hand_joints(side), skeleton.JOINT_INDEX[f'{side}_elbow']]
        part = part_of_mesh(mesh, self._vertex_joints, joints)
        return draw_from_side(part, _hand_centre(pose, side), HAND_EXTENT, size, yaw=0.0)


def pose_panels(
    painter: Painter,
    image: np.ndarray,
    keypoint_image: np.ndarray,
    poses: Sequence[Pose],
    camera: PinholeCamera,
    sizes: dict[str, tuple[int, int]],
) -> dict[str, np.ndarray]:
    """The panels 'overlay', 'side', 'left' and 'right' of one moment.

    Args:
        painter: draws the body.
        image: picture of `camera`, without distortion.
        keypoint_image: the same with keypoints; the hands' insets are cut from it.
        poses: people, the main one first; may be empty.
        camera: of `image`.
        sizes: width and height of each panel.
    """
    meshes = [painter.mesh(pose) for pose in poses]
    panels = {'overlay': fitted(painter.overlay(image, meshes, camera), sizes['overlay'])}
    if not poses:
        return panels | {name: _blank(sizes[name]) for name in ('side', *SIDES)}
    pose, mesh = poses[0], meshes[0]
    panels['side'] = painter.side(mesh, pose, sizes['side'])
    for side in SIDES:
        panel = painter.hand(mesh, pose, side, sizes[side])
        _inset(panel, keypoint_image, pose, side, camera)
        panels[side] = panel
    return panels


def panel_sizes(width: int, height: int) -> dict[str, tuple[int, int]]:
    """Width and height of the panels of the video for input pictures of this shape."""
    if width >= height:  # two pictures above, three drawings below
        panel = (640, _even(640 * height / width))
        drawing = _even(1280 / 3)
        return {
            'input': panel,
            'overlay': panel,
            'side': (1280 - 2 * drawing, 360),
            'left': (drawing, 360),
            'right': (drawing, 360),
        }
    panel = (_even(720 * width / height), 720)  # three columns and the hands in a fourth
    return {
        'input': panel,
        'overlay': panel,
        'side': panel,
        'left': (360, 360),
        'right': (360, 360),
    }


def compose_frame(panels: dict[str, np.ndarray], caption: str) -> np.ndarray:
    """The panels of one moment as one frame of the video."""
    for name, text in (
        ('input', 'input and keypoints'),
        ('overlay', 'fitted body'),
        ('side', 'from the side (camera on the left)'),
        ('left', 'left hand'),
        ('right', 'right hand'),
    ):
        draw_text(panels[name], text, (10, 20), 0.5)
    overlay = panels['overlay']
    draw_text(overlay, caption, (10, overlay.shape[0] - 12), 0.45)
    draw_legend(panels['side'], (10, panels['side'].shape[0] - 84), 0.42)
    hands = [panels['right'], panels['left']]  # as they hang on a person who faces the camera
    if panels['input'].shape[1] >= panels['input'].shape[0]:
        top = np.hstack([panels['input'], overlay])
        return np.vstack([top, np.hstack([panels['side'], *hands])])
    return np.hstack([panels['input'], overlay, panels['side'], np.vstack(hands)])


def compose_rows(rows: Sequence[dict[str, np.ndarray]], captions: Sequence[str]) -> np.ndarray:
    """The still picture: one row of panels for each moment, all of one height."""
    height = next(iter(rows[0].values())).shape[0]
    lines = []
    for panels, caption in zip(rows, captions, strict=True):
        draw_text(panels['input'], caption, (8, height - 10), 0.45)
        order = ('input', 'overlay', 'side', 'right', 'left')
        lines.append(np.hstack([panels[name] for name in order]))
    for name, text, x in _titles(rows[0]):
        del name
        draw_text(lines[0], text, (x + 8, 20), 0.5)
    picture = np.vstack(lines)
    offset = rows[0]['input'].shape[1] + rows[0]['overlay'].shape[1]
    draw_legend(picture, (offset + 8, height - 84), 0.42)
    return picture


def row_sizes(width: int, height: int) -> dict[str, tuple[int, int]]:
    """Panel sizes of a row of the still picture."""
    tall = 270 if width >= height else 420
    picture = (_even(tall * width / height), tall)
    return {
        'input': picture,
        'overlay': picture,
        'side': (_even(tall * 0.8), tall),
        'left': (_even(tall * 0.8), tall),
        'right': (_even(tall * 0.8), tall),
    }


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`image` resized to width and height."""
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a picture, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial.png')
    cv2.imwrite(str(partial), image)
    partial.replace(path)


def status_text(poses: Sequence[Pose]) -> str:
    """'tracking' and the like, for captions."""
    return ', '.join(Status(pose.status).name.lower() for pose in poses) or 'nobody'


def _titles(panels: dict[str, np.ndarray]) -> list[tuple[str, str, int]]:
    titles = {
        'input': 'input and keypoints',
        'overlay': 'fitted body',
        'side': 'from the side',
        'right': 'right hand',
        'left': 'left hand',
    }
    result, x = [], 0
    for name, text in titles.items():
        result.append((name, text, x))
        x += panels[name].shape[1]
    return result


def _hand_centre(pose: Pose, side: str) -> np.ndarray:
    return pose.joints[skeleton.JOINT_INDEX[f'{side}_middle1']]


def _inset(
    panel: np.ndarray, image: np.ndarray, pose: Pose, side: str, camera: PinholeCamera
) -> None:
    """Put what the camera saw of the hand into the lower right corner of `panel`."""
    centre = _hand_centre(pose, side)
    pixel = camera.project(centre)
    if not np.isfinite(pixel).all():
        return
    half = max(6, round(0.6 * HAND_EXTENT * camera.fx / centre[2]))
    x, y = np.round(pixel).astype(int)
    height, width = image.shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        return
    padded = cv2.copyMakeBorder(
        image, half, half, half, half, cv2.BORDER_CONSTANT, value=BACKGROUND
    )
    crop = padded[y : y + 2 * half, x : x + 2 * half]
    edge = round(0.36 * min(panel.shape[:2]))
    panel[-edge - 8 : -8, -edge - 8 : -8] = cv2.resize(
        crop, (edge, edge), interpolation=cv2.INTER_CUBIC
    )
    cv2.rectangle(
        panel,
        (panel.shape[1] - edge - 9, panel.shape[0] - edge - 9),
        (panel.shape[1] - 8, panel.shape[0] - 8),
        (120, 120, 120),
        1,
    )


def _blank(size: tuple[int, int]) -> np.ndarray:
    return np.full((size[1], size[0], 3), BACKGROUND, np.uint8)


def _even(length: float) -> int:
    return round(length / 2) * 2
