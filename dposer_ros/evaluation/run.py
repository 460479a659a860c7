"""A bag after its fit: what the node would have answered, frame by frame, and its events."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dposer_core.state import FitResult, Status
from dposer_core.states_io import States, states_from_results
from dposer_ros.events import Event, TrackWatch
from dposer_ros.replay import Clip, Replay


@dataclass(frozen=True)
class Answer:
    """What is published for one frame, or once in a silence."""

    stamp_ns: int
    results: list[FitResult]
    """Of everybody; may be empty."""
    events: list[Event]


@dataclass(frozen=True)
class Run:
    """One bag through the fitter."""

    clip: Clip
    answers: list[Answer]
    """In order of time."""
    states: States
    """Of all answers, in their order."""
    outcome: Replay
    """With the times that it took."""
    threshold: float
    """Confidence above which a keypoint counts."""

    @property
    def results(self) -> list[FitResult]:
        """In the order of `states`."""
        return [result for answer in self.answers for result in answer.results]

    @property
    def stamps(self) -> list[int]:
        """Of all answers."""
        return [answer.stamp_ns for answer in self.answers]


def make_run(clip: Clip, outcome: Replay, model: str, threshold: float) -> Run:
    """Put a replay into frames, with the events and re-acquisitions that the node would tell.

    Args:
        clip: what was fitted.
        outcome: of its replay.
        model: name of the body model.
        threshold: `input.confidence_threshold`.
    """
    answers = list(_answers(clip, outcome))
    results = [result for answer in answers for result in answer.results]
    states = states_from_results(results, model, clip.camera)
    return Run(clip, answers, states, outcome, threshold)


def _answers(clip: Clip, outcome: Replay) -> Iterator[Answer]:
    by_stamp: dict[int, list[FitResult]] = {stamp: [] for stamp, _ in clip.frames}
    for result in outcome.results:
        by_stamp.setdefault(result.state.stamp_ns, []).append(result)
    watch = TrackWatch()
    for stamp in sorted(by_stamp):
        results = [
            dataclasses.replace(result, status=Status.REACQUIRED)
            if watch.reacquired(result)
            else result
            for result in by_stamp[stamp]
        ]
        yield Answer(stamp, results, watch.update(results))


def tracks(states: States) -> dict[str, np.ndarray]:
    """body_id -> rows of its states that are not LOST, in order of time."""
    there = states.status != Status.LOST
    return {
        str(body): np.flatnonzero((states.body_id == body) & there)
        for body in np.unique(states.body_id)
    }
