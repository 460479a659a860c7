"""The result of a table: our rows beside the paper's, and the files they are written to."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dposer_core.errors import ConfigError
from dposer_core.files import write_json, write_text

OURS, PAPER = 'ours', 'paper'
DIFFERENCE = 'difference'
MOST_COLUMNS = 10


@dataclass(frozen=True)
class Column:
    """One measured quantity."""

    name: str
    better: Literal['higher', 'lower', ''] = ''
    unit: str = ''
    decimals: int = 2

    @property
    def head(self) -> str:
        """Name, unit and direction, as in a table's head."""
        arrow = {'higher': ' ↑', 'lower': ' ↓', '': ''}[self.better]
        return f'{self.name}{f" ({self.unit})" if self.unit else ""}{arrow}'

    def show(self, value: float | None, sign: bool = False) -> str:
        """A value of this column as text; empty when there is none."""
        if value is None or math.isnan(value):
            return ''
        # An error of a thousandth must not read as nothing.
        decimals = self.decimals if abs(value) >= 0.5 * 10**-self.decimals else 4
        return f'{value:{"+" if sign else ""}.{decimals}f}'


@dataclass(frozen=True)
class Row:
    """Values of one method, by column name; a column without a value is absent."""

    label: str
    values: dict[str, float] = field(default_factory=dict)
    source: Literal['ours', 'paper'] = 'ours'
    note: str = ''
    """What is particular about the row; of a row without values, why it was not run."""
    compare: str = ''
    """Label of the paper's row that this one stands beside; empty: the row of the same label."""


@dataclass(frozen=True)
class TableResult:
    """A table of the paper as it came out here."""

    table: str
    """Number in the paper, such as 'S-8'."""
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    seed: int
    data: str
    """What was measured on, in words; the first thing a reader must know."""
    device: str
    commit: str
    seconds: float
    checkpoint_sha256: dict[str, str] = field(default_factory=dict)
    """Hash of every network that was used, by name."""
    missing: tuple[str, ...] = ()
    """Labels of rows that are still to be run; a result with some is not complete."""
    is_quick: bool = False
    settings: tuple[str, ...] = ()
    """Sentences about counts, budgets and how to read the numbers."""
    unit: str = ''
    """Of all columns that name none of their own."""

    @property
    def is_complete(self) -> bool:
        """Whether every row was run or says why it cannot be."""
        return not self.missing

    @property
    def stem(self) -> str:
        """File name without suffix; a quick or partial result never takes a full one's place."""
        suffix = '.partial' if self.missing else '.quick' if self.is_quick else ''
        return f'table_{self.table}{suffix}'

    def paper_row(self, row: Row) -> Row | None:
        """The paper's row that `row` is compared with."""
        wanted = row.compare or row.label
        return next((r for r in self.rows if r.source == PAPER and r.label == wanted), None)

    def difference(self, row: Row) -> dict[str, float]:
        """Ours minus the paper's, for the columns that both have."""
        paper = self.paper_row(row)
        if row.source == PAPER or paper is None:
            return {}
        return {
            name: value - paper.values[name]
            for name, value in row.values.items()
            if name in paper.values
        }


def to_dict(result: TableResult) -> dict:
    """What the JSON file holds; every row of ours also has its difference from the paper."""
    content = dataclasses.asdict(result)
    content['complete'] = result.is_complete
    for row, as_dict in zip(result.rows, content['rows'], strict=True):
        as_dict['difference'] = result.difference(row)
    return content


def from_dict(content: dict) -> TableResult:
    """The inverse of `to_dict`."""
    values = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in content.items()
        if key != 'complete'
    }
    values['columns'] = tuple(Column(**column) for column in content['columns'])
    values['rows'] = tuple(
        Row(**{key: value for key, value in row.items() if key != 'difference'})
        for row in content['rows']
    )
    return TableResult(**values)


def to_markdown(result: TableResult) -> str:
    """The table with the paper's row and the difference under each of ours."""
    kind = '' if result.is_complete else f'INCOMPLETE, to be run: {", ".join(result.missing)}. '
    kind += 'Quick run: fewer samples than the default. ' if result.is_quick else ''
    lines = [f'# Table {result.table}: {result.title}', '']
    if kind:
        lines += [f'**{kind.strip()}**', '']
    lines += [f'Data: {result.data}', '']
    if result.unit:
        lines += [f'Unit: {result.unit}', '']
    lines += [f'- {sentence}' for sentence in result.settings]
    heads, rows = grid_of(result)
    lines += ['', _row(heads), _row(['---'] * len(heads)), *map(_row, rows)]
    lines += [
        '',
        f'Seed {result.seed}; {result.device}; commit `{result.commit}`; '
        f'{result.seconds:.0f} s of computing.',
    ]
    lines += [
        f'`{name}` sha256 `{sha256[:16]}`'
        for name, sha256 in sorted(result.checkpoint_sha256.items())
    ]
    return '\n'.join(lines) + '\n'


def grid_of(result: TableResult) -> tuple[list[str], list[list[str]]]:
    """Heads, and lines of as many cells.

    More figures than fit side by side stand below one another, a column for each method, without
    the differences from the paper.
    """
    heads = ['', '', *(column.head for column in result.columns), 'note']
    lines = cells_of(result)
    if len(result.columns) <= MOST_COLUMNS:
        return heads, lines
    methods = [line for line in lines if line[1] != DIFFERENCE]
    names: list[str] = []
    for label, whose, *_ in methods:
        of = label or names[-1]  # the paper's line stands under ours without its label
        names.append(of if whose == OURS else f'{of} ({PAPER})')
    turned = [[heads[i], *(line[i] for line in methods)] for i in range(2, len(heads))]
    return ['', *names], [line for line in turned if any(line[1:])]


def cells_of(result: TableResult) -> list[list[str]]:
    """Lines of text cells: label, whose, one per column, note; paper rows under ours."""
    lines: list[list[str]] = []
    shown: set[str] = set()
    for row in result.rows:
        if row.source == PAPER:
            continue
        lines.append(_cells(result.columns, row.label, OURS, row.values, row.note))
        paper = result.paper_row(row)
        if paper is None:
            continue
        difference = result.difference(row)
        # Several of our rows may stand beside one of the paper's: it is shown with each.
        lines.append(_cells(result.columns, '', PAPER, paper.values, paper.note))
        shown.add(paper.label)
        if difference:
            lines.append(_cells(result.columns, '', DIFFERENCE, difference, '', sign=True))
    lines += [
        _cells(result.columns, row.label, PAPER, row.values, row.note)
        for row in result.rows
        if row.source == PAPER and row.label not in shown
    ]
    return lines


def write(result: TableResult, folder: Path) -> tuple[Path, Path]:
    """Write `<stem>.md` and `<stem>.json` into `folder`, each as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    markdown, content = folder / f'{result.stem}.md', folder / f'{result.stem}.json'
    write_json(content, to_dict(result), indent=1)
    write_text(markdown, to_markdown(result))
    return markdown, content


def read(path: Path) -> TableResult:
    """A result that `write` wrote; raises ConfigError if it is none."""
    try:
        return from_dict(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{path} holds no table result ({error}); delete it') from error


def _cells(
    columns: tuple[Column, ...],
    label: str,
    whose: str,
    values: dict[str, float],
    note: str,
    sign: bool = False,
) -> list[str]:
    shown = [column.show(values.get(column.name), sign) for column in columns]
    return [label, whose, *shown, note]


def _row(cells: list[str]) -> str:
    return '| ' + ' | '.join(cell.replace('|', '/') for cell in cells) + ' |'
