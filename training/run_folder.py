"""The folder of a training run: its settings, its last state, its metrics.

run.yaml            the settings, complete
state.pt            everything that the next step needs; replaced as a whole or not at all
metrics.csv         losses and speed
validation.csv      errors on held-out data
curves.png          both of them drawn
<part>.safetensors  the result
"""

import csv
import errno
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from dposer_core.errors import CheckpointError, ConfigError, DPoserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORMAT = 'dposer-run-1'


class TrainingError(DPoserError):
    """A run cannot go on: no memory, no disk, or losses that are not numbers."""


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved_step = 0
        self._board: Any = None

    @property
    def settings_file(self) -> Path:
        """The complete settings."""
        return self.path / 'run.yaml'

    @property
    def state_file(self) -> Path:
        """The last state."""
        return self.path / 'state.pt'

    def create(self, settings: Mapping[str, Any]) -> None:
        """Begin a run here.

        Raises:
            ConfigError: another run is here already.
        """
        if self.settings_file.exists():
            raise ConfigError(
                f'{self.path} holds a run already; go on with it (dposer train --resume '
                f'{self.path}) or give another --out'
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._write(self.settings_file, yaml.safe_dump(dict(settings), sort_keys=False).encode())

    def settings(self) -> dict[str, Any]:
        """What `create` was given."""
        if not self.settings_file.is_file():
            raise ConfigError(
                f'{self.path} holds no run ({self.settings_file.name} is missing); give the '
                'folder that a training wrote'
            )
        return yaml.safe_load(self.settings_file.read_text())

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state; whenever this is cut short, the old state stays whole."""
        buffer = io.BytesIO()
        torch.save({'format': _FORMAT, **state}, buffer)
        self._write(self.state_file, buffer.getbuffer())
        self.saved_step = state['step']

    def load_state(self) -> dict[str, Any] | None:
        """The last state on the CPU; None before the first was saved."""
        if not self.state_file.is_file():
            return None
        try:
            state = torch.load(self.state_file, map_location='cpu', weights_only=True)
            found = state['format']
        except Exception as error:  # a damaged archive raises almost anything
            raise CheckpointError(
                f'{self.state_file} is damaged ({type(error).__name__}: {error}); put back a '
                'copy of it, or delete it to begin anew'
            ) from error
        if found != _FORMAT:
            raise CheckpointError(f'{self.state_file} has format {found!r}, expected {_FORMAT!r}')
        self.saved_step = state['step']
        return state

    def trim(self, step: int) -> None:
        """Forget what was logged after `step`, and lines that a kill cut short."""
        for name in ('metrics', 'validation'):
            path = self.path / f'{name}.csv'
            if path.is_file():
                header, *lines = path.read_text().splitlines(keepends=True)
                width = header.count(',')
                whole = [x for x in lines if x.endswith('\n') and x.count(',') == width]
                kept = [x for x in whole if int(x.split(',', 1)[0]) <= step]
                self._write(path, ''.join([header, *kept]).encode())

    def log(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Append a row to `<name>.csv`, and to TensorBoard's files where it is installed."""
        path = self.path / f'{name}.csv'
        row = {'step': step, **{key: f'{value:.6g}' for key, value in values.items()}}
        try:
            is_new = not path.exists()
            with path.open('a', newline='') as file:
                writer = csv.DictWriter(file, list(row), lineterminator='\n')
                if is_new:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise self._explained(error) from error
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(f'{name}/{key}', value, step)

    def open_board(self, step: int) -> None:
        """Write for TensorBoard, too, if it is installed; rows after `step` are replaced."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(self.path / 'tensorboard'), purge_step=step)

    def close(self) -> None:
        """Flush what is open."""
        if self._board is not None:
            self._board.close()

    def _write(self, path: Path, content: Any) -> None:
        partial = path.with_name(f'.{path.name}.partial')
        try:
            with partial.open('wb') as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._explained(error) from error

    def _explained(self, error: OSError) -> Exception:
        if error.errno not in _FULL:
            return error
        kept = (
            f'the state of step {self.saved_step} is kept' if self.saved_step else 'no state yet'
        )
        return TrainingError(
            f'{self.path}: the disk is full; {kept}. Make room, then: '
            f'dposer train --resume {self.path}'
        )


def read_curves(path: Path) -> dict[str, list[float]]:
    """Columns of a csv file of a run; empty if there is none."""
    if not path.is_file():
        return {}
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows] for key in (rows[0] if rows else ())}
