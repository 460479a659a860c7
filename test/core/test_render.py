"""The software renderer."""

import numpy as np
import pytest

from dposer_core.camera import PinholeCamera
from dposer_core.render import (
    SOURCE_COLORS,
    Mesh,
    draw_from_side,
    draw_keypoints,
    draw_mesh,
    part_of_mesh,
    source_colors,
)
from dposer_core.state import Source

CAMERA = PinholeCamera(200.0, 200.0, 79.5, 59.5, 160, 120)


def square(depth: float, color: tuple[int, int, int], half: float = 0.1) -> Mesh:
    """A square of 2 * `half` metres that faces the camera."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    vertices = np.column_stack([corners, np.full(4, depth)])
    return Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]]), np.tile(np.float64(color), (4, 1)))


def blank() -> np.ndarray:
    return np.zeros((120, 160, 3), np.uint8)


def merged(*meshes: Mesh) -> Mesh:
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes[:-1])])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=True)]),
        np.concatenate([m.colors for m in meshes]),
    )


def test_a_square_covers_its_projection() -> None:
    drawn = draw_mesh(blank(), square(1.0, (200, 200, 200)), CAMERA).any(axis=2)
    rows, columns = np.nonzero(drawn)
    # 0.2 m at 1 m and 200 px are 40 px around the principal point.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 79, 60, 99)
    assert drawn.sum() == 1600


def test_the_nearer_surface_hides_the_farther_one() -> None:
    near, far = square(1.0, (255, 0, 0), half=0.05), square(2.0, (0, 0, 255), half=0.2)
    for mesh in (merged(near, far), merged(far, near)):
        drawn = draw_mesh(blank(), mesh, CAMERA)
        assert drawn[60, 80, 0] > drawn[60, 80, 2]
        assert drawn[45, 80, 2] > drawn[45, 80, 0]


def test_a_mesh_behind_the_camera_leaves_the_image_alone() -> None:
    image = np.full((120, 160, 3), 7, np.uint8)
    assert (draw_mesh(image, square(-1.0, (255, 255, 255)), CAMERA) == 7).all()


def test_a_mesh_that_reaches_behind_the_camera_is_drawn_in_part() -> None:
    mesh = merged(square(1.0, (255, 255, 255)), square(-1.0, (255, 255, 255)))
    assert draw_mesh(blank(), mesh, CAMERA).any()


def test_input_image_is_not_changed() -> None:
    image = blank()
    draw_mesh(image, square(1.0, (200, 200, 200)), CAMERA)
    draw_keypoints(image, np.full((133, 2), 50.0), np.ones(133))
    assert not image.any()


def test_a_square_seen_from_the_side_is_a_line() -> None:
    mesh = square(1.0, (255, 255, 255))
    front = draw_from_side(mesh, np.array([0, 0, 1.0]), 0.4, (100, 100), yaw=0.0)
    side = draw_from_side(mesh, np.array([0, 0, 1.0]), 0.4, (100, 100), yaw=np.pi / 2)
    background = front[0, 0]
    assert (front != background).any(axis=2).sum() > 2000
    assert (side != background).any(axis=2).sum() < 150


def test_vertices_take_the_colour_of_their_joints_source() -> None:
    source = np.zeros(55, np.uint8)
    source[20] = Source.COMPLETED
    colors = source_colors(source, np.array([0, 20]))
    assert colors[0].tolist() == list(SOURCE_COLORS[Source.OBSERVED])
    assert colors[1].tolist() == list(SOURCE_COLORS[Source.COMPLETED])


def test_part_of_mesh_keeps_only_its_faces() -> None:
    mesh = merged(square(1.0, (1, 1, 1)), square(2.0, (2, 2, 2)))
    part = part_of_mesh(mesh, np.array([0, 0, 0, 0, 5, 5, 5, 5]), [5])
    assert part.faces.tolist() == mesh.faces[2:].tolist()


@pytest.mark.parametrize('points', [np.full((133, 2), np.nan), np.full((133, 2), 1e12)])
def test_keypoints_out_of_range_do_no_harm(points: np.ndarray) -> None:
    assert draw_keypoints(blank(), points, np.ones(133)).shape == (120, 160, 3)


def test_absent_keypoints_are_not_drawn() -> None:
    assert not draw_keypoints(blank(), np.full((133, 2), 60.0), np.zeros(133)).any()
