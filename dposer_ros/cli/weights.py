"""`dposer weights`: which priors are here, are they sound, and how to get the official ones."""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from dposer_core.errors import CheckpointError, DPoserError
from dposer_core.files import write_json
from dposer_core.prior import compose, official
from dposer_core.prior.checkpoint import (
    WEIGHTS_DIR,
    load_checkpoint,
    read_header,
    read_tensors,
    tensor_hash,
    user_weights_dir,
)
from dposer_ros.report_file import make_folder

app = typer.Typer()

_OPEN_BODY_EXPRESSIONS = 10
_CORRECTION = 'dposer-correction-1'


@dataclass(frozen=True)
class Entry:
    """One file of weights, or a composition of some."""

    name: str
    part: str
    size_kib: int
    sha256: str
    data: str
    licence: str
    card: str  # path; empty: none
    file: str


@app.command('list')
def list_weights(
    json_file: Path = typer.Option(None, '--json', help='Write the rows to this file, too.'),
) -> None:
    """Show every shipped and imported checkpoint; `--json` holds all that is cut off here."""
    entries = [entry(file) for file in weight_files()]
    table = Table(box=None, pad_edge=False, expand=True)
    for column, width in (('name', 20), ('part', 18), ('KiB', 4), ('sha256', 12)):
        table.add_column(column, no_wrap=True, min_width=width)
    table.add_column('licence', no_wrap=True, ratio=1)
    for row in entries:
        licence = row.licence.removeprefix('Weights: ')
        cells = (row.name, row.part, str(row.size_kib), row.sha256[:12], licence)
        table.add_row(*map(escape, cells))
    Console().print(table)
    typer.echo(
        f'shipped: {WEIGHTS_DIR}; imported: {user_weights_dir()}\n'
        'The model card of each lies beside it: NAME.md.'
    )
    if json_file is not None:
        write_json(json_file, [asdict(row) for row in entries])


@app.command()
def verify(
    names: list[str] = typer.Argument(None, help='Names or files; default: everything.'),
) -> None:
    """Check hashes, load every prior and compare its fast form with the reference formula."""
    from dposer_core.prior.runtime import prior_path

    files = [prior_path(name) for name in names] if names else weight_files()
    broken = []
    for file in files:
        try:
            typer.echo(f'ok    {file.name}: {_verified(file)}')
        except DPoserError as error:
            typer.echo(f'FAIL  {file.name}')
            broken.append(str(error))
    if broken:
        raise CheckpointError('\n       '.join(broken))


@app.command('import')
def import_weights(
    checkpoint: Path = typer.Argument(..., help='Official .ckpt or .pth.'),
    normalizers: Path = typer.Option(
        ..., help="The official 'data' folder, or the folder of this part's axis_normalize2.pt."
    ),
    name: str = typer.Option('', help='Name of the result; default: that of the file.'),
    part: str = typer.Option('', help='body, hand, face or face_shape; default: by size.'),
    num_expression: int = typer.Option(
        _OPEN_BODY_EXPRESSIONS,
        min=1,
        help='Expression coefficients of your body model; default: the open body.',
    ),
    out: Path = typer.Option(None, help='Folder; default: where `list` looks.'),
) -> None:
    """Turn an official DPoser-X checkpoint into this project's format."""
    folder = out or user_weights_dir()
    done = official.import_official(
        checkpoint,
        normalizers,
        folder,
        name or f'official_{checkpoint.stem}',
        num_expression,
        part,
    )
    for warning in done.warnings:
        typer.secho(f'warning: {warning}', fg='yellow', err=True)
    for file in done.files:
        typer.echo(f'wrote {file}')
    typer.echo(f'use it: prior.checkpoint = {done.files[0]}; look at it: dposer weights list')


@app.command()
def export(
    name: str = typer.Argument(..., help='Prior: a name or a file.'),
    out: Path = typer.Option(..., help='Folder for trunk.onnx, tables.safetensors, prior.json.'),
) -> None:
    """Write a prior as ONNX with its time table, for other runtimes and languages."""
    from dposer_core.prior.artefact import export_artefact, load_artefact
    from dposer_core.prior.runtime import read_networks

    make_folder(out)
    files = export_artefact(read_networks(name), out)
    _, _, error = load_artefact(files[0])
    for file in files:
        typer.echo(f'wrote {file}')
    typer.echo(f'differs by {error:.1e} from {name}; use it: prior.checkpoint = {files[0]}')


@app.command()
def fetch(
    name: str = typer.Argument(..., help=f'One of {", ".join(official.HUB_FILES)}.'),
    out: Path = typer.Option(None, help='Folder; default: beside the imported weights.'),
    hub: str = typer.Option(official.HUB, help='Address of the files, or of a mirror.'),
) -> None:
    """Download an official checkpoint (research licence); then import it."""
    if name not in official.HUB_FILES:
        raise CheckpointError(
            f"the hub has no '{name}'; choose one of {', '.join(official.HUB_FILES)}"
        )
    file = (out or user_weights_dir() / 'official') / f'{name}.ckpt'
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)

        def show(have: int, whole: int) -> None:
            progress.update(task, completed=have, total=whole or None)

        sha256 = official.fetch(f'{hub.rstrip("/")}/{official.HUB_FILES[name]}', file, show)
    typer.echo(f'wrote {file}, sha256 {sha256}')
    typer.echo(
        f'next: dposer weights import {file} --normalizers DATA, the `data` folder of the '
        'official repository'
    )


def weight_files() -> list[Path]:
    """Compositions and networks, shipped ones first."""
    folders = (WEIGHTS_DIR, WEIGHTS_DIR / 'baselines', user_weights_dir())
    return [
        file
        for folder in folders
        for kind in ('json', 'safetensors')
        for file in sorted(folder.glob(f'*.{kind}'))
    ]


def entry(file: Path) -> Entry:
    """What the file says of itself; a broken one says what is wrong in place of its data."""
    card = file.with_suffix('.md')
    shared = {
        'name': file.stem,
        'size_kib': round(file.stat().st_size / 1024),
        'card': str(card) if card.is_file() else '',
        'file': str(file),
    }
    try:
        if file.suffix == '.json':
            composition = compose.load_composition(file)
            names = ', '.join(path.name for path, _ in composition.files.values())
            part = f'wholebody ({composition.model})'
            return Entry(part=part, sha256='', data=names, licence='of its files', **shared)
        header = read_header(file)
        part = header.get('part', '')
        if header['format'] == _CORRECTION:
            part = f'correction ({header["model"]})'
        return Entry(
            part=part,
            sha256=header.get('sha256', ''),
            data=_data(header),
            licence=header.get('licence', ''),
            **shared,
        )
    except DPoserError as error:
        return Entry(part='?', sha256='', data=f'not readable: {error}', licence='', **shared)


def _data(header: dict) -> str:
    """Sources of the training data, as the file's notes name them."""
    notes = header.get('notes', {})
    with contextlib.suppress(KeyError, TypeError):
        return f'teacher {notes["teacher"]["name"]}'
    sources = notes.get('run', {}).get('sources') if header.get('part') == 'body' else None
    return ', '.join(sources) if sources else str(notes.get('data', ''))


def _verified(file: Path) -> str:
    """How the file was found to be sound."""
    from dposer_core.prior.runtime import load_prior

    header = {} if file.suffix == '.json' else read_header(file)
    kind = header.get('format', '')
    if kind == _CORRECTION:
        return f'sha256 {compose.load_correction(file).sha256[:12]}'
    if kind.startswith('dposer-baseline'):
        return f'sha256 {_checked_hash(file, header)[:12]}'
    if kind and load_checkpoint(file).part == 'face_shape':
        return f'sha256 {load_checkpoint(file).sha256[:12]}'
    prior = load_prior(file)
    hashes = ', '.join(f'{part} {value[:12]}' for part, value in prior.hashes.items())
    return f'sha256 {hashes}; {prior.backend} differs by {prior.self_check_error:.1e}'


def _checked_hash(file: Path, header: dict) -> str:
    return tensor_hash(read_tensors(file, header['format'], ())[1])
