"""Two runs of one bag side by side: how far apart their joints are, and whether they are equal."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core import skeleton
from dposer_core.errors import MediaError
from dposer_ros import bags
from dposer_ros.evaluation.accuracy import Accuracy
from dposer_ros.evaluation.figures import spread

FILES = ('states.npz', 'metrics.json', 'states.mcap')


def compare(accuracy: Accuracy, mine: Path, other: Path) -> dict[str, Any]:
    """Differences from another run, ready for JSON; lengths in mm.

    Args:
        accuracy: this run beside the other's motion.
        mine: folder of this run.
        other: folder, states file or bag of the other.
    """
    distance = 1e3 * np.linalg.norm(accuracy.error, axis=-1)
    names = skeleton.JOINT_NAMES
    return {
        'other': accuracy.match.motion.source,
        'states': {'this': len(accuracy.states), 'other': len(accuracy.match.motion.stamp_ns)},
        'matched': int(accuracy.match.known.sum()),
        'distance_mm': {part: spread(distance[:, i]) for part, i in accuracy.parts.items()},
        'largest_mm': _largest(distance),
        'by_joint_mm': {name: spread(distance[:, row]) for row, name in enumerate(names)},
        'identical': identical(mine, other),
    }


def identical(mine: Path, other: Path) -> dict[str, bool]:
    """File -> whether both runs have the same bytes; of bags the same messages."""
    folder = other if other.is_dir() else other.parent
    found = {}
    for name in FILES:
        if (other.is_dir() or other.name == name) and (folder / name).is_file():
            digest = _bag_digest if name.endswith('.mcap') else _digest
            found[name] = digest(mine / name) == digest(folder / name)
    return found


def metrics_of(other: Path) -> dict[str, Any] | None:
    """The figures that lie beside the other run's states; None if there are none.

    Raises:
        MediaError: metrics.json is there but is something else.
    """
    path = (other if other.is_dir() else other.parent) / 'metrics.json'
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise MediaError(f'{path} is not a JSON file: {error}') from error
    if not isinstance(values, dict):
        raise MediaError(f'{path} holds no figures of `dposer evaluate-bag`')
    return values


def _largest(distance: np.ndarray) -> float | None:
    known = distance[np.isfinite(distance)]
    return float(known.max()) if len(known) else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _bag_digest(path: Path) -> str:
    whole = hashlib.sha256()
    for connection, stamp_ns, data in bags.raw_messages(path, ()):
        whole.update(f'{connection.topic}\0{connection.msgtype}\0{stamp_ns}\0'.encode())
        whole.update(hashlib.sha256(data).digest())
    return whole.hexdigest()
