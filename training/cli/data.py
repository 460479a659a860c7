"""`dposer data`: prepare published sets, pack what is trained on, and look at it."""

import dataclasses
import errno
import json as jsonlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dposer_core.errors import ConfigError, MediaError
from dposer_core.files import whole, write_text
from training import pack as packing
from training.data.archives import DEFAULT_ROOT, SOURCES, read_clips
from training.data.mano import load_mano
from training.data.motion import SourceMotion
from training.data.prepare import Output, PreparedMeta, write_arrays
from training.data.prepare import prepare as prepare_set
from training.data.prepared import add_prepared
from training.data.registry import DATASETS, DataSetError, get_dataset, shortened
from training.data.subsample import SEED
from training.pose_stats import PARTS, column_stats, load_part
from training.settings import read_settings

app = typer.Typer()
CONFIG = Path(__file__).parents[1] / 'configs' / 'data.yaml'


@app.command(name='list')
def list_() -> None:
    """Every data set of the paper: its name here, licence and where it is given out."""
    shown = Table('name', 'data set', 'parts', 'frames kept', 'licence', 'where', show_lines=True)
    for entry in DATASETS.values():
        kept = 'images' if entry.is_images else entry.subsample.describe()
        parts = _parts_of(entry.mask)
        shown.add_row(entry.name, entry.title, parts, kept, entry.licence, entry.where)
    _console().print(shown)


@app.command()
def prepare(
    name: str = typer.Argument(help='Name of the set; `dposer data list` shows them.'),
    root: Path = typer.Option(..., help='Folder of the published files.'),
    out: Path = typer.Option(..., help='The .npz to write.'),
    mano: Path = typer.Option(None, help='Folder of MANO_LEFT.pkl and MANO_RIGHT.pkl.'),
    official_hands: bool = typer.Option(
        False, help='Leave hands relative to the mean hand, as the released code does.'
    ),
    seed: int = typer.Option(SEED, help='Of the choice of frames.'),
) -> None:
    """Turn one published data set into a .npz of one uniform form.

    Example: dposer data prepare amass --root ~/amass_smplx --out data/amass.npz
    """
    dataset = get_dataset(name)
    hands = load_mano(mano) if mano else None
    with _disk(out):
        meta = prepare_set(
            dataset, root, out, hands, official_hands, seed,
            lambda items: _progress(items, dataset.title),
        )  # fmt: skip
    _show_prepared(meta, out)


@app.command()
def pack(
    out: Path = typer.Option(packing.PACKED, help='The .npz to write.'),
    root: Path = typer.Option(DEFAULT_ROOT, help='Folder of the unpacked free archives.'),
    config: Path = typer.Option(CONFIG, help='YAML file of what is kept.'),
    add: list[Path] = typer.Option([], help='A file of `dposer data prepare`; may be repeated.'),
    only_prepared: bool = typer.Option(False, help='Leave the free archives out.'),
    official_hands: bool = typer.Option(
        False, help='Mix hands of two conventions, as the released code does.'
    ),
) -> None:
    """Pack everything that the priors are trained on into one file.

    Example: dposer data pack --only-prepared --add data/amass.npz --out data/packed_amass.npz
    """
    settings = read_settings(config, packing.PackConfig)
    if only_prepared and not add:
        raise ConfigError('--only-prepared packs nothing without --add')
    with _disk(out), Output(out) as partial:
        arrays: dict[str, np.ndarray] = {}
        report: dict[str, Any] = {}
        if not only_prepared:
            report = packing.pack(root, out, settings)
        if add:
            if not only_prepared:
                with np.load(out) as file:
                    arrays = dict(file)
            arrays = add_prepared(arrays, add, official_hands)
            report['arrays'] = {key: list(value.shape) for key, value in arrays.items()}
            arrays['report'] = np.array(jsonlib.dumps(report))
            write_arrays(partial, out, arrays)
    typer.echo(jsonlib.dumps(report, indent=2))
    typer.echo(f'wrote {out}')


@app.command()
def stats(
    file: Path = typer.Argument(packing.PACKED, help='A packed or prepared file.'),
    part: str = typer.Option('body', help=f'One of {", ".join(PARTS)}.'),
    json: Path = typer.Option(None, help='Write the numbers here as JSON as well.'),
) -> None:
    """Rows of each source, and mean, spread and limits of every joint.

    Limits are the 0.1 and 99.9 % quantiles; joints in degrees, coefficients as they are.
    """
    found = load_part(file, part)
    columns = column_stats(found.rows, part)
    counts = Table('source', 'rows', title=f'{part} in {file}')
    for source, count in found.counts.items():
        counts.add_row(source, f'{count:,}')
    counts.add_row('all', f'{len(found.rows):,}', style='bold')
    shown = Table('joint and axis', 'mean', 'std', 'lowest', 'highest')
    for column in columns:
        is_angle = column.name[-2:] in (' x', ' y', ' z')
        numbers = np.array([column.mean, column.std, column.low, column.high])
        numbers = np.degrees(numbers) if is_angle else numbers
        form = '{:.1f}' if is_angle else '{:.3f}'
        shown.add_row(column.name, *(form.format(number) for number in numbers))
    _console().print(counts, shown)
    if json:
        values = {'counts': found.counts, 'columns': [dataclasses.asdict(c) for c in columns]}
        write_text(json, jsonlib.dumps(values, indent=2))


@app.command()
def inspect(
    file: Path = typer.Argument(packing.PACKED, help='A packed or prepared file.'),
    out: Path = typer.Option(..., '-o', '--out', help='The .png, or with --clip .mp4, to write.'),
    part: str = typer.Option('body', help='body, hand, face or wholebody.'),
    count: int = typer.Option(24, min=1, max=400, help='Number of samples or moments.'),
    seed: int = typer.Option(0, help='Of the choice of samples.'),
    clip: str = typer.Option('', help='Show this clip of the free archives, retargeted.'),
    source: str = typer.Option('', help=f'Archive of the clip: {", ".join(SOURCES)}.'),
    root: Path = typer.Option(DEFAULT_ROOT, help='Folder of the unpacked free archives.'),
    model: str = typer.Option('', help='SMPL-X .npz file; default: the open body.'),
) -> None:
    """A picture of random samples, or of a clip from the front and the side.

    Examples: dposer data inspect -o bodies.png; dposer data inspect --clip 02_01 -o walk.mp4
    """
    from dposer_core.body_model import load_body

    endings = ('.png', '.mp4') if clip else ('.png',)
    if out.suffix not in endings:
        raise MediaError(f"{out}: the ending '{out.suffix}' is not known; use {endings}")
    body = load_body(model)
    if clip:
        _inspect_clip(body, _find_clip(clip, source, root), out, count)
    else:
        rows = load_part(file, part).rows
        chosen = np.random.default_rng(seed).choice(len(rows), min(count, len(rows)), False)
        _write_picture(out, _sheet(body, part, rows[np.sort(chosen)], str(file)))
    typer.echo(f'wrote {out}')


def _sheet(body: Any, part: str, rows: np.ndarray, where: str) -> np.ndarray:
    from training.inspect_poses import body_sheet, wholebody_sheet
    from training.pictures import face_sheet, hand_sheet

    if part == 'body':
        return body_sheet(body, rows)
    if part == 'hand':
        return hand_sheet(body, rows, columns=min(10, len(rows)))
    if part == 'wholebody':
        return wholebody_sheet(body, rows)
    num_expression = body.tables.num_expression
    if part == 'face' and rows.shape[1] == 3 + num_expression:
        return face_sheet(body, rows, columns=min(10, len(rows)))
    raise ConfigError(
        f'{where}: faces of {rows.shape[1] - 3} expression values cannot be shown on a body with '
        f'{num_expression}; give an SMPL-X file with --model'
        if part == 'face'
        else f"part '{part}' cannot be shown; known: body, hand, face, wholebody"
    )


def _find_clip(name: str, source: str, root: Path) -> SourceMotion:
    if source and source not in SOURCES:
        raise ConfigError(f"source '{source}' is unknown; known: {', '.join(SOURCES)}")
    near: list[str] = []
    for archive in (source,) if source else SOURCES:
        if not source and not (root / archive).is_dir():
            continue
        for motion in read_clips(archive, root):
            if motion.name == name:
                return motion
            if name in motion.name:
                near.append(f'{motion.name} ({archive})')
    hint = f'; similar: {shortened(near)}' if near else ''
    raise MediaError(f"no clip '{name}' in {root}{hint}")


def _inspect_clip(body: Any, motion: SourceMotion, out: Path, count: int) -> None:
    from training.inspect_poses import clip_sheet, write_clip_film
    from training.retarget import retarget

    retargeted = retarget(motion)
    if out.suffix == '.png':
        _write_picture(out, clip_sheet(body, retargeted, count))
        return
    frames = iter(_progress(range(len(retargeted.pelvis)), motion.name))
    with _disk(out):
        write_clip_film(body, retargeted, out, lambda: next(frames, None))
        next(frames, None)  # ends the progress bar


def _write_picture(path: Path, picture: np.ndarray) -> None:
    import cv2

    _, data = cv2.imencode('.png', picture)
    with whole(path) as partial:
        partial.write_bytes(data)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """A full disk or a place that cannot be written, as an error that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_existing(path)).free
            raise DataSetError(
                f'{path}: the disk is full ({free / 1e9:.2f} GB free); make room'
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise DataSetError(
                f'{path} cannot be written ({error.strerror}); give another place'
            ) from error
        raise


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _progress(items: Iterable[Any], text: str) -> Iterable[Any]:
    return track(items, text, console=Console(stderr=True))


def _show_prepared(meta: PreparedMeta, out: Path) -> None:
    for split, rows in meta.rows.items():
        typer.echo(f'{split}: {rows:,} rows')
    if meta.hands != 'none':
        typer.echo(f'hands: {meta.hands}')
    if meta.missing:
        _warn(f'{len(meta.missing)} parts of the set are missing: {shortened(meta.missing)}')
    if meta.empty:
        _warn(f'{meta.empty} clips are too short for a single kept frame')
    for name, why in meta.skipped.items():
        _warn(f'skipped {name}: {why}')
    total = meta.clips + len(meta.skipped) + meta.empty
    typer.echo(f'wrote {out}: {meta.clips} of {total} clips, {len(meta.skipped)} skipped')


def _warn(text: str) -> None:
    typer.secho(f'warning: {text}', fg='yellow', err=True)


def _parts_of(mask: str) -> str:
    names = ('body', 'left hand', 'right hand', 'face')
    parts = [name for name, on in zip(names, mask, strict=True) if on == '1']
    return ', '.join(parts) or 'none (measuring only)'


def _console() -> Console:
    return Console(width=max(shutil.get_terminal_size((140, 24)).columns, 120), highlight=False)
