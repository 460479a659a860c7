"""What `replay_eval.launch.py` starts: plain Python, so that it is checked without `launch`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dposer_core.errors import ConfigError
from dposer_ros import bags, launch_arguments
from dposer_ros.launch_arguments import LaunchArgument

ARGUMENTS = (
    LaunchArgument('bag', '', 'ROS 2 bag with keypoints: folder, .mcap or .db3'),
    LaunchArgument('out', 'evaluation', 'folder for the results'),
    LaunchArgument('rate', '1.0', 'seconds of the bag per second'),
    LaunchArgument('truth', '', 'true motion: a topic of the bag, or a states file'),
    *(
        argument
        for argument in launch_arguments.ARGUMENTS
        # Simulated time is a must, and the evaluation compares in the frame of the input.
        if argument.name not in ('use_sim_time', 'respawn', 'output_frame')
    ),
)
_RECORDED = '/keypoints'
"""Of the node's inputs, the one that the recorder subscribes to."""


@dataclass(frozen=True)
class Commands:
    """The processes beside the node."""

    record: list[str]
    play: list[str]
    evaluate: list[str]


def commands(values: Mapping[str, str], python: str) -> Commands:
    """The command lines for these values of `ARGUMENTS`.

    Args:
        values: of all arguments.
        python: the interpreter.

    Raises:
        ConfigError: names the argument, the value and the remedy.
        MediaError: the bag cannot be read.
    """
    if not values['bag']:
        raise ConfigError('bag:= is missing: give the bag that is to be played')
    try:
        rate = float(values['rate'])
    except ValueError:
        rate = 0.0
    if not 0.01 <= rate <= 100.0:
        raise ConfigError(f"rate:='{values['rate']}': give a number from 0.01 to 100")
    if values['autostart'] == 'false':
        raise ConfigError('autostart:=false: the bag would wait for the node for ever')
    bag, out = Path(values['bag']), Path(values['out'])
    types = bags.topic_types(bag)
    keypoints, camera = (
        launch_arguments.full_topic(values, name)
        for name in ('keypoints_topic', 'camera_info_topic')
    )
    if keypoints not in types:
        raise ConfigError(
            f"keypoints_topic:='{keypoints}' is not in {bag}; it has {', '.join(sorted(types))}"
        )
    topics = [topic for topic in (keypoints, camera) if topic in types]
    listeners = 2 if keypoints == _RECORDED else 1
    live = out / 'live' / 'live.mcap'
    return Commands(
        record=[python, '-m', 'dposer_ros.demo.recorder', str(live)],
        play=[
            python, '-m', 'dposer_ros.bag_player', str(bag), '--topics', *topics,
            '--rate', str(rate), '--wait-for', f'{keypoints}:{listeners},/clock:1',
        ],
        evaluate=[
            python, '-m', 'dposer_ros.cli', 'evaluate-bag', str(bag), '--out', str(out),
            '--topic', keypoints, '--compare', str(live),
            *(['--camera-topic', camera] if camera in types else []),
            *(['--truth', values['truth']] if values['truth'] else []),
            '--params', str(launch_arguments.params_file(values)),
        ],
    )  # fmt: skip
