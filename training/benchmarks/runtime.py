"""Table 'runtime': time and memory of every method in four tasks, in one run on one machine.

Not a table of the paper, whose S-2 has the time of one task. Every figure is of a process of its
own with one thread: processor time of whole fits after a first one of the same form, and the most
memory that the process ever held above what it holds when everything is imported.
"""

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from dposer_core.body_model import load_body
from dposer_core.errors import ConfigError
from dposer_core.prior.sampling import normal_draw
from dposer_core.tasks.body_points import HandPoints
from dposer_core.tasks.completion import body_mask
from training.benchmarks import body_completion, hand_ik, mesh_recovery, motion_denoising
from training.benchmarks.generation import BODY_NEED, PACKED_NEED, baselines_need
from training.benchmarks.report import Column, Row
from training.benchmarks.tables import Job, Options, Plan, silent, table
from training.benchmarks.task_data import body_sets, hand_sets, load_diffusion

_BATCH = 20
_NOISE_HAND_MM, _NOISE_MOTION_MM = 5, 40
_LIVE = 'live fitter'
_BASELINES = {
    'L2': 'l2', 'GMM': 'gmm', 'VPoser': 'vposer', 'CVPoser': 'cvposer', 'Pose-NDF': 'posendf',
}  # fmt: skip

Fits = tuple[int, Callable[[], object]]
"""How many fits a call makes, and the call."""


def _completion(options: Options, label: str) -> Fits | None:
    if label != 'DPoser' and label not in _BASELINES:
        return None
    poses = torch.from_numpy(body_sets(options, _BATCH)['CMU'])
    if label == 'DPoser':
        complete = body_completion.diffusion(options)[0]
    else:
        complete = body_completion.competitor(options, _BASELINES[label])
    return len(poses), lambda: complete(poses, body_mask('legs'), 1)


def _recovery(options: Options, label: str) -> Fits | None:
    bench = mesh_recovery.Bench(options, _BATCH)
    bench.sets = {'CMU': bench.sets['CMU']}
    count = len(bench.sets['CMU'])
    if label == _LIVE:
        return count, lambda: mesh_recovery.live_joints(bench.plain_body, bench.studio.scene)
    if label not in bench.methods():
        return None
    method, start = bench.methods()[label](), bench.start(mesh_recovery.SCRATCH)
    return count, lambda: bench.studio.fit(start, method, options.seed)


def _hand(options: Options, label: str) -> Fits | None:
    body = load_body('')
    rows, _ = hand_ik.methods(options, body)
    name = 'DPoser-hand' if label == 'DPoser' else label
    if name not in rows:
        return None
    method, hand = rows[name](), HandPoints(body)
    poses = torch.from_numpy(hand_sets(options, _BATCH)['generated'])
    points, visible = hand.points(poses), torch.ones(21, dtype=torch.bool)
    draw = normal_draw(options.seed)
    points = points + _NOISE_HAND_MM / 1000 * draw(tuple(points.shape))
    return len(poses), lambda: method(hand, points, visible, _NOISE_HAND_MM, draw)


def _motion(options: Options, label: str) -> Fits | None:
    motions = motion_denoising.Motions(options)
    rows = motions.competitors() | motions.live(is_noisy=True)
    if label not in rows:
        return None
    method = rows[label]()
    clips = motions.denoiser.clips('CMU', motion_denoising.noisy(_NOISE_MOTION_MM))
    return len(clips.truth), lambda: method(clips, motions.denoiser.points)


TASKS: dict[str, tuple[str, Callable[[Options, str], Fits | None]]] = {
    'completion': ('pose', _completion),
    'mesh recovery': ('image', _recovery),
    'hand IK': ('hand', _hand),
    'motion': ('clip of 60', _motion),
}
"""By name: what one fit is of, and the fits of a method (None: it has none)."""


def measure(task: str, label: str, options: Options) -> tuple[float, float] | None:
    """Seconds of a fit and MB of this process; None: the method has no such task."""
    torch.set_num_threads(1)
    before = _peak_mb()
    fits = TASKS[task][1](options, label)
    if fits is None:
        return None
    count, call = fits
    call()
    began = time.process_time()
    call()
    return (time.process_time() - began) / count, _peak_mb() - before


def _peak_mb() -> float:
    """Most memory that this process ever held; `getrusage` begins with that of its parent."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM:')) / 1024


def _alone(task: str, label: str, options: Options) -> tuple[float, float] | None:
    """`measure` in a process of its own."""
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(measure, task, label, options).result()
        except BrokenProcessPool as error:
            raise ConfigError(f'{task} by {label}: its process ended ({error})') from error


def _columns(task: str) -> tuple[Column, Column]:
    of = TASKS[task][0]
    return (
        Column(f'{task}, one {of}', 'lower', 'ms', 1),
        Column(f'{task}, memory', 'lower', 'MB', 0),
    )


_NEEDS = (
    PACKED_NEED,
    BODY_NEED,
    baselines_need('gmm', 'vposer', 'cvposer', 'posendf', 'nrdf', part='body'),
    baselines_need('gmm', 'vposer', 'nrdf', part='hand'),
)


@table('runtime', 'Time and memory of every method', _NEEDS)
def plan(options: Options) -> Plan:
    """Four tasks, each method alone."""
    hashes = load_diffusion(options, 'body')[2] | load_diffusion(options, 'hand')[2]
    # As of a quick run, whose clips are few; a process cannot be given the caller's function.
    plain = dataclasses.replace(options, is_quick=True, progress=silent)

    def run(label: str) -> Row:
        values = {}
        for task in TASKS:
            found = _alone(task, label, plain)
            if found is not None:
                time_of, memory = _columns(task)
                values |= {time_of.name: 1000 * found[0], memory.name: found[1]}
        return Row(label, values)

    labels = ('w/o prior', *_BASELINES, 'NRDF', 'DPoser', _LIVE)
    return Plan(
        columns=tuple(column for task in TASKS for column in _columns(task)),
        paper=(),
        jobs=tuple(Job(label, lambda label=label: run(label)) for label in labels),
        data=f'{_BATCH} poses, images and hands at once, 2 clips at once; live: one by one',
        checkpoint_sha256=hashes,
        settings=(
            'Whole fits of the protocols of tables S-5, 2, S-10 and 3; processor time of one '
            'thread, the second of two runs, divided by the number of fits.',
            'Memory: the most that a process of its own held, above that of a process that has '
            'imported everything; data and body model are in it.',
            'An empty cell: the method has no protocol for the task.',
        ),
    )
