"""Where the motion archives lie once unpacked, and iteration over their clips.

Unpack each `<name>.tar.xz` into `<root>/<name>/`; `root` is `data/` in the checkout by default.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dposer_core.errors import MediaError
from training.data.asf_amc import AsfSkeleton, read_amc, read_asf
from training.data.bvh import read_bvh
from training.data.deepmimic import read_deepmimic
from training.data.expmap import read_expmap
from training.data.motion import SourceMotion

DEFAULT_ROOT = Path(__file__).parents[2] / 'data'
TRAINING_SOURCES = ('cmu_asf_amc', 'cmu_bvh', 'cmu_expmap')
TEST_SOURCES = ('hdm05_asf_amc', 'deepmimic')  # shipped weights are never trained on them
SOURCES = TRAINING_SOURCES + TEST_SOURCES
HELD_OUT = 'held_out'  # the test set of these subjects
HELD_OUT_SUBJECTS = ('cmu02', 'cmu03')


_LOG = logging.getLogger(__name__)
_Read = Callable[[], SourceMotion]


def archive_folder(name: str, root: Path = DEFAULT_ROOT) -> Path:
    """Folder of the unpacked archive `name`; raises MediaError if it is not there."""
    folder = root / name
    if not folder.is_dir():
        raise MediaError(f'{folder} not found: unpack {name}.tar.xz into {root} (see training/)')
    return folder


def read_clips(
    archive: str, root: Path = DEFAULT_ROOT, skipped: dict[str, str] | None = None
) -> Iterator[SourceMotion]:
    """Every clip of `archive` that can be read, in a fixed order.

    A damaged one is logged and, with its reason, entered into `skipped` under its path.

    Raises:
        MediaError: no such archive, no files of it in the folder, or none that can be read.
    """
    folder = archive_folder(archive, root)
    files = _files(archive, folder)
    if not files:
        raise MediaError(f'{folder} holds no clips; unpack {archive}.tar.xz into {root} again')
    skipped = {} if skipped is None else skipped
    num_read = 0
    for path, read in files:
        try:
            motion = read()
            _check_finite(motion)
        # Broken hierarchies show as names or places that do not exist.
        except (MediaError, KeyError, IndexError, ValueError, OSError) as error:
            reason = str(error) if isinstance(error, MediaError) else f'damaged file ({error!r})'
            skipped[str(path.relative_to(root))] = reason
            _LOG.warning('skipped %s: %s', path, reason)
            continue
        num_read += 1
        yield motion
    if not num_read:
        raise MediaError(
            f'{folder}: none of {len(files)} clips can be read; the first: '
            f'{next(iter(skipped.values()))}'
        )


def _check_finite(motion: SourceMotion) -> None:
    for name, values in {'the root': motion.pelvis, **motion.world_rotmat}.items():
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            raise MediaError(f'{name} has NaN in {(~finite).sum()} of {len(values)} frames')


def _files(archive: str, folder: Path) -> list[tuple[Path, _Read]]:
    """Path and reader of each clip."""
    if archive == 'cmu_asf_amc':
        return _acclaim(folder, archive, lambda amc: f'{amc.parent.name}.asf', 'cmu{}')
    if archive == 'hdm05_asf_amc':
        return _acclaim(folder, archive, _hdm05_skeleton, 'hdm05_{}')
    if archive == 'cmu_bvh':
        # These files begin with a T-pose and, within four frames, jump from it into the motion.
        return [
            (
                p,
                lambda p=p: _without_start(read_bvh(p, f'daz_{p.parent.name}', archive, 0.01)),
            )
            for p in sorted(folder.glob('*/*.bvh'))
        ]
    if archive == 'cmu_expmap':
        return [
            (p, lambda p=p: read_expmap(p, f'expmap_{p.parent.name}', archive))
            for p in sorted(folder.rglob('*.txt'))
        ]
    if archive == 'deepmimic':
        return [
            (p, lambda p=p: read_deepmimic(p, 'deepmimic', archive))
            for p in sorted(folder.rglob('humanoid3d_*.txt'))
        ]
    raise MediaError(f"unknown archive '{archive}'; known: {', '.join(SOURCES)}")


def _hdm05_skeleton(amc: Path) -> str:
    """HDM_bd_cutout_12.amc moves HDM_bd.asf."""
    return '_'.join(amc.stem.split('_')[:2]) + '.asf'


def _acclaim(
    folder: Path, archive: str, asf_name: Callable[[Path], str], subject: str
) -> list[tuple[Path, _Read]]:
    skeletons: dict[Path, AsfSkeleton] = {}

    def read(amc: Path) -> SourceMotion:
        asf = amc.with_name(asf_name(amc))
        if not asf.is_file():
            raise MediaError(f'{amc}: its skeleton {asf.name} is missing')
        if asf not in skeletons:
            skeletons[asf] = read_asf(asf)
        who = asf.stem.removeprefix('HDM_')
        return read_amc(amc, skeletons[asf], subject.format(who), archive)

    return [(amc, lambda amc=amc: read(amc)) for amc in sorted(folder.rglob('*.amc'))]


def _without_start(motion: SourceMotion, frames: int = 5) -> SourceMotion:
    return SourceMotion(
        motion.name,
        motion.subject,
        motion.source,
        motion.fps,
        motion.pelvis[frames:],
        {name: rotmat[frames:] for name, rotmat in motion.world_rotmat.items()},
        motion.rest_direction,
    )
