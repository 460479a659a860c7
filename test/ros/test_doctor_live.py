"""`dposer doctor --live` sees what a running node lacks, and names the cure."""

import ast
from pathlib import Path

import pytest
import rclpy
from node_probe import active_node, person, ros_context, wait_for
from null_fitter import null_model
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from dposer_ros import causes
from dposer_ros.causes import CAUSES
from dposer_ros.cli.doctor_live import diagnose_live

pytestmark = pytest.mark.ros
ROOT = Path(__file__).parents[2]


def rows(context) -> dict:
    return {row.name: row for row in diagnose_live('', 2.5, context)}


def test_node_that_does_not_run_is_named() -> None:
    with ros_context() as context:
        found = rows(context)
    assert list(found) == ['node'] and found['node'].status == 'fail'
    assert 'dposer up wholebody' in found['node'].remedy


def test_what_is_refused_comes_with_its_cure_and_the_rest_is_well() -> None:
    with active_node(null_model) as (node, probe):
        for _ in range(20):
            probe.send(person())
            probe.send(person(confidence=0.1))
            probe.now_ns()
        wait_for(lambda: node.refusals.counts['no_points'] > 0, what='a refusal')
        found = rows(node.context)
    assert found['node'].status == found['clock'].status == 'ok'
    assert found['/keypoints'].status == found['/camera_info'].status == 'ok'
    assert found['Input'].status == 'fail'
    assert CAUSES['no_points'].cure in found['Input'].remedy


def test_camera_whose_qos_does_not_fit_is_found_before_a_message_comes() -> None:
    with active_node(null_model, camera=False) as (node, _):
        weak = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        camera = rclpy.create_node('weak_camera', context=node.context)
        camera.create_publisher(CameraInfo, 'camera_info', weak)
        try:
            wait_for(lambda: node.refusals.counts['incompatible_qos'] == 1, what='discovery')
            row = rows(node.context)['/camera_info']
        finally:
            camera.destroy_node()
    assert row.status == 'fail'
    assert 'Best effort' in row.detail and 'weak_camera' in row.detail
    assert 'qos_overrides' in row.remedy


def _literal_causes() -> set[str]:
    """First arguments of all calls that count a cause."""
    found = set()
    for path in (ROOT / 'dposer_ros').rglob('*.py'):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or len(call.args) != 2:
                continue
            name = ast.unparse(call.func)
            is_count = name in ('Refused', 'add', 'self._refuse') or 'refusals.add' in name
            if is_count and isinstance(call.args[0], ast.Constant):
                found.add(call.args[0].value)
    return found


def test_every_cause_in_the_code_has_its_cure_and_the_page_lists_them() -> None:
    literal = _literal_causes()
    assert len(literal) > 15
    assert literal - set(CAUSES) == set()
    assert causes.table() in (ROOT / 'docs' / 'TROUBLESHOOTING.md').read_text()
