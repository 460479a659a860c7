"""`dposer demo`: a video through the live system, with a film and a report at the end."""

from dataclasses import replace
from pathlib import Path

import typer


def demo(
    arguments: list[str] = typer.Argument(
        None, help='name:=value for the node, as for `dposer up`.', metavar='NAME:=VALUE'
    ),
    clip: str = typer.Option('demo', help='demo, squats, multiview, or the path of a video.'),
    output: Path = typer.Option(Path('out/demo'), help='Folder for the results.'),
    first: int = typer.Option(None, help='First frame used.', min=0),
    last: int = typer.Option(None, help='One past the last frame used.', min=1),
    focal: float = typer.Option(
        None, help='Focal length of an uncalibrated camera / longer image side.', min=0.1, max=20.0
    ),
    domain: int = typer.Option(None, help='ROS domain; default: a free one.'),
    film: bool = typer.Option(True, help='Make demo.mp4 and demo.png.'),
    json_file: Path = typer.Option(None, '--json', help='Write the report here as well.'),
) -> None:
    """Play a video through detector, live fitter and recorder over ROS 2, then film and report.

    Leaves demo.mp4, demo.png, demo.mcap and report.json in the output folder. The processes talk
    over DDS in a domain of their own; each one's log is in the folder `log`.

    Example: dposer demo --clip my_video.mp4 --output out/mine
    """
    from rich.console import Console

    from dposer_core.errors import MediaError
    from dposer_core.files import write_json
    from dposer_ros.demo.clips import find_clip
    from dposer_ros.demo.run import progress_bars
    from dposer_ros.demo.session import run_clip
    from dposer_ros.environment import require_messages
    from dposer_ros.report_file import check_writable

    chosen = find_clip(clip)
    given = {'first': first, 'last': last, 'focal': focal}
    chosen = replace(chosen, **{name: value for name, value in given.items() if value is not None})
    if chosen.last is not None and chosen.last <= chosen.first:
        raise MediaError(
            f'frames {chosen.first} to {chosen.last}: the last one must come after the first'
        )
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        check_writable(json_file)
    require_messages()
    console = Console()
    try:
        with progress_bars(console) as progress:
            report = run_clip(clip, chosen, output, arguments or [], domain, film, progress)
    except KeyboardInterrupt:
        console.print(f'stopped; the recording, as far as it went, is in {output}')
        raise typer.Exit(130) from None
    from dposer_ros.demo.report import print_report

    print_report(report, console)
    write_json(output / 'report.json', report)
    if json_file is not None:
        write_json(json_file, report)
    console.print(f'results: {output}')
