"""Faces of a mesh that pass through each other."""

import numpy as np
import pytest

from dposer_core import skeleton
from dposer_core.body_model import load_body
from dposer_core.errors import ModelFileError
from dposer_core.self_intersection import SelfIntersection, crossing_faces

FLAT = [[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]]


def crossing(*triangles) -> list[bool]:
    vertices = np.concatenate([np.array(t, dtype=float) for t in triangles])
    return crossing_faces(vertices, np.arange(len(vertices)).reshape(-1, 3)).tolist()


def test_triangle_through_another_crosses_it():
    assert crossing(FLAT, [[0, 0, -1], [0, 0, 1], [0.1, 5, 0]]) == [True, True]


def test_triangle_beside_another_does_not():
    assert crossing(FLAT, [[3, 0, -1], [3, 0, 1], [3.1, 5, 0]]) == [False, False]


def test_overlapping_boxes_alone_are_no_crossing():
    assert crossing(FLAT, [[0.9, 0.9, -1], [0.9, 0.9, 1], [1.0, 1.0, 0]]) == [False, False]


def test_neighbours_at_a_sharp_fold_do_not_count():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1e-9]])
    assert not crossing_faces(vertices, np.array([[0, 1, 2], [2, 1, 3]])).any()


def test_hand_in_the_belly_crosses_and_the_rest_pose_does_not():
    try:
        measure = SelfIntersection(load_body(''))
    except ModelFileError:
        pytest.skip('the open body is not built')
    poses = np.zeros((2, skeleton.NUM_JOINTS, 3))
    joint = skeleton.JOINT_INDEX
    poses[1, joint['left_shoulder'], 2] = -1.3
    poses[1, joint['left_elbow'], 1] = -2.4
    poses[1, joint['left_shoulder'], 1] = -0.6
    rest, crossed = measure.percent(poses)
    assert rest == 0.0
    assert crossed > 0.1
