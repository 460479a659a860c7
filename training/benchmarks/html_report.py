"""One self-contained page of all tables: our figures beside the paper's, with bar plots.

A table that is not complete says so in red, above its figures and in the list at the top.
"""

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dposer_core.files import write_text
from training.benchmarks.report import PAPER, Column, Row, TableResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Status = Literal['complete', 'partial', 'failed', 'impossible', 'waiting']
_WORDS: dict[Status, str] = {
    'complete': 'complete',
    'partial': 'INCOMPLETE',
    'failed': 'FAILED',
    'impossible': 'cannot run here',
    'waiting': 'not run yet',
}
_OURS_COLOUR, _PAPER_COLOUR = '#2f6f9f', '#b9b9b9'
_PLOTS_ABREAST = 4
_PLOT, _BAR, _HEAD = 3.5, 0.19, 0.55  # inches: a plot's width, a bar's height, above the bars
_LONGEST_LABEL = 26


@dataclass(frozen=True)
class Picture:
    """A picture file (PNG) with words."""

    title: str
    caption: str
    path: Path


@dataclass(frozen=True)
class Entry:
    """What became of a table."""

    table: str
    title: str
    status: Status
    reason: str = ''
    """Why there is no complete result."""
    result: TableResult | None = None

    def __post_init__(self) -> None:
        is_whole = self.result is not None and self.result.is_complete
        assert (self.status == 'complete') == is_whole, 'only a whole result is complete'

    pictures: tuple[Picture, ...] = ()
    """Shown below the figures."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more will become of it in this run."""
        return self.status in ('complete', 'failed', 'impossible')

    @cached_property
    def section(self) -> str:
        """Its part of the page; made once, as plots take long and the page is often written."""
        return '' if self.result is None else _section(self, self.result)


def write(
    entries: Sequence[Entry], path: Path, title: str, figures: Sequence[Picture] = ()
) -> None:
    """Write the page, as a whole or not at all; `figures` of no table stand at its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page(entries, title, figures))


def page(entries: Sequence[Entry], title: str, figures: Sequence[Picture] = ()) -> str:
    """The page as text."""
    done = sum(entry.status == 'complete' for entry in entries)
    sections = ''.join(entry.section for entry in entries) + ''.join(map(_picture, figures))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<title>{_text(title)}</title><style>{_STYLE}</style></head><body>'
        f'<h1>{_text(title)}</h1><p>{done} of {len(entries)} tables are complete. In every cell '
        "our figure stands above the paper's (grey). The best of ours is bold. Where data or "
        "body are not the paper's, the figures stand in lines of their own.</p>"
        f'{_contents(entries)}{sections}</body></html>\n'
    )


def _contents(entries: Sequence[Entry]) -> str:
    lines = []
    for entry in entries:
        found = entry.result
        name = f'Table {_text(entry.table)}'
        if found is not None:
            name = f'<a href="#{_anchor(entry.table)}">{name}</a>'
        about = entry.reason or (found.data if found else '')
        lines.append(
            f'<tr><td>{name}</td><td>{_text(entry.title)}</td>'
            f'<td class="{entry.status}">{_WORDS[entry.status]}</td><td>{_text(about)}</td></tr>'
        )
    head = (
        '<tr><th>table</th><th>what it measures</th><th>state</th><th>data, or why not</th></tr>'
    )
    return f'<table class="contents">{head}{"".join(lines)}</table>'


def _section(entry: Entry, result: TableResult) -> str:
    warning = ''
    if entry.status != 'complete':
        left = ', '.join(result.missing)
        why = f'{_WORDS[entry.status]}. {entry.reason}' + (f' To be run: {left}.' if left else '')
        warning = f'<p class="warning">{_text(why)}</p>'
    if result.is_quick:
        warning += '<p class="quick">Quick run: fewer samples than the default.</p>'
    facts = ''.join(f'<li>{_text(sentence)}</li>' for sentence in result.settings)
    notes = ''.join(
        f'<li><b>{_text(row.label)}</b>: {_text(row.note)}</li>' for row in result.rows if row.note
    )
    hashes = ', '.join(
        f'{_text(name)} {sha256[:12]}' for name, sha256 in sorted(result.checkpoint_sha256.items())
    )
    return (
        f'<section id="{_anchor(entry.table)}"><h2>Table {_text(result.table)}: '
        f'{_text(result.title)}</h2>{warning}<p>Data: {_text(result.data)}'
        f'{f"<br>Unit: {_text(result.unit)}" if result.unit else ""}</p>'
        f'{_grid(result)}<ul>{facts}{notes}</ul>{_plots(result)}'
        f'{"".join(map(_picture, entry.pictures))}'
        f'<p class="small">Seed {result.seed}; {_text(result.device)}; commit '
        f'{_text(result.commit)}; {result.seconds:.0f} s of computing; {hashes}</p></section>'
    )


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    return (
        f'<h3>{_text(picture.title)}</h3><img alt="{_text(picture.title)}" '
        f'src="data:image/png;base64,{data}"><p>{_text(picture.caption)}</p>'
    )


def _grid(result: TableResult) -> str:
    """A line for each figure, a column for each method."""
    methods = _methods(result)
    heads = ''.join(f'<th>{_text(label)}</th>' for label, _, _ in methods)
    lines = []
    for column in result.columns:
        ours = [row.values.get(column.name) if row else None for _, row, _ in methods]
        paper = [row.values.get(column.name) if row else None for _, _, row in methods]
        if not any(map(_is_figure, (*ours, *paper))):
            continue
        best = _best(column, ours)
        cells = ''.join(
            f'<td>{_cell(column, mine, theirs, best)}</td>'
            for mine, theirs in zip(ours, paper, strict=True)
        )
        lines.append(f'<tr><th class="measure">{_text(column.head)}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table class="grid"><tr><th></th>{heads}</tr>{"".join(lines)}'
        '</table></div>'
    )


def _methods(result: TableResult) -> list[tuple[str, Row | None, Row | None]]:
    """Label, our row and the paper's row, ours first."""
    found: list[tuple[str, Row | None, Row | None]] = []
    shown: set[str] = set()
    for row in result.rows:
        if row.source != PAPER:
            paper = result.paper_row(row)
            found.append((row.label, row, paper))
            shown |= {paper.label} if paper else set()
    rest = (row for row in result.rows if row.source == PAPER and row.label not in shown)
    return found + [(row.label, None, row) for row in rest]


def _cell(column: Column, ours: float | None, paper: float | None, best: float | None) -> str:
    mine, theirs = column.show(ours), column.show(paper)
    if mine and ours == best:
        mine = f'<b>{mine}</b>'
    return mine + (f'<div class="paper">{theirs}</div>' if theirs else '')


def _best(column: Column, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if _is_figure(value)]
    if len(known) < 2 or not column.better:
        return None
    return max(known) if column.better == 'higher' else min(known)


def _is_figure(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _plots(result: TableResult) -> str:
    """A bar for each method in a small plot for each figure."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    methods = _methods(result)
    shown = [c for c in result.columns if _bars(methods, c)]
    if not shown:
        return ''
    abreast = min(_PLOTS_ABREAST, len(shown))
    lines = [shown[i : i + abreast] for i in range(0, len(shown), abreast)]
    heights = [_HEAD + _BAR * max(len(_bars(methods, c)) for c in line) for line in lines]
    width, height = _PLOT * abreast, sum(heights)
    figure = Figure(figsize=(width, height))
    top = height
    for line, below in zip(lines, heights, strict=True):
        for place, column in enumerate(line):
            bars = _bars(methods, column)
            # Placed by hand: the automatic layouts take a minute for the tables with 60 figures.
            box = (_PLOT * (place + 0.42), top - 0.3 - _BAR * len(bars), 0.5 * _PLOT)
            axis = figure.add_axes(
                (box[0] / width, box[1] / height, box[2] / width, _BAR * len(bars) / height)
            )
            _draw(axis, column, bars)
        top -= below
    stream = io.BytesIO()
    # As a picture of its own, so that names inside one plot do not meet those of another.
    with rc_context({'svg.fonttype': 'none', 'svg.hashsalt': result.table}):  # small, repeatable
        FigureCanvasSVG(figure).print_svg(stream, metadata={'Date': None})
    data = base64.b64encode(stream.getvalue()).decode()
    text = f"Bars of table {result.table}: ours in colour, the paper's grey."
    return f'<img alt="{_text(text)}" src="data:image/svg+xml;base64,{data}">'


def _draw(axis: 'Axes', column: Column, bars: Sequence[tuple[str, float, bool]]) -> None:
    axis.barh(
        range(len(bars)), [value for _, value, _ in bars],
        color=[_PAPER_COLOUR if is_paper else _OURS_COLOUR for _, _, is_paper in bars],
    )  # fmt: skip
    axis.set_yticks(range(len(bars)), [_short(label) for label, _, _ in bars], fontsize=7)
    axis.set_ylim(len(bars) - 0.5, -0.5)
    axis.set_title(column.head, fontsize=8, loc='left', pad=3)
    axis.set_xticks([])  # every bar has its figure
    axis.tick_params(length=0)
    axis.spines[['top', 'right', 'bottom']].set_visible(False)
    low, high = min(0.0, *(v for _, v, _ in bars)), max(0.0, *(v for _, v, _ in bars))
    axis.set_xlim(low, high + 0.25 * (high - low or 1.0))
    for index, (_, value, _) in enumerate(bars):
        axis.annotate(
            column.show(value), (max(value, 0.0), index), xytext=(2, 0), fontsize=6,
            textcoords='offset points', va='center',
        )  # fmt: skip


def _short(label: str) -> str:
    """A label that fits beside a bar; the table has it whole."""
    return label if len(label) <= _LONGEST_LABEL else f'{label[: _LONGEST_LABEL - 1]}…'


def _bars(
    methods: Sequence[tuple[str, Row | None, Row | None]], column: Column
) -> list[tuple[str, float, bool]]:
    """Label, value and whether it is the paper's, of one figure."""
    found = []
    for label, ours, paper in methods:
        for row, is_paper in ((ours, False), (paper, True)):
            value = row.values.get(column.name) if row else None
            name = f'{row.label} (paper)' if row and is_paper else label
            if _is_figure(value) and (name, value, is_paper) not in found:
                found.append((name, value, is_paper))
    return found


def _anchor(table: str) -> str:
    return 'table-' + re.sub(r'[^a-z0-9]+', '-', table.lower())


def _text(value: str) -> str:
    return html.escape(value)


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1180px;
  padding: 0 1em; color: #222; }
h2 { margin-top: 2.4em; border-top: 1px solid #ccc; padding-top: .8em; }
table { border-collapse: collapse; font-size: 13px; }
td, th { padding: .25em .6em; border-bottom: 1px solid #e4e4e4; text-align: right;
  vertical-align: top; }
.contents td, .contents th, th.measure { text-align: left; font-weight: normal; }
.contents th { font-weight: bold; }
.measure { white-space: nowrap; }
.wide { overflow-x: auto; }
.paper { color: #888; }
.small { color: #666; font-size: 12px; }
.complete { color: #1d6b34; }
.partial, .failed { color: #b00020; font-weight: bold; }
.impossible, .waiting { color: #7a5a00; }
.warning { background: #fde7ea; color: #b00020; font-weight: bold; padding: .5em .8em; }
.quick { background: #fff6dd; padding: .3em .8em; }
img { max-width: 100%; }
"""
