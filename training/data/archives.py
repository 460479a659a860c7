"""Where the motion archives lie once unpacked, and iteration over their clips.

Unpack each `<name>.tar.xz` into `<root>/<name>/`; `root` is `data/` in the checkout by default.
"""

from collections.abc import Iterator
from pathlib import Path

from dposer_core.errors import MediaError
from training.data.asf_amc import read_amc, read_asf
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


def archive_folder(name: str, root: Path = DEFAULT_ROOT) -> Path:
    """Folder of the unpacked archive `name`; raises MediaError if it is not there."""
    folder = root / name
    if not folder.is_dir():
        raise MediaError(f'{folder} not found: unpack {name}.tar.xz into {root} (see training/)')
    return folder


def read_clips(archive: str, root: Path = DEFAULT_ROOT) -> Iterator[SourceMotion]:
    """Every clip of `archive`, in a fixed order."""
    folder = archive_folder(archive, root)
    if archive == 'cmu_asf_amc':
        yield from _read_acclaim(folder, archive, lambda amc: f'{amc.parent.name}.asf', 'cmu{}')
    elif archive == 'hdm05_asf_amc':
        yield from _read_acclaim(
            folder, archive, lambda amc: '_'.join(amc.stem.split('_')[:2]) + '.asf', 'hdm05_{}'
        )
    elif archive == 'cmu_bvh':
        for path in sorted(folder.glob('*/*.bvh')):
            # The first frame of these files is a T-pose.
            yield _without_first_frame(read_bvh(path, f'daz_{path.parent.name}', archive, 0.01))
    elif archive == 'cmu_expmap':
        for path in sorted(folder.rglob('*.txt')):
            yield read_expmap(path, f'expmap_{path.parent.name}', archive)
    elif archive == 'deepmimic':
        for path in sorted(folder.rglob('humanoid3d_*.txt')):
            yield read_deepmimic(path, 'deepmimic', archive)
    else:
        raise MediaError(f"unknown archive '{archive}'")


def _read_acclaim(folder, archive, asf_name, subject) -> Iterator[SourceMotion]:
    skeletons = {}
    for amc in sorted(folder.rglob('*.amc')):
        asf = amc.with_name(asf_name(amc))
        if asf not in skeletons:
            skeletons[asf] = read_asf(asf)
        who = asf.stem.removeprefix('HDM_')
        yield read_amc(amc, skeletons[asf], subject.format(who), archive)


def _without_first_frame(motion: SourceMotion) -> SourceMotion:
    return SourceMotion(
        motion.name,
        motion.subject,
        motion.source,
        motion.fps,
        motion.pelvis[1:],
        {name: rotmat[1:] for name, rotmat in motion.world_rotmat.items()},
        motion.rest_direction,
    )
