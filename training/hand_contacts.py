"""Fingers that lie inside each other or inside the palm: how deep, and moved apart again.

The hand is a set of spheres: four along every phalanx, and a row along every metacarpal bone for
the palm. Sizes are those of the open body's right hand, rounded to half a millimetre; what touches
already in the flat hand (neighbouring fingers at their base) does not count.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dposer_core.rotations import rotvec_to_rotmat

# (5, 4, 3) millimetres: from the wrist to the first joint, then from joint to joint, then to the
# tip, of index, middle, pinky, ring and thumb. The hand points to -x, palm down, thumb to +z.
BONES_MM = np.array(
    [
        [[-107.5, -4.5, 27.0], [-26.5, -1.0, 2.5], [-24.0, -0.5, 2.5], [-27.5, 0.0, 2.5]],
        [[-106.5, 0.0, 0.0], [-35.0, -1.0, 0.0], [-28.5, -1.0, 0.0], [-26.5, 2.5, 0.5]],
        [[-90.5, -4.5, -39.0], [-21.5, -0.5, -5.0], [-15.5, -0.5, -3.5], [-21.0, 0.0, -4.5]],
        [[-100.5, 0.5, -20.0], [-30.5, -1.0, -3.0], [-25.5, -1.0, -2.5], [-28.0, 0.0, -2.5]],
        [[-39.0, -4.0, 25.0], [-19.0, -13.5, 21.5], [-27.0, -13.5, 22.5], [-23.5, -8.5, 17.5]],
    ]
)
# (5, 3) millimetres, of each phalanx: between the medians of the mesh's distances from the bone
# and the slimmer middle of the phalanx.
_RADII_MM = np.array(
    [[9.5, 8.5, 6.5], [10.0, 8.5, 6.5], [8.0, 6.5, 5.5], [9.5, 8.0, 6.5], [12.0, 10.5, 8.5]]
)
_ALONG_PHALANX = (0.15, 0.4, 0.65, 0.9)
_ALONG_PALM = (0.3, 0.45, 0.6, 0.75, 0.9)
# The skin of the palm lies 23 mm below the line from wrist to knuckle; a fist presses the
# fingertips some 5 mm into its soft part.
_PALM_RADIUS_MM = 10.5
_PALM_DEPTH_MM = 7.0
_CHUNK = 1000  # poses at a time: 20 MB of distances
_PULL = 100.0  # mm^2 per rad^2: how strongly `moved_apart` holds on to the pose it was given
_STEP = 0.02  # rad, of its Adam


def penetration_mm(pose: np.ndarray) -> np.ndarray:
    """(N,) deepest overlap of two parts of each hand, beyond that of the flat hand; >= 0.

    Args:
        pose: (N, 45) or (N, 15, 3) right-hand axis-angle relative to the flat hand.
    """
    chunks = torch.from_numpy(np.asarray(pose, np.float32).reshape(-1, 15, 3)).split(_CHUNK)
    return np.concatenate([_overlap(chunk).amax(1).numpy() for chunk in chunks])


def moved_apart(pose: np.ndarray, tolerance_mm: float, iterations: int) -> np.ndarray:
    """Poses near those given (N, 15, 3) whose parts overlap by less, if possible not at all.

    Gradient descent on squared overlap and squared change of the joints: a hand whose fingertip
    went through the thumb comes back with the two touching.

    Args:
        pose: axis-angle as in `penetration_mm`.
        tolerance_mm: overlap that may stay.
        iterations: of Adam.
    """
    result = np.array(pose, dtype=float).reshape(-1, 15, 3)
    deep = np.flatnonzero(penetration_mm(result) > tolerance_mm)
    for begin in range(0, len(deep), _CHUNK):
        chosen = deep[begin : begin + _CHUNK]
        start = torch.from_numpy(result[chosen].astype(np.float32))
        moved = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([moved], lr=_STEP)
        for _ in range(iterations):
            excess = (_overlap(moved) - tolerance_mm).clamp(min=0.0)
            loss = excess.square().sum() + _PULL * (moved - start).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        result[chosen] = moved.detach().numpy()
    return result


@lru_cache(maxsize=1)
def _pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of spheres that may collide, and the distance (mm) at which each pair touches."""
    per_finger = 3 * len(_ALONG_PHALANX)
    finger = np.repeat(np.arange(5), per_finger)
    phalanx = np.tile(np.repeat(np.arange(3), len(_ALONG_PHALANX)), 5)
    palm = len(finger) + np.arange(4 * len(_ALONG_PALM))
    radius = np.append(_RADII_MM[finger, phalanx], np.full(len(palm), _PALM_RADIUS_MM))
    a, b = np.triu_indices(len(finger), k=1)
    apart = finger[a] != finger[b]
    # The first phalanx hangs on the palm and cannot leave it.
    loose = np.flatnonzero(phalanx > 0)
    c, d = (grid.ravel() for grid in np.meshgrid(loose, palm, indexing='ij'))
    first = torch.from_numpy(np.append(a[apart], c))
    second = torch.from_numpy(np.append(b[apart], d))
    flat = _centres(torch.zeros(1, 15, 3))[0]
    at_rest = (flat[first] - flat[second]).norm(dim=1)
    radius = torch.from_numpy(radius.astype(np.float32))
    return first, second, torch.minimum(radius[first] + radius[second], at_rest)


def _overlap(pose: Tensor) -> Tensor:
    """(N, pairs) overlap of every pair of spheres, millimetres."""
    first, second, touch = _pairs()
    centres = _centres(pose)
    apart = torch.cdist(centres, centres, compute_mode='donot_use_mm_for_euclid_dist')
    return (touch - apart[:, first, second]).clamp(min=0.0)


def _centres(pose: Tensor) -> Tensor:
    """(N, S, 3) centres of all spheres from the wrist, millimetres; the palm comes last."""
    bones = torch.from_numpy(BONES_MM.astype(np.float32))
    along = torch.tensor(_ALONG_PHALANX)[:, None]
    local = rotvec_to_rotmat(pose.reshape(-1, 5, 3, 3))
    joint = bones[:, 0].expand(len(pose), 5, 3)
    world = local[:, :, 0]
    found = []
    for k in range(3):
        if k:
            world = world @ local[:, :, k]
        bone = (world @ bones[:, k + 1, :, None])[..., 0]
        found.append(joint[:, :, None] + along * bone[:, :, None])
        joint = joint + bone
    fingers = torch.stack(found, dim=2).reshape(len(pose), -1, 3)
    below = torch.tensor([0.0, -_PALM_DEPTH_MM, 0.0])
    palm = (torch.tensor(_ALONG_PALM)[:, None] * bones[:4, None, 0] + below).reshape(-1, 3)
    return torch.cat([fingers, palm.expand(len(pose), *palm.shape)], dim=1)
