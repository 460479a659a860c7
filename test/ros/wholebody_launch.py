"""Run by launch_testing (see test_launch.py): the launch file brings the node to life."""

import time
import unittest
from pathlib import Path

import launch_testing.actions
import launch_testing.asserts
import rclpy
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_testing.util import KeepAliveProc
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState

LAUNCH_FILE = Path(__file__).resolve().parents[2] / 'launch' / 'wholebody.launch.py'
NAMESPACE = 'launched'
NODE = f'/{NAMESPACE}/dposer_wholebody'
ACTIVE_SECONDS = 90.0  # compiling the kernels for the first time takes most of it


def generate_test_description() -> LaunchDescription:
    wholebody = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LAUNCH_FILE)),
        launch_arguments={'namespace': NAMESPACE, 'keypoints_topic': 'points'}.items(),
    )
    # KeepAliveProc: the tests go on when the node dies, and fail with a reason.
    return LaunchDescription([wholebody, KeepAliveProc(), launch_testing.actions.ReadyToTest()])


class TestRunning(unittest.TestCase):
    def setUp(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node('launch_test')

    def tearDown(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown()

    def test_node_becomes_active(self) -> None:
        client = self.node.create_client(GetState, f'{NODE}/get_state')
        state, deadline = None, time.monotonic() + ACTIVE_SECONDS
        while state != State.PRIMARY_STATE_ACTIVE and time.monotonic() < deadline:
            if not client.wait_for_service(timeout_sec=1.0):
                continue
            future = client.call_async(GetState.Request())
            rclpy.spin_until_future_complete(self.node, future, timeout_sec=5.0)
            state = future.result().current_state.id if future.done() else None
            time.sleep(0.2)
        self.assertEqual(state, State.PRIMARY_STATE_ACTIVE)

    def test_node_listens_to_the_remapped_topic(self) -> None:
        topic, deadline = f'/{NAMESPACE}/points', time.monotonic() + 10.0
        while not self.node.count_subscribers(topic) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.assertEqual(self.node.count_subscribers(topic), 1)


@launch_testing.post_shutdown_test()
class TestAfterShutdown(unittest.TestCase):
    def test_node_ends_with_status_zero(self, proc_info) -> None:
        launch_testing.asserts.assertExitCodes(proc_info, process='dposer_wholebody')
