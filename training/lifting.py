"""Bodies before a camera with their keypoints: what networks that lift 2D to 3D learn from.

Camera, orientation, shape, noise and missing points are those of table S-4.
"""

import numpy as np
import torch
from torch import Tensor

from dposer_core.baselines import lifting
from dposer_core.body_model import load_body
from dposer_core.tasks.body_points import KeypointBody
from training.baseline_data import PoseData
from training.benchmarks.mesh_recovery import scene

_HELD_OUT = 2000
_SEED = 5


class LiftingData:
    """Rows of `dposer_core.baselines.lifting`, drawn anew for every batch."""

    def __init__(self, poses: PoseData) -> None:
        self._poses, self._body = poses, KeypointBody(load_body())
        chosen = np.linspace(0, len(poses.heldout) - 1, min(_HELD_OUT, len(poses.heldout)))
        held_out = poses.heldout[chosen.astype(int)]
        self.heldout = rows_of(self._body, held_out, np.random.default_rng(_SEED))

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 207) rows."""
        seed = int(torch.randint(2**31, (1,), generator=generator))
        return rows_of(
            self._body, self._poses.batch(count, generator), np.random.default_rng(seed)
        )


@torch.no_grad()
def rows_of(body: KeypointBody, poses: Tensor, rng: np.random.Generator) -> Tensor:
    """(N, 207) rows of poses (N, 63) raw, each with a camera of its own."""
    shown = scene(body, poses, rng)
    joints, seen = torch.from_numpy(shown.joints), shown.seen
    rotvecs = torch.cat([shown.truth['global_orient'], poses], dim=1)
    given = lifting.condition(seen.pixels, seen.confidence, seen.focal, seen.centre)
    shape = (len(poses), lifting.NUM_JOINTS, 3)
    return lifting.pack(lifting.Bodies(rotvecs.reshape(shape), joints - joints[:, :1], given))
