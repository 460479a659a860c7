"""The input in whatever type is published, and adapters whose message package is not there."""

from types import SimpleNamespace

import pytest
from dposer_ros.msg import KeypointFrame
from node_probe import ros_context
from rclpy.node import Node

from dposer_core.config import InputConfig
from dposer_core.errors import ConfigError
from dposer_ros.keypoint_source import KeypointSource

pytestmark = pytest.mark.ros
YOLO = 'yolo_msgs/msg/DetectionArray'


@pytest.fixture
def node(monkeypatch):
    """A node on whose topic `published` says what is published."""
    with ros_context() as context:
        node = Node('listener', context=context)
        node.published = []
        monkeypatch.setattr(
            node,
            'get_publishers_info_by_topic',
            lambda topic: [SimpleNamespace(topic_type=name) for name in node.published],
        )
        yield node
        node.destroy_node()


def test_a_missing_message_package_disables_its_adapter_with_one_warning(node, capfd) -> None:
    """And what else is published there is listened to all the same."""
    node.published = [YOLO]
    source = KeypointSource(node, lambda msg: None, InputConfig(type='auto'))
    for _ in range(5):
        source._look()
    assert source.type == 'keypoint_frame'
    node.published = [YOLO, 'std_msgs/msg/String']
    for _ in range(5):
        source._look()
    assert source.type == 'json'
    source.close()
    log = capfd.readouterr().err
    assert log.count('install the package yolo_msgs') == 1


def test_a_type_asked_for_by_name_must_be_there(node) -> None:
    with pytest.raises(ConfigError, match='install the package yolo_msgs'):
        KeypointSource(node, lambda msg: None, InputConfig(type='yolo'))


def test_a_type_that_nobody_reads_is_named_once(node, capfd) -> None:
    node.published = ['sensor_msgs/msg/Image']
    source = KeypointSource(node, lambda msg: None, InputConfig(type='auto'))
    for _ in range(5):
        source._look()
    source.close()
    log = capfd.readouterr().err
    assert log.count('sensor_msgs/msg/Image, which no adapter reads') == 1


def test_after_the_first_message_the_type_stays(node) -> None:
    source = KeypointSource(node, lambda msg: None, InputConfig(type='auto'))
    source.read(KeypointFrame())
    node.published = ['std_msgs/msg/String']
    source._look()
    assert source.type == 'keypoint_frame'
    source.close()
