"""Pictures of a run: one frame of the video, and the rows of the still picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dposer_core import files, skeleton
from dposer_core.body_model import Body
from dposer_core.camera import PinholeCamera
from dposer_core.render import (
    BACKGROUND,
    Mesh,
    draw_from_side,
    draw_keypoints,
    draw_legend,
    draw_mesh,
    draw_text,
    hand_joints,
    part_of_mesh,
    source_colors,
)
from dposer_core.state import Status
from dposer_ros.demo.bag import StateRecord

BODY_EXTENT = (1.5, 2.3)  # metres shown at least in the side view, across and up
HAND_EXTENT = 0.27  # metres shown by a hand's picture
SIDES = ('left', 'right')
TITLES = {  # panels, in the order of a row
    'input': 'input and keypoints',
    'overlay': 'fitted body',
    'side': 'from the side',
    'right': 'right hand',
    'left': 'left hand',
}


class Painter:
    """Draws poses with one body model."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._vertex_joints = np.asarray(body.weights).argmax(axis=1)

    def mesh(self, pose: StateRecord) -> Mesh:
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

    def side(self, mesh: Mesh, pose: StateRecord, size: tuple[int, int]) -> np.ndarray:
        """The body from its right, that is with the camera to the left of the picture."""
        across, up = BODY_EXTENT
        extent = min(size) * max(across / size[0], up / size[1])
        return draw_from_side(mesh, pose.joints[0], extent, size)

    def hand(self, mesh: Mesh, pose: StateRecord, side: str, size: tuple[int, int]) -> np.ndarray:
        """One hand and its forearm alone, as the camera would see them from near by."""
        joints = [*hand_joints(side), skeleton.JOINT_INDEX[f'{side}_elbow']]
        part = part_of_mesh(mesh, self._vertex_joints, joints)
        return draw_from_side(part, _hand_centre(pose, side), HAND_EXTENT, size, yaw=0.0)


@dataclass(frozen=True)
class Window:
    """A piece of a picture, shown at another size."""

    x: float  # left edge in the picture, pixels
    y: float  # top edge
    scale: float  # shown pixels per pixel
    size: tuple[int, int]  # width and height shown

    def image(self, image: np.ndarray) -> np.ndarray:
        """The piece of `image`."""
        shift = 0.5 * self.scale - 0.5  # pixel centres are at integer coordinates
        matrix = np.array(
            [
                [self.scale, 0.0, shift - self.scale * self.x],
                [0.0, self.scale, shift - self.scale * self.y],
            ]
        )
        if self.scale < 0.7:  # warping alone would alias
            factor = max(self.scale, 1e-3)
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            matrix = np.array([[1.0, 0.0, -self.scale * self.x], [0.0, 1.0, -self.scale * self.y]])
        return cv2.warpAffine(
            image, matrix, self.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    def points(self, points: np.ndarray) -> np.ndarray:
        """Where pixels (..., 2) of the picture are shown."""
        return (points + 0.5 - (self.x, self.y)) * self.scale - 0.5

    def camera(self, camera: PinholeCamera) -> PinholeCamera:
        """The camera that takes the piece."""
        cx, cy = self.points(np.array([camera.cx, camera.cy]))
        scale = self.scale
        return PinholeCamera(camera.fx * scale, camera.fy * scale, cx, cy, *self.size)


def whole(image: np.ndarray, size: tuple[int, int]) -> Window:
    """All of `image`, in the middle of `size`."""
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    return Window((width - size[0] / scale) / 2, (height - size[1] / scale) / 2, scale, size)


def around(points: np.ndarray, image: np.ndarray, size: tuple[int, int]) -> Window:
    """The piece of `image` that shows all `points` (N, 2) with some room about them.

    It stays inside the image and never shows more than all of it.
    """
    everything = whole(image, size)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return everything
    height, width = image.shape[:2]
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.maximum(1.4 * (high - low), 60.0)
    scale = max(min(size[0] / extent[0], size[1] / extent[1]), everything.scale)
    shown = np.array(size) / scale
    corner = np.clip((low + high) / 2 - shown / 2, 0.0, np.maximum((width, height) - shown, 0.0))
    return Window(float(corner[0]), float(corner[1]), float(scale), size)


def input_panel(
    image: np.ndarray, people: Sequence[tuple[np.ndarray, np.ndarray]], window: Window
) -> np.ndarray:
    """A piece of `image` with the keypoints (points, confidence) of all people."""
    panel = window.image(image)
    for points, confidence in people:
        panel = draw_keypoints(panel, window.points(points), confidence)
    return panel


def pose_panels(
    painter: Painter,
    image: np.ndarray,
    poses: Sequence[StateRecord],
    camera: PinholeCamera,
    window: Window,
    sizes: dict[str, tuple[int, int]],
    with_insets: bool = True,
) -> dict[str, np.ndarray]:
    """The panels 'overlay', 'side', 'left' and 'right' of one moment.

    Args:
        painter: draws the body.
        image: picture of `camera`, without distortion.
        poses: people, the main one first; may be empty.
        camera: of `image`.
        window: the piece of `image` under the overlay.
        sizes: width and height of each panel.
        with_insets: whether to show the hands in `image` beside those of the body.
    """
    meshes = [painter.mesh(pose) for pose in poses]
    panels = {'overlay': painter.overlay(window.image(image), meshes, window.camera(camera))}
    if not poses:
        return panels | {name: _blank(sizes[name]) for name in ('side', *SIDES)}
    pose, mesh = poses[0], meshes[0]
    panels['side'] = painter.side(mesh, pose, sizes['side'])
    for side in SIDES:
        panel = painter.hand(mesh, pose, side, sizes[side])
        if with_insets:
            _inset(panel, image, pose, side, camera)
        panels[side] = panel
    return panels


def panel_sizes(width: int, height: int, with_input: bool = True) -> dict[str, tuple[int, int]]:
    """Width and height of the panels of the video for input pictures of this shape."""
    if width < height:  # upright: columns, the last one of both hands
        panel = (_even(720 * width / height), 720)
        hand = (360, 360)
        return {'input': panel, 'overlay': panel, 'side': panel, 'left': hand, 'right': hand}
    panel = (640, _even(640 * height / width))
    if not with_input:  # two over two
        return {'overlay': panel, 'side': panel, 'left': (640, 360), 'right': (640, 360)}
    hand = (426, 360)
    return {'input': panel, 'overlay': panel, 'side': (428, 360), 'left': hand, 'right': hand}


def compose_frame(panels: dict[str, np.ndarray], caption: str) -> np.ndarray:
    """The panels of one moment as one frame of the video; the input may be missing."""
    for name, panel in panels.items():
        draw_text(panel, TITLES[name], (10, 20), 0.5)
    overlay, side = panels['overlay'], panels['side']
    draw_text(overlay, caption, (10, overlay.shape[0] - 12), 0.45)
    draw_legend(side, (10, side.shape[0] - 84), 0.42)
    hands = [panels['right'], panels['left']]  # as they hang on a person who faces the camera
    pictures = [panels[name] for name in ('input', 'overlay', 'side') if name in panels]
    if overlay.shape[1] < overlay.shape[0]:
        return np.hstack([*pictures, np.vstack(hands)])
    return np.vstack([np.hstack(pictures[:2]), np.hstack([*pictures[2:], *hands])])


def compose_rows(rows: Sequence[dict[str, np.ndarray]], captions: Sequence[str]) -> np.ndarray:
    """The still picture: one row of panels for each moment, all of one height."""
    order = [name for name in TITLES if name in rows[0]]
    height = rows[0]['side'].shape[0]
    lines = [np.hstack([panels[name] for name in order]) for panels in rows]
    for line, caption in zip(lines, captions, strict=True):
        draw_text(line, caption, (8, height - 10), 0.45)
    starts = np.cumsum([0, *(rows[0][name].shape[1] for name in order)])
    for name, x in zip(order, starts, strict=False):
        draw_text(lines[0], TITLES[name], (int(x) + 8, 20), 0.5)
    draw_legend(lines[0], (int(starts[order.index('side')]) + 8, height - 84), 0.42)
    return np.vstack(lines)


def row_sizes(width: int, height: int) -> dict[str, tuple[int, int]]:
    """Panel sizes of a row of the still picture."""
    tall = 300 if width >= height else 420
    picture = (_even(tall * min(1.2, width / height)), tall)
    return {
        'input': picture,
        'overlay': picture,
        'side': (_even(tall * 0.75), tall),
        'left': (_even(tall * 0.8), tall),
        'right': (_even(tall * 0.8), tall),
    }


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a picture, whole or not at all."""
    with files.whole(path) as partial:
        partial.write_bytes(cv2.imencode('.png', image)[1])


def status_text(poses: Sequence[StateRecord]) -> str:
    """'tracking' and the like, for captions."""
    return ', '.join(Status(pose.status).name.lower() for pose in poses) or 'nobody'


def _hand_centre(pose: StateRecord, side: str) -> np.ndarray:
    return pose.joints[skeleton.JOINT_INDEX[f'{side}_middle1']]


def _inset(
    panel: np.ndarray, image: np.ndarray, pose: StateRecord, side: str, camera: PinholeCamera
) -> None:
    """Put what the camera saw of the hand into the lower right corner of `panel`."""
    centre = _hand_centre(pose, side)
    pixel = camera.project(centre)
    height, width = image.shape[:2]
    if not (np.isfinite(pixel).all() and (pixel >= 0).all() and (pixel < (width, height)).all()):
        return
    edge = round(0.36 * min(panel.shape[:2]))
    shown = max(12.0, HAND_EXTENT * camera.fx / centre[2])  # pixels of the camera
    crop = Window(pixel[0] - shown / 2, pixel[1] - shown / 2, edge / shown, (edge, edge))
    y, x = panel.shape[0] - edge - 8, panel.shape[1] - edge - 8
    panel[y : y + edge, x : x + edge] = crop.image(image)
    cv2.rectangle(panel, (x - 1, y - 1), (x + edge, y + edge), (120, 120, 120), 1)


def _blank(size: tuple[int, int]) -> np.ndarray:
    return np.full((size[1], size[0], 3), BACKGROUND, np.uint8)


def _even(length: float) -> int:
    return round(length / 2) * 2
