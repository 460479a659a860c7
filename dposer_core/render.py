"""Pictures of bodies and keypoints, drawn on the CPU without OpenGL or a display.

A z-buffer rasteriser in numba: 25,000 faces over a person of 400 pixels take a few milliseconds,
where ray casting with embree took 90 ms and needs two more packages. Images are (H, W, 3) uint8
BGR.
"""

from dataclasses import dataclass

import cv2
import numba
import numpy as np

from dposer_core import skeleton
from dposer_core.camera import PinholeCamera
from dposer_core.state import Source

SUPERSAMPLING = 2
NEAR = 0.05  # metres

# BGR of a joint's source. Blue: seen; orange: completed by the prior (told apart by colour-blind
# people as well); grey-violet: extrapolated.
SOURCE_COLORS: dict[Source, tuple[int, int, int]] = {
    Source.OBSERVED: (222, 176, 120),
    Source.PARTIAL: (190, 200, 110),
    Source.COMPLETED: (52, 148, 250),
    Source.PREDICTED: (190, 120, 180),
    Source.DEFAULT: (150, 150, 150),
}
SOURCE_LABELS = {
    Source.OBSERVED: 'seen',
    Source.PARTIAL: 'partly seen',
    Source.COMPLETED: 'completed by the prior',
    Source.PREDICTED: 'predicted',
}
BACKGROUND = (36, 32, 30)
TEXT_COLOR = (235, 235, 235)
_LEFT_COLOR, _RIGHT_COLOR, _CENTRE_COLOR = (90, 220, 120), (80, 130, 255), (230, 230, 230)

# Directions towards the lights in the camera frame (x right, y down, z forward) and strengths.
_LIGHTS = np.array([[-0.5, -0.7, -0.6], [0.9, -0.1, -0.5]])
_LIGHT_STRENGTHS = np.array([0.62, 0.26])
_AMBIENT = 0.26

_BODY_LINES = (
    (5, 7), (7, 9), (6, 8), (8, 10), (5, 6), (11, 12), (5, 11), (6, 12), (11, 13), (13, 15),
    (12, 14), (14, 16), (0, 1), (0, 2), (1, 3), (2, 4), (15, 17), (15, 19), (16, 20), (16, 22),
)  # fmt: skip
_HAND_LINES = tuple(
    (a, b)
    for f in range(5)
    for a, b in zip((0, *range(4 * f + 1, 4 * f + 4)), range(4 * f + 1, 4 * f + 5), strict=True)
)
_LEFT_HAND, _RIGHT_HAND, _FACE = 91, 112, range(23, 91)
_LEFT_BODY = frozenset((1, 3, 5, 7, 9, 11, 13, 15, 17, 18, 19))
_RIGHT_BODY = frozenset((2, 4, 6, 8, 10, 12, 14, 16, 20, 21, 22))


@dataclass(frozen=True)
class Mesh:
    """A coloured triangle mesh in a camera's optical frame."""

    vertices: np.ndarray  # (V, 3) metres
    faces: np.ndarray  # (F, 3)
    colors: np.ndarray  # (V, 3) BGR, 0 to 255


def source_colors(source: np.ndarray, vertex_joints: np.ndarray) -> np.ndarray:
    """Colour of every vertex from the source of the joint that moves it most.

    Args:
        source: (55,) `Source`.
        vertex_joints: (V,) joint of each vertex.

    Returns:
        (V, 3) BGR.
    """
    table = np.array([SOURCE_COLORS[Source(int(value))] for value in source], dtype=np.float64)
    return table[vertex_joints]


def draw_mesh(
    image: np.ndarray, mesh: Mesh, camera: PinholeCamera, opacity: float = 1.0
) -> np.ndarray:
    """`image` with the mesh over it, as `camera` sees it."""
    factor = SUPERSAMPLING
    height, width = image.shape[:2]
    pixels = camera.project(mesh.vertices)
    window = _window(pixels, width, height)
    if window is None:
        return image.copy()
    x0, y0, x1, y1 = window
    # Continuous coordinates of the supersampled window: pixel centres lie at half integers there.
    screen = np.empty_like(mesh.vertices)
    screen[:, :2] = (pixels + 0.5 - (x0, y0)) * factor
    screen[:, 2] = mesh.vertices[:, 2]
    color, covered = _rasterize(
        screen,
        mesh.faces,
        _shaded(mesh),
        (y1 - y0) * factor,
        (x1 - x0) * factor,
    )
    size = (x1 - x0, y1 - y0)
    alpha = cv2.resize(covered, size, interpolation=cv2.INTER_AREA)[..., None] * opacity
    premultiplied = cv2.resize(color, size, interpolation=cv2.INTER_AREA) * opacity
    result = image.copy()
    patch = result[y0:y1, x0:x1]
    patch[:] = np.clip(premultiplied + (1 - alpha) * patch, 0, 255).astype(np.uint8)
    return result


def visible_faces(screen: np.ndarray, faces: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) index of the face seen in each pixel, -1 where there is none.

    `screen` (V, 3): x, y in pixels, centres at half integers, and depth in metres.
    """
    corners = screen[faces.ravel()]  # of every face its own, which carry its number
    numbers = np.repeat(np.arange(len(faces)), 3).astype(np.float64)[:, None].repeat(3, 1)
    triangles = np.arange(len(corners)).reshape(-1, 3)
    color, covered = _rasterize(corners, triangles, numbers, height, width)
    return np.where(covered > 0, np.rint(color[..., 0]).astype(int), -1)


def orbit_camera(
    centre: np.ndarray, extent: float, size: tuple[int, int], yaw: float, distance: float = 4.0
) -> tuple[PinholeCamera, np.ndarray, np.ndarray]:
    """A camera that looks at `centre` from the side.

    Args:
        centre: (3,) metres, optical frame of the real camera.
        extent: metres that the shorter side of the picture shows at the centre.
        size: width and height in pixels.
        yaw: turn about the vertical image axis; 0 is the real camera's direction, radians.
        distance: from the centre, metres.

    Returns:
        The camera, and (R (3, 3), t (3,)) from the real camera's frame to its frame.
    """
    cos, sin = np.cos(yaw), np.sin(yaw)
    rotation = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    translation = np.array([0.0, 0.0, distance]) - rotation @ centre
    width, height = size
    focal = min(size) * distance / extent
    camera = PinholeCamera(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
    return camera, rotation, translation


def draw_from_side(
    mesh: Mesh,
    centre: np.ndarray,
    extent: float,
    size: tuple[int, int],
    yaw: float = np.pi / 2,
    background: tuple[int, int, int] = BACKGROUND,
) -> np.ndarray:
    """The mesh alone, seen after a turn of `yaw` about the vertical through `centre`."""
    camera, rotation, translation = orbit_camera(centre, extent, size, yaw)
    turned = Mesh(mesh.vertices @ rotation.T + translation, mesh.faces, mesh.colors)
    canvas = np.full((size[1], size[0], 3), background, np.uint8)
    return draw_mesh(canvas, turned, camera)


def part_of_mesh(mesh: Mesh, vertex_joints: np.ndarray, joints: list[int]) -> Mesh:
    """The faces whose vertices all belong to `joints`."""
    keep = np.isin(vertex_joints, joints)[mesh.faces].all(axis=1)
    return Mesh(mesh.vertices, mesh.faces[keep], mesh.colors)


def hand_joints(side: str) -> list[int]:
    """Wrist and finger joints of 'left' or 'right'."""
    hand = skeleton.LEFT_HAND_JOINTS if side == 'left' else skeleton.RIGHT_HAND_JOINTS
    return [skeleton.JOINT_INDEX[f'{side}_wrist'], *range(hand.start, hand.stop)]


def draw_keypoints(
    image: np.ndarray, points: np.ndarray, confidence: np.ndarray, threshold: float = 0.3
) -> np.ndarray:
    """`image` with COCO-WholeBody-133 keypoints; green is the person's left, red the right.

    Args:
        image: picture in which the points were found.
        points: (133, 2) pixels.
        confidence: (133,); points at or below `threshold` are left out.
        threshold: see above.
    """
    canvas = image.copy()
    seen = (confidence > threshold) & np.isfinite(points).all(axis=1)
    thick = max(1, round(max(image.shape[:2]) / 480))
    for a, b in _BODY_LINES:
        _line(canvas, points, seen, a, b, thick)
    for first in (_LEFT_HAND, _RIGHT_HAND):
        for a, b in _HAND_LINES:
            _line(canvas, points, seen, first + a, first + b, 1)
    for k in np.flatnonzero(seen):
        radius = thick + 1.0 if k < 23 else 0.6 if k in _FACE else 1.0
        _dot(canvas, points[k], radius, _point_color(int(k)))
    return canvas


def draw_text(
    image: np.ndarray,
    text: str,
    position: tuple[int, int],
    scale: float = 0.5,
    color: tuple[int, int, int] = TEXT_COLOR,
) -> None:
    """Write `text` in place with its baseline at `position`, on a darkened strip."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, height), below = cv2.getTextSize(text, font, scale, 1)
    x, y = position
    strip = image[max(y - height - 4, 0) : y + below + 1, max(x - 5, 0) : x + width + 5]
    strip[:] = (strip * 0.35).astype(np.uint8)
    cv2.putText(image, text, position, font, scale, color, 1, cv2.LINE_AA)


def draw_legend(image: np.ndarray, position: tuple[int, int], scale: float = 0.45) -> None:
    """The meaning of the mesh colours, in place, from `position` (left, top) downwards."""
    x, y = position
    line = round(44 * scale)
    for index, (source, label) in enumerate(SOURCE_LABELS.items()):
        top = y + index * line
        box = round(26 * scale)
        cv2.rectangle(image, (x, top), (x + box, top + box), SOURCE_COLORS[source], -1)
        draw_text(image, label, (x + box + 8, top + box - 1), scale)


def _line(
    canvas: np.ndarray, points: np.ndarray, seen: np.ndarray, a: int, b: int, thick: int
) -> None:
    if seen[a] and seen[b]:
        color = _point_color(a) if _point_color(a) == _point_color(b) else _CENTRE_COLOR
        cv2.line(canvas, _pixel(points[a]), _pixel(points[b]), color, thick, cv2.LINE_AA, 3)


def _dot(
    canvas: np.ndarray, point: np.ndarray, radius: float, color: tuple[int, int, int]
) -> None:
    cv2.circle(canvas, _pixel(point), round(radius * 8), color, -1, cv2.LINE_AA, 3)


def _pixel(point: np.ndarray) -> tuple[int, int]:
    """Fixed point with three bits, as OpenCV draws with shift=3; kept in its range."""
    x, y = np.clip(point, -4000, 8000)
    return round(x * 8), round(y * 8)


def _point_color(k: int) -> tuple[int, int, int]:
    if k in _LEFT_BODY or _LEFT_HAND <= k < _RIGHT_HAND:
        return _LEFT_COLOR
    if k in _RIGHT_BODY or k >= _RIGHT_HAND:
        return _RIGHT_COLOR
    return _CENTRE_COLOR


def _window(pixels: np.ndarray, width: int, height: int) -> tuple[int, int, int, int] | None:
    """The part of the image that the vertices touch, as x0, y0, x1, y1; None if there is none."""
    finite = pixels[np.isfinite(pixels).all(axis=1)]
    if not len(finite):
        return None
    low = np.clip(np.floor(finite.min(axis=0)) - 1, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(finite.max(axis=0)) + 2, 0, (width, height)).astype(int)
    if (high <= low).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _shaded(mesh: Mesh) -> np.ndarray:
    """(V, 3) BGR after Lambert lighting from two sides and a darker rim."""
    normals = _vertex_normals(mesh.vertices.astype(np.float64), mesh.faces)
    view = -mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    facing = (normals * view).sum(axis=1, keepdims=True)
    normals = np.where(facing < 0, -normals, normals)  # the inside of an open part is lit too
    lights = _LIGHTS / np.linalg.norm(_LIGHTS, axis=1, keepdims=True)
    lambert = np.clip(normals @ lights.T, 0.0, None) @ _LIGHT_STRENGTHS
    rim = 0.55 + 0.45 * np.clip(np.abs(facing[:, 0]) * 2.0, 0.0, 1.0)
    return np.clip(mesh.colors * ((_AMBIENT + lambert) * rim)[:, None], 0.0, 255.0)


@numba.njit(cache=True)
def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, each the area-weighted mean of its faces'."""
    normals = np.zeros((len(vertices), 3))
    for f in range(len(faces)):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        u, v = b - a, c - a
        for axis in range(3):
            i, j = (axis + 1) % 3, (axis + 2) % 3
            component = u[i] * v[j] - u[j] * v[i]
            for corner in range(3):
                normals[faces[f, corner], axis] += component
    for n in range(len(normals)):
        length = np.sqrt((normals[n] ** 2).sum())
        if length > 0:
            normals[n] /= length
    return normals


@numba.njit(cache=True)
def _rasterize(
    screen: np.ndarray, faces: np.ndarray, colors: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw triangles with a z-buffer.

    Args:
        screen: (V, 3) x, y in pixels (centres at half integers) and depth in metres.
        faces: (F, 3).
        colors: (V, 3), interpolated over the face.
        height: of the image.
        width: of the image.

    Returns:
        colour (height, width, 3) float32, 0 where nothing is; coverage (height, width), 0 or 1.
    """
    color = np.zeros((height, width, 3), np.float32)
    covered = np.zeros((height, width), np.float32)
    inverse_depth = np.zeros((height, width))
    for f in range(len(faces)):
        i, j, k = faces[f]
        ax, ay, az = screen[i]
        bx, by, bz = screen[j]
        cx, cy, cz = screen[k]
        if not (az > NEAR and bz > NEAR and cz > NEAR):
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-12:
            continue
        x0, x1 = max(int(min(ax, bx, cx)), 0), min(int(max(ax, bx, cx)) + 1, width)
        y0, y1 = max(int(min(ay, by, cy)), 0), min(int(max(ay, by, cy)) + 1, height)
        for y in range(y0, y1):
            for x in range(x0, x1):
                px, py = x + 0.5, y + 0.5
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
                wc = 1.0 - wa - wb
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                # 1 / depth is linear in the image, depth is not.
                inverse = wa / az + wb / bz + wc / cz
                if inverse > inverse_depth[y, x]:
                    inverse_depth[y, x] = inverse
                    covered[y, x] = 1.0
                    for channel in range(3):
                        color[y, x, channel] = (
                            wa * colors[i, channel]
                            + wb * colors[j, channel]
                            + wc * colors[k, channel]
                        )
    return color, covered
