"""One list of arguments for `ros2 launch` and `dposer up`, checked before a process starts."""

from pathlib import Path

import pytest

from dposer_core.config import checked
from dposer_core.errors import ConfigError
from dposer_ros import launch_arguments as arguments
from dposer_ros.node_config import known_parameters


def test_defaults_pass_the_check() -> None:
    values = arguments.parse([])
    assert values['autostart'] == 'true'
    assert set(values) == {argument.name for argument in arguments.ARGUMENTS}


@pytest.mark.parametrize(
    ('tokens', 'message'),
    [
        (['model=x.npz'], 'not of the form name:=value'),
        (['model_pth:=x.npz'], "did you mean 'model_path'"),
        (['bag:=x.mcap'], "'bag' is an argument of `ros2 launch"),
        (['model_path:=/nowhere/x.npz'], "'/nowhere/x.npz': there is no such file"),
        (['params_file:=/nowhere/x.yaml'], 'there is no such file'),
        (['prior_checkpoint:=/nowhere/x.safetensors'], 'there is no such file'),
        (['input_type:=video'], 'choose one of auto, keypoint_frame, yolo'),
        (['log_level:=loud'], 'choose one of debug'),
        (['use_sim_time:=yes'], 'choose one of true, false'),
        (['keypoints_topic:=two words'], 'not a topic name'),
        (['namespace:=robot-1'], 'not a namespace'),
        (['keypoints_topic:=a', 'camera_info_topic:=a'], "both 'a'"),
        (['respawn:=true', 'autostart:=false'], 'set autostart:=true'),
    ],
)
def test_bad_arguments_are_named(tokens: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        arguments.parse(tokens)


def test_default_parameter_file_is_the_packages() -> None:
    file = arguments.params_file(arguments.parse([]))
    assert file.name == 'wholebody.yaml'
    assert file.is_file()


def test_parameters_that_are_set_exist_and_take_their_values() -> None:
    tokens = ['input_type:=yolo', 'layout:=halpe26', 'prior_checkpoint:=body', 'backend:=torch',
              'output_frame:=map', 'tf_mode:=smplx', 'hri:=false',
              'worker_isolation:=process']  # fmt: skip
    given = arguments.parameters(arguments.parse(tokens))
    assert given.pop('use_sim_time') is False  # every node has that one
    assert given['hri.enable'] is False
    known = known_parameters()
    for name, value in given.items():
        assert checked(name, value, *known[name]) == value
    assert given['output_frame'] == 'map' and given['input.type'] == 'yolo'


def test_empty_values_leave_the_parameter_file_in_charge() -> None:
    assert set(arguments.parameters(arguments.parse([]))) == {'use_sim_time', 'autostart'}


def test_remapped_topics() -> None:
    values = arguments.parse(['keypoints_topic:=/detector/keypoints'])
    assert arguments.remappings(values) == [('keypoints', '/detector/keypoints')]


def test_ros_arguments_of_a_process(tmp_path: Path) -> None:
    model = tmp_path / 'with space.npz'
    model.touch()
    values = arguments.parse([f'model_path:={model}', 'namespace:=robot/', 'log_level:=warn'])
    line = arguments.ros_arguments(values)
    assert line[0] == '--ros-args'
    assert f"model.path:='{model}'" in line
    assert 'autostart:=true' in line
    assert '__ns:=/robot' in line
    assert line[-2:] == ['--log-level', 'warn']
