from pathlib import Path

import numpy as np
import pytest
import yaml
from node_probe import ros_context
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.node import Node
from rclpy.parameter import Parameter

from dposer_core.config import Config, from_mapping
from dposer_core.errors import ConfigError
from dposer_ros.node_config import NodeConfig, known_parameters
from dposer_ros.parameters import NodeParameters, wholebody_yaml

pytestmark = pytest.mark.ros

KNOWN = known_parameters()
# These bound each other too: see the test of contradictions.
TIED = ('occlusion.lost_timeout', 'occlusion.predict_timeout', 'prior.t_max', 'prior.t_min')
TIED += ('degrade.down_above', 'degrade.up_below')
BOUNDED = [n for n, (_, m) in KNOWN.items() if m['low'] is not None and n not in TIED]
YAML = Path(__file__).parents[2] / 'config' / 'wholebody.yaml'


@pytest.fixture(scope='module')
def context():
    with ros_context() as context:
        yield context


@pytest.fixture
def make(context):
    """make(overrides) -> (node, its parameters)."""
    nodes = []

    def make(overrides=None, is_configured=lambda: False):
        overrides = [Parameter(k, value=v) for k, v in (overrides or {}).items()]
        nodes.append(Node('parameters', context=context, parameter_overrides=overrides))
        return nodes[-1], NodeParameters(nodes[-1], is_configured)

    yield make
    for node in nodes:
        node.destroy_node()


def change(node, name, value):
    (result,) = node.set_parameters([Parameter(name, value=value)])
    return result


def test_yaml_file_is_the_generated_one():
    assert YAML.read_text() == wholebody_yaml()


def test_yaml_file_holds_the_defaults():
    values = yaml.safe_load(YAML.read_text())['dposer_wholebody']['ros__parameters']
    core = {k: v for k, v in values.items() if hasattr(Config(), k)}
    node = {k: v for k, v in values.items() if k not in core}
    assert from_mapping(core) == Config()
    assert from_mapping(node, NodeConfig()) == NodeConfig()


def test_every_parameter_is_declared_with_its_default_and_help(make):
    node, parameters = make()
    for name, (default, metadata) in KNOWN.items():
        assert node.get_parameter(name).value == default
        assert node.describe_parameter(name).description.startswith(metadata['help'])
    assert parameters.core == Config()
    parameters.check()


def test_bounds_are_accepted_and_the_next_number_beyond_is_rejected(make):
    node, _ = make()
    for name in BOUNDED:
        default, metadata = KNOWN[name]
        for bound, towards in ((metadata['low'], -np.inf), (metadata['high'], np.inf)):
            if isinstance(default, int):
                beyond = bound + int(np.sign(towards))
            else:
                bound, beyond = float(bound), float(np.nextafter(bound, towards))
            assert change(node, name, bound).successful, (name, bound)
            rejected = change(node, name, beyond)
            assert not rejected.successful and name in rejected.reason, (name, beyond)
            assert change(node, name, default).successful


def test_not_a_number_is_rejected(make):
    node, parameters = make()
    assert not change(node, 'fit.deadline', float('nan')).successful
    assert parameters.core.fit.deadline == Config().fit.deadline


def test_wrong_type_is_rejected(make):
    node, _ = make()
    assert not change(node, 'fit.deadline', 'soon').successful
    assert not change(node, 'fit.max_iterations', 2.5).successful
    assert not change(node, 'hri.enable', 1).successful


def test_no_parameter_takes_a_value_of_another_type(make):
    node, parameters = make()
    values = ('text', 7, 2.5, True, [1, 2], ['a'])
    for name, (default, _) in KNOWN.items():
        allowed = (int, float) if isinstance(default, float) else (type(default),)
        for value in (v for v in values if type(v) not in allowed):
            rejected = change(node, name, value)
            assert not rejected.successful and rejected.reason, (name, value)
    assert (parameters.core, parameters.node) == (Config(), NodeConfig())


def test_unknown_parameter_is_rejected(make):
    node, _ = make()
    with pytest.raises(ParameterNotDeclaredException):
        change(node, 'fit.windw', 8)


def test_contradiction_is_rejected_with_both_names(make):
    node, _ = make()
    rejected = change(node, 'occlusion.lost_timeout', 0.4)
    assert 'occlusion.predict_timeout' in rejected.reason
    assert 'prior.t_min' in change(node, 'prior.t_max', 0.01).reason
    assert 'degrade.down_above' in change(node, 'degrade.up_below', 0.9).reason


def test_live_change_reaches_the_config(make):
    node, parameters = make(is_configured=lambda: True)
    assert change(node, 'fit.deadline', 0.01).successful
    assert parameters.core.fit.deadline == 0.01


def test_change_that_is_not_live_is_rejected_while_configured(make):
    node, _ = make(is_configured=lambda: True)
    rejected = change(node, 'fit.window', 5)
    assert 'configure' in rejected.reason
    free, parameters = make()
    assert change(free, 'fit.window', 5).successful
    assert parameters.core.fit.window == 5


def test_start_value_is_used_and_an_integer_serves_for_a_float(make):
    node, parameters = make({'fit.deadline': 1, 'input.max_people': 2})
    assert parameters.core.fit.deadline == 1.0
    assert parameters.core.input.max_people == 2
    assert node.get_parameter('fit.deadline').value == 1.0


@pytest.mark.parametrize(
    'name, value, words',
    [
        ('fit.window', 1000, r'\[3, 64\]'),
        ('fit.deadline', 'soon', 'expected float'),
        ('prior.backend', 'tensorflow', 'onnxruntime'),
    ],
)
def test_bad_start_value_fails_the_check_until_corrected(make, name, value, words):
    node, parameters = make({name: value})
    with pytest.raises(ConfigError, match=words):
        parameters.check()
    assert change(node, name, KNOWN[name][0]).successful
    parameters.check()


def test_unknown_start_value_is_warned_about_with_the_nearest_name(make, capfd):
    make({'fit.windw': 8})
    assert (
        "unknown parameter 'fit.windw' ignored; did you mean 'fit.window'?"
        in capfd.readouterr().err
    )
