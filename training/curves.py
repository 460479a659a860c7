"""Draws the losses and validation errors of a run."""

from pathlib import Path

from dposer_core.files import whole
from training.run_folder import read_curves


def plot_curves(folder: Path) -> Path:
    """Write `curves.png` from the csv files in `folder`; returns its path.

    Left: losses and the learning rate; right: every validation error, one line each.
    """
    from matplotlib.figure import Figure

    losses = read_curves(folder / 'metrics.csv')
    errors = read_curves(folder / 'validation.csv')
    figure = Figure(figsize=(11, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    speed = ('step', 'learning_rate', 'samples_per_s', 'seconds', 'gradient_norm')
    for name, values in losses.items():
        if name not in speed:
            left.plot(losses['step'], values, label=name)
    if losses:
        left.set_yscale('log')
        left.legend(loc='upper right')
        rate = left.twinx()
        rate.plot(losses['step'], losses['learning_rate'], color='0.7', linestyle=':')
        rate.set_ylabel('learning rate (dotted)')
    for name, values in errors.items():
        if name != 'step':
            right.plot(errors['step'], values, marker='.', label=name)
    if errors:
        right.legend(fontsize='small')
    left.set(title='training', xlabel='step', ylabel='loss')
    right.set(title='held-out data, one denoising step', xlabel='step')
    path = folder / 'curves.png'
    with whole(path) as partial:
        figure.savefig(partial, dpi=110)
    return path
