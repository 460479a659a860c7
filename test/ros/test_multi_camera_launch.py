"""`multi_camera.launch.py`, run with stand-ins for ROS 2's launch packages, which pip has not."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from dposer_core.errors import ConfigError
from dposer_ros import launch_arguments

LAUNCH_FILE = Path(__file__).resolve().parents[2] / 'launch' / 'multi_camera.launch.py'


class Action(SimpleNamespace):
    """What it was made with."""

    def __init__(self, *arguments, **named) -> None:
        super().__init__(arguments=arguments, **named)


class Value(Action):
    """A LaunchConfiguration: the context is the mapping of values."""

    def perform(self, context) -> str:
        return context[self.arguments[0]]


@pytest.fixture
def launch_file(monkeypatch) -> ModuleType:
    for name, classes in {
        'launch': ('LaunchDescription',),
        'launch.actions': ('DeclareLaunchArgument', 'IncludeLaunchDescription', 'OpaqueFunction'),
        'launch.launch_description_sources': ('PythonLaunchDescriptionSource',),
        'launch.substitutions': (),
        'launch_ros': (),
        'launch_ros.actions': ('Node',),
    }.items():
        module = ModuleType(name)
        for kind in classes:
            setattr(module, kind, type(kind, (Action,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules['launch.substitutions'].LaunchConfiguration = Value
    spec = importlib.util.spec_from_file_location('multi_camera_launch', LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(launch_file: ModuleType, **values: str) -> tuple[Action, Action]:
    """The fusion and the included launch file."""
    *declared, opaque = launch_file.generate_launch_description().arguments[0]
    assert all(argument.description for argument in declared)
    defaults = {argument.arguments[0]: argument.default_value for argument in declared}
    assert set(values) <= set(defaults)
    return opaque.function(defaults | values)


def test_fused_keypoints_go_to_the_fit(launch_file) -> None:
    fusion, wholebody = started(
        launch_file, cameras='left,right', slop='0.01', namespace='lab', use_sim_time='true'
    )
    assert fusion.parameters == [
        {
            'cameras': 'left,right', 'calibration': '', 'world_frame': 'world', 'slop': 0.01,
            'use_sim_time': True,
        }
    ]  # fmt: skip
    assert fusion.remappings == [('keypoints', 'fused/keypoints')]
    passed_on = dict(wholebody.launch_arguments)
    assert passed_on['keypoints_topic'] == 'fused/keypoints'
    assert (passed_on['namespace'], passed_on['use_sim_time']) == ('lab', 'true')
    assert set(passed_on) <= {argument.name for argument in launch_arguments.ARGUMENTS}
    assert Path(wholebody.arguments[0].arguments[0]).is_file()


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({}, 'at least two'),
        ({'cameras': 'left'}, 'at least two'),
        ({'cameras': 'left,right', 'calibration': '/nowhere.toml'}, 'no such file'),
        ({'cameras': 'left,right', 'slop': 'soon'}, 'not a number'),
        ({'cameras': 'left,right', 'log_level': 'loud'}, 'choose one of debug'),
    ],
)
def test_bad_arguments_start_nothing(launch_file, values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        started(launch_file, **values)
