"""The fitted states of a recording in one .npz file: what `dposer fit` writes and others read."""

import dataclasses
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from dposer_core.camera import PinholeCamera
from dposer_core.errors import MediaError
from dposer_core.files import whole
from dposer_core.skeleton import NUM_BETAS, NUM_JOINTS
from dposer_core.state import FitResult


@dataclass(frozen=True)
class States:
    """N answers in order of time; people share a stamp. Metres, radians, output frame."""

    stamp_ns: np.ndarray  # (N,) int64, of the frame
    body_id: np.ndarray  # (N,) str
    status: np.ndarray  # (N,) uint8, state.Status
    pose_rotvec: np.ndarray  # (N, 55, 3) parent-relative axis-angle, SMPL-X order
    transl: np.ndarray  # (N, 3) SMPL-X `transl`
    betas: np.ndarray  # (N, 10)
    expression: np.ndarray  # (N, E)
    joints: np.ndarray  # (N, 55, 3)
    landmarks: np.ndarray  # (N, 133, 3) COCO-WholeBody-133 points on the body
    source: np.ndarray  # (N, 55) uint8, state.Source
    position_covariance: np.ndarray  # (N, 55, 3, 3)
    model: str
    """Name of the body model and the first 8 digits of its SHA-256."""
    camera: PinholeCamera | None = None
    """The camera that the states were fitted for; None for 3D input."""

    def __len__(self) -> int:
        return len(self.stamp_ns)

    @property
    def position_sigma(self) -> np.ndarray:
        """(N, 55) m, 1 sigma of the joint positions, root mean square of the three axes."""
        return np.sqrt(np.einsum('njii->nj', self.position_covariance) / 3.0)


# Shape of each array without its first axis; -1: any length.
_SHAPES: dict[str, tuple[int, ...]] = {
    'stamp_ns': (),
    'body_id': (),
    'status': (),
    'pose_rotvec': (NUM_JOINTS, 3),
    'transl': (3,),
    'betas': (NUM_BETAS,),
    'expression': (-1,),
    'joints': (NUM_JOINTS, 3),
    'landmarks': (133, 3),
    'source': (NUM_JOINTS,),
    'position_covariance': (NUM_JOINTS, 3, 3),
}
_FLOATS = (
    'pose_rotvec', 'transl', 'betas', 'expression', 'joints', 'landmarks', 'position_covariance',
)  # fmt: skip


def states_from_results(
    results: Sequence[FitResult], model: str, camera: PinholeCamera | None = None
) -> States:
    """The values of fit results, in their order."""

    def stacked(name: str, dtype: type) -> np.ndarray:
        if not results:
            return np.zeros((0, *(max(n, 0) for n in _SHAPES[name])), dtype)
        return np.array([getattr(result.state, name) for result in results], dtype)

    return States(
        stamp_ns=stacked('stamp_ns', np.int64),
        body_id=np.array([result.body_id for result in results], dtype=np.str_),
        status=np.array([result.status for result in results], dtype=np.uint8),
        source=stacked('source', np.uint8),
        **{name: stacked(name, np.float64) for name in _FLOATS},
        model=model,
        camera=camera,
    )


def write_states(path: Path, states: States) -> None:
    """Write `states` to `path`, whole or not at all."""
    arrays = {field.name: getattr(states, field.name) for field in fields(states)}
    camera = arrays.pop('camera')
    if camera is not None:
        arrays['camera'] = np.array(dataclasses.astuple(camera), dtype=np.float64)
    with whole(path) as partial, partial.open('wb') as file:
        np.savez_compressed(file, **arrays)


def read_states(path: Path) -> States:
    """What `write_states` wrote.

    Raises:
        MediaError: missing, not a .npz file, or not one of states; says what it holds.
    """
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise MediaError(f'{path} does not exist; make it with `dposer fit`') from error
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise MediaError(f'{path} is not a readable .npz file: {error}') from error
    missing = [name for name in (*_SHAPES, 'model') if name not in arrays]
    if missing:
        raise MediaError(
            f'{path} is not a states file: no {", ".join(missing)} (it holds '
            f'{", ".join(arrays) or "nothing"}); make one with `dposer fit`'
        )
    _check(path, arrays)
    camera = arrays.get('camera')
    return States(
        **{name: arrays[name] for name in _SHAPES},
        model=str(arrays['model']),
        camera=None if camera is None else _camera(path, camera),
    )


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    num_states = arrays['stamp_ns'].size
    for name, tail in _SHAPES.items():
        shape = arrays[name].shape
        expected = (num_states, *tail)
        if len(shape) != len(expected) or any(
            want not in (-1, have) for want, have in zip(expected, shape, strict=True)
        ):
            raise MediaError(f'{path}: {name} has shape {shape}, expected {expected}')
    for name in _FLOATS:
        if arrays[name].dtype.kind != 'f' or not np.isfinite(arrays[name]).all():
            raise MediaError(f'{path}: {name} holds values that are not finite numbers')


def _camera(path: Path, values: np.ndarray) -> PinholeCamera:
    if values.shape != (6,) or not np.isfinite(values).all():
        raise MediaError(f'{path}: camera is {values.tolist()}, expected fx, fy, cx, cy, w, h')
    fx, fy, cx, cy, width, height = (float(value) for value in values)
    return PinholeCamera(fx, fy, cx, cy, int(width), int(height))
