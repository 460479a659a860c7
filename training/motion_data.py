"""What the motion priors are trained on: stretches of the clips that the bodies were packed from.

Each clip is retargeted once, to 30 fps, and keeps its frames in their order. The root is left out,
as in the table of motion denoising; that of the exponential maps would be wrong in places, too.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dposer_core.files import whole
from training.augment import mirror_body
from training.data.archives import HELD_OUT, HELD_OUT_SUBJECTS, TRAINING_SOURCES, read_clips
from training.data.heldout import load_excerpts
from training.data.motion import SmplxMotion
from training.pack import plausible
from training.retarget import retarget


class MotionData:
    """Stretches of the training clips, mirrored at random; every frame is as likely as another."""

    def __init__(self, packed: Mapping[str, np.ndarray], root: Path, cache: Path) -> None:
        """`packed`: of the clips under `root`; `cache`: folder where the motions are kept."""
        self._runs = load_runs(packed, root, cache)
        excerpts = [clip.body for clip in load_excerpts() if clip.subject in HELD_OUT_SUBJECTS]
        self.heldout = torch.from_numpy(np.stack(excerpts)).float()
        """(N, 60, 63) raw."""

    def batch(self, count: int, frames: int, generator: torch.Generator) -> Tensor:
        """(count, frames, 63) raw."""
        starts = torch.tensor([max(0, len(run) - frames + 1) for run in self._runs])
        places = torch.randint(int(starts.sum()), (count,), generator=generator)
        ends = starts.cumsum(0)
        which = torch.searchsorted(ends, places, right=True)
        first = (places - ends[which] + starts[which]).tolist()
        chosen = zip(which.tolist(), first, strict=True)
        rows = torch.stack([self._runs[run][start : start + frames] for run, start in chosen])
        flip = torch.rand((count, 1, 1), generator=generator) < 0.5
        return torch.where(flip, mirror_body(rows.flatten(0, 1)).reshape(rows.shape), rows)


def load_runs(packed: Mapping[str, np.ndarray], root: Path, cache: Path) -> list[Tensor]:
    """Stretches (T, 63) of plausible frames at 30 fps, made once and kept in `cache`.

    Left out are the held-out subjects and the clips of which packing found that they repeat them.
    """
    report = str(packed['report'])
    path = cache / f'motions_{hashlib.sha256(report.encode()).hexdigest()[:12]}.npz'
    if not path.is_file():
        repeats = json.loads(report)['left_out'][HELD_OUT]
        runs = [
            run
            for source in TRAINING_SOURCES
            for clip in read_clips(source, root)
            if clip.subject not in HELD_OUT_SUBJECTS and clip.name not in repeats
            for run in plausible_runs(retarget(clip))
        ]
        ends = np.cumsum([len(run) for run in runs])
        with whole(path) as partial:
            np.savez(partial, poses=np.concatenate(runs).astype(np.float32), ends=ends)
    with np.load(path) as file:
        return list(torch.from_numpy(file['poses']).tensor_split(file['ends'][:-1].tolist()))


def plausible_runs(motion: SmplxMotion) -> list[np.ndarray]:
    """The poses (T, 63) of a clip, cut where a frame is impossible."""
    is_good = plausible(motion)
    cuts = np.flatnonzero(np.diff(is_good)) + 1
    runs = zip(np.split(motion.body, cuts), np.split(is_good, cuts), strict=True)
    return [body for body, good in runs if good.all() and len(body)]
