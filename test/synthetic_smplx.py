"""A small licence-free body with the true SMPL-X keys and joint tree, for tests.

It does not look like a person: a cloud of vertices around a stick figure. It has what the open
body lacks, so that nothing of it goes untested: pose blend shapes and a mean hand pose.
"""

from pathlib import Path

import numpy as np

from dposer_core import skeleton
from dposer_core.body_model import SHAPE_SPACE, VERTEX_IDS

NUM_VERTICES = 9960  # just beyond the highest vertex number that SMPL-X users know


def rest_joints() -> np.ndarray:
    """(55, 3) joints of a stick figure of about 1.7 m in T-pose, metres."""
    offset = {
        'pelvis': (0, -0.35, 0), 'left_hip': (0.06, -0.09, 0), 'spine1': (0, 0.11, -0.02),
        'left_knee': (0.04, -0.38, 0), 'spine2': (0, 0.14, 0), 'left_ankle': (-0.02, -0.42, -0.03),
        'spine3': (0, 0.05, 0), 'left_foot': (0.03, -0.06, 0.12), 'neck': (0, 0.16, -0.02),
        'left_collar': (0.05, 0.08, -0.01), 'head': (0, 0.15, 0.05),
        'left_shoulder': (0.11, 0.03, -0.01), 'left_elbow': (0.26, 0, -0.01),
        'left_wrist': (0.25, 0, 0), 'jaw': (0, -0.01, 0.02), 'left_eye': (0.03, 0.05, 0.06),
    }  # fmt: skip
    for i, finger in enumerate(('index', 'middle', 'ring', 'pinky')):
        offset[f'left_{finger}1'] = (0.1, 0, 0.03 - 0.02 * i)
        offset |= {f'left_{finger}{k}': (0.03, 0, 0) for k in (2, 3)}
    offset['left_thumb1'] = (0.03, -0.01, 0.03)
    offset |= {f'left_thumb{k}': (0.025, 0, 0.02) for k in (2, 3)}
    joints = np.zeros((skeleton.NUM_JOINTS, 3))
    for j, name in enumerate(skeleton.JOINT_NAMES):
        step = np.array(offset[name.replace('right_', 'left_')], dtype=np.float64)
        step[0] *= -1 if name.startswith('right_') else 1
        joints[j] = step + (joints[skeleton.PARENTS[j]] if j else 0)
    return joints


def write_synthetic_smplx(path: Path, seed: int = 0, wide: bool = True) -> Path:
    """Write the body to `path` (.npz); the same `seed` gives the same body.

    Args:
        path: where to.
        seed: of everything random.
        wide: 300 + 100 columns of shapedirs as SMPL-X v1.1, else 10 + 10 as v1.0.
    """
    rng = np.random.default_rng(seed)
    joints = rest_joints()
    owner = np.concatenate([np.repeat(np.arange(55), 4), rng.integers(0, 55, NUM_VERTICES - 220)])
    vertices = joints[owner] + rng.normal(0, 0.02, (NUM_VERTICES, 3))
    # The first four vertices of a joint average to it, so that the regressor finds it.
    vertices[:220] += np.repeat(joints - vertices[:220].reshape(55, 4, 3).mean(1), 4, axis=0)
    regressor = np.zeros((55, NUM_VERTICES))
    regressor[np.repeat(np.arange(55), 4), np.arange(220)] = 0.25
    faces = rng.integers(0, NUM_VERTICES, (400, 3))
    dynamic = rng.integers(0, 400, (79, 17))
    arrays = {
        'v_template': vertices,
        'f': faces,
        'shapedirs': _shapedirs(rng, wide),
        'posedirs': _posedirs(rng, faces),
        'J_regressor': regressor,
        'kintree_table': np.stack([skeleton.PARENTS, np.arange(55)]),
        'weights': _weights(rng, owner),
        'lmk_faces_idx': rng.integers(0, 400, 51),
        'lmk_bary_coords': rng.dirichlet(np.ones(3), 51),
        'dynamic_lmk_faces_idx': dynamic,
        'dynamic_lmk_bary_coords': rng.dirichlet(np.ones(3), (79, 17)),
        'hands_meanl': rng.normal(0, 0.2, 45),
        'hands_meanr': rng.normal(0, 0.2, 45),
        'hands_componentsl': np.eye(45),
        'hands_componentsr': np.eye(45),
    }
    np.savez_compressed(path, **arrays)
    return path


def _shapedirs(rng: np.random.Generator, wide: bool) -> np.ndarray:
    shapedirs = np.zeros((NUM_VERTICES, 3, 400 if wide else 20), dtype=np.float32)
    for start in (0, SHAPE_SPACE if wide else 10):
        shapedirs[:, :, start : start + 10] = rng.normal(0, 0.01, (NUM_VERTICES, 3, 10))
    return shapedirs


def _posedirs(rng: np.random.Generator, faces: np.ndarray) -> np.ndarray:
    """Pose blend shapes of the vertices that landmarks can touch; zero elsewhere: small files."""
    posedirs = np.zeros((NUM_VERTICES, 3, 486), dtype=np.float32)
    used = np.union1d(list(VERTEX_IDS.values()), faces)
    posedirs[used] = rng.normal(0, 0.002, (len(used), 3, 486))
    return posedirs


def _weights(rng: np.random.Generator, owner: np.ndarray) -> np.ndarray:
    """Each vertex hangs on its joint, the parent of it and one more joint."""
    weights = np.zeros((NUM_VERTICES, 55))
    rows = np.arange(NUM_VERTICES)
    share = rng.dirichlet((4.0, 2.0, 1.0), NUM_VERTICES)
    for column, bone in enumerate(
        (owner, np.maximum(skeleton.PARENTS[owner], 0), rng.integers(0, 55, NUM_VERTICES))
    ):
        np.add.at(weights, (rows, bone), share[:, column])
    return weights
