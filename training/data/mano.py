"""Mean hand and principal components of MANO, which some sets count their hand poses in."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer_core.errors import ModelFileError
from training.data.pose_batch import BadClipError
from training.data.safe_files import entries, read_pickle

_WHERE = 'register at https://mano.is.tue.mpg.de and download "Models & Code" (mano_v1_2.zip)'


@dataclass(frozen=True)
class ManoSide:
    """Of one hand."""

    mean: np.ndarray  # (45,) rad, relative to the flat hand
    components: np.ndarray  # (45, 45) rows are components

    def relative(self, coefficients: np.ndarray) -> np.ndarray:
        """(N, 45) pose relative to the mean, of (N, up to 45) coefficients."""
        coefficients = np.asarray(coefficients, dtype=np.float64)
        return coefficients @ self.components[: coefficients.shape[-1]]


@dataclass(frozen=True)
class ManoHands:
    """Of both hands."""

    left: ManoSide
    right: ManoSide


def load_mano(folder: Path) -> ManoHands:
    """From MANO_LEFT.pkl and MANO_RIGHT.pkl in `folder` or its models/.

    Raises:
        ModelFileError: missing or not such files.
    """
    return ManoHands(_side(folder, 'MANO_LEFT.pkl'), _side(folder, 'MANO_RIGHT.pkl'))


def _side(folder: Path, name: str) -> ManoSide:
    path = next((p for p in (folder / name, folder / 'models' / name) if p.is_file()), None)
    if path is None:
        raise ModelFileError(f'{folder / name} not found; {_WHERE}')
    try:
        mean, components = entries(read_pickle(path), 'hands_mean', 'hands_components')
    except BadClipError as error:
        raise ModelFileError(f'{path}: {error}; {_WHERE}') from error
    side = ManoSide(np.asarray(mean, dtype=np.float64), np.asarray(components, dtype=np.float64))
    if side.mean.shape != (45,) or side.components.shape != (45, 45):
        raise ModelFileError(
            f'{path}: hands_mean {side.mean.shape}, hands_components '
            f'{side.components.shape}; expected (45,) and (45, 45)'
        )
    return side
