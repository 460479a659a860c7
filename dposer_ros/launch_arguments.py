"""The arguments of `wholebody.launch.py` and `dposer up wholebody`: one list, one meaning.

Plain Python without `launch`, so that `dposer up` works where `ros2 launch` is missing.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dposer_core.errors import ConfigError
from dposer_ros.node_config import known_parameters

PACKAGE = 'dposer_ros'
EXECUTABLE = 'dposer_wholebody'
NODE_NAME = 'dposer_wholebody'


@dataclass(frozen=True)
class LaunchArgument:
    """One `name:=value` argument."""

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()  # empty: free text


_BOOL = ('true', 'false')

# Launch argument -> node parameter; an empty value leaves it as it is in the file.
_PARAMETERS = {
    'input_type': 'input.type',
    'layout': 'input.layout',
    'model_path': 'model.path',
    'prior_checkpoint': 'prior.checkpoint',
    'backend': 'prior.backend',
    'output_frame': 'output_frame',
    'tf_mode': 'tf.mode',
    'hri': 'hri.enable',
    'worker_isolation': 'worker.isolation',
}


def _of_parameter(argument: str) -> LaunchArgument:
    default, metadata = known_parameters()[_PARAMETERS[argument]]
    values = _BOOL if isinstance(default, bool) else metadata['choices']
    help_text = f'{metadata["help"]}; empty: as in params_file'
    return LaunchArgument(argument, '', help_text, ('', *values) if values else ())


ARGUMENTS = (
    LaunchArgument('keypoints_topic', 'keypoints', 'topic of the keypoints that are fitted'),
    LaunchArgument(
        'camera_info_topic',
        'camera_info',
        'sensor_msgs/msg/CameraInfo of the camera of 2D keypoints; 3D keypoints need none',
    ),
    LaunchArgument('namespace', '', 'namespace of the node and its relative topics'),
    LaunchArgument(
        'params_file',
        '',
        'YAML file of node parameters; empty: config/wholebody.yaml of the package',
    ),
    *map(_of_parameter, _PARAMETERS),
    LaunchArgument('use_sim_time', 'false', 'take the time from /clock (bags, simulation)', _BOOL),
    LaunchArgument('autostart', 'true', 'configure and activate the node after its start', _BOOL),
    LaunchArgument(
        'respawn', 'false', 'start the node again when it dies; needs autostart:=true', _BOOL
    ),
    LaunchArgument(
        'log_level', 'info', 'severity of the log', ('debug', 'info', 'warn', 'error', 'fatal')
    ),
)

_OF_LAUNCH = ('bag', 'viz')
"""What starts more than the node."""

DETECTOR_ARGUMENTS = ('keypoints_topic', 'camera_info_topic', 'input_type', 'layout')
"""What a launch file that starts the detector knows itself."""


def parse(tokens: Iterable[str]) -> dict[str, str]:
    """Values of all arguments from `name:=value` tokens, checked.

    Raises:
        ConfigError: not `name:=value`, an unknown name, or what `check` refuses.
    """
    values = {argument.name: argument.default for argument in ARGUMENTS}
    for token in tokens:
        name, separator, value = token.partition(':=')
        if not separator:
            raise ConfigError(f"'{token}' is not of the form name:=value")
        if name in _OF_LAUNCH:
            raise ConfigError(
                f"'{name}' is an argument of `ros2 launch dposer_ros wholebody.launch.py`; this "
                'starts the node alone (docs/EVALUATION.md and docs/VIEW.md say how without it)'
            )
        if name not in values:
            near = difflib.get_close_matches(name, values, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown argument '{name}'; did you mean '{near}'?")
        values[name] = value
    check(values)
    return values


def check(values: Mapping[str, str]) -> None:
    """Refuse values and combinations that cannot work, before any process starts.

    Raises:
        ConfigError: names the argument, the value and the remedy.
    """
    for argument in ARGUMENTS:
        value = values[argument.name]
        if argument.choices and value not in argument.choices:
            choices = ', '.join(choice for choice in argument.choices if choice)
            raise ConfigError(f"{argument.name}:='{value}': choose one of {choices}")
    for name in ('params_file', 'model_path'):
        if values[name] and not Path(values[name]).is_file():
            raise ConfigError(f"{name}:='{values[name]}': there is no such file")
    for name in ('keypoints_topic', 'camera_info_topic'):
        check_topic(name, values[name])
    if not re.fullmatch(r'(/?[A-Za-z_]\w*)*/?', values['namespace']):
        raise ConfigError(f"namespace:='{values['namespace']}': not a namespace of ROS 2")
    if values['keypoints_topic'] == values['camera_info_topic']:
        raise ConfigError(
            f"keypoints_topic and camera_info_topic are both '{values['keypoints_topic']}': "
            'they carry different types, give each its own topic'
        )
    checkpoint = values['prior_checkpoint']
    if ('/' in checkpoint or '.' in checkpoint) and not Path(checkpoint).is_file():
        raise ConfigError(f"prior_checkpoint:='{checkpoint}': there is no such file")
    if values['respawn'] == 'true' and values['autostart'] == 'false':
        raise ConfigError(
            'respawn:=true with autostart:=false would leave the restarted node unconfigured: '
            'set autostart:=true or respawn:=false'
        )


def check_topic(name: str, value: str) -> None:
    """Raise ConfigError, naming the argument, if its value is not a topic name."""
    if not re.fullmatch(r'[~/]?[A-Za-z_][\w/]*', value):
        raise ConfigError(f"{name}:='{value}': not a topic name of ROS 2")


def camera_names(text: str) -> list[str]:
    """The cameras of `dposer_fusion`, from 'left,right,top'.

    Raises:
        ConfigError: fewer than two, one twice, or no namespace of ROS 2.
    """
    names = [name.strip() for name in text.split(',') if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"cameras = '{text}': at least two different names, such as 'left,right'"
        )
    for name in names:
        if not re.fullmatch(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', name):
            raise ConfigError(f"camera '{name}': not a namespace of ROS 2")
    return names


def fusion_parameters(values: Mapping[str, str]) -> dict[str, str | float | bool]:
    """Parameters of `dposer_fusion`.

    Raises:
        ConfigError: names the argument, the value and the remedy.
    """
    camera_names(values['cameras'])
    if values['calibration'] and not Path(values['calibration']).is_file():
        raise ConfigError(f"calibration:='{values['calibration']}': there is no such file")
    try:
        slop = float(values['slop'])
    except ValueError as error:
        raise ConfigError(f"slop:='{values['slop']}': not a number of seconds") from error
    names = ('cameras', 'calibration', 'world_frame')
    return {
        **{name: values[name] for name in names},
        'slop': slop,
        'use_sim_time': values['use_sim_time'] == 'true',
    }


def params_file(values: Mapping[str, str]) -> Path:
    """The parameter file to load first.

    Raises:
        ConfigError: the package's own file is not installed.
    """
    if values['params_file']:
        return Path(values['params_file'])
    checkout = Path(__file__).resolve().parent.parent / 'config' / 'wholebody.yaml'
    if checkout.is_file():
        return checkout
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        return Path(get_package_share_directory(PACKAGE)) / 'config' / 'wholebody.yaml'
    except PackageNotFoundError as error:
        raise ConfigError(
            f'{checkout} does not exist and no ROS 2 prefix holds {PACKAGE}: '
            "give params_file:=FILE, or source the workspace's setup.bash"
        ) from error


def parameters(values: Mapping[str, str]) -> dict[str, str | bool]:
    """Node parameters that go over those of the file."""
    over: dict[str, str | bool] = {
        name: values[name] == 'true' for name in ('use_sim_time', 'autostart')
    }
    for key, name in _PARAMETERS.items():
        if values[key]:
            over[name] = values[key] == 'true' if values[key] in _BOOL else values[key]
    return over


def remappings(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Topic remappings (from, to)."""
    pairs = [
        ('keypoints', values['keypoints_topic']),
        ('camera_info', values['camera_info_topic']),
    ]
    return [(old, new) for old, new in pairs if old != new]


def ros_arguments(values: Mapping[str, str]) -> list[str]:
    """The same as command-line arguments of the node's process, for `dposer up`."""
    arguments = ['--ros-args', '--params-file', str(params_file(values))]
    for name, value in parameters(values).items():
        text = str(value).lower() if isinstance(value, bool) else f"'{value}'"
        arguments += ['-p', f'{name}:={text}']
    for old, new in remappings(values):
        arguments += ['-r', f'{old}:={new}']
    if values['namespace'].strip('/'):
        arguments += ['-r', f'__ns:={full_namespace(values)}']
    return [*arguments, '--log-level', values['log_level']]


def full_namespace(values: Mapping[str, str]) -> str:
    """The namespace with a leading and no trailing slash; '' for the root."""
    name = values['namespace'].strip('/')
    return f'/{name}' if name else ''


def full_topic(values: Mapping[str, str], argument: str) -> str:
    """The topic of an argument as it is outside of the node's namespace."""
    name = values[argument]
    return name if name.startswith('/') else f'{full_namespace(values)}/{name}'
