"""The lifecycle node `dposer_wholebody`: keypoints in, SMPL-X states out. Wiring only.

One message: `_on_keypoints` (executor thread) judges its stamp and puts it into the mailbox;
`_fit_latest` (worker thread) converts, fits and publishes. Nothing is fitted in a callback.
"""

import copy
import dataclasses
import gc
import time
from collections.abc import Callable
from typing import Any, NoReturn

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from dposer_core.camera import PinholeCamera
from dposer_core.config import Config, InputConfig
from dposer_core.errors import DPoserError, ObservationError
from dposer_core.observation import Observation
from dposer_core.state import FitResult, Status
from dposer_ros import hri_bodies
from dposer_ros.conversions import (
    Cameras,
    cameras_from_msg,
    header_at,
    ns_from_stamp,
    observations_from_msg,
    with_beside,
)
from dposer_ros.diagnostics import Diagnostics, FrameTimes
from dposer_ros.events import SHORT_GAP, Event, TrackWatch
from dposer_ros.gate import StampGate
from dposer_ros.hri_bodies import HriBodies
from dposer_ros.keypoint_source import KeypointSource
from dposer_ros.ladder import QualityLadder
from dposer_ros.latest import LatestWorker
from dposer_ros.live_model import LiveModel, load_live_model
from dposer_ros.mixed_input import MixedInput
from dposer_ros.msg import KeypointFrame, TrackEvent
from dposer_ros.node_config import HriConfig, NodeConfig
from dposer_ros.output_frame import OutputFrame
from dposer_ros.outputs import Counters, Outputs
from dposer_ros.parameters import NodeParameters
from dposer_ros.process import run_until_signal
from dposer_ros.refusals import (
    GuardedLifecycleNode,
    Refusals,
    Refused,
    guarded,
    refuses_qos,
    transition,
)
from dposer_ros.reports import Reports
from dposer_ros.services import Services
from dposer_ros.snapshot import Snapshots

CAMERA_QOS = QoSProfile(depth=1)
QOS_OVERRIDES = QoSOverridingOptions.with_default_policies()

# Silence that is answered with predictions: longer than the period of the slowest detectors
# (5 Hz), shorter than the age at which a state may no longer be called TRACKING.
SILENCE = SHORT_GAP
STOP_TIMEOUT = 0.5  # s, for the fit in progress


@dataclasses.dataclass(frozen=True)
class LastFrame:
    """What the worker remembers of the newest frame it fitted."""

    stamp_ns: int
    frame_id: str
    dim: int
    arrived: float  # perf_counter seconds
    age_in: float  # s by the node's clock, when it arrived


class WholeBodyNode(GuardedLifecycleNode):
    """See the module; topics and parameters are in the README.

    Args:
        fitter_factory: makes the fitter on configure; tests put in their own.
        kwargs: for `rclpy.node.Node`.
    """

    def __init__(
        self, fitter_factory: Callable[[Config], LiveModel] = load_live_model, **kwargs
    ) -> None:
        super().__init__('dposer_wholebody', **kwargs)
        self.error = ''
        self._fitter_factory = fitter_factory
        self.refusals = Refusals(self.get_logger())
        self.reports = Reports(self, self._time_went_back)
        self._settings = NodeParameters(
            self, lambda: self._model is not None, self.reports.parameters_changed
        )
        self._model: LiveModel | None = None
        self._outputs: Outputs | None = None
        self._worker: LatestWorker[tuple[KeypointFrame, FrameTimes, KeypointFrame | None]] | None
        self._worker = None
        self._source: KeypointSource | HriBodies | None = None
        self._mixed: MixedInput | None = None
        self._camera_input: Subscription | None = None
        self._output_frame: OutputFrame | None = None
        self._cameras: Cameras | None = None
        self.enabled = True
        self.snapshots: Snapshots | None = None
        self._last: LastFrame | None = None
        self._people: list[FitResult] = []
        self._published_ns: int | None = None
        self._watch = TrackWatch()
        self._ladder = QualityLadder()
        self._calls = Services(self)
        self.reports.start()

    @property
    def autostart(self) -> bool:
        """Whether the node is to configure and activate itself."""
        return self._settings.node.autostart

    @property
    def people(self) -> list[FitResult]:
        """The newest results of all who are tracked."""
        return self._people

    @property
    def model(self) -> LiveModel | None:
        """What was loaded on configure."""
        return self._model

    @property
    def outputs(self) -> Outputs | None:
        """The publishers; there are none while unconfigured."""
        return self._outputs

    @property
    def settings(self) -> NodeParameters:
        """The parameters."""
        return self._settings

    @property
    def diagnostics(self) -> Diagnostics:
        """Rates, latencies, counters."""
        return self.reports.diagnostics

    @property
    def input_type(self) -> str:
        """The value of `input.type` that is listened to; empty while inactive."""
        return '' if self._source is None else self._source.type

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced before they were fitted, since activation."""
        return 0 if self._worker is None else self._worker.dropped

    @property
    def worker_age(self) -> float:
        """Seconds since the fit in progress began; 0 while idle."""
        return 0.0 if self._worker is None else self._worker.busy_for

    @property
    def actions(self) -> dict[str, str]:
        """Name -> type of every action."""
        return self._calls.actions

    @property
    def has_camera(self) -> bool:
        """Whether a usable camera_info has come since activation."""
        return self._cameras is not None

    # --- one frame: executor thread -----------------------------------------------------------

    @guarded
    def _on_keypoints(self, message: Any) -> None:
        if not self.enabled:
            return
        msg = self._source.read(message)
        stamp_ns = ns_from_stamp(msg.header.stamp)
        now_ns = self.get_clock().now().nanoseconds
        age = (now_ns - stamp_ns) * 1e-9
        self.diagnostics.arrived(stamp_ns, age, msg.seq)
        self._gate.admit(stamp_ns, now_ns, self._settings.core.input)
        self._ladder.arrived()
        arrival = msg, FrameTimes(age)
        if self._mixed is None:
            self._put(arrival, None)
        else:
            self._mixed.add(stamp_ns, arrival)

    def _put(
        self, arrival: tuple[KeypointFrame, FrameTimes], beside: KeypointFrame | None
    ) -> None:
        self._worker.put((*arrival, beside))

    @guarded
    def _on_camera_info(self, msg: CameraInfo) -> None:
        content = (msg.width, msg.height, msg.distortion_model, *msg.k, *msg.p, *msg.d)
        if content == self._camera_content:
            return
        try:
            self._cameras = cameras_from_msg(msg)
        except ObservationError as error:
            raise Refused('camera_info', str(error)) from error
        if self._camera_content:
            size = f'{msg.width}x{msg.height}'
            self.reports.announce(Event(TrackEvent.CAMERA, f'another camera_info: {size}'))
        self._camera_content = content
        self.snapshots.add('camera_info', msg)

    # --- one frame: worker thread -------------------------------------------------------------

    def _fit_latest(self, arrival: tuple[KeypointFrame, FrameTimes, KeypointFrame | None]) -> None:
        msg, times, beside = arrival
        times.taken()
        self.snapshots.add('keypoints', msg)
        config = self._live_config()
        if times.age_in + times.stages['queue'] > config.input.max_age:
            raise Refused('stamp_stale', 'the frame grew too old while the fit was busy')
        with times.stage('preprocess'):
            observations, refused = observations_from_msg(msg, self._cameras, config.input)
            if beside is not None:
                observations, left = self._with_beside(observations, msg, beside, config)
                refused += left
        for refusal in refused:
            self.refusals.add(refusal.cause, str(refusal))
        with times.stage('fit'):
            results = self._step(msg, observations, times, config)
        if self._publish(results, msg.header, times):
            deadline = config.fit.deadline
            self.diagnostics.answered(self._published_ns, times, results, deadline)
            self._ladder.answered(times.work, self._settings.node.degrade)

    def _with_beside(
        self,
        observations: list[Observation],
        msg: KeypointFrame,
        beside: KeypointFrame,
        config: Config,
    ) -> tuple[list[Observation], list[Refused]]:
        """As `with_beside`; what cannot be used is left out, and the frame stands."""
        try:
            return with_beside(observations, msg.header.frame_id, beside, config.input)
        except Refused as refusal:
            return observations, [refusal]

    def _step(
        self,
        msg: KeypointFrame,
        observations: list[Observation],
        times: FrameTimes,
        config: Config,
    ) -> list[FitResult]:
        """Fit, after forgetting everything if time or the camera is another one."""
        stamp_ns = ns_from_stamp(msg.header.stamp)
        frame = LastFrame(stamp_ns, msg.header.frame_id, msg.dim, times.arrived, times.age_in)
        change = self._break_before(frame, config)
        if change is not None:
            self.forget(change)
        self._last = frame
        results = self._model.fitter.step(
            stamp_ns, observations, config.fit.deadline, self._outputs.primary_id
        )
        return self._ladder.marked(results)

    def _break_before(self, frame: LastFrame, config: Config) -> Event | None:
        """Why this frame does not continue what was fitted before; None if it does."""
        if self._last is None:
            return None
        step = (frame.stamp_ns - self._last.stamp_ns) * 1e-9
        if step <= 0.0:
            return Event(TrackEvent.TIME_JUMP, f'stamps went back by {-step:.3f} s')
        # After real silence nobody is left here: then it is a gap and not a jump.
        if step > config.occlusion.lost_timeout and self._people:
            return Event(TrackEvent.TIME_JUMP, f'stamps jumped ahead by {step:.3f} s')
        if (frame.frame_id, frame.dim) != (self._last.frame_id, self._last.dim):
            reason = f'keypoints are now {frame.dim}D in {frame.frame_id!r}'
            return Event(TrackEvent.INPUT, reason)
        return None

    def _predict_silence(self) -> None:
        """Called when no frame comes: predict those who were there, until they are lost."""
        if self._last is None or not self._people:
            return
        silence = self._silence()
        if silence < SILENCE:
            return
        self._live_config()
        stamp_ns = self._last.stamp_ns + int(silence * 1e9)
        times = FrameTimes(age_in=0.0)  # nothing has come in
        with times.stage('fit'):
            results = self._model.fitter.predict(stamp_ns)
        self._publish(results, header_at(stamp_ns, self._last.frame_id), times)

    def _silence(self) -> float:
        """Seconds since the newest frame came.

        Those of /clock in simulated time: a bag that pauses must find everybody where they were,
        and a prediction may not be ahead of the clock.
        """
        clock = self.get_clock()
        if clock.ros_time_is_active:
            age = (clock.now().nanoseconds - self._last.stamp_ns) * 1e-9
            return max(age - self._last.age_in, 0.0)
        return time.perf_counter() - self._last.arrived

    def _publish(self, results: list[FitResult], header: Header, times: FrameTimes) -> bool:
        """Publish unless the stamp would run backwards; False if so."""
        stamp_ns = ns_from_stamp(header.stamp)
        results = [self._with_reacquired(result) for result in results]
        self._people = [r for r in results if r.status != Status.LOST]
        if self._published_ns is not None and stamp_ns <= self._published_ns:
            self.refusals.add(
                'behind_prediction', 'the frame is older than what was predicted meanwhile'
            )
            return False
        self._published_ns = stamp_ns
        primary_id = self._outputs.primary_id
        kept = self._outputs.publish(
            results,
            header,
            times,
            self._counters(),
            self._settings.node,
            self._camera_of(header.frame_id),
            None if self._output_frame is None else self._output_frame.placement(header),
        )
        for topic, output in self._outputs.newest.items():
            self.snapshots.add(topic, output)
        self.reports.output(results)
        for event in self._watch.update(kept):
            self.reports.announce(event, header)
        if self._outputs.primary_id not in ('', primary_id):
            event = Event(TrackEvent.PRIMARY, 'is primary now', self._outputs.primary_id)
            self.reports.announce(event, header)
        self._forget_broken(results, kept)
        return True

    def _camera_of(self, frame_id: str) -> PinholeCamera | None:
        """The camera whose optical frame the states are in; None if they are elsewhere."""
        cameras = self._cameras
        if cameras is None or (self._last.dim == 3 and frame_id != cameras.frame_id):
            return None
        return cameras.raw[0]

    def _with_reacquired(self, result: FitResult) -> FitResult:
        """The first measured state after a gap says so."""
        if not self._watch.reacquired(result):
            return result
        return dataclasses.replace(result, status=Status.REACQUIRED)

    def _forget_broken(self, results: list[FitResult], kept: list[FitResult]) -> None:
        """A person whose numbers are not finite must not poison the frames to come."""
        good = {result.body_id for result in kept}
        for body_id in {result.body_id for result in results} - good:
            self.forget_body(body_id, 'its numbers were not finite')

    def _live_config(self) -> Config:
        """What to fit with now, known to the fitter too."""
        config = self._ladder.config(self._settings.core)
        if config != self._fitted_config:
            self._model.fitter.configure(config)
            self._fitted_config = config
        return config

    def forget(self, why: Event | None = None) -> None:
        """Forget everybody; in the worker thread, or while there is none."""
        if why is not None:
            self.get_logger().info(f'{why.reason}: all tracks start anew')
            self.reports.announce(why)
        self._model.fitter.reset()
        self._outputs.reset()
        self._watch.clear()
        self._last, self._people, self._published_ns = None, [], None

    def forget_body(self, body_id: str, reason: str) -> None:
        """Forget one person; in the worker thread."""
        self._model.fitter.forget(body_id)
        self._people = [person for person in self._people if person.body_id != body_id]
        self.reports.announce(Event(TrackEvent.RESET, reason, body_id))

    def post(self, job: Callable[[], None]) -> None:
        """Have the worker thread call `job` between two frames; nothing if there is no worker."""
        worker = self._worker
        if worker is not None:
            worker.post(job)

    def _on_worker_error(self, error: Exception) -> None:
        self.refusals.add_error('fit_failed', error)
        if not isinstance(error, Refused):  # the frame may have left the fitter half way
            self.forget(Event(TrackEvent.RESET, f'the fit failed ({type(error).__name__})'))
        elif self._people:
            self._predict_silence()  # bad frames without end are silence too

    # --- lifecycle: executor thread -----------------------------------------------------------

    @transition(on_failure=TransitionCallbackReturn.FAILURE)
    def on_configure(self) -> None:
        """Load and warm up; afterwards every frame takes its usual time."""
        self._free()
        self._settings.check()
        begin = time.perf_counter()
        self.reports.announce(Event(TrackEvent.PROGRESS, 'loading the body model and the prior'))
        self._fitted_config = self._settings.core
        model = self._load(self._fitted_config)
        self._outputs = Outputs(
            self, model.info, model.rest_joints, self._output_config(), self.refusals.add
        )
        self.snapshots = Snapshots(self._settings.node.snapshot.seconds)
        self._model = model
        # What is loaded stays: looking through it for garbage would hold up a frame now and then.
        gc.collect()
        gc.freeze()
        seconds = time.perf_counter() - begin
        self.get_logger().info(f'configured with {model.info.name} in {seconds:.1f} s')
        self.reports.announce(Event(TrackEvent.PROGRESS, f'configured in {seconds:.1f} s'))

    def _output_config(self) -> NodeConfig:
        """Two nodes must not both say who is tracked on the topics of REP-155."""
        config = self._settings.node
        if not config.hri.enable or self._settings.core.input.type != hri_bodies.TYPE:
            return config
        self.get_logger().warning(
            f'input.type {hri_bodies.TYPE}: /humans/bodies belongs to the detector, hri.enable is '
            'taken as false'
        )
        return dataclasses.replace(config, hri=HriConfig(enable=False))

    def _load(self, config: Config) -> LiveModel:
        worker = self._settings.node.worker
        if worker.isolation == 'thread':
            return self._fitter_factory(config)
        from dposer_ros.isolation import load_isolated

        return load_isolated(
            self._fitter_factory,
            config,
            worker.hang_timeout,
            worker.max_restarts,
            self._on_worker_process,
        )

    def _on_worker_process(self, is_well: bool, what: str) -> None:
        kind = TrackEvent.RECOVERED if is_well else TrackEvent.DEGRADED
        self.get_logger().warning(what)
        self.reports.announce(Event(kind, what))

    @transition(on_failure=TransitionCallbackReturn.FAILURE)
    def on_activate(self) -> None:
        """Open the inputs and start the worker."""
        self._stop_input()  # of an activation that failed half way
        self.forget()
        self.refusals.clear()
        self.reports.clear()
        self._ladder.clear()
        self._gate = StampGate(self._settings.node.time.on_jump)
        self.enabled = True
        self._cameras = None
        self._camera_content: tuple = ()
        self._worker = LatestWorker(self._fit_latest, self._predict_silence, self._on_worker_error)
        self._worker.start()
        self._camera_input = self.create_subscription(
            CameraInfo,
            'camera_info',
            self._on_camera_info,
            copy.copy(CAMERA_QOS),  # rclpy writes overrides into it
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=refuses_qos(self.refusals.add, '/camera_info', is_input=True)
            ),
            qos_overriding_options=QOS_OVERRIDES,
        )
        self._source = self._listen(self._settings.core.input)
        if self._settings.node.output_frame:
            self._output_frame = OutputFrame(
                self, self._settings.node.output_frame, self.refusals.add
            )
        if self._settings.core.input.beside != 'none':
            self._mixed = MixedInput(self, self.refusals, self._settings.core.input, self._put)

    def _listen(self, config: InputConfig) -> KeypointSource | HriBodies:
        if config.type == hri_bodies.TYPE:
            return HriBodies(self, self.refusals, self._on_keypoints, config)
        on_incompatible = refuses_qos(self.refusals.add, '/keypoints', is_input=True)
        return KeypointSource(self, self._on_keypoints, config, on_incompatible)

    @transition(on_failure=TransitionCallbackReturn.ERROR)
    def on_deactivate(self) -> None:
        """Close the inputs and say that everybody is lost; the model stays warm."""
        self._stop_input()
        self._publish_lost()
        self._close_output_frame()
        self.forget()

    @transition(on_failure=TransitionCallbackReturn.ERROR)
    def on_cleanup(self) -> None:
        """Free the model."""
        self._free()

    @transition(on_failure=TransitionCallbackReturn.ERROR)
    def on_shutdown(self) -> None:
        """From any state: stop and free everything."""
        self.close()

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, from where configure works again."""
        try:
            self._free()
        except Exception as error:
            self.refusals.add_error('callback_failed', error)
        return TransitionCallbackReturn.SUCCESS

    def start(self) -> bool:
        """Configure and activate; False if one of them failed."""
        return all(
            change() == TransitionCallbackReturn.SUCCESS
            for change in (self.trigger_configure, self.trigger_activate)
        )

    def close(self) -> None:
        """Stop, publish that everybody is lost, and free everything; in any state."""
        if self._worker is not None:
            self._stop_input()
            self._publish_lost()
        self._free()

    def destroy_node(self) -> None:
        """Take the node down."""
        self._calls.close()
        super().destroy_node()

    def _stop_input(self) -> None:
        mixed, self._mixed = self._mixed, None
        if mixed is not None:
            mixed.close()
        source, self._source = self._source, None
        if source is not None:
            source.close()
        camera_input, self._camera_input = self._camera_input, None
        if camera_input is not None:
            self.destroy_subscription(camera_input)
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop(STOP_TIMEOUT):
            raise DPoserError(f'the fit hangs for {worker.busy_for:.1f} s; configure anew')

    def _close_output_frame(self) -> None:
        output_frame, self._output_frame = self._output_frame, None
        if output_frame is not None:
            output_frame.close()

    def _publish_lost(self) -> None:
        if self._last is None:
            return
        silence = self._silence()
        stamp_ns = max(self._last.stamp_ns + int(silence * 1e9), (self._published_ns or 0) + 1)
        lost = [dataclasses.replace(r, status=Status.LOST) for r in self._people]
        for offset, results in enumerate((lost, [])):
            header = header_at(stamp_ns + offset, self._last.frame_id)
            self._publish(results, header, FrameTimes(age_in=0.0))
            self._outputs.flush()

    def _free(self) -> None:
        self._stop_input()
        self._close_output_frame()
        model, self._model = self._model, None
        if model is not None:
            model.close()
        gc.unfreeze()
        snapshots, self.snapshots = self.snapshots, None
        if snapshots is not None:
            snapshots.close(STOP_TIMEOUT)
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            outputs.close()

    # --- reports ------------------------------------------------------------------------------

    def _counters(self) -> Counters:
        return Counters(
            dropped_inputs=self.dropped,
            skipped_deadline=self.diagnostics.deadline_misses,
            rejected_inputs=self.refusals.total,
        )

    def transition_failed(self, reason: str) -> None:
        """Called by `refusals.transition`."""
        self.reports.failed(reason)

    @property
    def state(self) -> str:
        """unconfigured, inactive or active."""
        return 'active' if self._worker else ('inactive' if self._model else 'unconfigured')

    def _time_went_back(self, reason: str) -> None:
        worker = self._worker
        if worker is None or self._settings.node.time.on_jump == 'drop':
            return
        self._gate.clear()
        if self._mixed is not None:
            self._mixed.clear()
        worker.forget()
        worker.post(lambda: self.forget(Event(TrackEvent.TIME_JUMP, reason)))


def main(
    args: list[str] | None = None,
    fitter_factory: Callable[[Config], LiveModel] = load_live_model,
) -> NoReturn:
    """Run the node until SIGINT or SIGTERM."""
    run_until_signal(lambda: WholeBodyNode(fitter_factory), args)


if __name__ == '__main__':
    main()
