"""What the launch files start, as plain values: no `launch` is needed.

`dposer_ros.launch_files` turns a plan into actions of `launch`. Names of other packages' launch
files, topics and arguments stand here and nowhere else.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dposer_core.errors import ConfigError
from dposer_ros import launch_arguments, replay_launch
from dposer_ros.environment import CHECKOUT
from dposer_ros.launch_arguments import PACKAGE, LaunchArgument

VIEW_FRAME = 'dposer_view'
CAMERA_HEIGHT = 1.2  # m over the floor of the view, where nobody says better


@dataclass(frozen=True)
class Include:
    """A launch file of another package, or of ours."""

    package: str
    file: str
    arguments: Mapping[str, str]


@dataclass(frozen=True)
class Program:
    """A node."""

    package: str
    executable: str
    name: str
    parameters: list[Any] = field(default_factory=list)
    """Dictionaries and files."""
    remappings: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    namespace: str = ''
    is_lifecycle: bool = False
    respawns: bool = False


Step = Include | Program | str
"""Text is logged."""


@dataclass(frozen=True)
class Plan:
    """A launch file."""

    arguments: tuple[LaunchArgument, ...]
    packages: Mapping[str, str]
    """ROS package that must be there -> how to get it."""
    steps: Callable[[Mapping[str, str]], list[Step]]
    """What to start for these values; raises ConfigError, and MediaError for a bag."""


def start(plan: Plan, values: Mapping[str, str]) -> list[Step]:
    """What to start; refused before any process is there.

    Raises:
        ConfigError: names the argument, its value and the remedy, or what is not installed.
    """
    for argument in plan.arguments:
        value = values[argument.name]
        if argument.choices and value not in argument.choices:
            choices = ', '.join(choice for choice in argument.choices if choice)
            raise ConfigError(f"{argument.name}:='{value}': choose one of {choices}")
        if argument.name.endswith('_topic') and value:
            launch_arguments.check_topic(argument.name, value)
    steps = plan.steps(values)
    for package, remedy in plan.packages.items():
        _share(package, remedy)
    return steps


def share_file(package: str, relative: str) -> Path:
    """A file of a package's share folder; of ours that of the checkout, if this is one."""
    if package == PACKAGE and (CHECKOUT / relative).is_file():
        return CHECKOUT / relative
    return _share(package, "source its workspace's setup.bash") / relative


def _share(package: str, remedy: str) -> Path:
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        return Path(get_package_share_directory(package))
    except PackageNotFoundError as error:
        raise ConfigError(f"the ROS package '{package}' is not installed: {remedy}") from error


# --- arguments -----------------------------------------------------------------------------------

_FIT = tuple(
    argument
    for argument in launch_arguments.ARGUMENTS
    if argument.name not in launch_arguments.DETECTOR_ARGUMENTS
)
_BY_NAME = {argument.name: argument for argument in launch_arguments.ARGUMENTS}
_VIZ = LaunchArgument('viz', 'none', 'what to look with', ('none', 'rviz', 'foxglove'))


def _image(default: str) -> tuple[LaunchArgument, LaunchArgument]:
    return (
        LaunchArgument('image_topic', default, 'sensor_msgs/msg/Image of the camera'),
        LaunchArgument(
            'camera_info_topic', '', 'its CameraInfo; empty: `camera_info` beside the image'
        ),
    )


_FROM = (
    LaunchArgument('image_topic', '', 'image that the overlay is drawn on; empty: no overlay'),
    LaunchArgument('image_transport', 'raw', 'how the image comes', ('raw', 'compressed')),
    LaunchArgument(
        'fixed_frame',
        '',
        'frame with z up to look from, connected in /tf to that of the states; empty: '
        f'{VIEW_FRAME}, made here as the parent of camera_frame',
    ),
    LaunchArgument('camera_frame', 'camera_optical_frame', 'optical frame of the states'),
)
_LOOK = (
    *_FROM,
    LaunchArgument(
        'camera_info_topic', '', 'its CameraInfo; empty: `camera_info` beside the image'
    ),
    _BY_NAME['model_path'],
    _BY_NAME['use_sim_time'],
    _BY_NAME['log_level'],
)


def _camera_info(values: Mapping[str, str]) -> str:
    """Where image_transport's convention puts the CameraInfo of an image."""
    return values['camera_info_topic'] or f'{values["image_topic"].rpartition("/")[0]}/camera_info'


def _fit(values: Mapping[str, str], keypoints: str, camera_info: str = 'camera_info') -> Include:
    """The live node on these topics."""
    passed_on = {argument.name: values[argument.name] for argument in _FIT}
    topics = {'keypoints_topic': keypoints, 'camera_info_topic': camera_info}
    defaults = {argument.name: argument.default for argument in launch_arguments.ARGUMENTS}
    launch_arguments.check(defaults | passed_on | topics)
    return Include(PACKAGE, 'wholebody.launch.py', passed_on | topics)


def _look(values: Mapping[str, str], **over: str) -> list[Step]:
    """The viewer that was asked for."""
    if values['viz'] == 'none':
        return []
    plan = PLANS[values['viz']]
    arguments = {argument.name: argument.default for argument in plan.arguments}
    arguments |= {name: values[name] for name in arguments if name in values} | over
    start(plan, arguments)  # what is missing is told now
    return [Include(PACKAGE, f'{values["viz"]}.launch.py', arguments)]


def _need(values: Mapping[str, str], name: str, what: str) -> None:
    if not values[name]:
        raise ConfigError(f'{name}:= is missing: give {what}')


# --- the fit -------------------------------------------------------------------------------------


def _wholebody(values: Mapping[str, str]) -> list[Step]:
    launch_arguments.check(values)
    fit: Step
    if values['bag']:
        fit = _replay(values)
    else:
        fit = Program(
            PACKAGE,
            launch_arguments.EXECUTABLE,
            launch_arguments.NODE_NAME,
            [str(launch_arguments.params_file(values)), launch_arguments.parameters(values)],
            launch_arguments.remappings(values),
            namespace=values['namespace'],
            is_lifecycle=True,
            respawns=values['respawn'] == 'true',
        )
    viewer = _look(
        values,
        camera_info_topic=launch_arguments.full_topic(values, 'camera_info_topic'),
        fixed_frame=values['fixed_frame'] or values['output_frame'],
        use_sim_time='true' if values['bag'] else values['use_sim_time'],
        layout='',  # of RViz; ours is one of keypoints
    )
    return [fit, *viewer]


def _replay(values: Mapping[str, str]) -> Include:
    """The same node, fed from a bag and judged afterwards."""
    for name, ordinary in (('respawn', 'false'), ('output_frame', '')):
        if values[name] != ordinary:
            raise ConfigError(
                f"{name}:='{values[name]}' has no meaning with bag:='{values['bag']}', which is "
                f'evaluated in the frame of its keypoints and ends: leave {name} out'
            )
    known = replay_launch.ARGUMENTS
    passed_on = {argument.name: values.get(argument.name, argument.default) for argument in known}
    replay_launch.commands(passed_on, sys.executable)  # what is wrong is told now
    return Include(PACKAGE, 'replay_eval.launch.py', passed_on)


def _multi_camera(values: Mapping[str, str]) -> list[Step]:
    keypoints = 'fused/keypoints'
    fusion = Program(
        PACKAGE,
        'dposer_fusion',
        'dposer_fusion',
        [launch_arguments.fusion_parameters(values)],
        [('keypoints', keypoints)],
        namespace=values['namespace'],
        respawns=values['respawn'] == 'true',
    )
    return [fusion, _fit(values, keypoints)]


# --- detectors -----------------------------------------------------------------------------------


def _yolo(values: Mapping[str, str]) -> list[Step]:
    _need(values, 'model', 'a pose model of YOLO, such as yolo11n-pose.pt')
    detector = {
        'namespace': 'yolo',
        'model': values['model'],
        'input_image_topic': values['image_topic'],
        'use_tracking': 'True',
    }
    camera_info = _camera_info(values)
    return [
        Include('yolo_bringup', 'yolo.launch.py', detector),
        _fit(values, '/yolo/tracking', camera_info),
        *_look(values, camera_info_topic=camera_info),
    ]


def _zed(values: Mapping[str, str]) -> list[Step]:
    _need(values, 'camera_model', 'the camera: zed, zedm, zed2, zed2i, zedx or zedxm')
    name = values['camera_name']
    camera = {
        'camera_name': name,
        'camera_model': values['camera_model'],
        'ros_params_override_path': str(share_file(PACKAGE, 'config/zed_body_tracking.yaml')),
    }
    camera_info = _camera_info(values) if values['image_topic'] else ''
    return [
        Include('zed_wrapper', 'zed_camera.launch.py', camera),
        _fit(values, f'/{name}/zed_node/body_trk/skeletons'),
        # The skeletons are in a frame with z up, that of the left camera's body.
        *_look(values, fixed_frame=f'{name}_left_camera_frame', camera_info_topic=camera_info),
    ]


def _mediapipe(values: Mapping[str, str]) -> list[Step]:
    if importlib.util.find_spec('mediapipe') is None:
        raise ConfigError(
            "the Python package 'mediapipe' is not installed: pip install mediapipe==0.10.14"
        )
    image, camera_info = values['image_topic'], _camera_info(values)
    video: list[Step] = []
    if values['video']:
        if not Path(values['video']).is_file():
            raise ConfigError(f"video:='{values['video']}': there is no such file")
        topics = [('image', image), ('camera_info', camera_info)]
        waits = f'{image}:1,{camera_info}:1'
        arguments = [values['video'], '--wait-for', waits]
        video = [Program(PACKAGE, 'dposer_player', 'dposer_player', [], topics, arguments)]
    keypoints = '/mediapipe/keypoints'
    topics = [('image', image), ('keypoints', keypoints)]
    return [
        *video,
        Program(PACKAGE, 'dposer_detector', 'dposer_detector', remappings=topics),
        _fit(values, keypoints, camera_info),
        *_look(values, camera_info_topic=camera_info),
    ]


# --- viewers -------------------------------------------------------------------------------------


def _viz(values: Mapping[str, str]) -> list[Step]:
    """The node that draws, and the frame that it is looked from."""
    if values['model_path'] and not Path(values['model_path']).is_file():
        raise ConfigError(f"model_path:='{values['model_path']}': there is no such file")
    image = values['image_topic']
    topics = [
        ('image', image),
        ('image/compressed', f'{image}/compressed'),
        ('camera_info', _camera_info(values)),
    ]
    parameters = {
        'use_sim_time': values['use_sim_time'] == 'true',
        'image_transport': values['image_transport'],
        'model_path': values['model_path'],
    }
    steps: list[Step] = [
        Program(PACKAGE, 'dposer_viz', 'dposer_viz', [parameters], topics if image else [])
    ]
    if not values['fixed_frame']:
        # x right, y down, z forward -> x forward, y left, z up (REP 103).
        place = {'z': CAMERA_HEIGHT, 'qx': -0.5, 'qy': 0.5, 'qz': -0.5, 'qw': 0.5}
        arguments = ['--frame-id', VIEW_FRAME, '--child-frame-id', values['camera_frame']]
        arguments += [word for k, number in place.items() for word in (f'--{k}', str(number))]
        steps.append(
            Program('tf2_ros', 'static_transform_publisher', VIEW_FRAME, arguments=arguments)
        )
    return steps


def _rviz(values: Mapping[str, str]) -> list[Step]:
    layout = values['layout'] or str(share_file(PACKAGE, 'config/rviz/dposer.rviz'))
    if not Path(layout).is_file():
        raise ConfigError(f"layout:='{layout}': there is no such file")
    frame = values['fixed_frame'] or VIEW_FRAME
    sim_time = {'use_sim_time': values['use_sim_time'] == 'true'}
    arguments = ['-d', layout, '-f', frame]
    return [*_viz(values), Program('rviz2', 'rviz2', 'rviz2', [sim_time], arguments=arguments)]


def _foxglove(values: Mapping[str, str]) -> list[Step]:
    if not (values['port'].isdecimal() and 0 < int(values['port']) < 65536):
        raise ConfigError(f"port:='{values['port']}': not a port, a number from 1 to 65535")
    parameters = {
        'address': values['address'],
        'port': int(values['port']),
        'use_sim_time': values['use_sim_time'] == 'true',
    }
    layout = share_file(PACKAGE, 'config/foxglove/dposer.json')
    return [
        *_viz(values),
        Program('foxglove_bridge', 'foxglove_bridge', 'foxglove_bridge', [parameters]),
        f'Foxglove: open ws://localhost:{values["port"]}, import the layout {layout}, and reload '
        'the page: a 3D panel that is imported into an open connection misses latched frames',
    ]


PLANS = {
    'wholebody': Plan(
        (
            *launch_arguments.ARGUMENTS,
            LaunchArgument(
                'bag',
                '',
                'bag to play in simulated time and to evaluate, as replay_eval.launch.py does',
            ),
            _VIZ,
            *_FROM,
        ),
        {},
        _wholebody,
    ),
    'multi_camera': Plan(
        (
            LaunchArgument('cameras', '', 'names, separated by commas: left,right,top'),
            LaunchArgument(
                'calibration',
                '',
                'file of where the cameras stand (.toml, .yaml, .qca.txt); empty: /tf_static',
            ),
            LaunchArgument('world_frame', 'world', 'frame of the keypoints and of the states'),
            LaunchArgument(
                'slop', '0.02', 'pictures taken within this many seconds are of one instant'
            ),
            *_FIT,
        ),
        {},
        _multi_camera,
    ),
    'yolo': Plan(
        (
            LaunchArgument('model', '', 'pose model of YOLO; others find no keypoints'),
            *_image('/camera/image_raw'),
            _VIZ,
            *_FIT,
        ),
        {'yolo_bringup': 'build https://github.com/mgonzs13/yolo_ros in your workspace'},
        _yolo,
    ),
    'zed': Plan(
        (
            LaunchArgument('camera_model', '', 'zed, zedm, zed2, zed2i, zedx, zedxm, ...'),
            LaunchArgument('camera_name', 'zed', 'namespace of the camera'),
            LaunchArgument('image_topic', '', 'image of the left camera, for the overlay'),
            LaunchArgument('camera_info_topic', '', 'its CameraInfo; empty: beside the image'),
            _VIZ,
            *_FIT,
        ),
        {'zed_wrapper': 'see https://www.stereolabs.com/docs/ros2'},
        _zed,
    ),
    'mediapipe': Plan(
        (
            *_image('/camera/image_raw'),
            LaunchArgument('video', '', 'video file to play as the camera; empty: there is one'),
            _VIZ,
            *_FIT,
        ),
        {},
        _mediapipe,
    ),
    'rviz': Plan(
        (*_LOOK, LaunchArgument('layout', '', '.rviz file; empty: config/rviz/dposer.rviz')),
        {
            'rviz2': 'apt install ros-$ROS_DISTRO-rviz2',
            'tf2_ros': 'apt install ros-$ROS_DISTRO-tf2-ros',
        },
        _rviz,
    ),
    'foxglove': Plan(
        (
            *_LOOK,
            LaunchArgument('port', '8765', 'that Foxglove connects to'),
            LaunchArgument('address', '127.0.0.1', 'to listen on; 0.0.0.0: every machine'),
        ),
        {
            'foxglove_bridge': 'apt install ros-$ROS_DISTRO-foxglove-bridge',
            'tf2_ros': 'apt install ros-$ROS_DISTRO-tf2-ros',
        },
        _foxglove,
    ),
}
