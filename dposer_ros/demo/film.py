"""demo.mp4 and demo.png from a recording."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dposer_core.body_model import Body
from dposer_core.render import draw_keypoints
from dposer_core.state import Source
from dposer_core.video import VideoWriter
from dposer_ros.demo.bag import DemoRecording, StateRecord
from dposer_ros.demo.pictures import (
    Painter,
    compose_frame,
    compose_rows,
    fitted,
    panel_sizes,
    pose_panels,
    row_sizes,
    status_text,
    write_png,
)

ROWS = 5

Panels = dict[str, np.ndarray]


def write_film(recording: DemoRecording, body: Body, path: Path, step: Callable[[], None]) -> None:
    """The video: input with keypoints beside the last answer, at the recorded rate.

    Args:
        recording: a run with images.
        body: the model that the states are of.
        path: the .mp4 file to write.
        step: called after every frame.
    """
    stamps = sorted(recording.images)
    rate = 1e9 / max(float(np.median(np.diff(stamps))), 1.0) if len(stamps) > 1 else 1.0
    panels = film_panels(recording, Painter(body), step)
    first = next(panels)
    height, width = first.shape[:2]
    with VideoWriter(path, width, height, rate) as writer:
        writer.write(first)
        for frame in panels:
            writer.write(frame)


def film_panels(
    recording: DemoRecording, painter: Painter, step: Callable[[], None]
) -> Iterator[np.ndarray]:
    """Composed frames. An image that got no answer shows the answer before it, and says so."""
    stamps = sorted(recording.images)
    keypoints, answer = None, None
    sizes = None
    for stamp in stamps:
        image = recording.image(stamp)
        sizes = sizes or panel_sizes(image.shape[1], image.shape[0])
        keypoints = recording.keypoints.get(stamp, keypoints)
        if stamp in recording.states or answer is None:
            answer = stamp
            people = main_first(recording.states.get(stamp, []))
            drawn = _panels(recording, painter, stamp, people, sizes)
            caption = status_text(people)
        seconds = (stamp - stamps[0]) * 1e-9
        late = '' if answer == stamp else f' (of {(stamp - answer) * 1e-6:.0f} ms ago)'
        with_points = image
        for points, confidence in keypoints.people if keypoints else ():
            with_points = draw_keypoints(with_points, points, confidence)
        panels = {name: panel.copy() for name, panel in drawn.items()}
        panels['input'] = fitted(with_points, sizes['input'])
        yield compose_frame(panels, f'{seconds:5.2f} s  {caption}{late}')
        step()


def write_picture(recording: DemoRecording, body: Body, path: Path, rows: int = ROWS) -> None:
    """The still picture: `rows` moments spread over the clip."""
    painter = Painter(body)
    chosen = moments(recording, rows)
    first = min(recording.images)
    lines, captions = [], []
    for stamp in chosen:
        image = recording.image(stamp)
        sizes = row_sizes(image.shape[1], image.shape[0])
        people = main_first(recording.states[stamp])
        panels = _panels(recording, painter, stamp, people, sizes)
        panels['input'] = fitted(_with_keypoints(recording, stamp, image), sizes['input'])
        lines.append(panels)
        captions.append(f'{(stamp - first) * 1e-9:.2f} s')
    if lines:
        write_png(path, compose_rows(lines, captions))


def moments(recording: DemoRecording, count: int) -> list[int]:
    """Stamps of `count` answered images spread over time: the best-observed of each stretch."""
    usable = [s for s in sorted(recording.states) if recording.states[s] and s in recording.images]
    stretches = [s for s in np.array_split(np.array(usable, dtype=np.int64), count) if len(s)]

    def observed(stamp: int) -> int:
        source = main_first(recording.states[stamp])[0].source
        return int((source == Source.OBSERVED).sum())

    return [max((int(s) for s in stretch), key=observed) for stretch in stretches]


def main_first(people: Sequence[StateRecord]) -> list[StateRecord]:
    """The people of one moment, the nearest one first."""
    return sorted(people, key=lambda state: float(state.joints[0, 2]))


def _panels(
    recording: DemoRecording,
    painter: Painter,
    stamp: int,
    people: Sequence[StateRecord],
    sizes: dict[str, tuple[int, int]],
) -> Panels:
    image = recording.image(stamp)
    return pose_panels(
        painter,
        recording.straightened(image),
        recording.straightened(_with_keypoints(recording, stamp, image)),
        people,
        recording.camera,
        sizes,
    )


def _with_keypoints(recording: DemoRecording, stamp: int, image: np.ndarray) -> np.ndarray:
    if stamp in recording.keypoints:
        for points, confidence in recording.keypoints[stamp].people:
            image = draw_keypoints(image, points, confidence)
    return image
