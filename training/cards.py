"""Model cards: Markdown made of what a checkpoint says of itself and of measured figures.

What cannot stand in a checkpoint is here: the licences of sources (`SOURCES`) and known limits.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dposer_core.prior.architecture import TimeFCConfig
from dposer_core.prior.checkpoint import PriorCheckpoint
from dposer_core.prior.compose import Correction

_WIDTH = 99


@dataclass(frozen=True)
class SourceFacts:
    """What users of trained weights must know about a source of data."""

    title: str
    licence: str
    acknowledgement: str = ''
    """Asked for by its licence."""
    is_synthetic: bool = False


_CMU = (
    'The data used in this project was obtained from mocap.cs.cmu.edu. The database was created '
    'with funding from NSF EIA-0196217.'
)
_CMU_LICENCE = 'may be included in products, not resold as data'
SOURCES = {
    'cmu_asf_amc': SourceFacts('CMU motion capture, original ASF/AMC', _CMU_LICENCE, _CMU),
    'cmu_bvh': SourceFacts('CMU motion capture, BVH conversion', _CMU_LICENCE, _CMU),
    'cmu_expmap': SourceFacts('CMU motion capture, exponential maps', _CMU_LICENCE, _CMU),
    'hdm05_asf_amc': SourceFacts(
        'HDM05', 'CC BY-SA 3.0', 'HDM05: M. Müller et al., Universität Bonn, CC BY-SA 3.0.'
    ),
    'deepmimic': SourceFacts('DeepMimic clips', 'mixed origin'),
    'handy': SourceFacts(
        'Hands drawn between, around and beyond 110 snapshots of the Handy project '
        '(`training/hands.py`)',
        'MIT',
        'Handy: MIT licence, copyright (c) 2020-2021 Stewart Smith.',
        is_synthetic=True,
    ),
    'faces': SourceFacts(
        'Faces of a model with six factors (`training/faces.py`)', 'of this repository',
        is_synthetic=True,
    ),
    'compositions': SourceFacts(
        'Whole bodies composed of the sources of the parts (`training/composition.py`)',
        'of the parts',
        is_synthetic=True,
    ),
}  # fmt: skip
_TITLES = {
    'body': 'Body prior (21 joints, 63 values)',
    'hand': 'Hand prior (right hand, 15 joints, 45 values, relative to the flat hand)',
    'face': 'Face prior (jaw 3, expression 10)',
    'wholebody': 'Whole-body student (body, both hands, jaw, expression in one network)',
}
_LIMITS = {
    'body': (
        'Motion of few people: walking, running, sport, dance, martial arts, climbing, sitting. '
        'Lying, crawling and acrobatics are rare or absent. It is no substitute for a prior '
        'trained on AMASS.',
        'Toes never move in the sources; their values are small noise. Wrists and collars are '
        'reconstructed, not measured.',
    ),
    'hand': (
        'No recorded hand motion: how often a pose occurs, and what goes with which, is assumed.',
        'Both hands use this network; there is no coupling between hands or with the arms.',
    ),
    'face': (
        'No recorded face went into it. It keeps jaw and expression within what faces do and '
        'knows nothing about how often they do it.',
        'The coefficients are those of the open body. For the expression space of a licensed '
        'SMPL-X file use a prior trained for it.',
    ),
    'correction': (
        'No free recording holds body, fingers and face together. What it knows of how the parts '
        'go together is what the generator of the compositions assumes, and the figures say how '
        'well that was learned, not how people move.',
    ),
    'student': (
        'Made to stand in for its teacher at small t; it is no generator of poses.',
        "Its hands are less exact than its teacher's (table whole-body): faster, not the default.",
    ),
}


def part_card(
    checkpoint: PriorCheckpoint,
    size: int,
    storage: Mapping[str, Any],
    report: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """The card of a part network.

    Args:
        checkpoint: as shipped.
        size: bytes of its file.
        storage: `publish.storage_error`.
        report: of the packed data that it was trained on.
        rows: `evaluate.measure`.
    """
    part, run = checkpoint.part, checkpoint.notes['run']
    names = list(run['sources']) if part == 'body' else [{'hand': 'handy', 'face': 'faces'}[part]]
    widening = ', '.join(f'{key} {value}' for key, value in run['augment'].items())
    counts = {
        name: f'{c["clips"]} clips, {c["frames"]} frames at 30 fps, {c["kept"]} poses kept'
        for name, c in report.get('sources', {}).items()
    }
    counts |= {
        name: f'{report["arrays"][array][0]} samples'
        for name, array in (('handy', 'hand'), ('faces', 'face'))
        if array in report.get('arrays', {})
    }
    held_out = ', '.join(run['unseen']) if part == 'body' else 'every 50th sample'
    data = [
        _sources(names, counts),
        f'Widened before training: {widening}. Held out: {held_out}.',
        _remark(checkpoint.notes),
    ]
    figures = (
        'One denoising step from x_t to x_0 on held-out data '
        '(`python -m training.evaluate`, noise seed 0). `mm`: mean distance of the body joints, '
        'pelvis fixed; `deg`: mean angle per joint; `x`: root mean square in normalised units. '
        '`identity` leaves x_t alone, `mean` is the mean pose, the Gaussians give the exact '
        'posterior mean for the mean and covariance of the training data, as they are and '
        'widened.'
    )
    return _card(
        _TITLES[part], checkpoint, checkpoint.config, size, storage, data, figures, rows,
        (_range(run), *_LIMITS[part]),
    )  # fmt: skip


def correction_card(
    correction: Correction,
    size: int,
    storage: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """The card of a fused or mixed whole body; `rows` of `distill.compare` against the base."""
    run = correction.notes['run']
    composition = ', '.join(f'{k} {v}' for k, v in run['mixed']['composition'].items())
    parts = ', '.join(f'{name} `{value[:12]}`' for name, value in correction.parts.items())
    data = [
        _sources(['compositions', *run['sources'], 'handy', 'faces'], {}),
        f'Assumed dependence between the parts: {composition}.',
        f'Trained over the part networks {parts}; they stay as they are.',
        _remark(correction.notes),
    ]
    figures = (
        'One denoising step on whole bodies composed of held-out parts, and on bodies of other '
        'sources with composed hands and faces, by the parts alone (`base`) and with this '
        'correction. `noise` 0: x_t = alpha x_0, as the live fit calls it. `rms` in standard '
        'deviations over the whole vector, `mm` of the body joints, pelvis fixed.'
    )
    return _card(
        f'Whole-body prior DPoser-X-{correction.model}', correction, correction.config, size,
        storage, data, figures, rows, (_range(run), *_LIMITS['correction']),
    )  # fmt: skip


def student_card(
    checkpoint: PriorCheckpoint,
    size: int,
    storage: Mapping[str, Any],
    figures: Mapping[str, Sequence[Mapping[str, Any]]],
) -> str:
    """The card of a student; `figures` of training.distill: `one_step` and `cost`."""
    notes = checkpoint.notes
    teacher = notes['teacher']
    hashes = ', '.join(f'{name} `{value[:12]}`' for name, value in teacher['sha256'].items())
    data = [
        f"Taught by `{teacher['name']}` ({hashes}) on rows of that prior's own sources; see its "
        'card for these. Data and licences are those of the teacher.',
        f't up to {notes["run"]["max_t"]}; {notes["run"]["full_noise_share"]:.0%} of the rows '
        'carry the whole noise of their t, the others a uniform share of it.',
    ]
    text = (
        'One denoising step of teacher and student on the same held-out rows. `noise` 0: '
        'x_t = alpha x_0, as the live fit calls it.'
    )
    cost = f'\nOne call on one core in ONNX Runtime:\n\n{table(figures["cost"])}\n'
    title = _TITLES['wholebody'] if checkpoint.part == 'wholebody' else (
        f'Student of the {checkpoint.part} prior'
    )  # fmt: skip
    body = _card(
        title, checkpoint, checkpoint.config, size, storage, data, text, figures['one_step'],
        _LIMITS['student'],
    )  # fmt: skip
    return body.replace('\n## Limits', f'{cost}\n## Limits')


def base_card(model: str, files: Mapping[str, str], hashes: Mapping[str, str]) -> str:
    """The card of a composition of part networks without a correction."""
    rows = [
        {'part': name, 'file': files[name], 'sha256': f'`{hashes[name][:16]}`'} for name in files
    ]
    text = (
        'The part networks side by side (DPoser-X-base), the hand network used for both hands. '
        'The parts do not inform each other: a hidden hand is completed from what hands do, not '
        'from what the arm or the other hand does. Data, licences, figures and limits are those '
        'of the parts, see their cards.'
    )
    return (
        f'# Whole-body prior {model}: body 63, left hand 45 (mirrored), right hand 45, jaw 3, '
        f'expression 10\n\n{_fill(text)}\n\n{table(rows)}\n'
    )


def _card(
    title: str,
    source: PriorCheckpoint | Correction,
    config: TimeFCConfig,
    size: int,
    storage: Mapping[str, Any],
    data: Sequence[str],
    figures: str,
    rows: Sequence[Mapping[str, Any]],
    limits: Sequence[str],
) -> str:
    run, notes = source.notes['run'], source.notes
    last = 'Gaussian skip' if config.gaussian_skip else (
        'output divided by sigma' if config.scale_by_sigma else 'plain output'
    )  # fmt: skip
    start = f', started from `{run["initial"]}`' if run.get('initial') else ''
    facts = [
        {'': 'network', ' ': f'TimeFC, {config.dim} to {config.output} values, hidden '
         f'{config.hidden}, embedding {config.embed}, {config.blocks} blocks; {last}'},
        {'': 'file', ' ': f'{size / 1024:.0f} KiB, {storage["bits"]}-bit weights, sha256 of the '
         f'tensors `{source.sha256[:16]}`'},
        {'': 'rounding', ' ': f'16 bits change x_0 by at most {storage["largest_rms"]:.1e} '
         'standard deviations (root mean square of a row set, worst t)'},
        {'': 'run', ' ': f'seed {run["seed"]}, {notes["steps"]} of {run["steps"]} steps of '
         f'{run["batch"]} rows, learning rate {run["learning_rate"]}{start}'},
        {'': 'time', ' ': f'{notes["seconds"] / 60:.0f} minutes of wall clock'},
        {'': 'code', ' ': f'commit `{source.source_commit}`'},
    ]  # fmt: skip
    paragraphs = '\n\n'.join(p if p.startswith('|') else _fill(p) for p in data if p)
    points = '\n'.join(
        textwrap.fill(p, _WIDTH, initial_indent='- ', subsequent_indent='  ') for p in limits
    )
    return f"""# {title}

Noise predictor (sub-VP diffusion), trained from scratch by this project.
{_fill(source.licence)}

{table(facts)}

## Data

{paragraphs}

## Figures

{_fill(figures)}

{table(rows)}

## Limits

{points}
"""


def _sources(names: Sequence[str], counts: Mapping[str, str]) -> str:
    """Table of sources with their licences, the synthetic share, and what they ask for."""
    rows = [
        {
            'source': SOURCES[name].title,
            'licence': SOURCES[name].licence,
            'synthetic': 'yes' if SOURCES[name].is_synthetic else 'no',
            'amount': counts.get(name, ''),
        }
        for name in names
    ]
    asked = dict.fromkeys(SOURCES[n].acknowledgement for n in names if SOURCES[n].acknowledgement)
    thanks = '\n\n'.join(_fill(text) for text in asked)
    first = SOURCES[names[0]].is_synthetic
    share = 'all rows are' if first else 'no row is'
    return f'{table(rows)}\n\nSynthetic share: {share} synthetic.' + (
        f'\n\n{thanks}' if thanks else ''
    )


def _range(run: Mapping[str, Any]) -> str:
    share = run['low_t_share'] + (1.0 - run['low_t_share']) * run['low_t']
    return (
        f'{share:.0%} of the training samples have t below {run["low_t"]}, where the fits work; '
        'samples drawn from pure noise (t = 1) may be impossible poses.'
    )


def _remark(notes: Mapping[str, Any]) -> str:
    return str(notes.get('remark', ''))


def _fill(text: str) -> str:
    return textwrap.fill(text, _WIDTH)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of `rows`; numbers with four digits."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(key, '')) for key in columns] for row in rows]
    lines = [columns, ['---'] * len(columns), *cells]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _cell(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)
