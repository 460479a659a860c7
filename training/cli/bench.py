"""`dposer bench`: reproduce a table of the paper on free data, beside the paper's numbers."""

import shutil
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dposer_core.errors import ConfigError
from dposer_core.files import whole, write_text
from training.benchmarks import all_tables, figures, report, tables
from training.benchmarks import summary as lines
from training.benchmarks.predictions import TABLES, read_predictions
from training.benchmarks.report import TableResult

_DATA_HELP = "'free', or a packed file in the form of `dposer data pack`."
app = typer.Typer()


@app.command(name='list')
def list_() -> None:
    """Which tables can be run, what each needs and whether it is there."""
    shown = Table('table', 'what it measures', 'needs', show_lines=True)
    for entry in tables.all_tables().values():
        needs = []
        for need in entry.needs:
            there = need.is_there()
            kind = '' if there else ' (rows left out)' if need.is_optional else ' (MISSING)'
            needs.append(
                f'{"+" if there else "-"} {need.what}{kind}{"" if there else f": {need.how}"}'
            )
        shown.add_row(entry.id, entry.title, '\n'.join(needs))
    _console().print(shown)


@app.command(name='table')
def table(
    id: str = typer.Argument(help='Number of the table in the paper, such as 1 or S-8.'),
    data: str = typer.Option(tables.FREE, help=_DATA_HELP),
    quick: bool = typer.Option(False, '--quick', help='Fewer samples; minutes instead of more.'),
    json: Path | None = typer.Option(None, help='Write the result as JSON here as well.'),
    seed: int = typer.Option(42, help='Of everything that is drawn.'),
    out: Path = typer.Option(tables.RESULTS, help='Folder for the .md and .json.'),
    checkpoint: Path | None = typer.Option(
        None, help='Measure this prior (.safetensors) instead of the shipped one.'
    ),
    predictions: Path | None = typer.Option(
        None,
        help='Published answers for the images, not the stand-in: of CLIFF (table 2), Hand4Whole '
        '(S-9) or SMPLer-X (8, S-14).',
    ),
) -> None:
    """Run table ID, or what is left of it, and write it beside the paper's numbers."""
    _check_data(data)
    entry = tables.get_table(id)
    if predictions is not None and entry.id not in TABLES:
        raise ConfigError(
            f'--predictions: table {entry.id} does not start from a file; {", ".join(TABLES)} do'
        )
    if predictions is not None and not predictions.exists():
        raise ConfigError(f'--predictions: {predictions} does not exist; give a file or a folder')
    if predictions is not None:
        read_predictions(predictions, TABLES[entry.id])  # what is wrong is told now
    console = _console(stderr=True)
    options = tables.Options(
        data=data,
        is_quick=quick,
        seed=seed,
        out=out,
        checkpoint=checkpoint,
        predictions=predictions,
        progress=lambda text: console.print(f'[dim]{text}[/dim]'),
    )
    result = tables.run_table(entry, options)
    show(result)
    files = [str(out / f'{result.stem}.{suffix}') for suffix in ('md', 'json')]
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        write_text(json, (out / f'{result.stem}.json').read_text())
        files.append(str(json))
    console.print(f'written: {", ".join(files)}')


@app.command(name='all')
def all_(
    data: str = typer.Option(tables.FREE, help=_DATA_HELP),
    quick: bool = typer.Option(False, '--quick', help='Fewer samples; minutes a table.'),
    only: str = typer.Option('', help="Numbers of the tables to run, such as '2,3,S-5'; all."),
    is_run: bool = typer.Option(True, '--run/--page-only', help='Or only show what is there.'),
    again: bool = typer.Option(False, help='Run tables anew whose complete result is there.'),
    workers: int = typer.Option(2, min=1, help='Tables run side by side, one core each.'),
    seed: int = typer.Option(42, help='Of everything that is drawn.'),
    out: Path = typer.Option(tables.RESULTS, help='Folder for the .md and .json of each table.'),
    page: Path | None = typer.Option(
        None, help='HTML page to write; by default out/tables.html or out/tables.quick.html.'
    ),
) -> None:
    """Run every table that can run here, or go on with it, and write one HTML page."""
    _check_data(data)
    chosen = {tables.get_table(id).id for id in only.split(',') if id.strip()} or None
    console = _console(stderr=True)
    options = tables.Options(
        data=data,
        is_quick=quick,
        seed=seed,
        out=out,
        progress=lambda text: console.print(f'[dim]{escape(text)}[/dim]'),
    )
    page = page or Path('out') / f'tables{".quick" if quick else ""}.html'
    entries = all_tables.run_all(
        list(tables.all_tables().values()), options, page, again, chosen if is_run else (),
        workers, figures.FIGURES,
    )  # fmt: skip
    shown = Table('table', 'state', 'why')
    for entry in entries:
        shown.add_row(entry.table, entry.status, escape(entry.reason))
    _console().print(shown)
    console.print(f'written: {page}')
    if any(entry.status == 'failed' for entry in entries):
        raise typer.Exit(1)


@app.command()
def predictions(
    kind: str = typer.Argument(help='cliff, smplerx, hand4whole, mica or emoca.'),
    path: Path = typer.Argument(help='Published file, or a folder of them.'),
    count: int = typer.Argument(min=1, help='Images that there are.'),
    out: Path | None = typer.Option(None, help='Write the variables of a fit here (.npz).'),
) -> None:
    """Check the answers of a network that fits start from, and write them as such a start."""
    found = read_predictions(path, kind, count)
    _console().print(', '.join(f'{name} {values.shape}' for name, values in found.items()))
    if out is not None:
        with whole(out) as partial, partial.open('wb') as file:
            np.savez_compressed(file, **found)
        _console(stderr=True).print(f'written: {out}')


@app.command()
def figure(
    id: str = typer.Argument(help='3, S-1 or S-5 of the paper, or cases-TABLE.'),
    data: str = typer.Option(tables.FREE, help=_DATA_HELP),
    seed: int = typer.Option(42, help='Of everything that is drawn.'),
    out: Path = typer.Option(Path('out') / 'figures', help='Folder for the PNG.'),
) -> None:
    """Draw a figure of the paper, or the best, median and worst case of a table."""
    _check_data(data)
    options = tables.Options(data=data, is_quick=True, seed=seed)
    path = figures.make(id, options, out, again=True)
    _console(stderr=True).print(f'written: {path}')


@app.command()
def summary(page: Path = typer.Argument(help='Markdown page to write.')) -> None:
    """Write the page that has one line for every table, from the quick results."""
    titles = {id: entry.title for id, entry in tables.all_tables().items()}
    write_text(page, lines.page(lines.read_results(tables.RESULTS), titles))
    _console(stderr=True).print(f'written: {page}')


def _check_data(data: str) -> None:
    if data != tables.FREE and not Path(data).is_file():
        raise ConfigError(
            f"--data {data}: no such file; give 'free' or a file of `dposer data pack`"
        )


def show(result: TableResult) -> None:
    """Print a result as a table on the terminal."""
    shown = Table(title=f'Table {result.table}: {result.title}', caption=f'Data: {result.data}')
    heads, lines = report.grid_of(result)
    for head in heads:
        shown.add_column(head)
    for cells in lines:
        shown.add_row(
            *cells, style='dim' if cells[1] in (report.PAPER, report.DIFFERENCE) else None
        )
    _console().print(shown)


def _console(stderr: bool = False) -> Console:
    width = max(shutil.get_terminal_size((140, 24)).columns, 120)
    return Console(stderr=stderr, width=width, highlight=False)
