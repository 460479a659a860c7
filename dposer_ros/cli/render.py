"""`dposer render`: fitted states as a film or a picture."""

from pathlib import Path

import typer


def render(
    states: Path = typer.Argument(help='States file of `dposer fit`.'),
    output: Path = typer.Option(..., '-o', '--output', help='The .mp4 or .png file to write.'),
    video: Path = typer.Option(None, help='Video that the keypoints came from, as background.'),
    start: float = typer.Option(
        None, help="Stamp of the video's first frame, s; default: that of the first state."
    ),
    model: str = typer.Option('', help='SMPL-X .npz file of the fit; default: the open body.'),
    rows: int = typer.Option(5, help='Moments in a picture.', min=1, max=20),
) -> None:
    """Draw the fitted bodies over their video, from the side, and both hands enlarged.

    Example: dposer render states.npz --video clip.mp4 -o film.mp4
    """
    from rich.console import Console

    from dposer_core.body_model import load_body
    from dposer_core.errors import MediaError
    from dposer_core.states_io import read_states
    from dposer_ros.demo.film import write_film, write_picture
    from dposer_ros.demo.run import progress_bars
    from dposer_ros.demo.states_film import recording_from_states

    if output.suffix not in ('.mp4', '.png'):
        raise MediaError(f"{output}: the ending '{output.suffix}' is not known; use .mp4 or .png")
    values = read_states(states)
    if not len(values):
        raise MediaError(f'{states} holds no states: nobody was found in the keypoints')
    body = load_body(model)
    fitted_with, loaded = values.model.split('/')[-1], body.tables.sha256[:8]
    if fitted_with != loaded:
        raise MediaError(
            f'{states} was fitted with body model {values.model}, but {body.tables.name}/{loaded}'
            ' is loaded; give the same file with --model'
        )
    with progress_bars(Console()) as progress:
        task = progress.add_task('reading the video' if video else 'preparing', total=None)
        recording = recording_from_states(values, video, start)
        progress.update(task, description='drawing', total=len(recording.images))
        if output.suffix == '.mp4':
            write_film(recording, body, output, lambda: progress.advance(task))
        else:
            write_picture(recording, body, output, rows)
    typer.echo(f'wrote {output}')
