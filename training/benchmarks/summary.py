"""docs/BENCHMARKS.md: one line for every table, read off the results of the quick runs.

    dposer bench summary docs/BENCHMARKS.md

Figures and who leads come from the JSON files; what a table is for, which row is ours in it and
why it does not lead are written here by hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.benchmarks import report
from training.benchmarks.report import OURS, Column, Row, TableResult

_MOST_NAMED = 4
_RESULTS = '../training/benchmarks/results'
_NO_RIVALS = ('real, ', 'live fitter', 'start', 'w/o fitting', 'stand-in')
"""Beginnings of labels that are no competing prior."""


@dataclass(frozen=True)
class Reading:
    """How a table is read."""

    ours: str
    """Label of the row that should lead."""
    headline: str
    """Column of the one figure that is shown."""
    cause: str = ''
    """Why it does not lead everywhere."""
    rivals: tuple[str, ...] = ()
    """Labels of the rows that it is compared with; empty: all but those of `_NO_RIVALS`."""
    columns: tuple[str, ...] = ()
    """Ends of the names of figures that count; empty: all that have a better side."""
    without: tuple[str, ...] = ()
    """Beginnings of further labels that are no rivals."""


_WEIGHT = (
    "at the paper's weight the prior is weak against keypoints of this body; four times of it is "
    'a row of its own'
)
_WIDE = (
    'the network was widened (noise of up to 0.1 rad in still joints, recombined limbs) for '
    'unseen poses, and draws what it was widened with'
)
READINGS: Mapping[str, tuple[Reading, ...]] = {
    '1': (Reading('DPoser', 'FID', _WIDE, without=('DPoser*',)),),
    '2': (Reading('DPoser', 'CMU scratch PA-MPJPE', _WEIGHT, without=('DPoser, ',)),),
    '3': (Reading('DPoser', 'CMU 40 mm', 'HuMoR knows how people move, the other priors only how '
                  'they stand; and it weighs points by their noise', without=('DPoser, ',)),),
    '4': (
        Reading(
            'DPoser-hand', 'examples sparse All',
            'generated hands: a mixture of Gaussians is near the generator that drew them; '
            'fingertips of recorded hands: the priors learned from synthetic ones only',
        ),
    ),
    '5': (
        Reading('DPoser-face', 'faces all mean', 'ten betas hardly move a head (the mean face is '
                '1 mm off), and for a standard normal the term of DPoser is that of L2',
                rivals=('w/o prior', 'L2', 'VPoser')),
        Reading('+ DPoser-face', 'faces all mean', 'as from scratch',
                rivals=('+ w/o prior', '+ L2', '+ VPoser')),
    ),
    '6': (
        Reading('DPoser-X-mixed', 'FID', 'mixed and fused are within 0.06 of one another in FID',
                without=('DPoser-X-base',)),
    ),
    '7': (Reading('DPoser-X', 'composed min', "VPoser-X's guesses are further apart, and three "
                  'times as far from the truth'),),
    '8': (Reading('DPoser-X', 'composed scratch PA-MPVPE all', _WEIGHT, without=('DPoser-X, ',)),),
    '9': (Reading('truncated', 'CMU motion MPJPE', 'differences between schedules are of the size '
                  'of the noise of the quick run'),),
    '10': (Reading('DPoser-X-mixed', 'composed min', 'the two trained ones differ by little'),),
    '11': (Reading('DPoser-X-mixed', 'HDM05 scratch PA-MPVPE all',
                   'the three differ by little: keypoints decide'),),
    'S-1': (Reading('1 steps', 'CMU motion MPJPE', 'more steps cost time and change little'),),
    'S-2': (Reading('DPoser', 'seconds per 100 images', 'a call of the network a step',
                    without=('w/o prior',)),),
    'S-3': (Reading('[0.2, 0.05]', 'CMU 40 mm', "the paper's interval for 40 mm; that for 100 mm "
                    'is [0.2, 0.1]'),),
    'S-4': (
        Reading(
            'DPoser', 'CMU of 10 PA-MPJPE',
            'GFPose was trained for this very camera and noise, DPoser for no camera at all; ten '
            'samples of it are ten poses, where ten fits from one start are nearly one. HuProSO3 '
            'is last: its samples have its density, which is broad after a short training',
        ),
    ),
    'S-5': (Reading('DPoser', 'CMU left_leg min', 'arms: CVPoser, trained for this task, knows '
                    'them better'),),
    'S-6': (Reading('DPoser', 'CMU 100 mm', without=('DPoser, ',)),),
    'S-7': (Reading('DPoser', 'CMU legs Occ', 'seen joints are exact without a prior; hidden legs '
                    'of motions unlike those trained on', without=('DPoser, ',)),),
    'S-8': (Reading('DPoser-hand', 'FID', 'precision is the price of recall; the row * has both',
                    without=('DPoser-hand*', 'Gaussian')),),
    'S-9': (Reading('DPoser-hand', 'examples scratch detected PA-MPJPE', 'VPoser, NRDF and no '
                    'prior share the rest; four times the weight leads in 12: cause not found',
                    without=('DPoser-hand, ',)),),
    'S-10': (Reading('DPoser-hand', 'examples 5 mm MPVPE', 'at 2 mm the points say it all'),),
    'S-11': (Reading('DPoser-face (expression)', 'FID', 'the Gaussian is the generator itself, '
                     'nearly', without=('DPoser-face (expression)*',)),),
    'S-12': (
        Reading('DPoser-face', 'faces side-view PA-MPVPE', 'from the front the picture decides: '
                'all within 0.1 mm', rivals=('w/o prior', 'L2', 'VPoser')),
        Reading('+ DPoser-face', 'faces side-view PA-MPVPE', 'six faces; VPoser, with three times '
                'the weight, holds the hidden side nearer to the stand-in',
                rivals=('+ w/o prior', '+ L2', '+ VPoser')),
    ),
    'S-13': (Reading('DPoser-face', 'generated 2 mm MPVPE', '71 points with little noise leave no '
                     'doubt about 23 numbers, and a prior only pulls; at 5 mm VPoser leads'),),
    'S-14': (Reading('DPoser-X', 'HDM05 scratch PA-MPVPE all', _WEIGHT, without=('DPoser-X, ',)),),
    'S-15': (Reading('z-score', 'MPJPE min', 'short trainings of the quick run'),),
    'S-16': (Reading('axis-angle', 'MPJPE min', 'short trainings: six numbers are learned '
                     'faster'),),
    'S-17': (Reading('2 blocks', 'MPJPE min', 'a wider network is better in short trainings'),),
    'S-18': (Reading('DPoser', 'CMU legs min', "DPoser's hypotheses share their start, and so "
                     "their mode; table 'modes' has the remedy. Four poses a set"),),
    'live': (
        Reading('live fitter, frame alone', 'mesh recovery PA-MPJPE', 'hidden legs: 10 % above; '
                'one Gauss-Newton fit ends in the nearest pose', rivals=('500-step fit',)),
        Reading('live fitter, stream', 'CMU 40 mm MPJPE', 'noise of 100 mm: the links between '
                'frames are made for detectors, and believe the points too much',
                rivals=('60-frame smoother, past only',)),
        Reading('live fitter, stream, lag of 4', 'CMU 40 mm MPJPE', 'noise of 100 mm, as above',
                rivals=('60-frame smoother',)),
    ),
    'modes': (Reading('annealed, 100 of 20 steps, chosen', 'CMU left_leg min', 'diversity is '
                      'not what it is for: hypotheses are chosen to be central'),),
    'one-step': (),
    'runtime': (),
    'whole-body': (),
}  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """Figures of a row that should not pass a bound."""

    text: str
    table: str
    row: str
    columns: tuple[str, ...]
    bound: float
    is_least: bool = False
    """Whether figures should be at least the bound; otherwise at most."""
    over: str = ''
    """Row whose figures are divided by those of `row`."""


_ABOVE = ', above the reference'
_NOISES = ('CMU 20 mm', 'examples 20 mm', 'CMU 40 mm', 'examples 40 mm', 'CMU 100 mm',
           'examples 100 mm')  # fmt: skip
_LATE = 'live fitter, stream, lag of 4'
GOALS: tuple[Goal, ...] = (
    Goal('Motion denoising, 40 mm: at least 18 % below the fit without prior', '3', 'DPoser',
         ('CMU 40 mm gain', 'examples 40 mm gain'), 18.0, is_least=True),
    Goal('Motion denoising, 100 mm: at least 36 % below', 'S-6', 'DPoser',
         ('CMU 100 mm gain', 'examples 100 mm gain'), 36.0, is_least=True),
    Goal('Live fitter on single frames: at most 5 % above 500 steps', 'live',
         'live fitter, frame alone',
         tuple(f'{task}{_ABOVE}' for task in (
             'IK MPJPE', 'mesh recovery PA-MPJPE', 'mesh recovery, height known MPJPE',
             'completion, legs MPJPE', 'completion, hand MPJPE')), 5.0),
    Goal('The same, when it is not told the noise', 'live',
         'live fitter, frame alone, noise not told',
         tuple(f'{task}{_ABOVE}' for task in (
             'IK MPJPE', 'mesh recovery PA-MPJPE', 'mesh recovery, height known MPJPE',
             'completion, legs MPJPE', 'completion, hand MPJPE')), 5.0),
    Goal('Live fitter on streams: at most 5 % above the smoother on the same past frames', 'live',
         'live fitter, stream', tuple(f'{noise} MPJPE{_ABOVE}' for noise in _NOISES), 5.0),
    Goal('With a lag of 4 frames: at most 15 % above the smoother on all 60', 'live', _LATE,
         tuple(f'{noise} MPJPE{_ABOVE}' for noise in _NOISES), 15.0),
    Goal('With that lag: error of acceleration at most twice, so 100 % above', 'live', _LATE,
         tuple(f'{noise} acceleration{_ABOVE}' for noise in _NOISES), 100.0),
    Goal('With that lag: at least 100 times as fast for a new frame', 'live', _LATE,
         ('ms per new frame',), 100.0, is_least=True, over='60-frame smoother'),
    Goal('The same for a clip done at once, which is what offline use asks', 'live', _LATE,
         ('ms per frame',), 100.0, is_least=True, over='60-frame smoother'),
)  # fmt: skip
OPTIONS: Mapping[str, str] = {
    'Intervals of diffusion times, motion (3, S-3, S-6)': '`tasks.motion.NOISY_PAPER`, '
    '`NOISY_CODE`: the code has [0.25, 0.05] at 40 mm and [0.25, 0.1] at 100 mm',
    'Interval, inverse kinematics with hidden joints (4)': "`inverse_kinematics.HAND_HIDDEN` has "
    "the code's 0.20; the text says 0.15",
    'Root of the face term (8, S-14)': '`tasks.mesh_recovery.WHOLE_BODY` (first point of the '
    'outline, code), `WHOLE_BODY_PAPER` (mouth, text)',
    'People seen from the side (2)': '`recover_body(is_official=True)`: one distance for the '
    'whole batch, and betas of the second try for all',
    'Schedules (9)': "`TimeSchedule`: the text's N - 1 or the code's N steps differ by one step",
    'Training (networks)': '`training/configs/paper`: `paper_text` and `released_code` of each',
    'Units': 'APD in cm, table S-7 in cm, as printed; table 5 is labelled mm and is probably in '
    'tenths of one',
}  # fmt: skip


def page(results: Mapping[str, TableResult], tables: Mapping[str, str]) -> str:
    """The page.

    Args:
        results: of the quick runs, by table.
        tables: title of every table that can be run.
    """
    lines = [
        '# Benchmarks: every table on free data',
        '',
        '<!-- Made by `dposer bench summary docs/BENCHMARKS.md` from the results in '
        'training/benchmarks/results; edit training/benchmarks/summary.py. -->',
        '',
        'Figures are those of `dposer bench table ID --quick`, on free data and the open body '
        'unless the table says otherwise; they are not on the data of the paper, whose figures '
        'stand beside ours in each result. "Leads" counts the figures in which our row is better '
        'than every competing prior (real poses, starts and the live fitter do not compete).',
        '',
        '| table | what is measured, on what | result | leads | where not, and why |',
        '| --- | --- | --- | --- | --- |',
    ]
    for id in sorted(tables, key=place):
        lines.append(_row(_cells(id, tables[id], results.get(id))))
    seconds = [result.seconds for result in results.values()]
    lines += [
        '',
        f'All quick runs together: {sum(seconds) / 60:.0f} minutes of computing on one core; '
        f'`dposer bench all --quick` runs two tables side by side, {_makespan(seconds):.0f} '
        'minutes if nothing else runs.',
        '',
        '## Goals',
        '',
        '| goal | measured | met |',
        '| --- | --- | --- |',
        *(_row(_goal(goal, results[goal.table])) for goal in GOALS if goal.table in results),
        '',
        '## Where the text and the released code of DPoser-X differ',
        '',
        '| what | here |',
        '| --- | --- |',
        *(_row([what, here]) for what, here in OPTIONS.items()),
        '',
        '## Figure S-5: a loss of the points of the body',
        '',
        '`dposer bench figure S-5` trains three small networks on the same draws. As in the paper '
        'the weighted loss helps a little, early, and the unweighted one harms.',
        '',
        '![Error of completed legs over the training](images/figure_s5.png)',
        '',
        '## Figures of others that are quoted, not run',
        '',
        "GAN-S's fits (2, S-2) and the rows of CLIFF, SMPLer-X, MICA, EMOCA and Hand4Whole are "
        'the figures that the paper prints, marked "paper". On free data a stand-in, the truth '
        'with a stated error, takes the place of these networks, and its row says so. HuMoR and '
        'MVAE (table 3), GFPose and HuProSO3 (table S-4) are small trainings of our own on free '
        "motion, beside the paper's figures of large ones.",
    ]
    return '\n'.join(lines) + '\n'


def read_results(folder: Path) -> dict[str, TableResult]:
    """The complete quick results by table."""
    found = (report.read(path) for path in sorted(folder.glob('table_*.quick.json')))
    return {result.table: result for result in found if result.is_complete}


def lead(result: TableResult, reading: Reading) -> tuple[list[Column], list[Column]]:
    """Figures in which the row of `reading` is best, and those in which another is better."""
    rows = {row.label: row for row in result.rows if row.source == OURS and row.values}
    ours = rows[reading.ours]
    rivals = _rivals(rows, reading)
    best, others = [], []
    for column in result.columns:
        known = [row.values[column.name] for row in rivals if column.name in row.values]
        counts = not reading.columns or column.name.endswith(reading.columns)
        if not (column.better and known and counts and column.name in ours.values):
            continue
        sign = 1 if column.better == 'higher' else -1
        is_best = sign * ours.values[column.name] >= max(sign * value for value in known)
        (best if is_best else others).append(column)
    return best, others


def _rivals(rows: Mapping[str, Row], reading: Reading) -> list[Row]:
    if reading.rivals:
        return [rows[label] for label in reading.rivals if label in rows]
    excluded = _NO_RIVALS + reading.without
    return [
        row
        for label, row in rows.items()
        if label != reading.ours and not label.startswith(excluded)
    ]


def _goal(goal: Goal, result: TableResult) -> list[str]:
    rows = {row.label: row.values for row in result.rows if row.source == OURS}
    measured, met = [], 0
    for name in goal.columns:
        value = rows[goal.row][name]
        if goal.over:
            value = rows[goal.over][name] / value
        met += value >= goal.bound if goal.is_least else value <= goal.bound
        measured.append(f'{name.removesuffix(_ABOVE)}: {value:.1f}')
    text = f'{goal.text} ([{goal.table}]({_RESULTS}/{result.stem}.md))'
    return [text, '; '.join(measured), f'{met} of {len(goal.columns)}']


def _cells(id: str, title: str, result: TableResult | None) -> list[str]:
    if result is None:
        return [id, title, 'not run', '', '']
    name = f'[{id}]({_RESULTS}/{result.stem}.md)'
    readings = READINGS[id]
    told = [_headline(result, reading) for reading in readings] or [_own(result)]
    counts, weak = [], []
    for reading in readings:
        best, others = lead(result, reading)
        counts.append(f'{len(best)} of {len(best) + len(others)}')
        if others:
            names = [column.name for column in others[:_MOST_NAMED]]
            more = len(others) - len(names)
            listed = ', '.join(names) + (f' and {more} more' if more > 0 else '')
            weak.append(listed + (f' ({reading.cause})' if reading.cause else ''))
    return [
        name, f'{title}; {result.data}', '<br>'.join(told), '<br>'.join(counts), '<br>'.join(weak)
    ]  # fmt: skip


def _headline(result: TableResult, reading: Reading) -> str:
    rows = {row.label: row for row in result.rows if row.source == OURS and row.values}
    column = next(c for c in result.columns if c.name == reading.headline)
    sign = 1 if column.better == 'higher' else -1
    known = [row for row in _rivals(rows, reading) if column.name in row.values]
    rival = max(known, key=lambda row: sign * row.values[column.name])
    unit = f' {column.unit}' if column.unit else ''
    ours, theirs = (
        f'{row.label} {column.show(row.values[column.name])}{unit}'
        for row in (rows[reading.ours], rival)
    )
    return f'{column.name}: {ours}; next {theirs}'


def _own(result: TableResult) -> str:
    """Of a table without competitors: the first figures of its rows."""
    column = result.columns[0]
    rows = [row for row in result.rows if row.source == OURS and column.name in row.values]
    unit = f' {column.unit}' if column.unit else ''
    shown = (f'{row.label} {column.show(row.values[column.name])}{unit}' for row in rows[:5])
    return f'{column.name}: {"; ".join(shown)}'


def _row(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(cell.replace('|', '/') for cell in cells) + ' |'


def _makespan(seconds: Sequence[float], workers: int = 2) -> float:
    """Minutes that tables take side by side, the longest first."""
    cores = [0.0] * workers
    for took in sorted(seconds, reverse=True):
        cores[cores.index(min(cores))] += took
    return max(cores) / 60


def place(id: str) -> tuple[int, int, str]:
    """Numbers first, those of the supplement after them, then names."""
    number = id.removeprefix('S-')
    if not number.isdigit():
        return 2, 0, id
    return int(id.startswith('S-')), int(number), id
