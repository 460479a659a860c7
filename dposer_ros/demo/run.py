"""One run of the demo: start the processes, watch them, end them, then film and report."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from dposer_core.errors import DPoserError, MediaError
from dposer_core.video import video_info
from dposer_ros.demo.clips import Clip, clip_length
from dposer_ros.demo.processes import Children, own_domain

# The launch default, `dposer up wholebody`, loads the body, the prior and compiles the kernels.
READY_SECONDS = 180


@dataclass(frozen=True)
class RunRecord:
    """What a run left that is not in its recording."""

    bag: Path
    played: int
    """Frames that the source published."""
    start_ns: int
    """Stamp of the clip's first frame."""
    memory_mib: dict[str, float] = field(default_factory=dict)
    """Largest resident memory of each process."""


@dataclass(frozen=True)
class Source:
    """The process at the head of a run."""

    module: str
    arguments: tuple[str, ...]
    frames: int
    with_detector: bool


def clip_source(clip_name: str, clip: Clip) -> Source:
    """The player of `clip`.

    Raises:
        MediaError: the video cannot be read or ends before the clip begins.
    """
    info = video_info(clip.video)
    frames = clip_length(clip, info)
    if info.frames and not frames:
        raise MediaError(
            f'{clip.video} has {info.frames} frames, the clip begins at {clip.first};'
            ' choose an earlier first frame'
        )
    arguments = [clip_name, '--first', str(clip.first), '--step', str(clip.step)]
    if clip.last is not None:
        arguments += ['--last', str(clip.last)]
    if clip.focal is not None:
        arguments += ['--focal', str(clip.focal)]
    return Source('dposer_ros.demo.player', tuple(arguments), frames, with_detector=True)


def keypoint_source(path: Path, frames: int) -> Source:
    """The player of a keypoints file."""
    return Source('dposer_ros.demo.keypoint_player', (str(path),), frames, with_detector=False)


def record_run(
    source: Source,
    bag: Path,
    node_arguments: list[str],
    progress: Progress,
    domain: int | None = None,
) -> RunRecord:
    """Play `source` into the live node and record everything in `bag`.

    Args:
        source: player of a video, followed by the detector, or of keypoints.
        bag: the .mcap file to write.
        node_arguments: `name:=value` for `dposer up wholebody`.
        progress: shows how far it is.
        domain: ROS domain; None: a free one.

    Raises:
        DPoserError: a process ended with an error; its last lines are in the message.
    """
    task = progress.add_task('starting the nodes', total=None)
    with own_domain(domain) as domain_id, interruptible():
        children = Children(bag.parent / 'log', domain_id)
        try:
            children.start(
                'recorder', 'dposer_ros.demo.recorder', str(bag), '--frames', str(source.frames)
            )
            children.start('node', 'dposer_ros.cli', 'up', 'wholebody', *node_arguments)
            waits = 'keypoints:2'  # the node and the recorder
            if source.with_detector:
                children.start('detector', 'dposer_ros.demo.detector')
                waits = 'image:2,camera_info:2,keypoints:2'
            player = children.start(
                'player',
                source.module,
                *source.arguments,
                *('--wait-for', waits, '--timeout', str(READY_SECONDS)),
            )
            while player.poll() is None:
                children.check()
                _show(progress, task, children.tail('player', 1), source.frames)
                time.sleep(0.1)
            children.check()
            time.sleep(1.0)  # the last frame is still on its way
            memory = {name: children.peak_memory(name) for name in children.names()}
            log = children.tail('player', source.frames + 50)
        finally:
            children.close()
    progress.remove_task(task)
    if not bag.exists():
        raise DPoserError(
            f'the recorder wrote nothing; its log ends:\n{children.tail("recorder")}'
        )
    values = dict(line.split(maxsplit=1) for line in log.splitlines() if line.count(' ') == 1)
    return RunRecord(bag, int(values.get('frame', 0)), int(values.get('start', 0)), memory)


def run_module(
    module: str, arguments: list[str], folder: Path, frames: int, title: str, progress: Progress
) -> None:
    """Run a process without ROS that prints 'frame N', and show how far it is."""
    task = progress.add_task(title, total=frames)
    with interruptible():
        children = Children(folder / 'log', domain=0)
        name = module.rsplit('.', 1)[-1]
        try:
            process = children.start(name, module, *arguments)
            while process.poll() is None:
                _show(progress, task, children.tail(name, 1), frames, title)
                time.sleep(0.2)
            children.check()
        finally:
            children.close()
    progress.remove_task(task)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that its `finally` runs."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def progress_bars(console: Console) -> Progress:
    """The bars that all stages of the demo share."""
    return Progress(
        SpinnerColumn(),
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
    )


def _show(
    progress: Progress, task: int, line: str, frames: int, title: str = 'playing the clip'
) -> None:
    if line.startswith('frame '):
        progress.update(task, description=title, completed=int(line.split()[1]), total=frames)
