"""Base, fused and mixed whole bodies compared: one-step denoising, and a hidden hand.

    python -m training.evaluate_wholebody base.json fused.json mixed.json [--extra WHOLEBODY.npz]

Held-out compositions are synthetic: what a correction gains on them, it gains on the generator's
own habits. `--extra` names real rows, as the example file of the papers' repository
(`toy_wholebody_data.npz`: body and hands; its expressions belong to another face model and stay
at the mean).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from dposer_core.prior.architecture import WholeBodyLayout
from dposer_core.prior.compose import load_composition
from dposer_core.prior.normalizer import Normalizer, wholebody_normalizer
from dposer_core.prior.prior import DiffusionPrior
from training.composition import Composer, CompositionConfig, heldout_parts
from training.evaluate import angle_error_deg
from training.networks import load_wholebody
from training.pack import PACKED

TIMES = (0.1, 0.2, 0.3)
ROWS = 1_000
_HIDDEN_TIMES = tuple(np.linspace(0.3, 0.05, 20))  # of the loop that completes a hidden hand


def measure(
    networks: dict[str, nn.Module], normalizer: Normalizer, raw: np.ndarray, has_face: bool
) -> list[dict]:
    """One row per network; errors are mean angles in degrees.

    Args:
        networks: by name; normalised vectors.
        normalizer: of the part networks that they share.
        raw: (N, D) truth.
        has_face: whether jaw and expression mean something; otherwise they stay at the mean.
    """
    layout = WholeBodyLayout(normalizer.dim - WholeBodyLayout(0).dim)
    x_0 = torch.from_numpy(normalizer.normalize(raw.astype(np.float32)))
    if not has_face:
        x_0[:, layout.face] = 0.0
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    rows = []
    for name, network in networks.items():
        prior = DiffusionPrior(network)
        row: dict = {'network': name}
        for t in TIMES:
            with torch.no_grad():
                x0_hat = prior.denoise(prior.sde.add_noise(x_0, t, noise), t)
            row[f'body_{t}'] = _degrees(x0_hat, raw, normalizer, layout.body)
            hands = [
                _degrees(x0_hat, raw, normalizer, part)
                for part in (layout.left_hand, layout.right_hand)
            ]
            row[f'hands_{t}'] = float(np.mean(hands))
        row['hidden_once'], row['hidden'] = hidden_hand(prior, x_0, raw, normalizer, layout)
        rows.append(row)
    return rows


def hidden_hand(
    prior: DiffusionPrior,
    x_0: Tensor,
    raw: np.ndarray,
    normalizer: Normalizer,
    layout: WholeBodyLayout,
) -> tuple[float, float]:
    """Degrees of the right hand when it is hidden: after one step from the mean, and completed.

    Completion: twenty denoising steps of falling t, the known parts put back after each.
    """
    hidden = torch.zeros(x_0.shape[1], dtype=torch.bool)
    hidden[layout.right_hand] = True
    x = torch.where(hidden, torch.zeros_like(x_0), x_0)
    errors = []
    with torch.no_grad():
        for t in _HIDDEN_TIMES:
            # Without noise on x_t, as the live fit does it: the mean of what the rest suggests.
            x0_hat = prior.denoise(prior.sde.alpha(t) * x, t)
            x = torch.where(hidden, x0_hat, x_0)
            errors.append(_degrees(x, raw, normalizer, layout.right_hand))
    return errors[0], errors[-1]


def _degrees(x: Tensor, raw: np.ndarray, normalizer: Normalizer, part: slice) -> float:
    back = normalizer.denormalize(x.numpy())
    return angle_error_deg(back[:, part].astype(np.float64), raw[:, part].astype(np.float64))


def read_rows(path: Path, dim: int) -> np.ndarray:
    """(N, dim) of a file with body_pose, left_hand_pose and right_hand_pose; a still face."""
    with np.load(path) as file:
        known = [file[key] for key in ('body_pose', 'left_hand_pose', 'right_hand_pose')]
    joined = np.concatenate(known, 1)
    return np.pad(joined, ((0, 0), (0, dim - joined.shape[1])))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('compositions', type=Path, nargs='+', help='.json files of whole bodies')
    parser.add_argument('--data', type=Path, default=PACKED, help='file of dposer data pack')
    parser.add_argument('--extra', type=Path, help='.npz with body and hands to measure on')
    parser.add_argument('--json', type=Path, help='write the figures here')
    arguments = parser.parse_args()
    parts = list(load_composition(arguments.compositions[0]).parts())
    normalizer = wholebody_normalizer(*(part.normalizer for part in parts))
    names = [load_composition(path).model for path in arguments.compositions]
    networks = dict(
        zip(names, [load_wholebody(path) for path in arguments.compositions], strict=True)
    )
    with np.load(arguments.data) as packed:
        composer = Composer(heldout_parts(packed), CompositionConfig())
    generator = torch.Generator().manual_seed(7)
    tests = {
        'held-out compositions (synthetic)': (composer.samples(ROWS, generator).numpy(), True)
    }
    if arguments.extra:
        tests[arguments.extra.stem] = (read_rows(arguments.extra, normalizer.dim), False)
    report = {}
    for name, (raw, has_face) in tests.items():
        report[name] = rows = measure(networks, normalizer, raw, has_face)
        table = Table(title=f'{name}: degrees')
        for column in rows[0]:
            table.add_column(column)
        for row in rows:
            table.add_row(*(v if isinstance(v, str) else f'{v:.2f}' for v in row.values()))
        Console(width=160).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
