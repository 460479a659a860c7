"""The node's publishers, and what one frame's results become on them."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String

from dposer_core.state import FitResult, Status
from dposer_ros import conversions, urdf
from dposer_ros.conversions import ModelInfo
from dposer_ros.diagnostics import FrameTimes
from dposer_ros.msg import FitStats, HandStateArray, SmplxState, SmplxStateArray
from dposer_ros.parameters import NodeConfig

# A consumer that asks for it is told when states stop.
STATE_QOS = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    deadline=Duration(seconds=0.1),
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=Duration(seconds=1.0),
)
TIMING_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
FLUSH_TIMEOUT = Duration(seconds=0.1)  # per topic; leaving must take less than a second
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

# Somebody else becomes primary only when clearly nearer: a controller must not follow two people
# in turn.
SWITCH_RATIO = 0.7

# A URDF that differs by less is not published again, and settling betas not more often than this.
URDF_TOLERANCE = 0.0002  # m; along the chain it adds up
URDF_PERIOD = 1.0  # s

RestJoints = Callable[[np.ndarray], np.ndarray]
"""betas (10,) -> rest joints (55, 3)."""


@dataclasses.dataclass(frozen=True)
class Counters:
    """Since activation; see FitStats.msg."""

    dropped_inputs: int = 0
    skipped_deadline: int = 0
    rejected_inputs: int = 0


class Outputs:
    """Publishes results.

    Args:
        node: owner of the publishers.
        model: what the messages say about the body.
        rest_joints: for the URDF.
        config: of the node.
        refuse: called with (cause, message) for a result that is not published.
    """

    def __init__(
        self,
        node: Node,
        model: ModelInfo,
        rest_joints: RestJoints,
        config: NodeConfig,
        refuse: Callable[[str, str], None],
    ) -> None:
        self._node = node
        self._model = model
        self._rest_joints = rest_joints
        self._refuse = refuse
        self._primary = node.create_publisher(SmplxState, '/human/smplx_state', STATE_QOS)
        self._states = node.create_publisher(SmplxStateArray, '/human/smplx_states', STATE_QOS)
        self._hands = node.create_publisher(HandStateArray, '/human/hands', STATE_QOS)
        self._joints = node.create_publisher(
            JointState, '/human/joint_states', QoSProfile(depth=1)
        )
        self._timing = node.create_publisher(FitStats, '~/timing', TIMING_QOS)
        self._urdf = node.create_publisher(String, '/human/urdf', LATCHED_QOS)
        self._tf = _broadcaster(node)
        self.policy = config.primary.policy
        self.newest: dict[str, Any] = {}
        """What was published last, by topic; messages are not changed after that."""
        self.reset()

    @property
    def primary_id(self) -> str:
        """The body that the topics of one person follow; empty if nobody is there."""
        return self._primary_id

    def set_primary(self, body_id: str = '', policy: str = '') -> None:
        """Follow this body until it is lost, or choose by this policy from now on."""
        self._chosen_id = body_id
        self.policy = policy or self.policy

    def reset(self) -> None:
        """Forget who is primary and which URDF stands."""
        self._primary_id = self._chosen_id = ''
        self._urdf_id = ''
        self._urdf_joints: np.ndarray | None = None
        self._urdf_time = 0.0

    def publish(
        self,
        results: Sequence[FitResult],
        header: Header,
        times: FrameTimes,
        counters: Counters,
        config: NodeConfig,
    ) -> list[FitResult]:
        """Put one frame on all topics, the primary person first.

        Args:
            results: of all people; may be empty.
            header: stamp and frame of the input.
            times: stopwatch; the stages `postprocess` and `publish` are added.
            counters: since activation.
            config: what is wanted.

        Returns:
            Those of `results` that could be published; all numbers of the others were refused.
        """
        with times.stage('postprocess'):
            frame_stats = self._stats(self._choose(results), counters)
            states, hands, kept = [], [], []
            for result in results:
                state, pair = self._messages(result, header, counters)
                if state is not None:
                    states.append(state)
                    hands += pair
                    kept.append(result)
            primary = self._choose(kept)
            self._primary_id = '' if primary is None else primary.body_id
        with times.stage('publish'):
            for state in states:
                times.fill(state.stats)
            if primary is not None:
                self._primary.publish(states[kept.index(primary)])
                if primary.status != Status.LOST:
                    self._joints.publish(conversions.joint_state_msg(primary.state, header))
            self.newest = {
                '/human/smplx_states': SmplxStateArray(header=header, states=states),
                '/human/hands': HandStateArray(header=header, hands=hands),
            }
            self._states.publish(self.newest['/human/smplx_states'])
            self._hands.publish(self.newest['/human/hands'])
            if config.tf.mode != 'none':
                self._broadcast(states, header)
            if primary is not None and primary.status != Status.LOST:
                self._publish_urdf(primary)
        self._timing.publish(times.fill(frame_stats))
        return kept

    def _choose(self, results: Sequence[FitResult]) -> FitResult | None:
        chosen = next((r for r in results if r.body_id == self._chosen_id), None)
        if chosen is not None and chosen.status != Status.LOST:
            return chosen
        return primary_result(results, self._primary_id, self.policy)

    def flush(self) -> None:
        """Wait until subscribers have what was published, at most a moment.

        History is one deep: what is published next, or the end of the process, would overtake it.
        """
        for publisher in (self._primary, self._states, self._hands):
            publisher.wait_for_all_acked(FLUSH_TIMEOUT)

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (
            self._primary, self._states, self._hands, self._joints, self._timing, self._urdf,
        ):  # fmt: skip
            self._node.destroy_publisher(publisher)
        if self._tf is not None:
            self._node.destroy_publisher(self._tf.pub_tf)

    def _messages(self, result: FitResult, header: Header, counters: Counters):
        """State and hands of one person, or (None, []) if a number in them is not finite."""
        with np.errstate(over='ignore', invalid='ignore'):  # judged below, on what is published
            state = conversions.state_msg(
                result, header, self._model, self._stats(result, counters)
            )
            hands = conversions.hand_msgs(result, header)
        if conversions.is_finite_state(state) and all(map(conversions.is_finite_hand, hands)):
            return state, hands
        self._refuse('result_not_finite', f'the fit of {result.body_id} gave a number not finite')
        return None, []

    def _stats(self, result: FitResult | None, counters: Counters) -> FitStats:
        stats = FitStats() if result is None else conversions.stats_msg(result.stats)
        stats.device = self._model.device
        stats.dropped_inputs = counters.dropped_inputs
        stats.skipped_deadline = counters.skipped_deadline
        stats.rejected_inputs = counters.rejected_inputs
        return stats

    def _broadcast(self, states: Sequence[SmplxState], header: Header) -> None:
        """Frames of the people who are there: a lost one must not stand frozen in the tree."""
        if self._tf is None:
            return
        present = [state for state in states if state.status != SmplxState.LOST]
        if present and not header.frame_id:
            self._refuse('no_frame', 'keypoints without header.frame_id: no TF can be broadcast')
        elif present:
            self._tf.sendTransform([conversions.body_transform(state) for state in present])

    def _publish_urdf(self, primary: FitResult) -> None:
        """Latch the primary's skeleton when the person or the lengths have changed."""
        joints = self._rest_joints(primary.state.betas)
        is_same_person = primary.body_id == self._urdf_id
        if is_same_person and np.abs(joints - self._urdf_joints).max() < URDF_TOLERANCE:
            return
        now = time.monotonic()
        if is_same_person and now - self._urdf_time < URDF_PERIOD:
            return
        self._urdf.publish(String(data=urdf.skeleton_urdf(joints, primary.body_id)))
        self._urdf_id, self._urdf_joints, self._urdf_time = primary.body_id, joints, now


def primary_result(
    results: Sequence[FitResult], current_id: str, policy: str = 'nearest'
) -> FitResult | None:
    """The person that matters, with hysteresis.

    Args:
        results: people of one frame, those fitted longest first.
        current_id: who it was in the frame before, or ''.
        policy: nearest to the origin of the frame, largest as seen from there, or first: who was
            there first stays until lost.
    """
    present = [r for r in results if r.status != Status.LOST]
    current = next((r for r in results if r.body_id == current_id), None)
    if not present:
        return current  # says once that the person is lost
    cost = {'nearest': _distance, 'largest': _smallness, 'first': lambda result: 1.0}[policy]
    best = min(present, key=cost)
    if current is None or current.status == Status.LOST:
        return best
    return best if cost(best) < SWITCH_RATIO * cost(current) else current


def _distance(result: FitResult) -> float:
    return float(np.linalg.norm(result.state.joints[0]))


def _smallness(result: FitResult) -> float:
    """Distance over extent: the inverse of the angle under which the person is seen."""
    extent = float(np.linalg.norm(np.ptp(result.state.joints, axis=0)))
    return _distance(result) / max(extent, 1e-6)


def _broadcaster(node: Node):
    from dposer_ros.compat import TransformBroadcaster

    try:
        return TransformBroadcaster(node)
    except ImportError as error:
        node.get_logger().warning(f'/tf is off: {error}; run `make messages`, or install tf2_msgs')
        return None
