"""The node's publishers, and what one frame's results become on them."""

import dataclasses
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String

from dposer_core import skeleton
from dposer_core.camera import PinholeCamera
from dposer_core.state import FitResult, Status
from dposer_ros import conversions, derived, urdf
from dposer_ros.conversions import ModelInfo
from dposer_ros.diagnostics import FrameTimes
from dposer_ros.hri import HriTopics
from dposer_ros.msg import (
    CapsuleArray,
    FitStats,
    HandState,
    HandStateArray,
    KeypointFrame,
    NamedPoses,
    SmplxState,
    SmplxStateArray,
)
from dposer_ros.node_config import NodeConfig, TfConfig
from dposer_ros.output_frame import Placement
from dposer_ros.refusals import refuses_qos
from dposer_ros.tf_tree import TfTree

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

OPTIONS = {
    'hand_poses': NamedPoses,
    'keypoints_completed': KeypointFrame,
    'capsules': CapsuleArray,
}
"""Topic below /human, and parameter below `outputs`, that switches it on -> type."""

RestById = Mapping[str, np.ndarray]
"""body_id -> rest joints (55, 3) of the person's shape."""

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
        clock: seconds, for what is not published with every frame.
    """

    def __init__(
        self,
        node: Node,
        model: ModelInfo,
        rest_joints: RestJoints,
        config: NodeConfig,
        refuse: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._clock = clock
        self._model = model
        self._rest_joints = rest_joints
        self._refuse = refuse
        self._primary, self._states, self._hands = (
            node.create_publisher(kind, topic, STATE_QOS, event_callbacks=_told(refuse, topic))
            for kind, topic in (
                (SmplxState, '/human/smplx_state'),
                (SmplxStateArray, '/human/smplx_states'),
                (HandStateArray, '/human/hands'),
            )
        )
        self._joints = node.create_publisher(
            JointState, '/human/joint_states', QoSProfile(depth=1)
        )
        self._timing = node.create_publisher(FitStats, '~/timing', TIMING_QOS)
        self._urdf = node.create_publisher(String, '/human/urdf', LATCHED_QOS)
        self._tf = _broadcaster(node)
        self._hri = _hri_topics(node) if config.hri.enable else None
        for id_in_joints in (False, True):  # written now, not while a frame waits for it
            urdf.skeleton_urdf(rest_joints(np.zeros(skeleton.NUM_BETAS)), 'nobody', id_in_joints)
        self._markers = _marker_topic(node, clock)
        self._options = {
            option: node.create_publisher(kind, f'/human/{option}', QoSProfile(depth=1))
            for option, kind in OPTIONS.items()
            if getattr(config.outputs, option)
        }
        self.policy = config.primary.policy
        self.newest: dict[str, Any] = {}
        """What was published last, by topic; messages are not changed after that."""
        self.reset()

    @property
    def primary_id(self) -> str:
        """The body that the topics of one person follow; empty if nobody is there."""
        return self._primary_id

    def add_body(self, body_id: str) -> None:
        """Make the publishers of a body, if there is REP-155 at all."""
        if self._hri is not None:
            self._hri.add(body_id)

    def set_primary(self, body_id: str = '', policy: str = '') -> None:
        """Follow this body until it is lost, or choose by this policy from now on."""
        self._chosen_id = body_id
        self.policy = policy or self.policy

    def reset(self) -> None:
        """Forget who is primary and which URDF stands."""
        self._primary_id = self._chosen_id = ''
        self._urdfs = _Urdfs(self._clock)
        self._tree = TfTree()
        self._tf_time = 0.0
        if self._hri is not None:
            self._hri.clear()

    def publish(
        self,
        results: Sequence[FitResult],
        header: Header,
        times: FrameTimes,
        counters: Counters,
        config: NodeConfig,
        camera: PinholeCamera | None = None,
        placement: Placement | None = None,
    ) -> list[FitResult]:
        """Put one frame on all topics, the primary person first.

        Args:
            results: of all people, in the frame of the input; may be empty.
            header: stamp and frame of the input.
            times: stopwatch; the stages `postprocess` and `publish` are added.
            counters: since activation.
            config: what is wanted.
            camera: that `header.frame_id` is the optical frame of; None if it is none.
            placement: where they are published; None: in the frame of the input.

        Returns:
            Those of `results` that could be published; all numbers of the others were refused.
        """
        place = Placement(header) if placement is None else placement
        header = place.header
        states, kept, placed = [], [], []
        with times.stage('postprocess'):
            frame_stats = self._stats(self._choose(results), counters)
            for result in results:
                there = place.of(result)
                state = self._state(there, header, counters)
                if state is not None:
                    states.append(state)
                    kept.append(result)
                    placed.append(there)
            # Who is nearest is a question to the camera, not to a map.
            chosen = self._choose(kept)
            self._primary_id = '' if chosen is None else chosen.body_id
            primary = None if chosen is None else placed[kept.index(chosen)]
        with times.stage('publish'):  # what robots wait for first, and nothing else before it
            for state in states:
                times.fill(state.stats)
            if primary is not None:
                _if_heard(self._primary, lambda: states[placed.index(primary)])
            self.newest = {'/human/smplx_states': SmplxStateArray(header=header, states=states)}
            _if_heard(self._states, lambda: self.newest['/human/smplx_states'])
        with times.stage('postprocess'):
            hands = [hand for person in placed for hand in conversions.hand_msgs(person, header)]
            hands = _wanted_hands(hands, config.outputs.completed_hands)
            rest = {r.body_id: self._rest_joints(r.state.betas) for r in kept}
        with times.stage('publish'):
            self.newest['/human/hands'] = HandStateArray(header=header, hands=hands)
            _if_heard(self._hands, lambda: self.newest['/human/hands'])
            for publish in (
                lambda: self._publish_joints(primary, header),
                lambda: self._broadcast(placed, header, config.tf, rest),
                lambda: self._publish_urdf(primary, rest),
                lambda: self._publish_derived(placed, primary, header, rest),
                lambda: self._publish_hri(kept, states, header, camera, rest),
                lambda: self._publish_markers(placed, header),
            ):
                self._attempt(publish)
        _if_heard(self._timing, lambda: times.fill(frame_stats))
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
        for part in (self._hri, self._markers):
            if part is not None:
                part.close()
        for publisher in (
            self._primary, self._states, self._hands, self._joints, self._timing, self._urdf,
            *self._options.values(),
        ):  # fmt: skip
            self._node.destroy_publisher(publisher)
        if self._tf is not None:
            self._node.destroy_publisher(self._tf.pub_tf)

    def _state(self, result: FitResult, header: Header, counters: Counters) -> SmplxState | None:
        """State of one person; None if a number of the result is not finite."""
        with np.errstate(over='ignore', invalid='ignore'):  # judged below, on what is published
            state = conversions.state_msg(
                result, header, self._model, self._stats(result, counters)
            )
            if conversions.is_finite(state, result):
                return state
        self._refuse('result_not_finite', f'the fit of {result.body_id} gave a number not finite')
        return None

    def _stats(self, result: FitResult | None, counters: Counters) -> FitStats:
        stats = FitStats() if result is None else conversions.stats_msg(result.stats)
        stats.device = self._model.device
        stats.dropped_inputs = counters.dropped_inputs
        stats.skipped_deadline = counters.skipped_deadline
        stats.rejected_inputs = counters.rejected_inputs
        return stats

    def _broadcast(
        self, results: Sequence[FitResult], header: Header, config: TfConfig, rest: RestById
    ) -> None:
        """Frames of the people who are there: a lost one must not stand frozen in the tree."""
        if self._tf is None or config.mode == 'none':
            return
        present = [result for result in results if result.status != Status.LOST]
        self._tree.keep([result.body_id for result in present])
        now = self._clock()
        is_early = config.rate_limit > 0.0 and now - self._tf_time < 1.0 / config.rate_limit
        if not present or is_early or not self._tf.pub_tf.get_subscription_count():
            return
        if not header.frame_id:
            self._refuse('no_frame', 'keypoints without header.frame_id: no TF can be broadcast')
            return
        self._tf_time = now
        transforms = []
        for result in present:
            joints = rest[result.body_id]
            transforms += self._tree.transforms(
                result.state, result.body_id, header, config.mode, joints
            )
        self._tf.sendTransform(transforms)

    def _publish_joints(self, primary: FitResult | None, header: Header) -> None:
        if primary is not None and primary.status != Status.LOST:
            joints = partial(conversions.joint_state_msg, primary.state, header)
            _if_heard(self._joints, joints)

    def _publish_urdf(self, primary: FitResult | None, rest: RestById) -> None:
        """Latch the primary's skeleton when the person or the lengths have changed."""
        if primary is None or primary.status == Status.LOST:
            return
        joints = rest[primary.body_id]
        if self._urdfs.is_due('', primary.body_id, joints):
            self._urdf.publish(String(data=urdf.skeleton_urdf(joints, primary.body_id)))

    def _attempt(self, publish: Callable[[], None]) -> None:
        """What fails beside the states must cost neither them nor the tracks."""
        try:
            publish()
        except Exception as error:
            self._refuse('output_failed', ''.join(traceback.format_exception(error)))

    def _publish_hri(
        self,
        results: Sequence[FitResult],
        states: Sequence[SmplxState],
        header: Header,
        camera: PinholeCamera | None,
        rest: RestById,
    ) -> None:
        if self._hri is None:
            return
        self._hri.publish(results, states, header, camera)
        for result in results:
            body_id = result.body_id
            if result.status == Status.LOST:
                self._urdfs.forget(body_id)
            elif self._urdfs.is_due(body_id, body_id, rest[body_id]):
                self._hri.publish_urdf(body_id, rest[body_id])

    def _publish_markers(self, results: Sequence[FitResult], header: Header) -> None:
        if self._markers is not None:
            self._markers.publish(results, header)

    def _publish_derived(
        self,
        results: Sequence[FitResult],
        primary: FitResult | None,
        header: Header,
        rest: RestById,
    ) -> None:
        """The optional topics, as far as they are on and somebody listens."""
        present = [result for result in results if result.status != Status.LOST]
        if self._is_wanted('hand_poses') and primary in present:
            self._options['hand_poses'].publish(derived.hand_poses(primary, header))
        if self._is_wanted('keypoints_completed'):
            msg = derived.completed_keypoints(present, header)
            self._options['keypoints_completed'].publish(msg)
        if self._is_wanted('capsules'):
            shapes = [rest[result.body_id] for result in present]
            self._options['capsules'].publish(derived.capsules(present, header, shapes))

    def _is_wanted(self, option: str) -> bool:
        publisher = self._options.get(option)
        return publisher is not None and publisher.get_subscription_count() > 0


def _if_heard(publisher: Publisher, make: Callable[[], Any]) -> None:
    """Publish if somebody listens: nobody who comes later would get it."""
    if publisher.get_subscription_count():
        publisher.publish(make())


class _Urdfs:
    """Which skeletons stand latched, and when they are worth publishing again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._latched: dict[str, tuple[str, np.ndarray, float]] = {}

    def forget(self, topic: str) -> None:
        """The topic is gone."""
        self._latched.pop(topic, None)

    def is_due(self, topic: str, body_id: str, joints: np.ndarray) -> bool:
        """Whether to publish now; then it is remembered as published.

        Args:
            topic: any name for it.
            body_id: of the person.
            joints: (55, 3) m, at rest.
        """
        now = self._clock()
        known_id, known, published = self._latched.get(topic, ('', joints, 0.0))
        if known_id == body_id:
            is_same = np.abs(joints - known).max() < URDF_TOLERANCE
            if is_same or now - published < URDF_PERIOD:
                return False
        self._latched[topic] = (body_id, joints, now)
        return True


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


def _told(refuse: Callable[[str, str], None], topic: str) -> PublisherEventCallbacks:
    """Counts subscribers that ask for more than is offered."""
    return PublisherEventCallbacks(incompatible_qos=refuses_qos(refuse, topic, is_input=False))


def _wanted_hands(hands: list[HandState], with_completed: bool) -> list[HandState]:
    return hands if with_completed else [h for h in hands if h.source <= SmplxState.SRC_PARTIAL]


def _hri_topics(node: Node) -> HriTopics | None:
    try:
        return HriTopics(node)
    except ImportError as error:
        node.get_logger().warning(
            f'/humans/bodies is off: {error}; install hri_msgs, or set hri.enable to false'
        )
        return None


def _marker_topic(node: Node, clock: Callable[[], float]):
    try:
        from dposer_ros.markers import Markers
    except ImportError as error:
        node.get_logger().warning(f'/human/markers is off: {error}; install visualization_msgs')
        return None
    return Markers(node, clock)


def _broadcaster(node: Node):
    from dposer_ros.compat import TransformBroadcaster

    try:
        return TransformBroadcaster(node)
    except ImportError as error:
        node.get_logger().warning(f'/tf is off: {error}; run `make messages`, or install tf2_msgs')
        return None
