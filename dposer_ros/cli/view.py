"""`dposer view`: a web page with the people of a bag, or of a running node, in 3D."""

import signal
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dposer_core.errors import ConfigError, MediaError

if TYPE_CHECKING:
    from dposer_core.config import Config
    from dposer_ros.viewer.moment import Moment
    from dposer_ros.viewer.sources import Topics


def view(
    bag: Annotated[
        Path | None,
        typer.Argument(help='ROS 2 bag of states, or of keypoints, which are fitted first.'),
    ] = None,
    live: Annotated[bool, typer.Option('--live', help='Show what a running node says.')] = False,
    fit: Annotated[
        bool, typer.Option('--fit', help='Fit the keypoints, though the bag has states.')
    ] = False,
    play: Annotated[bool, typer.Option(help='Play the bag from the start.')] = True,
    frame: Annotated[int, typer.Option(help='Number of the first frame shown.', min=0)] = 0,
    states_topic: Annotated[
        str, typer.Option(help='Topic of states; default: /human/smplx_states.')
    ] = '',
    topic: Annotated[
        str, typer.Option(help='Keypoint topic; default: the only one of a bag, live `keypoints`.')
    ] = '',
    camera_topic: Annotated[
        str, typer.Option(help='camera_info topic; default: as for keypoints.')
    ] = '',
    model: Annotated[
        str, typer.Option(help='SMPL-X .npz file of the fit; default: the open body.')
    ] = '',
    params: Annotated[
        Path | None, typer.Option(help='Parameters (YAML) of the fit, as for the node.')
    ] = None,
    up: Annotated[
        str, typer.Option(help="Up in the frame of the states: +z, -y, ...; 'auto': by its name.")
    ] = 'auto',
    host: Annotated[
        str, typer.Option(help='Address to listen on; 0.0.0.0: every machine may look.')
    ] = '127.0.0.1',
    port: Annotated[
        int, typer.Option(help='To listen on; if taken, the next free one.', min=0, max=65535)
    ] = 8080,
) -> None:
    """Show bodies, keypoints, uncertainty and latency in a browser, from a bag or live.

    Example: dposer view out/demo/demo.mcap
    """
    from dposer_core.body_model import load_body
    from dposer_ros.replay import read_config
    from dposer_ros.viewer.page import UP_DIRECTIONS, Page
    from dposer_ros.viewer.sources import Live, Recorded, Topics

    if (bag is not None) == live:
        raise ConfigError('give either a bag or --live: `dposer view BAG`, `dposer view --live`')
    if up not in UP_DIRECTIONS:
        raise ConfigError(f"--up '{up}': choose one of {', '.join(UP_DIRECTIONS)}")
    _check_address(host)
    config, topics = read_config(params), Topics(states_topic, topic, camera_topic)
    body = load_body(model or config.model.path)
    with ExitStack() as stack:
        if live:
            source = Live(topics, config)
            title = 'dposer, live'
        else:
            moments = _moments(bag, fit, topics, params, config, body.tables.sha256[:8])
            source, title = Recorded(moments, play, frame), bag.name
        stack.callback(source.close)
        page = Page(source, body, title, host, port, up)
        stack.callback(page.close)
        typer.echo(f'{title}: open {page.url} in a browser; Ctrl-C ends it')
        for number in (signal.SIGINT, signal.SIGTERM):  # a background job ignores SIGINT
            signal.signal(number, signal.default_int_handler)
        try:
            page.run()
        except KeyboardInterrupt:
            typer.echo('closed')


def _check_address(host: str) -> None:
    """Raise ConfigError if this machine has no such address; viser would try every port of it."""
    try:
        socket.create_server((host, 0)).close()
    except OSError as error:
        raise ConfigError(
            f'--host {host}: cannot be listened on ({error.strerror}); 127.0.0.1 is this machine '
            'for itself, 0.0.0.0 for all'
        ) from error


def _moments(
    bag: Path,
    fit: bool,
    topics: 'Topics',
    params: Path | None,
    config: 'Config',
    model: str,
) -> 'list[Moment]':
    """The frames of a bag; without states, or when asked to, its keypoints are fitted first."""
    from dposer_ros.viewer.sources import read_moments, states_topic

    if fit or not states_topic(bag, topics.states):
        moments = _fitted(bag, topics, params, config)
    else:
        moments = read_moments(bag, config, topics)
    others = {p.model for m in moments for p in m.people if p.model.split('/')[-1] != model}
    if others:
        raise MediaError(
            f'{bag} was fitted with body model {", ".join(sorted(others))[:200]}, but the one '
            f'loaded is {model}: give the same file with --model, or fit anew with --fit'
        )
    return moments


def _fitted(bag: Path, topics: 'Topics', params: Path | None, config: 'Config') -> 'list[Moment]':
    """What `dposer evaluate-bag` makes of the bag, with the CPU time of each frame."""
    from dposer_ros.cli.fit import progress_bar
    from dposer_ros.evaluation.evaluate import Options, evaluate
    from dposer_ros.viewer.sources import read_moments

    with tempfile.TemporaryDirectory(prefix='dposer_view_') as folder:
        options = Options(topic=topics.keypoints, camera_topic=topics.camera_info, params=params)
        run = evaluate(bag, Path(folder), options, progress_bar).run
        with_people = (stamp for stamp, observations in run.clip.frames if observations)
        times = {
            stamp: 1e3 * seconds
            for stamp, seconds in zip(with_people, run.outcome.cpu_seconds, strict=True)
        }
        fitted = Path(folder) / 'states.mcap'
        return read_moments(fitted, config, replace(topics, states=''), bag, times)
