"""Puts results of runs into `dposer_core/weights/` and writes their model cards.

    python -m training.publish body hand=data/runs/hand/hand.safetensors face
    python -m training.publish mixed student

Names alone mean `data/runs/<name>/`. Parts come before whatever was trained over them: a new part
makes the corrections over the old one invalid, and they are refused until they are trained again.
Figures are measured here and kept as JSON in `training/benchmarks/results/`; cards are made of
these and of what the checkpoints say (`cards.py`).
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dposer_core.errors import CheckpointError
from dposer_core.files import write_json, write_text
from dposer_core.prior import compose
from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.backends import Weights, reference_noise
from dposer_core.prior.checkpoint import WEIGHTS_DIR, load_checkpoint, save_checkpoint
from dposer_core.prior.sde import SubVP
from training import cards
from training.distill import compare, cost
from training.evaluate import TIMES, measure
from training.pack import PACKED
from training.script import run_script

RESULTS = Path(__file__).parent / 'benchmarks' / 'results'
HARMLESS_RMS = 1e-3  # standard deviations; one denoising step leaves a hundred times as much
_ROWS = 256


def storage_error(config: TimeFCConfig, weights: Weights) -> dict[str, Any]:
    """What 16-bit weights change in x_0, and whether the file should have them.

    Returns:
        `largest_rms` over t (standard deviations) and `bits`, 16 where that is harmless.
    """
    rounded = {
        key: value if key.startswith('gaussian.') else value.astype(np.float16).astype(np.float32)
        for key, value in weights.items()
    }
    x_t = np.random.default_rng(0).standard_normal((_ROWS, config.dim)).astype(np.float32)
    errors = []
    for t in TIMES:
        exact, found = (reference_noise(config, w, x_t, t) for w in (weights, rounded))
        in_x_0 = SubVP().sigma(t) / SubVP().alpha(t) * (found - exact)
        errors.append(float(np.sqrt((in_x_0**2).mean())))
    return {'largest_rms': max(errors), 'bits': 16 if max(errors) <= HARMLESS_RMS else 32}


def publish_part(part: str, source: Path, data: Path) -> None:
    """Store a part network, measure it, and write its card and the base compositions."""
    trained = load_checkpoint(source, part=part)
    storage = storage_error(trained.config, trained.weights)
    target = WEIGHTS_DIR / f'{part}.safetensors'
    save_checkpoint(target, trained, half=storage['bits'] == 16)
    shipped = load_checkpoint(target)
    rows = measure(shipped, data)
    with np.load(data) as packed:
        report = json.loads(str(packed['report']))
    _write(part, {'sha256': shipped.sha256, 'storage': storage, 'one_step': rows})
    card = cards.part_card(shipped, target.stat().st_size, storage, report, rows)
    write_text(target.with_suffix('.md'), card)
    publish_base()


def publish_base() -> None:
    """Write `base`, the composition of the three shipped parts."""
    files = [WEIGHTS_DIR / f'{part}.safetensors' for part in compose.BASE_PARTS]
    if not all(file.is_file() for file in files):
        return
    target = WEIGHTS_DIR / 'base.json'
    compose.save_composition(target, *files)
    named = compose.load_composition(target).files
    names = {part: file.name for part, (file, _) in named.items()}
    hashes = {part: sha256 for part, (_, sha256) in named.items()}
    write_text(target.with_suffix('.md'), cards.base_card('base', names, hashes))


def publish_correction(name: str, source: Path, data: Path) -> None:
    """Store a fused or mixed correction over the shipped parts, measure it, write its card."""
    trained = compose.load_correction(source)
    if trained.model != name:
        raise CheckpointError(f"{source} is a '{trained.model}' network; publish it as that")
    storage = storage_error(trained.config, trained.inner)
    file, target = WEIGHTS_DIR / f'{name}_correction.safetensors', WEIGHTS_DIR / f'{name}.json'
    parts = [WEIGHTS_DIR / f'{part}.safetensors' for part in compose.BASE_PARTS]
    for part, shipped_part in zip(compose.BASE_PARTS, parts, strict=True):
        if trained.parts[part] != load_checkpoint(shipped_part).sha256:
            raise CheckpointError(
                f'{source} was trained over another {part} network than the shipped one; train it '
                'again over the shipped parts'
            )
    compose.save_correction(file, trained, half=storage['bits'] == 16)
    compose.save_composition(target, *parts, file)
    shipped = compose.load_correction(file)
    with np.load(data) as packed:
        rows = compare({'base': 'base', name: name}, packed)
    _write(name, {'sha256': shipped.sha256, 'storage': storage, 'one_step': rows})
    card = cards.correction_card(shipped, file.stat().st_size, storage, rows)
    for path in (target, file):
        write_text(path.with_suffix('.md'), card)


def publish_student(name: str, source: Path, data: Path) -> None:
    """Store a student, hold it against its teacher, write its card."""
    trained = load_checkpoint(source)
    storage = storage_error(trained.config, trained.weights)
    target = WEIGHTS_DIR / f'{name}.safetensors'
    save_checkpoint(target, trained, half=storage['bits'] == 16)
    shipped = load_checkpoint(target)
    priors = {'teacher': trained.notes['teacher']['name'], 'student': str(target)}
    with np.load(data) as packed:
        rows = compare(priors, packed)
    figures = {'one_step': rows, 'cost': [row for prior in priors.values() for row in cost(prior)]}
    for row in figures['cost']:
        row['prior'] = Path(row['prior']).stem
    _write(name, {'sha256': shipped.sha256, 'storage': storage, **figures})
    card = cards.student_card(shipped, target.stat().st_size, storage, figures)
    write_text(target.with_suffix('.md'), card)


Publisher = Callable[[str, Path, Path], None]
_PUBLISHERS: dict[str, tuple[Publisher, str]] = {
    **{part: (publish_part, part) for part in compose.BASE_PARTS},
    **dict.fromkeys(compose.MODELS[1:], (publish_correction, 'wholebody')),
    'student': (publish_student, 'student'),
}
"""Name -> what publishes it, and the stem of the file that its run leaves."""


def _write(name: str, figures: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f'weights_{name}.json', figures)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = ', '.join(_PUBLISHERS)
    parser.add_argument('results', nargs='+', help=f'NAME or NAME=FILE; names: {known}')
    parser.add_argument('--data', type=Path, default=PACKED, help='packed data it was trained on')
    arguments = parser.parse_args()
    for result in arguments.results:
        name, _, file = result.partition('=')
        if name not in _PUBLISHERS:
            parser.error(f"'{name}' is unknown; known: {known}")
        publisher, stem = _PUBLISHERS[name]
        source = Path(file) if file else PACKED.parent / 'runs' / name / f'{stem}.safetensors'
        publisher(name, source, arguments.data)


if __name__ == '__main__':
    run_script(main)
