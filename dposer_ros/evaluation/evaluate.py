"""A bag from its keypoints to everything that `dposer evaluate-bag` writes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dposer_core.body_model import Body, load_body
from dposer_core.config import Config
from dposer_core.errors import ConfigError, ObservationError
from dposer_core.files import write_json
from dposer_core.states_io import write_states
from dposer_ros import bags
from dposer_ros.cli.fit import milliseconds
from dposer_ros.evaluation.accuracy import Accuracy, accuracy_of
from dposer_ros.evaluation.comparison import compare, metrics_of
from dposer_ros.evaluation.figures import figures, refusals
from dposer_ros.evaluation.motion import read_other, read_truth
from dposer_ros.evaluation.run import Run, make_run
from dposer_ros.evaluation.state_bag import write_state_bag
from dposer_ros.live_model import rest_joints_of
from dposer_ros.node_config import NodeConfig
from dposer_ros.replay import (
    CameraChoice,
    adapter_of_type,
    load_fitter,
    read_clip,
    read_config,
    replay,
    warm_up,
)
from dposer_ros.report_file import make_folder

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""(text, steps) -> a context that gives the function to call after each step."""


@dataclass(frozen=True)
class Options:
    """What may be asked for."""

    truth: str = ''
    """Topic of the bag, or a states file; empty: there is none."""
    other: Path | None = None
    """Another run to compare with: its folder or states file, or a bag of states."""
    topic: str = ''
    """Of the keypoints; empty: the only one."""
    camera_topic: str = ''
    """Of their camera_info; empty: the only one."""
    params: Path | None = None
    """Parameter file; None: the defaults."""
    prior: bool = True
    """Whether to use the diffusion prior."""
    with_inputs: bool = False
    """Whether keypoints and camera_info are copied into the bag of states."""


@dataclass(frozen=True)
class Findings:
    """Everything that is known of a bag afterwards."""

    title: str
    run: Run
    body: Body
    metrics: dict[str, Any]
    latency: dict[str, float] | None
    accuracy: Accuracy | None = None
    """With a truth."""
    comparison: dict[str, Any] | None = None
    other_metrics: dict[str, Any] | None = None
    against: Accuracy | None = None
    """With another run."""


def evaluate(bag: Path, out: Path, options: Options, progress: Progress) -> Findings:
    """Fit the bag and write states.npz, states.mcap, metrics.json, latency.json into `out`.

    With another run comparison.json, too. What cannot work is refused before the fit.

    Raises:
        DPoserError: bag, truth, other run, parameters or folder cannot be used.
    """
    _check_paths(bag, out, options.other)
    config = read_config(options.params)
    truth = read_truth(options.truth, bag) if options.truth else None
    other = read_other(options.other) if options.other else None
    other_metrics = metrics_of(options.other) if options.other else None
    make_folder(out)
    run = _fitted(bag, config, options, progress)
    accuracy = accuracy_of(run, truth) if truth else None
    against = Accuracy(run.states, run.stamps, other) if other else None
    body = load_body(config.model.path)

    write_states(out / 'states.npz', run.states)
    written = write_state_bag(
        out / 'states.mcap',
        run,
        read_config(options.params, NodeConfig()),
        rest_joints_of(body.tables),
        (bag, _input_topics(bag, config, options)) if options.with_inputs else None,
    )
    metrics = {**figures(run), 'refused_outputs': refusals(written.refused)}
    if accuracy is not None:
        metrics['truth'] = accuracy.figures()
    write_json(out / 'metrics.json', metrics)
    latency = milliseconds(run.outcome.fit_seconds)
    write_json(out / 'latency.json', latency)
    found = Findings(f'Evaluation of {bag.name}', run, body, metrics, latency, accuracy)
    if against is None:
        return found
    comparison = compare(against, out, options.other)
    write_json(out / 'comparison.json', comparison)
    return replace(found, comparison=comparison, other_metrics=other_metrics, against=against)


def _check_paths(bag: Path, out: Path, other: Path | None) -> None:
    if bag.exists() and not bags.is_bag(bag):
        raise ObservationError(f'{bag} is not a bag; give a bag folder, .mcap or .db3 file')
    folder = out.resolve()
    for path, what in ((bag, 'the bag'), (other, '--compare')):
        if path is not None and folder in (path.resolve(), path.resolve().parent):
            raise ConfigError(f'--out {out} would write over {what}; give another folder')


def _input_topics(bag: Path, config: Config, options: Options) -> list[str]:
    types = tuple(adapter_of_type(config))
    topic, _, camera = bags.keypoint_topics(bag, options.topic, options.camera_topic, types)
    return [name for name in (topic, camera) if name]


def _fitted(bag: Path, config: Config, options: Options, progress: Progress) -> Run:
    clip = read_clip(
        bag, CameraChoice(), config, topic=options.topic, camera_topic=options.camera_topic
    )
    make, model = load_fitter(config, options.prior)
    warm_up(make, clip.frames)
    with progress('fitting', len(clip.frames)) as advance:
        outcome = replay(make(), clip.frames, advance)
    if not outcome.results:
        raise ObservationError(
            f'{bag}: nobody could be fitted in {outcome.frames} frames, '
            f'{outcome.frames_with_people} of them with people; a person needs '
            f'{config.track.min_points} body points (track.min_points) of confidence '
            f'{config.input.confidence_threshold} or more (input.confidence_threshold)'
        )
    return make_run(clip, outcome, model, config.input.confidence_threshold)
