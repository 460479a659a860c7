"""Reader of the Handy snapshots: static hand poses of a Quest headset as 25 joint positions.

Joints follow WebXR: wrist; thumb metacarpal, proximal, distal, tip; then index, middle, ring and
pinky, each metacarpal, proximal, intermediate, distal, tip. Millimetres in the frame of the wrist:
-z along the fingers, +y out of the back of the hand.
"""

import json
import re
from pathlib import Path

import numpy as np

from dposer_core.errors import MediaError

NUM_POINTS = 25
# Of each finger in SMPL-X order: its first three joints and its tip, in the 25 points.
_CHAINS = {
    'index': (6, 7, 8, 9),
    'middle': (11, 12, 13, 14),
    'pinky': (21, 22, 23, 24),
    'ring': (16, 17, 18, 19),
    'thumb': (1, 2, 3, 4),
}
# SMPL-X right hand at rest: fingers along -x, thumb towards +z, back of the hand up (+y).
_SMPLX_FROM_HANDY = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


def read_handy(path: Path, left: bool) -> tuple[list[str], np.ndarray]:
    """Names (N,) and bone directions (N, 5, 3, 3) as unit vectors in SMPL-X axes, right-hand form.

    A left hand is mirrored to a right one. Fingers: index, middle, pinky, ring, thumb.

    Raises:
        MediaError: no snapshot of 25 joints in the file.
    """
    records = [
        json.loads(text)
        for text in re.findall(r'\{"names":.*?\]\]\}', path.read_text(encoding='utf-8'))
    ]
    # Each file also holds one snapshot of an older revision with fewer joints.
    records = [record for record in records if len(record['jointPositions']) == NUM_POINTS]
    if not records:
        raise MediaError(f'{path}: no hand snapshots; expected a Handy-poses-*.js file')
    points = np.array([record['jointPositions'] for record in records], dtype=float)
    if left:
        points[..., 0] *= -1.0
    points = points @ _SMPLX_FROM_HANDY.T
    chains = points[:, np.array(list(_CHAINS.values()))]  # (N, 5, 4, 3)
    bones = np.diff(chains, axis=2)
    length = np.linalg.norm(bones, axis=-1, keepdims=True)
    return [record['names'][0] for record in records], bones / np.maximum(length, 1e-9)
