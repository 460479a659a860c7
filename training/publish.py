"""Puts finished checkpoints into `dposer_core/weights/` and writes their model cards.

    python -m training.publish body --extra-body POSES.npz
    python -m training.publish hand --extra-hand HANDS.npz ...

What a card says of figures is measured here and now; what it says of data is in `_TEXTS`.
"""

import argparse
import json
import textwrap
from pathlib import Path

import numpy as np

from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.checkpoint import (
    WEIGHTS_DIR,
    PriorCheckpoint,
    load_checkpoint,
    save_checkpoint,
)
from dposer_core.prior.compose import save_composition
from training.data.archives import HELD_OUT, TRAINING_SOURCES
from training.evaluate import measure
from training.evaluate_hands import measure as measure_hands
from training.pack import PACKED

PARTS = ('body', 'hand', 'face')

_CMU = (
    'The data used in this project was obtained from mocap.cs.cmu.edu. The database was created '
    'with funding from NSF EIA-0196217.'
)
_RANGE = """\
- Made for t up to 0.4, where the fits work: three quarters of the training samples lie there. From
  t = 0.5 on a Gaussian is better (body, held-out CMU: 129 against 134 mm), and samples drawn from
  pure noise (t = 1) are often impossible poses. Without the division by sigma few steps suffice at
  small t, but the network is not precise near t = 1."""
_SYNTHETIC_FIGURES = """`fresh synthetic` are new
draws of the generator, widened as in training: the figures say that the network learned the
generator, not that real ones are like it."""
_HAND_FIGURES = """`mm`: mean distance of the 15
joints and 5 tips with the wrist fixed, on the open body's right hand
(`python -m training.evaluate_hands`); `gaussian` and `widened_gaussian`: of the training poses as
they are and widened; `gain_percent`: on the better of the two. `toy_*` are hands of the paper's
example files (MANO fits, research-only): measured on, never trained on or tuned to. `held out
poses` and `other hand` are real snapshots, from a run with the same settings that saw neither 14
of the 55 poses nor any snapshot of the left hand (`--leave-out`)."""
_TEXTS = {
    'body': {
        'title': 'Body prior (21 joints, 63 values)',
        'figures': """`mm`: mean distance
of the 21 body joints of the open body with the pelvis fixed; `noisy`: the pose before denoising.
`toy_body_data` are the 500 example poses of the paper's repository (from AMASS, research-only):
measured on, never trained on or tuned to.""",
        'data': """\
Real motion of the CMU motion capture database only; synthetic share: none of the poses are
invented, but half of the training samples combine limbs of different clips and half carry joint
noise.

{sources}

Held out, never trained on: CMU subjects 02 and 03, HDM05 (CC BY-SA 3.0) and DeepMimic. Clips of
other archives that repeat a held-out clip were found by comparing poses and left out: {leaks}.

Every clip was converted to SMPL-X rotations at 30 fps (`training/retarget.py`) five times: once as
it is, four times with random anatomy within plausible bounds (share of the collars in the arm's
swing, axis of the elbow, division of the spine, neck and pronation), because the sources do not
tell these. Then mirrored, near duplicates dropped, and long clips capped to the weight of 20 s.

{cmu}""",
        'limits': """\
- About 30 minutes of motion by few people: walking, running, sport, dance, martial arts, climbing
  and sitting. Lying, crawling and acrobatics are rare or absent. It is a default, not a substitute
  for a prior trained on AMASS.
- Toes never move in the sources; their values are small noise. Wrists and collars are
  reconstructed, not measured.
- At t = 0.1, where little is hidden, the prior hardly improves poses of another origin and may
  worsen them; its use is at larger t, where evidence is missing.""",
    },
    'hand': {
        'title': 'Hand prior (right hand, 15 joints, 45 values, relative to the flat hand)',
        'figures': _HAND_FIGURES,
        'data': """\
Synthetic: {hand} poses drawn near, between and beyond 110 snapshots of real hands (55 of each
hand, mirrored to right hands; rest, flat, pinch, grab, finger spelling, counting) of the Handy
project (MIT, (c) 2020-2021 Stewart Smith). The snapshots are joint positions; bone directions were
turned into rotations with zero twist. `training/hands.py` holds every parameter and the sources of
the anatomy:

- Fingers go from snapshot to snapshot together or singly, or curl evenly as in a grasp. Each
  joint turns about its hinge within its range. A finger drags its neighbours along, the end joint
  follows the middle one (two thirds), and a bent knuckle hardly turns sideways.
- Fingers that pass through each other or the palm are moved apart until they touch; where that
  fails the hand is drawn anew.

The network learned the posterior mean of a Gaussian mixture over these hands (400 clusters, each
at five strengths of noise; `training/mixture.py`) instead of the noise itself.

Convention: every rotation is relative to the flat hand (`flat_hand_mean=True` of SMPL-X and MANO).
Poses relative to the MANO mean (`flat_hand_mean=False`; EgoBody, ReInterHand) need that mean added
first: `pose + hands_mean` of the model file. Left hands are mirrored: y and z of every axis-angle
negated.""",
        'limits': """\
- No recorded hand motion: how often a pose occurs, and what goes with which, is assumed. Every
  snapshot is of one person.
- Hands that hold objects are represented by `grab`, `pinch` and even curls only.
- Both hands use this network; there is no coupling between hands or with the arms.""",
    },
    'face': {
        'title': 'Face prior (jaw 3, expression 10)',
        'figures': _SYNTHETIC_FIGURES,
        'data': """\
Synthetic altogether: {face} samples of a model with six factors (talking, rounding, smiling,
surprise, frowning, one-sidedness) that move the ten expression coefficients of the open body and
the jaw together, with blinks and 25 % faces near rest (`training/faces.py`).""",
        'limits': """\
- No recorded face went into it. It keeps jaw and expression within what faces do; it knows nothing
  about how often they do it.
- No prior of the shape of a face: the open body's ten shape coefficients move the whole body and
  none of them the face alone, and scans of faces in FLAME's shape space may not be shipped on. Who
  has them trains that network (100 values) with `training/configs/paper`.
- The coefficients are those of the open body. For the expression space of a licensed SMPL-X file
  use a prior trained for it.""",
    },
}


_WHOLEBODY = """\
# Whole-body prior: body 63, left hand 45 (mirrored), right hand 45, jaw 3, expression 10

`wholebody.json` names the three part files; the whole body is their side-by-side composition
(DPoser-X-base), with the hand network used for both hands. No data with body, fingers and face
recorded together was free to use, so the parts do not inform each other: a hidden hand is
completed from what hands do, not from what the arm or the other hand does. See [body](body.md),
[hand](hand.md) (synthetic) and [face](face.md) (synthetic) for data, licences, figures and limits.
"""


def card(checkpoint: PriorCheckpoint, size: int, seconds: float, report: dict, rows: list) -> str:
    """The model card of one part, Markdown."""
    text = _TEXTS[checkpoint.part]
    run, config = checkpoint.notes['run'], checkpoint.config
    sources = _table(
        ['archive', 'clips', 'frames at 30 fps', 'poses kept of 5 conversions'],
        [
            [name, *(report['sources'][name][key] for key in ('clips', 'frames', 'kept'))]
            for name in TRAINING_SOURCES
        ],
    )
    counts = {name: f'{shape[0]:,}' for name, shape in report['arrays'].items()}
    leaks = ', '.join(report['left_out'][HELD_OUT]) or 'none'
    cmu = textwrap.fill(_CMU, 99)
    data = text['data'].format(sources=sources, leaks=leaks, cmu=cmu, **counts)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    figures = _table(
        columns,
        [
            [row[k] if isinstance(row[k], str) else f'{row[k]:.4g}' for k in columns]
            for row in rows
        ],
    )
    remark = checkpoint.notes.get('remark', '')
    remark = f'\n{textwrap.fill(remark, 99)}\n' if remark else ''
    start = f', started from `{run["initial"]}`' if run['initial'] else ''
    return f"""# {text['title']}

Noise predictor of the DPoser papers (sub-VP diffusion), trained from scratch by this project.
{textwrap.fill(checkpoint.licence, 99)}

| | |
|---|---|
| network | TimeFC, hidden {config.hidden}, embedding {config.embed}, {config.blocks} blocks; \
{_output(config)} |
| file | {size / 1024:.0f} KiB, 16-bit weights, sha256 of the tensors `{checkpoint.sha256[:16]}` |
| run | `training/configs/{checkpoint.part}.yaml`, seed {run['seed']}, \
{checkpoint.notes['steps']} of {run['steps']} steps of {run['batch']} samples{start} |
| time | {seconds / 60:.0f} minutes of wall clock, one thread, on a CPU shared with other work |
| code | commit `{checkpoint.source_commit}` |
{remark}
## Data

{data}

## Figures

One denoising step from x_t to the pose, against the exact posterior mean of a Gaussian with mean
and covariance of the same widened training data (`python -m training.evaluate`; noise seed 0).
`deg`: mean angle per joint; `x`: root mean square in normalised units. {text['figures']}

{figures}

## Limits

{text.get('range', _RANGE)}
{text['limits']}
"""


def _output(config: TimeFCConfig) -> str:
    if config.gaussian_skip:
        return 'corrects the posterior of a Gaussian'
    return f'output divided by sigma: {"yes" if config.scale_by_sigma else "no"}'


def _table(columns: list[str], rows: list[list]) -> str:
    lines = [columns, ['---'] * len(columns), *rows]
    return '\n'.join('| ' + ' | '.join(str(cell) for cell in line) + ' |' for line in lines)


def publish(runs: Path, data: Path, extra: dict[str, list[Path]], parts: list[str]) -> None:
    """Copy `parts` from `runs`, measure them, write cards and the whole-body composition.

    Args:
        runs: folder of run folders, each named for its part.
        data: file of training.pack that they were trained on.
        extra: part -> .npz files of another origin to measure on.
        parts: what to publish.
    """
    with np.load(data) as packed:
        report = json.loads(str(packed['report']))
    for part in parts:
        checkpoint = load_checkpoint(runs / part / f'{part}.safetensors', part=part)
        seconds = checkpoint.notes['seconds']
        target = WEIGHTS_DIR / f'{part}.safetensors'
        save_checkpoint(target, checkpoint)
        checkpoint = load_checkpoint(target)
        rows = _figures(checkpoint, runs, data, extra.get(part, []))
        text = card(checkpoint, target.stat().st_size, seconds, report, rows)
        (WEIGHTS_DIR / f'{part}.md').write_text(text)
    files = [WEIGHTS_DIR / f'{part}.safetensors' for part in PARTS]
    (WEIGHTS_DIR / 'wholebody.md').write_text(_WHOLEBODY)
    save_composition(WEIGHTS_DIR / 'wholebody.json', *files)


def _figures(checkpoint: PriorCheckpoint, runs: Path, data: Path, extra: list[Path]) -> list[dict]:
    """What the card of a part tells."""
    if checkpoint.part != 'hand':
        return measure(checkpoint, data, extra[0] if extra else None)
    rows = measure_hands(checkpoint, data, extra)
    left_out = runs / 'hand_left_out' / 'hand.safetensors'
    if left_out.is_file():
        rows += measure_hands(load_checkpoint(left_out), data.parent / 'hands_left_out.npz')
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('parts', nargs='*', default=list(PARTS), help='body, hand, face')
    parser.add_argument('--data', type=Path, default=PACKED, help='file of training.pack')
    parser.add_argument('--extra-body', type=Path, nargs='*', default=[], help='bodies (.npz)')
    parser.add_argument('--extra-hand', type=Path, nargs='*', default=[], help='hands (.npz)')
    arguments = parser.parse_args()
    runs = arguments.data.parent / 'runs'
    extra = {'body': arguments.extra_body, 'hand': arguments.extra_hand}
    publish(runs, arguments.data, extra, arguments.parts)


if __name__ == '__main__':
    main()
