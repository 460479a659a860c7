"""Every data set of the paper: how it lies on disk, who gives it out, which frames are kept.

`dposer data list`, the error messages and the table in training/README.md come from here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dposer_core.errors import DPoserError
from training.data import (
    amass,
    arctic,
    beat2,
    dexycb,
    egobody,
    fit3d,
    flame_fits,
    freihand,
    hamer,
    ho3d,
    hps,
    images,
    reinterhand,
)
from training.data.pose_batch import (
    ABSOLUTE,
    MEAN_RELATIVE,
    NO_HANDS,
    Clip,
    PoseBatch,
    ReadOptions,
)
from training.data.subsample import Subsample

_RESEARCH = 'non-commercial research only'
_SHOWN = 8  # missing things named in a message


class DataSetError(DPoserError):
    """A data set is unknown, missing or laid out in another way."""


@dataclass(frozen=True)
class DataSet:
    """One data set."""

    name: str  # on the command line
    title: str
    mask: str  # parts that may be trained on, '1' or '0' for body, left hand, right hand, face
    licence: str
    where: str  # to get it
    tree: str  # what the folder must hold
    splits: str  # in words
    list_items: Callable[[Path], tuple[list[Any], list[str]]]
    """Clips (or images) under a folder, and what is missing there."""
    read: Callable[[Clip, ReadOptions], PoseBatch] | None = None  # None: a set of images
    hands: str = NO_HANDS  # convention of its hand poses
    subsample: Subsample = Subsample()
    needs_mano: bool = False  # to read it at all

    @property
    def is_images(self) -> bool:
        """Whether it holds images with true surfaces instead of poses."""
        return self.read is None

    @property
    def is_hands_only(self) -> bool:
        """Whether it holds nothing but hands."""
        return self.mask in ('0010', '0110')

    def find(self, root: Path) -> tuple[list[Any], list[str]]:
        """What lies under `root`, and what of the set is missing.

        Raises:
            DataSetError: no such folder, or nothing of the set in it.
        """
        if not root.is_dir():
            raise DataSetError(f'{root} not found. {self.how_to_get()}')
        items, missing = self.list_items(root)
        if not items:
            lacks = f'it lacks {shortened(missing)}. ' if missing else ''
            archives = sorted(p.name for p in root.iterdir() if _is_archive(p))
            unpack = f'Unpack {shortened(archives)} first. ' if archives else ''
            raise DataSetError(
                f'{root} holds nothing of {self.title} in the expected layout: {lacks}{unpack}'
                f'{self.how_to_get()}'
            )
        return items, missing

    def how_to_get(self) -> str:
        """The expected tree, where it comes from and its licence."""
        tree = '\n'.join(f'  {line}' for line in self.tree.splitlines())
        return f'Expected under --root:\n{tree}\nGet it: {self.where} (licence: {self.licence})'


def shortened(names: list[str]) -> str:
    """The first few of `names` and how many more."""
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(names[:_SHOWN]) + more


def get_dataset(name: str) -> DataSet:
    """The set of this name; raises DataSetError with the nearest one."""
    key = name.lower().replace('-', '').replace('_', '').replace('(', '').replace(')', '')
    if key in DATASETS:
        return DATASETS[key]
    near = get_close_matches(key, DATASETS, 1)
    hint = f"; did you mean '{near[0]}'?" if near else ''
    raise DataSetError(f"data set '{name}' is unknown{hint} Known: {', '.join(DATASETS)}")


def _is_archive(path: Path) -> bool:
    return path.name.endswith(('.zip', '.tar', '.tar.bz2', '.tar.gz', '.tar.xz', '.tgz'))


_MIDDLE = Subsample(0.1, 0.9, 0.3 * 0.8)
_SEQUENCES = Subsample(sequence=60)

_ALL = (
    DataSet(
        'amass', 'AMASS (SMPL-X N)', '1000', f'{_RESEARCH} (AMASS licence)',
        'register at https://amass.is.tue.mpg.de and download the "SMPL-X N" archives',
        'CMU/01/01_01_stageii.npz\nKIT/<subject>/*_stageii.npz\n... one folder per sub-set, '
        'unpacked: ' + ', '.join(amass.SUBSETS),
        'by sub-set: train CMU ... ACCAD; valid HumanEva, HDM05, SFU, MoSh; test Transitions, SSM',
        amass.list_amass, amass.read_amass, subsample=_MIDDLE,
    ),
    DataSet(
        'humaneva', 'HumanEva of AMASS, as sequences', '1000', f'{_RESEARCH} (AMASS licence)',
        'register at https://amass.is.tue.mpg.de and download HumanEva as "SMPL-X N"',
        'HumanEva/S1/*_stageii.npz', 'test (motion denoising)',
        amass.list_humaneva, amass.read_amass, subsample=_SEQUENCES,
    ),
    DataSet(
        'hps', 'HPS', '1000', _RESEARCH,
        'request it at https://virtualhumans.mpi-inf.mpg.de/hps',
        'SUB1_MPI_Etage6_working_standing.pkl (in any folder; keys poses (N, 72), transes)',
        'test (motion denoising)', hps.list_hps, hps.read_hps, subsample=_SEQUENCES,
    ),
    DataSet(
        'freihand', 'FreiHAND', '0010', _RESEARCH,
        'https://lmb.informatik.uni-freiburg.de/projects/freihand (FreiHAND_pub_v2 and _eval)',
        'FreiHAND_pub_v2/training_mano.json\nFreiHAND_pub_v2_eval/evaluation_mano.json',
        'train and evaluation files', freihand.list_freihand, freihand.read_freihand,
        MEAN_RELATIVE,
    ),
    DataSet(
        'dexycb', 'DexYCB', '0010', 'CC BY-NC 4.0', 'https://dex-ycb.github.io',
        '20200709-subject-01/20200709_141754/pose.npz, meta.yml\n... ten subjects\n'
        'calibration/mano_<date>-subject-<nn>_right/mano.yml',
        'S0: of each subject every fifth sequence is valid (subjects 1, 2) or test',
        dexycb.list_dexycb, dexycb.read_dexycb, MEAN_RELATIVE, needs_mano=True,
    ),
    DataSet(
        'ho3d', 'HO-3D v3', '0010', _RESEARCH,
        'links at https://github.com/shreyashampali/ho3d (HO3D_v3.zip)',
        'train/ABF10/meta/0000.pkl\ntrain.txt', 'train (evaluation publishes no poses)',
        ho3d.list_ho3d, ho3d.read_ho3d, ABSOLUTE,
    ),
    DataSet(
        'h2o3d', 'H2O-3D', '0110', _RESEARCH,
        'links at https://github.com/shreyashampali/ho3d (H2O3D_v1.zip)',
        'train/<sequence>/meta/0000.pkl\ntrain.txt', 'train (evaluation publishes no poses)',
        ho3d.list_ho3d, ho3d.read_h2o3d, ABSOLUTE,
    ),
    DataSet(
        'reinterhand', 'Re:InterHand', '0110', 'CC BY-NC 4.0',
        'https://mks0601.github.io/ReInterHand (MANO fits)',
        '<capture>/mano_fits/params/<frame>_left.json, <frame>_right.json\n'
        'or reinterhand_mocap.pt of the DPoser-X release',
        'single hands 80/10/10 % (seeds 42 and 0); a pair belongs where both its hands do',
        reinterhand.list_reinterhand, reinterhand.read_reinterhand, MEAN_RELATIVE,
    ),
    DataSet(
        'hamer', 'The HaMeR sets', '0010', f'{_RESEARCH} (of each set)',
        'https://github.com/geopavlakos/hamer (training data), or the DPoser-X release',
        'dataset_params/{dex,freihand,h2o3d,ho3d,interhand26m}.npz (hand_pose (N, 48), betas)\n'
        'or dataset_contents/<set>-train/**/*.data.pyd', 'train',
        hamer.list_hamer, hamer.read_hamer, ABSOLUTE,
    ),
    DataSet(
        'mica', 'The face sets of MICA', '0001', f'{_RESEARCH} (of each set)',
        'https://github.com/Zielon/MICA (datasets/: FLAME parameters of each set)',
        'FACEWAREHOUSE/FLAME_parameters/**/*.npz (pose, betas)\n... one folder per set: '
        + ', '.join(flame_fits.MICA_SETS),
        'LYHM_VALID and WCPA_VALID are valid, the rest train',
        flame_fits.lister(flame_fits.MICA_SETS), flame_fits.read_flame,
    ),
    DataSet(
        'wcpa', 'WCPA', '0001', _RESEARCH,
        'https://tianchi.aliyun.com/competition/entrance/531961, then fit FLAME to its scans',
        'WCPAPRE_TRAIN/FLAME_parameters/**/*.npz (pose, betas)\n'
        'WCPAPRE_VALID/FLAME_parameters/**/*.npz',
        'WCPAPRE_TRAIN, WCPAPRE_VALID (test)',
        flame_fits.lister(flame_fits.WCPA_SETS), flame_fits.read_flame,
    ),
    DataSet(
        'beat2', 'BEAT2 (EMAGE)', '1111', 'see its page; the SMPL-X terms apply',
        'https://huggingface.co/datasets/H-Liu1997/BEAT2',
        'beat_english_v2.0.0/smplxflame_30/*.npz\nbeat_english_v2.0.0/train_test_split.csv\n'
        '... chinese, spanish, japanese',
        'by train_test_split.csv of each language',
        beat2.list_beat2, beat2.read_beat2, ABSOLUTE, _MIDDLE,
    ),
    DataSet(
        'grab', 'GRAB (in AMASS)', '1110', f'{_RESEARCH} (AMASS and GRAB licences)',
        'register at https://amass.is.tue.mpg.de and download GRAB as "SMPL-X N"',
        'GRAB/s1/*_stageii.npz\n... s10', 'train',
        amass.list_grab, amass.read_grab, ABSOLUTE, _MIDDLE,
    ),
    DataSet(
        'arctic', 'ARCTIC', '1110', f'{_RESEARCH} (ARCTIC licence)',
        'register at https://arctic.is.tue.mpg.de (raw_seqs.zip, splits_json.zip)',
        'raw_seqs/s01/box_grab_01.smplx.npy\nsplits_json/protocol_p1.json',
        'protocol p1', arctic.list_arctic, arctic.read_arctic, ABSOLUTE,
        Subsample(0.05, 0.95, 0.5 * 0.8),
    ),
    DataSet(
        'egobody', 'EgoBody', '1111', f'{_RESEARCH} (EgoBody licence)',
        'request it at https://sanweiliti.github.io/egobody/egobody.html (smplx_*.zip)',
        'smplx_camera_wearer_train/recording_*/body_idx_*/results/frame_*/000.pkl\n'
        '... {camera_wearer,interactee}_{train,val,test}', 'by folder',
        egobody.list_egobody, egobody.read_egobody, MEAN_RELATIVE, Subsample(every=3),
        needs_mano=True,
    ),
    DataSet(
        'fit3d', 'Fit3D', '1111', _RESEARCH, 'request it at https://fit3d.imar.ro',
        'train/s04/smplx/<exercise>.json', 'subject s04 is test (the paper measures on it)',
        fit3d.list_fit3d, fit3d.read_fit3d, ABSOLUTE,
    ),
    DataSet(
        'ehf', 'EHF', '0000', f'{_RESEARCH} (SMPL-X licence)',
        'register at https://smpl-x.is.tue.mpg.de (EHF data set)',
        '01_img.png (or .jpg), 01_align.ply\n... 100', 'test', images.list_ehf,
    ),
    DataSet(
        'now', 'NoW', '0000', f'{_RESEARCH} (NoW licence)',
        'register at https://now.is.tue.mpg.de (images; scans and landmarks for validation)',
        'imagepathsvalidation.txt\nNoW_Dataset/final_release_version/iphone_pictures/\n'
        'NoW_Dataset/final_release_version/detected_face/\nscans/<subject>/*.obj\n'
        'scans_lmks_onlypp/<subject>/*.pp', 'validation, 352 images', images.list_now,
    ),
)  # fmt: skip
DATASETS = {dataset.name: dataset for dataset in _ALL}
