"""The plots of the page, one function each; over seconds since the first frame."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dposer_core import skeleton
from dposer_core.render import SOURCE_COLORS, SOURCE_LABELS
from dposer_core.state import Source
from dposer_ros.evaluation.accuracy import LEVELS, Accuracy
from dposer_ros.evaluation.run import Run, tracks
from dposer_ros.events import KINDS

_WIDTH = 11.0  # inches
_MAX_BODIES = 4  # with a raster of their own
_MAX_GAP = 0.25  # s, over which no line is drawn
_COLOURS = ('#2f6f9f', '#c8553d', '#3a7d44', '#8e5ba6', '#b8860b', '#555555')
_RASTER_ROWS = [
    *range(22),  # body
    skeleton.JAW_JOINT,
    *range(skeleton.LEFT_HAND_JOINTS.start, skeleton.RIGHT_HAND_JOINTS.stop),
]
_RASTER_LABELS = {'legs, spine, arms': (0, 22), 'jaw': (22, 23), 'left hand': (23, 38)}
_RASTER_LABELS['right hand'] = (38, 53)


def pelvis_track(run: Run, accuracy: Accuracy | None) -> Figure:
    """Each coordinate of the pelvis over time, and the way seen along the second axis."""
    figure = Figure(figsize=(_WIDTH, 4.2), layout='constrained')
    axes = figure.subplot_mosaic([['x', 'way'], ['y', 'way'], ['z', 'way']], width_ratios=(2, 1))
    for number, (body, rows) in enumerate(tracks(run.states).items()):
        colour, seconds = _colour(number), _seconds(run, run.states.stamp_ns[rows])
        places = _broken(run.states.joints[rows, 0], seconds)
        for row, name in enumerate('xyz'):
            axes[name].plot(seconds, places[:, row], color=colour, label=body)
        axes['way'].plot(places[:, 0], places[:, 2], color=colour, label=body)
    if accuracy is not None:
        motion = accuracy.match.motion
        during = (motion.stamp_ns >= run.stamps[0]) & (motion.stamp_ns <= run.stamps[-1])
        for everything in motion.people.values():
            rows = everything[during[everything]]
            truth = motion.points[rows][:, list(motion.layout.root)].mean(axis=1)
            seconds = _seconds(run, motion.stamp_ns[rows])
            for row, name in enumerate('xyz'):
                axes[name].plot(seconds, truth[:, row], 'k:', linewidth=1)
            axes['way'].plot(truth[:, 0], truth[:, 2], 'k:', linewidth=1)
    for name in 'xyz':
        axes[name].set_ylabel(f'{name}, m')
        axes[name].label_outer()
    axes['x'].sharex(axes['z'])
    axes['y'].sharex(axes['z'])
    axes['z'].set_xlabel('s')
    axes['way'].set(xlabel='x, m', ylabel='z, m', aspect='equal')
    axes['way'].set_adjustable('datalim')
    axes['way'].legend(fontsize=8, title='dotted: truth' if accuracy is not None else None)
    return figure


def provenance(run: Run) -> Figure:
    """How each joint was obtained over time, one raster for each body."""
    by_body = tracks(run.states)
    longest = sorted(by_body, key=lambda body: -len(by_body[body]))[:_MAX_BODIES]
    bodies = [body for body in by_body if body in longest]
    figure = Figure(figsize=(_WIDTH, 3.0 * len(bodies) + 0.4), layout='constrained')
    all_axes = figure.subplots(len(bodies), squeeze=False)[:, 0]
    stamps = np.array(run.stamps)
    colours = ListedColormap([_rgb(SOURCE_COLORS[kind]) for kind in Source] + ['white'])
    nobody = len(Source)
    for axis, body in zip(all_axes, bodies, strict=True):
        rows = by_body[body]
        raster = np.full((len(_RASTER_ROWS), len(stamps)), nobody)
        columns = np.searchsorted(stamps, run.states.stamp_ns[rows])
        raster[:, columns] = run.states.source[rows][:, _RASTER_ROWS].T
        edges = _edges(_seconds(run, stamps))
        axis.pcolormesh(
            edges, np.arange(len(_RASTER_ROWS) + 1), raster, cmap=colours,
            norm=BoundaryNorm(np.arange(nobody + 2) - 0.5, nobody + 1), rasterized=True,
        )  # fmt: skip
        axis.set_yticks(
            [(low + high) / 2 for low, high in _RASTER_LABELS.values()], list(_RASTER_LABELS)
        )
        axis.hlines([low for low, _ in _RASTER_LABELS.values()], *edges[[0, -1]], 'w', linewidth=1)
        axis.tick_params(axis='y', length=0)
        axis.set_ylim(len(_RASTER_ROWS), 0)
        axis.set_title(body, fontsize=9, loc='left')
    all_axes[-1].set_xlabel('s')
    boxes = [Patch(color=_rgb(SOURCE_COLORS[kind])) for kind in SOURCE_LABELS]
    words = list(SOURCE_LABELS.values())
    figure.legend(boxes, words, loc='outside upper right', ncols=len(boxes), fontsize=8)
    return figure


def errors(run: Run, accuracy: Accuracy | None) -> Figure:
    """Error of body and hands over time where there is truth, else what the fit leaves over."""
    figure = Figure(figsize=(_WIDTH, 2.8), layout='constrained')
    axis = figure.subplots()
    if accuracy is None:
        values, unit = residuals(run)
        curves, what = {'': values}, f'residual, {unit}'
    else:
        curves = {part: accuracy.mean_mm(part) for part in ('body', 'hands')}
        what = 'error about the pelvis, mm'
    for number, (body, rows) in enumerate(tracks(run.states).items()):
        seconds = _seconds(run, run.states.stamp_ns[rows])
        for style, (part, values) in zip(('-', ':'), curves.items(), strict=False):
            label = f'{body} {part}'.strip()
            line = _broken(values[rows, None], seconds)[:, 0]
            axis.plot(seconds, line, style, color=_colour(number), label=label)
    if accuracy is not None:
        for swap in accuracy.match.swaps:
            axis.axvline(_seconds(run, np.array([swap.stamp_ns]))[0], color='#b00020')
    axis.set(xlabel='s', ylabel=what, ylim=(0, None))
    axis.legend(fontsize=8, ncols=4)
    return figure


def residuals(run: Run) -> tuple[np.ndarray, str]:
    """(N,) residual of every state, NaN where nothing was fitted, and its unit."""
    stats = [result.stats for result in run.results]
    pixels = np.array([s.reprojection_rms_px if s.iterations else np.nan for s in stats])
    metres = np.array([s.residual_rms_m if s.iterations else np.nan for s in stats])
    return (pixels, 'px') if np.isfinite(pixels).any() else (1e3 * metres, 'mm')


def latency(run: Run) -> Figure:
    """Time of a step, cold starts apart."""
    figure = Figure(figsize=(_WIDTH / 2, 2.6), layout='constrained')
    axis = figure.subplots()
    warm, cold = (1e3 * np.array(s) for s in (run.outcome.warm_seconds, run.outcome.cold_seconds))
    top = float(np.percentile(np.concatenate([warm, cold]), 99)) * 1.3
    bins = np.linspace(0.0, top, 50)
    axis.hist(
        [np.minimum(warm, top), np.minimum(cold, top)], bins, stacked=True,
        label=('people known', 'somebody new'), color=_COLOURS[:2],
    )  # fmt: skip
    axis.set(xlabel='ms per frame (the last bin holds all above)', ylabel='frames')
    axis.legend(fontsize=8)
    return figure


def calibration(accuracy: Accuracy) -> Figure:
    """Share of coordinates inside of the interval that should hold this share."""
    figure = Figure(figsize=(_WIDTH, 3.6), layout='constrained')
    panels = {'absolute': accuracy.error, 'about the pelvis': accuracy.aligned}
    for axis, (title, error) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        axis.plot([0, 1], [0, 1], 'k:', linewidth=1)
        for number, (name, shares) in enumerate(accuracy.curve(error).items()):
            width = 2.0 if name in ('all', 'hidden_hands') else 1.0
            label = name.replace('_', ' ')
            axis.plot(LEVELS, shares, color=_colour(number), linewidth=width, label=label)
        axis.set(xlabel='expected share', ylabel='found share', xlim=(0, 1), ylim=(0, 1))
        axis.set_title(title, fontsize=9, loc='left')
        axis.legend(fontsize=8)
    return figure


def events(run: Run) -> Figure:
    """What the node would have announced."""
    found = [(a.stamp_ns, KINDS[e.kind], e.body_id) for a in run.answers for e in a.events]
    kinds = sorted({kind for _, kind, _ in found})
    bodies = list(tracks(run.states))
    figure = Figure(figsize=(_WIDTH, 0.7 + 0.35 * max(len(kinds), 1)), layout='constrained')
    axis = figure.subplots()
    for stamp, kind, body in found:
        colour = _colour(bodies.index(body)) if body in bodies else '#555555'
        axis.plot(_seconds(run, np.array([stamp])), [kinds.index(kind)], 'o', color=colour)
    axis.set_yticks(range(len(kinds)), [kind.lower().replace('_', ' ') for kind in kinds])
    axis.set_ylim(max(len(kinds), 1) - 0.5, -0.5)
    axis.set_xlim(-0.1, _seconds(run, np.array(run.stamps[-1:]))[0] + 0.1)
    axis.grid(axis='y', color='#e4e4e4')
    axis.set_xlabel('s; one colour for each body')
    return figure


def differences(run: Run, against: Accuracy) -> Figure:
    """Distance of the joints from those of another run."""
    figure = Figure(figsize=(_WIDTH, 3.0), layout='constrained')
    by_time, by_joint = figure.subplots(1, 2)
    distance = 1e3 * np.linalg.norm(against.error, axis=-1)
    for number, (body, rows) in enumerate(tracks(run.states).items()):
        seconds = _seconds(run, run.states.stamp_ns[rows])
        means = np.array([_mean(row[against.parts['all']]) for row in distance[rows]])
        line = _broken(means[:, None], seconds)[:, 0]
        by_time.plot(seconds, line, color=_colour(number), label=body)
    by_time.set(xlabel='s', ylabel='mean distance, mm', ylim=(0, None))
    by_time.legend(fontsize=8)
    means = [_mean(column) for column in distance.T]
    by_joint.bar(range(len(means)), means, color=_COLOURS[0])
    by_joint.set(xlabel=f'number of {against.layout.name[:-1]}', ylabel='mean distance, mm')
    return figure


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float('nan')


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _rgb(bgr: Sequence[int]) -> str:
    return '#' + ''.join(f'{channel:02x}' for channel in reversed(bgr))


def _seconds(run: Run, stamps: np.ndarray) -> np.ndarray:
    return (np.asarray(stamps) - run.stamps[0]) * 1e-9


def _edges(seconds: np.ndarray) -> np.ndarray:
    """Borders of columns that stand for these times."""
    if len(seconds) == 1:
        return np.array([seconds[0], seconds[0] + 0.05])
    step = float(np.median(np.diff(seconds)))
    return np.append(seconds, seconds[-1] + step)


def _broken(values: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(T, D) values with NaN after a gap, where a line would be an invention."""
    values = values.astype(float).copy()
    values[1:][np.diff(seconds) > _MAX_GAP] = np.nan
    return values
