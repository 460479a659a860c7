"""The launch files of detectors and viewers: their plans, and the actions made of them."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from dposer_core.errors import ConfigError, MediaError
from dposer_ros import bags, launch_arguments, launch_plans, replay_launch
from dposer_ros.environment import CHECKOUT
from dposer_ros.launch_plans import PLANS, Include, Program, start
from test.ros.people_bag import camera_info, keypoints, write_bag

LAUNCH = CHECKOUT / 'launch'
NEEDED = {
    'yolo': {'model': 'yolo11n-pose.pt'},
    'zed': {'camera_model': 'zed2i'},
    'multi_camera': {'cameras': 'left,right'},
}
"""What has no default."""


@pytest.fixture
def installed(monkeypatch, tmp_path) -> set[str]:
    """The packages that are there; a test takes some away."""
    packages = {'yolo_bringup', 'zed_wrapper', 'rviz2', 'tf2_ros', 'foxglove_bridge'}

    def share(package: str) -> str:
        from ament_index_python.packages import PackageNotFoundError

        if package not in packages:
            raise PackageNotFoundError(package)
        return str(tmp_path / package)

    pytest.importorskip('ament_index_python')
    monkeypatch.setattr('ament_index_python.packages.get_package_share_directory', share)
    return packages


@pytest.fixture
def bag(tmp_path) -> str:
    """Keypoints of nobody on /points, and their camera."""
    messages = [
        ('/camera_info', 1, bags.CAMERA_TYPE, camera_info()),
        ('/points', 1, bags.KEYPOINT_TYPE, keypoints(1, [])),
    ]
    return str(write_bag(tmp_path / 'bag', messages))


def values_of(name: str, **given: str) -> dict[str, str]:
    values = {argument.name: argument.default for argument in PLANS[name].arguments}
    given = NEEDED.get(name, {}) | given
    assert set(given) <= set(values)
    return values | given


def started(name: str, **given: str) -> dict[str, Include | Program]:
    """Steps by the launch file or node they start."""
    steps = start(PLANS[name], values_of(name, **given))
    return {
        step.file if isinstance(step, Include) else step.name: step
        for step in steps
        if not isinstance(step, str)
    }


def fit_of(steps) -> dict[str, str]:
    """Arguments of the live node; nothing is left to chance, and nothing unknown is said."""
    arguments = steps['wholebody.launch.py'].arguments
    known = {argument.name for argument in launch_arguments.ARGUMENTS}
    assert set(arguments) == known - {'input_type', 'layout'}
    return arguments


def test_every_argument_is_explained_and_named_once() -> None:
    for plan in PLANS.values():
        names = [argument.name for argument in plan.arguments]
        assert len(set(names)) == len(names)
        assert all(argument.help for argument in plan.arguments)


def test_the_live_node_has_its_file_its_parameters_and_its_topics(installed) -> None:
    steps = started('wholebody', keypoints_topic='/points', hri='true', respawn='true')
    assert set(steps) == {'dposer_wholebody'}
    node = steps['dposer_wholebody']
    file, over = node.parameters
    assert Path(file).is_file()
    assert over == {'hri.enable': True, 'use_sim_time': False, 'autostart': True}
    assert node.remappings == [('keypoints', '/points')]
    assert node.is_lifecycle and node.respawns


def test_the_live_node_brings_its_viewer(installed) -> None:
    steps = started(
        'wholebody', viz='rviz', namespace='lab', output_frame='base_link', layout='coco17',
        image_topic='/cam/image',
    )  # fmt: skip
    view = steps['rviz.launch.py'].arguments
    assert (view['camera_info_topic'], view['image_topic']) == ('/lab/camera_info', '/cam/image')
    assert view['fixed_frame'] == 'base_link'
    assert view['layout'] == ''  # coco17 is no file of RViz


def test_a_bag_is_played_and_evaluated(installed, bag) -> None:
    steps = started('wholebody', bag=bag, keypoints_topic='/points', viz='foxglove')
    assert set(steps) == {'replay_eval.launch.py', 'foxglove.launch.py'}
    replay = steps['replay_eval.launch.py'].arguments
    assert set(replay) == {argument.name for argument in replay_launch.ARGUMENTS}
    assert (replay['bag'], replay['keypoints_topic']) == (bag, '/points')
    assert steps['foxglove.launch.py'].arguments['use_sim_time'] == 'true'


def test_a_bag_that_is_not_there_starts_nothing(installed) -> None:
    with pytest.raises(MediaError, match=r'/nowhere\.mcap'):
        start(PLANS['wholebody'], values_of('wholebody', bag='/nowhere.mcap'))


def test_a_bag_is_played_when_all_listen_and_judged_by_the_same_parameters(bag, tmp_path) -> None:
    values = {argument.name: argument.default for argument in replay_launch.ARGUMENTS}
    values |= {'bag': bag, 'out': str(tmp_path), 'keypoints_topic': 'points', 'rate': '0.5'}
    commands = replay_launch.commands(values, 'python')
    live = str(tmp_path / 'live' / 'live.mcap')
    assert commands.record[-1] == live
    play = ' '.join(commands.play)
    assert f'{bag} --topics /points /camera_info --rate 0.5' in play
    assert play.endswith('--wait-for /points:1,/clock:1')
    evaluate = ' '.join(commands.evaluate)
    assert f'--topic /points --compare {live} --camera-topic /camera_info' in evaluate
    assert evaluate.endswith('config/wholebody.yaml')


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'bag': ''}, 'bag:= is missing'),
        ({'rate': 'fast'}, "rate:='fast'"),
        ({'rate': '0'}, "rate:='0'"),
        ({'autostart': 'false'}, 'wait for the node for ever'),
        ({'keypoints_topic': 'other'}, 'other.* is not in .*; it has /camera_info, /points'),
    ],
)
def test_a_replay_that_cannot_work_is_refused(bag, given, message) -> None:
    values = {argument.name: argument.default for argument in replay_launch.ARGUMENTS}
    values |= {'bag': bag, 'keypoints_topic': 'points'} | given
    with pytest.raises(ConfigError, match=message):
        replay_launch.commands(values, 'python')


def test_several_cameras_are_fused_and_fitted() -> None:
    steps = started(
        'multi_camera', cameras='left,right', slop='0.01', namespace='lab', use_sim_time='true'
    )
    fusion = steps['dposer_fusion']
    assert fusion.parameters == [
        {
            'cameras': 'left,right', 'calibration': '', 'world_frame': 'world', 'slop': 0.01,
            'use_sim_time': True,
        }
    ]  # fmt: skip
    assert fusion.remappings == [('keypoints', 'fused/keypoints')]
    assert fusion.namespace == 'lab'
    fit = fit_of(steps)
    assert fit['keypoints_topic'] == 'fused/keypoints'
    assert (fit['namespace'], fit['use_sim_time']) == ('lab', 'true')


def test_yolo_poses_go_to_the_fit_and_its_image_to_yolo(installed) -> None:
    steps = started('yolo', image_topic='/cam/color/image_raw', namespace='lab')
    yolo = steps['yolo.launch.py']
    assert yolo.package == 'yolo_bringup'
    assert yolo.arguments['model'] == 'yolo11n-pose.pt'
    assert yolo.arguments['input_image_topic'] == '/cam/color/image_raw'
    fit = fit_of(steps)
    assert fit['keypoints_topic'] == f'/{yolo.arguments["namespace"]}/tracking'
    assert (fit['camera_info_topic'], fit['namespace']) == ('/cam/color/camera_info', 'lab')
    assert set(steps) == {'yolo.launch.py', 'wholebody.launch.py'}


def test_zed_tracks_bodies_for_the_fit(installed) -> None:
    import yaml

    steps = started('zed', camera_name='front', viz='rviz')
    camera = steps['zed_camera.launch.py']
    assert camera.package == 'zed_wrapper' and camera.arguments['camera_model'] == 'zed2i'
    parameters = yaml.safe_load(Path(camera.arguments['ros_params_override_path']).read_text())
    assert parameters['/**']['ros__parameters']['body_tracking']['bt_enabled'] is True
    assert fit_of(steps)['keypoints_topic'] == '/front/zed_node/body_trk/skeletons'
    assert steps['rviz.launch.py'].arguments['fixed_frame'] == 'front_left_camera_frame'


def test_mediapipe_sees_the_camera_or_a_video(installed, tmp_path) -> None:
    pytest.importorskip('mediapipe')
    steps = started('mediapipe', image_topic='/cam/image')
    detector = steps['dposer_detector']
    topics = dict(detector.remappings)
    assert topics['image'] == '/cam/image'
    assert fit_of(steps)['keypoints_topic'] == topics['keypoints']
    assert fit_of(steps)['camera_info_topic'] == '/cam/camera_info'
    video = tmp_path / 'walk.mp4'
    video.write_bytes(b'')
    player = started('mediapipe', video=str(video))['dposer_player']
    assert dict(player.remappings)['image'] == '/camera/image_raw'
    assert player.arguments[:2] == [str(video), '--wait-for']


def test_a_viewer_draws_and_looks_from_a_frame_with_z_up(installed) -> None:
    from scipy.spatial.transform import Rotation

    steps = started('rviz', image_topic='/cam/image', camera_frame='cam_optical')
    viz = steps['dposer_viz']
    assert dict(viz.remappings) == {
        'image': '/cam/image',
        'image/compressed': '/cam/image/compressed',
        'camera_info': '/cam/camera_info',
    }
    rviz = steps['rviz2'].arguments
    assert Path(rviz[rviz.index('-d') + 1]).is_file()
    frame = steps[rviz[rviz.index('-f') + 1]].arguments
    assert frame[:4] == ['--frame-id', 'dposer_view', '--child-frame-id', 'cam_optical']
    number = dict(zip(frame[4::2], map(float, frame[5::2]), strict=True))
    optical = Rotation.from_quat([number[f'--q{axis}'] for axis in 'xyzw']).as_matrix()
    assert optical[:, 2].round(9).tolist() == [1, 0, 0]  # it looks along x of the view
    assert optical[:, 1].round(9).tolist() == [0, 0, -1]  # and its y is down


def test_a_fixed_frame_that_is_there_is_left_alone(installed) -> None:
    steps = started('rviz', fixed_frame='map')
    assert 'dposer_view' not in steps and 'map' in steps['rviz2'].arguments
    assert steps['dposer_viz'].remappings == []


def test_foxglove_listens_and_tells_where_the_layout_is(installed) -> None:
    steps = start(PLANS['foxglove'], values_of('foxglove', port='9000'))
    (text,) = [step for step in steps if isinstance(step, str)]
    assert 'ws://localhost:9000' in text
    assert Path(re.search(r'\S+\.json', text).group()).is_file()
    (bridge,) = [s for s in steps if getattr(s, 'package', '') == 'foxglove_bridge']
    assert bridge.parameters[0]['port'] == 9000


@pytest.mark.parametrize('viewer', ['rviz', 'foxglove'])
def test_a_detector_brings_its_viewer(installed, viewer) -> None:
    steps = started('yolo', image_topic='/cam/image', viz=viewer, use_sim_time='true')
    arguments = steps[f'{viewer}.launch.py'].arguments
    assert set(arguments) == {argument.name for argument in PLANS[viewer].arguments}
    assert (arguments['image_topic'], arguments['use_sim_time']) == ('/cam/image', 'true')


@pytest.mark.parametrize(
    ('name', 'given', 'message'),
    [
        ('wholebody', {'viz': 'rqt'}, 'choose one of none, rviz, foxglove'),
        ('wholebody', {'bag': 'x.mcap', 'respawn': 'true'}, 'leave respawn out'),
        ('wholebody', {'bag': 'x.mcap', 'output_frame': 'map'}, 'leave output_frame out'),
        ('multi_camera', {'cameras': 'left'}, 'at least two'),
        ('multi_camera', {'calibration': '/nowhere.toml'}, 'no such file'),
        ('multi_camera', {'slop': 'soon'}, 'not a number'),
        ('multi_camera', {'log_level': 'loud'}, 'choose one of debug'),
        ('yolo', {'model': ''}, 'model:= is missing: give a pose model'),
        ('yolo', {'viz': 'rqt'}, 'choose one of none, rviz, foxglove'),
        ('yolo', {'respawn': 'true', 'autostart': 'false'}, 'set autostart:=true'),
        ('yolo', {'image_topic': 'two words'}, 'not a topic name'),
        ('zed', {'camera_model': ''}, 'camera_model:= is missing'),
        ('zed', {'params_file': '/nowhere.yaml'}, 'there is no such file'),
        ('mediapipe', {'video': '/nowhere.mp4'}, 'there is no such file'),
        ('rviz', {'layout': '/nowhere.rviz'}, 'there is no such file'),
        ('rviz', {'model_path': '/nowhere.npz'}, 'there is no such file'),
        ('rviz', {'image_transport': 'theora'}, 'choose one of raw, compressed'),
        ('foxglove', {'port': 'web'}, 'not a port'),
        ('foxglove', {'port': '70000'}, 'not a port'),
    ],
)
def test_a_bad_argument_starts_nothing(installed, name, given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        start(PLANS[name], values_of(name, **given))


@pytest.mark.parametrize(
    ('name', 'package', 'given'),
    [
        ('yolo', 'yolo_bringup', {}),
        ('zed', 'zed_wrapper', {}),
        ('rviz', 'rviz2', {}),
        ('foxglove', 'foxglove_bridge', {}),
        ('yolo', 'rviz2', {'viz': 'rviz'}),
    ],
)
def test_a_missing_package_is_one_error_with_its_remedy(installed, name, package, given) -> None:
    installed.remove(package)
    with pytest.raises(ConfigError, match=f"'{package}' is not installed: ") as caught:
        start(PLANS[name], values_of(name, **given))
    assert '\n' not in str(caught.value)


def test_mediapipe_is_asked_for_by_name(monkeypatch) -> None:
    monkeypatch.setattr(launch_plans.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ConfigError, match='pip install mediapipe'):
        start(PLANS['mediapipe'], values_of('mediapipe'))


def test_own_programs_are_installed() -> None:
    """Every executable of ours that a plan starts is one that CMake installs."""
    text = (CHECKOUT / 'CMakeLists.txt').read_text()
    made = set(re.findall(r'install_executable\((\w+)', text))
    named = set(re.findall(r"'(dposer_\w+)'", Path(launch_plans.__file__).read_text()))
    assert named - {'dposer_ros', 'dposer_view'} <= made


# --- the files themselves, with stand-ins for ROS 2's launch packages, which pip has not ---------


class Action(SimpleNamespace):
    """What it was made with."""

    def __init__(self, *arguments, **named) -> None:
        super().__init__(positional=arguments, **named)


class Value(Action):
    """A LaunchConfiguration: the context is the mapping of values."""

    def perform(self, context) -> str:
        return context[self.positional[0]]


@pytest.fixture
def stand_ins(monkeypatch) -> None:
    for name, classes in {
        'launch': 'LaunchDescription',
        'launch.actions': 'DeclareLaunchArgument GroupAction IncludeLaunchDescription LogInfo '
        'OpaqueFunction',
        'launch.launch_description_sources': 'PythonLaunchDescriptionSource',
        'launch.substitutions': '',
        'launch_ros': '',
        'launch_ros.actions': 'LifecycleNode Node',
    }.items():
        module = ModuleType(name)
        for kind in classes.split():
            setattr(module, kind, type(kind, (Action,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules['launch.substitutions'].LaunchConfiguration = Value
    monkeypatch.delitem(sys.modules, 'dposer_ros.launch_files', raising=False)


@pytest.mark.parametrize('name', PLANS)
def test_each_file_declares_its_plan_and_describes_its_steps(name, stand_ins, installed) -> None:
    if name == 'mediapipe':
        pytest.importorskip('mediapipe')
    spec = importlib.util.spec_from_file_location('file', LAUNCH / f'{name}.launch.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert f'dposer_ros {name}.launch.py' in module.__doc__
    *declared, opaque = module.generate_launch_description().positional[0]
    arguments = PLANS[name].arguments
    assert [d.positional[0] for d in declared] == [argument.name for argument in arguments]
    assert [d.default_value for d in declared] == [argument.default for argument in arguments]
    values = values_of(name)
    actions = opaque.function(values)
    kinds = [type(action).__name__ for action in actions]
    assert len(kinds) == len(start(PLANS[name], values)) and set(kinds) <= {
        'GroupAction',
        'LifecycleNode',
        'LogInfo',
        'Node',
    }
    for group in actions:
        if type(group).__name__ == 'GroupAction':
            assert group.scoped and not group.forwarding
    sys.modules.pop('dposer_ros.launch_files')  # made of stand-ins


@pytest.mark.parametrize('name', PLANS)
def test_where_there_is_launch_the_file_is_one(name) -> None:
    """Parsed by `ros2 launch` itself, in a process without the stand-ins."""
    pytest.importorskip('launch_ros', reason='launch_ros is not installed')
    program = (
        'import sys; from launch.launch_description_sources import PythonLaunchDescriptionSource\n'
        'source = PythonLaunchDescriptionSource(sys.argv[1])\n'
        'print(len(source.try_get_launch_description_without_context().get_launch_arguments()))'
    )
    found = subprocess.run(
        [sys.executable, '-c', program, str(LAUNCH / f'{name}.launch.py')],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.stdout.strip() == str(len(PLANS[name].arguments)), found.stderr


PACKAGES = {
    'yolo_bringup': {},
    'zed_wrapper': {},
    'rviz2': {'rviz2'},
    'tf2_ros': {'static_transform_publisher'},
    'foxglove_bridge': {'foxglove_bridge'},
    'dposer_ros': {'dposer_wholebody', 'dposer_viz', 'dposer_detector', 'dposer_fusion'},
}
"""Package -> its programs, as stand-ins that say what they were started with."""
UPSTREAM = """\
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo
from launch.substitutions import LaunchConfiguration

def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument('params_file', default_value='of {package}'),
        LogInfo(msg=['{package} with ', LaunchConfiguration('params_file')]),
    ])
"""
PROGRAM = """\
#!/bin/bash
echo "started $0 $@"
trap 'exit 0' INT TERM
while true; do sleep 0.1; done
"""
RUN = """\
import asyncio, sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription, Shutdown, TimerAction
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService(noninteractive=True)
file, *given = sys.argv[1:]
pairs = [text.split(':=') for text in given]
include = IncludeLaunchDescription(PythonLaunchDescriptionSource(file), launch_arguments=pairs)
service.include_launch_description(
    LaunchDescription([include, TimerAction(period=2.0, actions=[Shutdown()])])
)
sys.exit(service.run())
"""


def ament_prefix(folder: Path) -> Path:
    """An installation of `PACKAGES`."""
    index = folder / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    for package, programs in PACKAGES.items():
        (index / package).touch()
        launch = folder / 'share' / package / 'launch'
        launch.mkdir(parents=True)
        for file in ('yolo.launch.py', 'zed_camera.launch.py'):
            (launch / file).write_text(UPSTREAM.format(package=package))
        (folder / 'lib' / package).mkdir(parents=True)
        for program in programs:
            path = folder / 'lib' / package / program
            path.write_text(PROGRAM)
            path.chmod(0o755)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'given', 'said', 'programs'),
    [
        ('wholebody', ['viz:=rviz', 'layout:=coco17'], '',
         {'dposer_wholebody', 'dposer_viz', 'rviz2', 'static_transform_publisher'}),
        ('multi_camera', [], '', {'dposer_fusion', 'dposer_wholebody'}),
        ('yolo', ['viz:=rviz'], 'yolo_bringup with of yolo_bringup',
         {'dposer_wholebody', 'dposer_viz', 'rviz2', 'static_transform_publisher'}),
        ('zed', [], 'zed_wrapper with of zed_wrapper', {'dposer_wholebody'}),
        ('mediapipe', [], '', {'dposer_wholebody', 'dposer_detector'}),
        ('rviz', ['fixed_frame:=map'], '', {'dposer_viz', 'rviz2'}),
        ('foxglove', ['port:=9000'], 'ws://localhost:9000',
         {'dposer_viz', 'foxglove_bridge', 'static_transform_publisher'}),
    ],
)  # fmt: skip
def test_launch_starts_what_the_plan_says(tmp_path, name, given, said, programs) -> None:
    pytest.importorskip('launch_ros', reason='launch_ros is not installed')
    if name == 'mediapipe':
        pytest.importorskip('mediapipe')
    needed = [f'{key}:={value}' for key, value in NEEDED.get(name, {}).items()]
    file = str(LAUNCH / f'{name}.launch.py')
    found = subprocess.run(
        [sys.executable, '-c', RUN, file, *needed, *given],
        capture_output=True, text=True, timeout=60,
        env=os.environ | {'AMENT_PREFIX_PATH': str(ament_prefix(tmp_path))},
    )  # fmt: skip
    output = found.stdout + found.stderr
    assert found.returncode == 0, output
    assert said in output
    assert set(re.findall(r'started \S*/(\w+)', output)) == programs, output


@pytest.mark.slow
def test_launch_tells_what_is_not_installed_and_starts_nothing(tmp_path) -> None:
    pytest.importorskip('launch_ros', reason='launch_ros is not installed')
    prefix = ament_prefix(tmp_path)
    (prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'rviz2').unlink()
    found = subprocess.run(
        [sys.executable, '-c', RUN, str(LAUNCH / 'yolo.launch.py'), 'model:=m.pt', 'viz:=rviz'],
        capture_output=True, text=True, timeout=60,
        env=os.environ | {'AMENT_PREFIX_PATH': str(prefix)},
    )  # fmt: skip
    output = found.stdout + found.stderr
    assert found.returncode == 1 and "'rviz2' is not installed: apt install" in output
    assert 'process started' not in output
