"""`dposer evaluate-bag`: a bag through the fitter without a clock -> states and figures."""

from pathlib import Path
from typing import Annotated

import typer

from dposer_core.errors import ObservationError
from dposer_ros.report_file import write_json


def evaluate_bag(
    bag: Annotated[Path, typer.Argument(help='ROS 2 bag: folder, .mcap or .db3.')],
    out: Annotated[Path, typer.Option(help='Folder for the results.')] = Path('evaluation'),
    topic: Annotated[str, typer.Option(help='Keypoint topic, if there are several.')] = '',
    prior: Annotated[bool, typer.Option(help='Use the diffusion prior.')] = True,
) -> None:
    """Fit a bag frame by frame and write states.npz, metrics.json and latency.json.

    Times stand in a file of their own, as they alone depend on the machine's load.

    Example: dposer evaluate-bag out/demo/demo.mcap --out evaluation
    """
    from dposer_core.states_io import states_from_results, write_states
    from dposer_ros import bags
    from dposer_ros.bag_evaluation import figures
    from dposer_ros.cli.fit import milliseconds, progress_bar
    from dposer_ros.replay import CameraChoice, load_fitter, read_clip, read_config, replay

    if bag.exists() and not bags.is_bag(bag):
        raise ObservationError(f'{bag} is not a bag; give a bag folder, .mcap or .db3 file')
    config = read_config(None)
    clip = read_clip(bag, CameraChoice(), config, topic=topic)
    make, model = load_fitter(config, prior)
    with progress_bar('fitting', len(clip.frames)) as advance:
        outcome = replay(make(), clip.frames, advance)
    if not outcome.results:
        raise ObservationError(f'{bag}: nobody could be fitted in {outcome.frames} frames')
    states = states_from_results(outcome.results, model, clip.camera)
    out.mkdir(parents=True, exist_ok=True)
    write_states(out / 'states.npz', states)
    metrics = {**figures(states, outcome.frames), 'refused': dict(clip.refused)}
    write_json(out / 'metrics.json', metrics)
    write_json(out / 'latency.json', milliseconds(outcome.fit_seconds))
    typer.echo(f'{len(states)} states, coverage {metrics["coverage"]:.1%}, written to {out}')
