"""Figures 3, S-1 and S-5 of the paper; best, median and worst cases of some tables.

A figure is kept under the hash of the network that made it, so another network gets its own.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from dposer_core.body_model import load_body
from dposer_core.errors import ConfigError
from dposer_core.files import whole
from dposer_core.prior.sampling import MIN_TIME, normal_draw
from dposer_core.tasks.completion import body_mask
from dposer_core.tasks.face_reconstruction import LIGHT, FaceProtocol
from training.benchmarks import face_ik, face_reconstruction, mesh_recovery
from training.benchmarks.ablation import AUXILIARY, Ablation
from training.benchmarks.body_completion import HYPOTHESES, body_judge, diffusion
from training.benchmarks.tables import Options
from training.benchmarks.task_data import body_sets, face_sets, load_diffusion
from training.inspect_poses import body_sheet

_DRAWN, _STEPS = 6, 10
_BREAK = 0.3  # time below which the paper sees poses take form
_TIMES = (0.05, 0.1, 0.2, 0.3, 0.5)
_SPOILT = 0.35  # rad per axis
_SIZE = 200  # px of one picture
_CASES = ('best', 'median', 'worst')


@dataclass(frozen=True)
class Figure:
    """Something to look at."""

    title: str
    caption: str
    part: str
    """Of the prior that makes it."""
    draw: Callable[[Options], np.ndarray]
    """-> (H, W, 3) BGR."""
    table: str = ''
    """Whose cases it shows; empty: a figure of the paper."""


def make(id: str, options: Options, folder: Path, again: bool = False) -> Path:
    """The file of figure `id` in `folder`, drawn unless it is there."""
    name = name_of(id)
    figure = FIGURES[name]
    _, _, hashes = load_diffusion(options, figure.part)
    made_by = f'{sorted(hashes.items())} {options.seed} {options.data}'
    path = folder / f'{name}.{hashlib.sha256(made_by.encode()).hexdigest()[:8]}.png'
    if again or not path.is_file():
        with whole(path) as partial:
            partial.write_bytes(cv2.imencode('.png', figure.draw(options))[1])
    return path


def name_of(id: str) -> str:
    """The key of `FIGURES`, however it is written ('s1', 'S-1')."""
    plain = {name.lower().replace('-', ''): name for name in FIGURES}
    wanted = id.lower().replace('-', '')
    if wanted not in plain:
        raise ConfigError(f"figure '{id}' cannot be drawn; there are: {', '.join(FIGURES)}")
    return plain[wanted]


def order_of(errors: Sequence[float]) -> dict[str, int]:
    """Which sample is the best, the median and the worst."""
    order = np.argsort(errors)
    return dict(zip(_CASES, (int(order[k]) for k in (0, len(order) // 2, -1)), strict=True))


@torch.no_grad()
def few_steps(options: Options) -> np.ndarray:
    """Poses from the same noise: ten steps of equal length, or most of them at small times."""
    prior, normalizer, _ = load_diffusion(options, 'body')
    noise = normal_draw(options.seed)((_DRAWN, len(normalizer.offset)))
    uniform = prior.denoise_steps(noise, 1.0, MIN_TIME, _STEPS)
    early = prior.denoise_steps(noise, 1.0, _BREAK, 2)
    truncated = prior.denoise_steps(early, _BREAK, MIN_TIME, _STEPS - 2)
    rows = {
        '1000 steps': prior.denoise_steps(noise, 1.0, MIN_TIME, 1000),
        f'{_STEPS} steps, uniform': uniform,
        f'{_STEPS} steps, {_STEPS - 2} below t = {_BREAK:g}': truncated,
    }
    labels = [name for name in rows for _ in range(_DRAWN)]
    poses = normalizer.denormalize(torch.cat(list(rows.values())))
    return body_sheet(load_body(''), poses.numpy(), _DRAWN, _SIZE, labels)


@torch.no_grad()
def times(options: Options) -> np.ndarray:
    """Two recorded poses and the same spoilt by noise, denoised in one step from several times."""
    prior, normalizer, _ = load_diffusion(options, 'body')
    poses = torch.from_numpy(body_sets(options, 2)['HDM05'])
    draw = normal_draw(options.seed)
    spoilt = poses + _SPOILT * draw(tuple(poses.shape))
    pictures, labels = [], []
    for name, pose in zip(
        ('recorded', 'recorded', 'spoilt', 'spoilt'), torch.cat([poses, spoilt]), strict=True
    ):
        x = normalizer.normalize(pose[None])
        noise = draw(tuple(x.shape))
        for t in _TIMES:
            pictures.append(prior.denoise(prior.sde.add_noise(x, t, noise), t))
            labels.append(f't = {t:g}')
        pictures.insert(len(pictures) - len(_TIMES), x)
        labels.insert(len(labels) - len(_TIMES), name)
    raw = normalizer.denormalize(torch.cat(pictures))
    return body_sheet(load_body(''), raw.numpy(), 1 + len(_TIMES), _SIZE, labels)


def losses(options: Options) -> np.ndarray:
    """Error of completed legs over the training, with and without a loss of the body's points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Plot

    ablation = Ablation(options, AUXILIARY)
    plot = Plot(figsize=(7, 4), layout='constrained', dpi=120)
    axes = plot.subplots()
    for name in ablation.config.arms:
        curve = ablation.evolution(name)
        axes.plot(list(curve), list(curve.values()), marker='o', label=name)
    axes.set(xlabel='training steps', ylabel='MPJPE of completed legs [mm]')
    axes.grid(alpha=0.3)
    axes.legend()
    canvas = FigureCanvasAgg(plot)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 2::-1]


def completion_cases(options: Options) -> np.ndarray:
    """Hidden legs of held-out poses: truth, and the best of ten hypotheses."""
    part = 'legs'
    poses = torch.from_numpy(body_sets(options, 60)['CMU'])
    found = diffusion(options)[0](poses, body_mask(part), HYPOTHESES)
    judge = body_judge()
    apart = torch.linalg.norm(judge.joints(part, found) - judge.joints(part, poses[None]), dim=-1)
    errors, best = 1000 * apart.mean(-1).min(dim=0).values, apart.mean(-1).argmin(dim=0)
    return _pairs(poses, found[best, torch.arange(len(poses))], errors.tolist())


def recovery_cases(options: Options) -> np.ndarray:
    """Body mesh recovery from scratch: true and found pose, the root left out."""
    bench = mesh_recovery.Bench(options, 16)
    found = bench.studio.fit(bench.start(mesh_recovery.SCRATCH), bench.dposer(), options.seed)
    errors = bench.studio.errors(found)[mesh_recovery.PA]
    return _pairs(bench.studio.scene.truth['pose'], found['pose'], errors.tolist())


def face_cases(options: Options) -> np.ndarray:
    """Faces: the picture, and the fitted head in the fitted light."""
    faces = face_sets(options, 6)['generated']
    shown = face_reconstruction.studio(load_body(''), faces, 'all', options.seed)
    method = face_ik.methods(options)[0]['DPoser-face']()
    found = shown.fit(method, shown.start(()), FaceProtocol(steps=200))
    head = shown.head
    drawn, _ = shown.shader(head.vertices(found), head.albedo(found), found[LIGHT])
    errors = face_reconstruction.vertex_errors_mm(shown, found)
    rows = [
        np.concatenate([_large(shown.seen.colour[k]), _large(drawn[k])], axis=1)
        for k in order_of(errors.tolist()).values()
    ]
    return np.concatenate(rows)


def _pairs(truth: Tensor, found: Tensor, errors: Sequence[float]) -> np.ndarray:
    poses, labels = [], []
    for name, k in order_of(errors).items():
        poses += [truth[k], found[k]]
        labels += [f'{name}: truth', f'{name}: {errors[k]:.0f} mm']
    return body_sheet(load_body(''), torch.stack(poses).numpy(), 2, _SIZE, labels)


def _large(colour: Tensor) -> np.ndarray:
    picture = (255 * colour.clamp(0, 1).numpy()[..., ::-1]).astype(np.uint8)
    return cv2.resize(picture, (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)


FIGURES: Mapping[str, Figure] = {
    '3': Figure(
        'Figure 3: few steps', 'Six poses from the same noise. The paper takes few steps at '
        'small times, where poses take form; with this network both ways give whole poses, and '
        'equal steps stay nearer to what 1000 draw.', 'body', few_steps,
    ),
    'S-1': Figure(
        'Figure S-1: the time of one-step denoising', 'Small times leave a pose as it is, the '
        'spoilt ones too; large ones correct what is spoilt and change what is not.', 'body',
        times,
    ),
    'S-5': Figure(
        'Figure S-5: a loss of the body\'s points', 'Small networks trained on the same draws: '
        'the score alone, and with the squared distances of joints and landmarks after ten '
        'denoising steps, weighted by log(1 + SNR) and not. Ten hypotheses of hidden legs, '
        'held-out poses.', 'body', losses,
    ),
    'cases-S-5': Figure(
        'Hidden legs', 'DPoser, CMU, best of ten hypotheses: best, median and worst of 60 poses.',
        'body', completion_cases, 'S-5',
    ),
    'cases-2': Figure(
        'Body mesh recovery', 'DPoser from scratch: best, median and worst of all poses, '
        'PA-MPJPE.', 'body', recovery_cases, '2',
    ),
    'cases-5': Figure(
        'Faces', 'DPoser-face from scratch, picture and fit: best, median and worst.', 'face',
        face_cases, '5',
    ),
}  # fmt: skip
