"""demo.mp4 and demo.png from a recording."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dposer_core import skeleton
from dposer_core.body_model import Body
from dposer_core.state import Source, Status
from dposer_core.video import VideoWriter
from dposer_ros.demo.bag import DemoRecording, KeypointRecord, StateRecord
from dposer_ros.demo.pictures import (
    Painter,
    Window,
    around,
    compose_frame,
    compose_rows,
    input_panel,
    panel_sizes,
    pose_panels,
    row_sizes,
    status_text,
    whole,
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
    shape = recording.image(stamps[0])
    sizes = panel_sizes(shape.shape[1], shape.shape[0], recording.has_pictures)
    close = around(_all_points(recording), shape, sizes['overlay'])
    detection, answer, drawn, caption = KeypointRecord([], 0), None, {}, ''
    for stamp in stamps:
        image = recording.image(stamp)
        detection = recording.keypoints.get(stamp, detection)
        if stamp in recording.states or answer is None:
            answer, people = stamp, main_first(recording.states.get(stamp, []))
            drawn = _pose_panels(recording, painter, image, people, close, sizes)
            caption = status_text(people)
        late = '' if answer == stamp else f' ({(stamp - answer) * 1e-6:.0f} ms ago)'
        panels = {name: panel.copy() for name, panel in drawn.items()}
        if recording.has_pictures:
            panels['input'] = input_panel(image, detection.people, whole(image, sizes['input']))
        yield compose_frame(panels, f'{(stamp - stamps[0]) * 1e-9:.2f} s  {caption}{late}')
        step()


def write_picture(recording: DemoRecording, body: Body, path: Path, rows: int = ROWS) -> None:
    """The still picture: `rows` moments spread over the clip, close to the person."""
    painter = Painter(body)
    first = min(recording.images)
    lines, captions = [], []
    for stamp in moments(recording, rows):
        image = recording.image(stamp)
        sizes = row_sizes(image.shape[1], image.shape[0])
        people = main_first(recording.states[stamp])
        detections = recording.keypoints[stamp].people if stamp in recording.keypoints else []
        seen = [points for points, _ in detections]
        seen += [recording.camera.project(state.joints) for state in people[:1]]
        close = around(np.concatenate(seen), image, sizes['input'])
        panels = _pose_panels(recording, painter, image, people, close, sizes)
        if recording.has_pictures:
            panels['input'] = input_panel(image, detections, close)
        lines.append(panels)
        captions.append(f'{(stamp - first) * 1e-9:.2f} s')
    if lines:
        write_png(path, compose_rows(lines, captions))


def moments(recording: DemoRecording, count: int) -> list[int]:
    """Stamps of `count` answered images, one of each stretch of the clip.

    In turn the one with most joints seen, and, of a body that is seen, the one with most finger
    joints completed by the prior.
    """
    usable = [s for s in sorted(recording.states) if recording.states[s] and s in recording.images]
    stretches = [s.tolist() for s in np.array_split(np.array(usable, np.int64), count) if len(s)]
    return [
        max(stretch, key=lambda s: _shown(main_first(recording.states[s])[0], row % 2))
        for row, stretch in enumerate(stretches)
    ]


def _shown(state: StateRecord, want_completed: int) -> int:
    """How well a moment suits the picture: joints seen, or a seen body and completed hands."""
    if not want_completed:
        return int((state.source == Source.OBSERVED).sum())
    body = int((state.source[skeleton.BODY_JOINTS] <= Source.PARTIAL).sum())
    fingers = state.source[skeleton.LEFT_HAND_JOINTS.start :]
    return 3 * body + int((fingers == Source.COMPLETED).sum())


def main_first(people: Sequence[StateRecord]) -> list[StateRecord]:
    """The people of one moment: the seen before the predicted, then by distance."""
    return sorted(people, key=lambda s: (s.status >= Status.PREDICTED, float(s.joints[0, 2])))


def _pose_panels(
    recording: DemoRecording,
    painter: Painter,
    image: np.ndarray,
    people: Sequence[StateRecord],
    window: Window,
    sizes: dict[str, tuple[int, int]],
) -> Panels:
    straight = recording.straightened(image)
    return pose_panels(
        painter, straight, people, recording.camera, window, sizes, recording.has_pictures
    )


def _all_points(recording: DemoRecording) -> np.ndarray:
    """(N, 2) pixels: body points of everybody at all times, for a window that holds them."""
    seen = [
        points[:23][confidence[:23] > 0.5]
        for record in recording.keypoints.values()
        for points, confidence in record.people
    ]
    return np.concatenate(seen) if seen else np.zeros((0, 2))
