"""The shape of a known person in a file, for `~/save_shape` and `~/load_shape`.

Names come from whoever calls the service: a file is always below the storage folder, is small,
and nothing of it is used before it has been checked.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer_core.errors import ConfigError, ModelFileError
from dposer_core.files import write_json
from dposer_core.skeleton import NUM_BETAS

FORMAT = 'dposer_shape_1'
MAX_BYTES = 65_536
MAX_BETA = 10.0  # standard deviations; nobody is built like this
_PERSON_ID = re.compile(r'[A-Za-z0-9_-]{1,64}')


@dataclass(frozen=True)
class Shape:
    """Betas of a person, and the body model they belong to."""

    person_id: str
    model: str
    """Name of the body model and the first 8 digits of its SHA-256."""
    betas: np.ndarray  # (10,)


def storage_folder(configured: str) -> Path:
    """The folder of `storage.folder`; empty: ROS's own, below the home folder."""
    if configured:
        return Path(configured).expanduser()
    return Path(os.environ.get('ROS_HOME', Path.home() / '.ros')) / 'dposer_ros'


def shape_path(folder: Path, person_id: str, path: str) -> Path:
    """Where the shape of a person is.

    Args:
        folder: everything is below it.
        person_id: letters, digits, - and _.
        path: relative to `folder`; empty: shapes/<person_id>.json.

    Raises:
        ConfigError: not such a name, or a path that leads elsewhere.
    """
    if not _PERSON_ID.fullmatch(person_id):
        raise ConfigError(
            f'person_id {person_id[:80]!r}: expected 1 to 64 letters, digits, "-" or "_"'
        )
    if '\0' in path:
        raise ConfigError('path holds a NUL character; give a file name')
    folder = folder.resolve()
    found = (folder / (path or f'shapes/{person_id}.json')).resolve()
    if folder not in found.parents or found.suffix != '.json':
        raise ConfigError(
            f'path {path[:200]!r}: expected a .json file below {folder} (parameter storage.folder)'
        )
    return found


def write_shape(path: Path, shape: Shape) -> None:
    """Write the file, complete or not at all."""
    content = {
        'format': FORMAT,
        'person_id': shape.person_id,
        'model': shape.model,
        'betas': [round(float(beta), 6) for beta in shape.betas],
    }
    write_json(path, content)


def read_shape(path: Path, model: str) -> Shape:
    """The shape in a file.

    Args:
        path: of the file.
        model: the body model in use; betas of another one mean another shape.

    Raises:
        ModelFileError: missing, damaged, or of another body model.
    """
    try:
        with path.open('rb') as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f'larger than {MAX_BYTES} bytes')
        content = json.loads(data)
        if not isinstance(content, dict) or content.get('format') != FORMAT:
            raise ValueError(f'no {FORMAT}')
        betas = np.array(content['betas'], dtype=np.float64)
        if betas.shape != (NUM_BETAS,) or not (np.abs(betas) <= MAX_BETA).all():
            raise ValueError(f'betas must be {NUM_BETAS} numbers from -{MAX_BETA} to {MAX_BETA}')
        shape = Shape(str(content['person_id']), str(content['model']), betas)
    except FileNotFoundError as error:
        raise ModelFileError(f'{path} not found; ~/save_shape writes it') from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelFileError(f'{path} is not the shape of a person: {error}') from error
    if shape.model != model:
        raise ModelFileError(
            f'{path} was made with the body model {shape.model}, in use is {model}; save it anew'
        )
    return shape
