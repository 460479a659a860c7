"""The layouts for RViz and Foxglove name only what is published, in types that they can show."""

import importlib
import json
from pathlib import Path

import pytest
import yaml
from node_probe import ros_context
from null_fitter import null_model

from dposer_core.body_model import open_body_path
from dposer_ros.launch_plans import VIEW_FRAME
from dposer_ros.node import WholeBodyNode
from dposer_ros.viz import VizNode

pytestmark = pytest.mark.ros

CONFIG = Path(__file__).resolve().parents[2] / 'config'
RVIZ_TYPES = {
    'PointCloud2': 'sensor_msgs/msg/PointCloud2',
    'MarkerArray': 'visualization_msgs/msg/MarkerArray',
    'Image': 'sensor_msgs/msg/Image',
}
SHOWN_IN_3D = {*RVIZ_TYPES.values()} - {RVIZ_TYPES['Image']}


def type_name(kind: type) -> str:
    package, folder, *_ = kind.__module__.split('.')
    return f'{package}/{folder}/{kind.__name__}'


@pytest.fixture(scope='module')
def published() -> dict[str, str]:
    """Topic -> type of everything that the two nodes publish once they run."""
    with ros_context() as context:
        nodes = [WholeBodyNode(null_model, context=context), VizNode(context=context)]
        try:
            if not open_body_path().is_file():
                pytest.skip('the open body is not built: run `dposer body build`')
            assert all(node.start() for node in nodes)
            return {p.topic_name: type_name(p.msg_type) for n in nodes for p in n.publishers}
        finally:
            for node in nodes:
                node.close()
                node.destroy_node()


def field_type(msgtype: str, path: list[str]) -> str:
    """Type of a field below a message."""
    package, _, name = msgtype.split('/')
    fields = getattr(importlib.import_module(f'{package}.msg'), name).get_fields_and_field_types()
    kind = fields[path[0]]
    if len(path) == 1:
        return kind
    package, name = kind.split('/')
    return field_type(f'{package}/msg/{name}', path[1:])


def test_rviz_shows_what_is_published(published) -> None:
    layout = yaml.safe_load((CONFIG / 'rviz' / 'dposer.rviz').read_text())['Visualization Manager']
    shown = {}
    for display in layout['Displays']:
        package, name = display['Class'].split('/')
        assert package == 'rviz_default_plugins' and display['Enabled'] and display['Value']
        if 'Topic' in display:
            shown[display['Topic']['Value']] = RVIZ_TYPES[name]
            # A reliable volatile subscription hears every publisher of ours.
            assert display['Topic']['Durability Policy'] == 'Volatile'
    assert shown.items() <= published.items() and len(shown) == 3
    assert layout['Global Options']['Fixed Frame'] == VIEW_FRAME


def test_foxglove_shows_what_is_published(published) -> None:
    layout = json.loads((CONFIG / 'foxglove' / 'dposer.json').read_text())
    panels = layout['configById']

    def named(tree) -> set[str]:
        return {tree} if isinstance(tree, str) else named(tree['first']) | named(tree['second'])

    assert named(layout['layout']) == set(panels)
    scene = panels['3D!people']
    assert {published[topic] for topic in scene['topics']} == SHOWN_IN_3D
    assert scene['followTf'] == VIEW_FRAME
    # Another word for it makes the panel throw at the first cloud (seen in Lichtblick 1.28).
    clouds = [t['colorMode'] for t in scene['topics'].values() if 'colorMode' in t]
    assert clouds and set(clouds) <= {'flat', 'gradient', 'colormap', 'rgb', 'rgba'}
    image = panels['Image!overlay']['imageMode']['imageTopic']
    assert published[image] == 'sensor_msgs/msg/CompressedImage'
    paths = [p['value'] for panel in panels.values() for p in panel.get('paths', [])]
    assert len(paths) == 4
    for path in paths:
        topic, _, fields = path.partition('.')
        assert field_type(published[topic], fields.split('.')) in ('float', 'uint8')
    health = panels['DiagnosticSummary!health']['topicToRender']
    assert published[health] == 'diagnostic_msgs/msg/DiagnosticArray'
