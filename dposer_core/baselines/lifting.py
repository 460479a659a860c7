"""What networks that lift 2D keypoints to bodies have in common: their input and their rows.

A row is one body before a camera: rotation vectors of the root, as the camera sees it, and of the
21 body joints (66), the 22 joints relative to the pelvis in the camera's axes, metres (66), and
the keypoints as `condition` gives them (75).
"""

from typing import NamedTuple

import torch
from torch import Tensor

NUM_JOINTS, NUM_POINTS = 22, 25
ROTATIONS = JOINTS = 3 * NUM_JOINTS
CONDITION = 3 * NUM_POINTS
_LEAST_SPREAD = 1e-3  # of rays: all points in one place have no scale


class Bodies(NamedTuple):
    """The pieces of rows."""

    rotvecs: Tensor
    """(B, 22, 3) rad."""
    joints: Tensor
    """(B, 22, 3) m."""
    seen: Tensor
    """(B, 75)."""


def pack(bodies: Bodies) -> Tensor:
    """(B, 207) rows."""
    return torch.cat([piece.flatten(1) for piece in bodies], dim=1)


def unpack(rows: Tensor) -> Bodies:
    """The pieces of (B, 207) rows."""
    rotvecs, joints, seen = rows.split([ROTATIONS, JOINTS, CONDITION], dim=1)
    shape = (len(rows), NUM_JOINTS, 3)
    return Bodies(rotvecs.reshape(shape), joints.reshape(shape), seen)


def condition(pixels: Tensor, confidence: Tensor, focal: Tensor, centre: Tensor) -> Tensor:
    """Keypoints without place, distance and camera.

    Args:
        pixels: (B, 25, 2), OpenPose's order.
        confidence: (B, 25); zero: not seen.
        focal: (B,) pixels.
        centre: (B, 2) principal point, pixels.

    Returns:
        (B, 75): rays about their middle, of unit spread, and whether a point is seen; the rays of
        unseen points are zero.
    """
    seen = (confidence > 0).to(pixels.dtype)[..., None]
    count = seen.sum(dim=1, keepdim=True).clamp(min=1.0)
    rays = (pixels.nan_to_num() - centre[:, None]) / focal[:, None, None]
    rays = (rays - (seen * rays).sum(dim=1, keepdim=True) / count) * seen
    spread = (rays.square().sum(dim=(1, 2), keepdim=True) / count).sqrt()
    rays = rays / spread.clamp(min=_LEAST_SPREAD)
    return torch.cat([rays.flatten(1), seen.flatten(1)], dim=1)
