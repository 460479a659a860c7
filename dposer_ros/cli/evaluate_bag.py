"""`dposer evaluate-bag`: a bag through the fitter without a clock -> states, figures, a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dposer_ros.evaluation.evaluate import Findings


def evaluate_bag(
    bag: Annotated[Path, typer.Argument(help='ROS 2 bag: folder, .mcap or .db3.')],
    out: Annotated[Path, typer.Option(help='Folder for the results.')] = Path('evaluation'),
    truth: Annotated[
        str,
        typer.Option(
            metavar='TOPIC|FILE.npz',
            help='True motion: a topic of the bag (SmplxState, SmplxStateArray, 3D '
            'KeypointFrame), or a states file.',
        ),
    ] = '',
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar='OTHER', help="Another run: its folder or states file, or the node's bag."
        ),
    ] = None,
    topic: Annotated[str, typer.Option(help='Keypoint topic, if there are several.')] = '',
    camera_topic: Annotated[
        str, typer.Option(help='camera_info topic, if there are several.')
    ] = '',
    params: Annotated[
        Path | None, typer.Option(help='Parameters (YAML), as for the node.')
    ] = None,
    prior: Annotated[bool, typer.Option(help='Use the diffusion prior.')] = True,
    with_inputs: Annotated[
        bool, typer.Option(help='Copy keypoints and camera_info into the bag of states.')
    ] = False,
    report: Annotated[bool, typer.Option(help='Write the page report.html.')] = True,
) -> None:
    """Fit a bag frame by frame; write states, metrics, a bag of states and a page.

    Every frame gets all its iterations, so states.npz, states.mcap and metrics.json depend on
    the bag and the options alone. Times stand in latency.json.

    Example: dposer evaluate-bag out/demo/demo.mcap --out evaluation
    """
    from dposer_core.files import write_text
    from dposer_ros.cli.fit import progress_bar
    from dposer_ros.evaluation.evaluate import Options, evaluate

    options = Options(truth, compare, topic, camera_topic, params, prior, with_inputs)
    if report:
        import matplotlib  # noqa: F401  # told to be missing now and not after the fit
    found = evaluate(bag, out, options, progress_bar)
    if report:
        from dposer_ros.evaluation.page import page

        write_text(out / 'report.html', page(found))
    _say(found, out)


def _say(found: 'Findings', out: Path) -> None:
    """The figures that matter most, a line each."""
    metrics, comparison = found.metrics, found.comparison
    typer.echo(f'{metrics["states"]} states, coverage {metrics["coverage"]:.1%}, written to {out}')
    if found.accuracy is not None:
        truth = metrics['truth']
        errors = truth['error_mm']['all']
        typer.echo(
            f'error {errors["pelvis_aligned"]:.1f} mm about the pelvis, '
            f'{errors["procrustes"]:.1f} mm after alignment; pelvis '
            f'{truth["pelvis_m"]["median"]:.3f} m; {truth["id_swaps"]} id swaps'
        )
    if comparison is not None:
        same = [name for name, equal in comparison['identical'].items() if equal]
        typer.echo(
            f'{comparison["largest_mm"]:.3f} mm at most from {comparison["other"]}; '
            f'same bytes: {", ".join(same) or "none"}'
        )
