"""The services and actions of the node. Every one answers from the executor thread at once.

What concerns the fit is handed to the worker thread as a job; nothing here waits for it.
"""

import functools
import statistics
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from std_srvs.srv import Empty, SetBool

from dposer_core.errors import DPoserError
from dposer_core.state import FitResult
from dposer_ros.action import CalibrateShape, WarmUp
from dposer_ros.events import Event
from dposer_ros.msg import TrackEvent
from dposer_ros.node_config import PRIMARY_POLICIES
from dposer_ros.shape_files import Shape, read_shape, shape_path, storage_folder, write_shape
from dposer_ros.srv import GetStatus, LoadShape, ResetBody, SaveShape, SetPrimary, Snapshot

if TYPE_CHECKING:
    from dposer_ros.node import WholeBodyNode

FEEDBACK_PERIOD = 0.1  # s
MIN_CALIBRATION, MAX_CALIBRATION = 0.5, 60.0  # s
MAX_WARM_UPS = 1000
PATIENCE = 5.0  # s beyond the duration, for a person who is hidden for a moment


class Unavailable(DPoserError):
    """The service cannot do that now."""


def _answered(method: Callable[..., None]) -> Callable[..., Any]:
    """A service callback that fills its response; what it raises becomes the response's message.

    An exception that left a service callback would end the spin of the executor.
    """

    @functools.wraps(method)
    def answer(self: 'Services', request: Any, response: Any) -> Any:
        try:
            method(self, request, response)
            ok, message = True, ''
        except (DPoserError, OSError) as error:
            ok, message = False, str(error)
        except Exception as error:
            self._node.refusals.add_error('callback_failed', error)
            ok, message = False, f'{type(error).__name__}: {error}'
        for flag in ('ok', 'success'):
            if hasattr(response, flag):
                setattr(response, flag, ok)
        if hasattr(response, 'message') and (message or not response.message):
            response.message = message
        return response

    return answer


class Services:
    """Creates them on the node and holds what goes on.

    Args:
        node: whose services these are.
    """

    def __init__(self, node: 'WholeBodyNode') -> None:
        self._node = node
        for kind, name, callback in (
            (Empty, 'reset', self._reset),
            (ResetBody, 'reset_body', self._reset_body),
            (SetBool, 'set_enabled', self._set_enabled),
            (SetPrimary, 'set_primary', self._set_primary),
            (SaveShape, 'save_shape', self._save_shape),
            (LoadShape, 'load_shape', self._load_shape),
            (Snapshot, 'snapshot', self._snapshot),
            (GetStatus, 'get_status', self._get_status),
        ):
            node.create_service(kind, f'~/{name}', callback)
        self._actions = [_Calibration(node, self._body), _WarmUps(node)]

    @property
    def actions(self) -> dict[str, str]:
        """Name -> type of every action."""
        return {
            action.name: f'dposer_ros/action/{action.kind.__name__}' for action in self._actions
        }

    def close(self) -> None:
        """End the actions; the services go with the node."""
        for action in self._actions:
            action.close()

    @_answered
    def _reset(self, request: Empty.Request, response: Empty.Response) -> None:
        node = self._node
        node.post(lambda: node.forget(Event(TrackEvent.RESET, '~/reset was called')))

    @_answered
    def _reset_body(self, request: ResetBody.Request, response: ResetBody.Response) -> None:
        node, body_id = self._node, self._body(request.body_id).body_id
        node.post(lambda: node.forget_body(body_id, '~/reset_body was called'))

    @_answered
    def _set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> None:
        self._node.enabled = request.data
        word = 'enabled' if request.data else 'disabled: keypoints are ignored'
        self._node.reports.announce(Event(TrackEvent.PARAMETERS, word))
        response.message = word

    @_answered
    def _set_primary(self, request: SetPrimary.Request, response: SetPrimary.Response) -> None:
        outputs = self._outputs()
        if bool(request.body_id) == bool(request.policy):
            raise Unavailable('give either body_id or policy')
        if request.policy:
            if request.policy not in PRIMARY_POLICIES:
                raise Unavailable(
                    f'policy {request.policy!r}: choose one of {", ".join(PRIMARY_POLICIES)}'
                )
            outputs.set_primary(policy=request.policy)
        else:
            outputs.set_primary(body_id=self._body(request.body_id).body_id)

    @_answered
    def _save_shape(self, request: SaveShape.Request, response: SaveShape.Response) -> None:
        folder, path = self._shape_path(request)
        body = self._body(request.body_id)
        model = self._node.model.info.name
        write_shape(path, Shape(request.person_id, model, body.state.betas))
        response.path = str(path)
        response.message = f'betas of {body.body_id} written below {folder}'

    @_answered
    def _load_shape(self, request: LoadShape.Request, response: LoadShape.Response) -> None:
        _, path = self._shape_path(request)
        body_id = self._body(request.body_id).body_id
        shape = read_shape(path, self._node.model.info.name)
        fitter = self._node.model.fitter
        self._node.post(lambda: fitter.fix_shape(body_id, shape.betas))
        response.betas = shape.betas.astype('float32')

    @_answered
    def _snapshot(self, request: Snapshot.Request, response: Snapshot.Response) -> None:
        node = self._node
        snapshots = node.snapshots
        if snapshots is None or snapshots.seconds <= 0.0:
            raise Unavailable('nothing is remembered: the node is not active, or snapshot.seconds')
        if not 0.0 <= request.seconds <= snapshots.seconds:
            raise Unavailable(
                f'seconds {request.seconds}: must lie in [0, {snapshots.seconds}] '
                '(parameter snapshot.seconds)'
            )
        folder = storage_folder(node.settings.node.storage.folder) / 'snapshots'
        path = snapshots.write(folder, request.seconds, _announcer(node))
        if path is None:
            raise Unavailable('a snapshot is being written; ask again when it is complete')
        response.path = str(path)

    @_answered
    def _get_status(self, request: GetStatus.Request, response: GetStatus.Response) -> None:
        node, people = self._node, self._node.people
        summary = node.diagnostics.summary()
        response.state, response.error, response.enabled = node.state, node.error, node.enabled
        response.input_type = node.input_type
        if node.model is not None:
            response.model, response.device = node.model.info.name, node.model.info.device
        if node.outputs is not None:
            response.primary_id = node.outputs.primary_id
            response.primary_policy = node.outputs.policy
        response.body_ids = [person.body_id for person in people]
        response.statuses = [int(person.status) for person in people]
        response.betas_frozen = [int(person.state.betas_frozen) for person in people]
        response.quality = int(max((person.quality for person in people), default=0))
        response.input_rate, response.output_rate = summary.input_rate, summary.output_rate
        response.latency_p50, response.latency_p95 = summary.latency_p50, summary.latency_p95
        response.received, response.refused = summary.received, node.refusals.total
        response.dropped, response.worker_age = node.dropped, node.worker_age

    def _shape_path(self, request: Any) -> tuple[Any, Any]:
        folder = storage_folder(self._node.settings.node.storage.folder)
        return folder, shape_path(folder, request.person_id, request.path)

    def _outputs(self) -> Any:
        if self._node.state != 'active':
            raise Unavailable(f'the node is {self._node.state}; activate it first')
        return self._node.outputs

    def _body(self, body_id: str) -> FitResult:
        """The newest result of a body; '' means the primary one."""
        wanted = body_id or self._outputs().primary_id
        people = {person.body_id: person for person in self._node.people}
        if self._node.state != 'active' or wanted not in people:
            tracked = ', '.join(people) or 'nobody'
            raise Unavailable(f'body {body_id[:80]!r} is not tracked; tracked: {tracked}')
        return people[wanted]


def _announcer(node: 'WholeBodyNode') -> Callable[[str], None]:
    def announce(text: str) -> None:
        node.reports.announce(Event(TrackEvent.PROGRESS, text))

    return announce


class _Action(ABC):
    """An action with one goal at a time, driven by a timer: no callback of it ever waits.

    rclpy would run an `async` execution by asking over and over whether it can go on, at the
    expense of the fit. A goal is therefore executed, which means finished, by the last tick.
    """

    def __init__(self, node: 'WholeBodyNode', kind: type, name: str) -> None:
        self._node = node
        self.kind, self.name = kind, f'~/{name}'
        self._handle: ServerGoalHandle | None = None
        self._timer = None
        self._server = ActionServer(
            node,
            kind,
            self.name,
            execute_callback=self._no_result,
            goal_callback=self._judge,
            handle_accepted_callback=self._begin,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
        )

    def close(self) -> None:
        """Abort what is under way and take the action down."""
        if self._handle is not None:
            self._finish(False, 'the node ends')
        self._server.destroy()

    def _judge(self, goal: Any) -> GoalResponse:
        try:
            if self._handle is not None:
                raise Unavailable('one goal is under way')
            self.check(goal)
        except Exception as error:
            self._node.get_logger().warning(f'{self.kind.__name__} rejected: {error}')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _begin(self, handle: ServerGoalHandle) -> None:
        self._handle = handle
        self.begin(handle.request)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self._node.create_timer(FEEDBACK_PERIOD, self._tick, clock=steady)

    def _tick(self) -> None:
        try:
            if self._handle.is_cancel_requested:
                self._finish(False, 'canceled')
            else:
                self.tick()
        except Exception as error:
            self._node.refusals.add_error('callback_failed', error)
            self._finish(False, str(error))

    def _finish(self, ok: bool, message: str, **fields: Any) -> None:
        self._node.destroy_timer(self._timer)
        handle, self._handle = self._handle, None
        result = self.kind.Result(ok=ok, message=message, **fields)

        def execute(goal: ServerGoalHandle) -> Any:
            if goal.is_cancel_requested:
                goal.canceled()
            elif ok:
                goal.succeed()
            else:
                goal.abort()
            return result

        handle.execute(execute)

    def _no_result(self, handle: ServerGoalHandle) -> Any:
        raise AssertionError('goals are executed by _finish')

    @abstractmethod
    def check(self, goal: Any) -> None:
        """Raise DPoserError for a goal that cannot be followed now."""

    @abstractmethod
    def begin(self, goal: Any) -> None:
        """The goal was accepted."""

    @abstractmethod
    def tick(self) -> None:
        """Give feedback, or finish."""


class _Calibration(_Action):
    """Action ~/calibrate_shape."""

    def __init__(self, node: 'WholeBodyNode', body: Callable[[str], FitResult]) -> None:
        self._body = body
        super().__init__(node, CalibrateShape, 'calibrate_shape')

    def check(self, goal: CalibrateShape.Goal) -> None:
        if not MIN_CALIBRATION <= goal.duration <= MAX_CALIBRATION:
            raise Unavailable(
                f'duration {goal.duration} s: must lie in [{MIN_CALIBRATION}, {MAX_CALIBRATION}]'
            )
        self._body(goal.body_id)

    def begin(self, goal: CalibrateShape.Goal) -> None:
        self._since = time.monotonic()
        self._body_id = body_id = self._body(goal.body_id).body_id
        self._was_free = False
        fitter = self._node.model.fitter
        self._node.post(lambda: fitter.calibrate_shape(body_id, goal.duration))

    def tick(self) -> None:
        elapsed = time.monotonic() - self._since
        people = {person.body_id: person for person in self._node.people}
        if self._body_id not in people:
            self._finish(False, f'{self._body_id} was lost after {elapsed:.1f} s')
            return
        state = people[self._body_id].state
        betas = state.betas.astype('float32')
        if state.betas_frozen and self._was_free:
            self._finish(True, f'frozen after {elapsed:.1f} s', body_id=self._body_id, betas=betas)
            return
        self._was_free = self._was_free or not state.betas_frozen
        if elapsed > self._handle.request.duration + PATIENCE:
            self._finish(False, f'{self._body_id} was not seen for long enough')
            return
        self._handle.publish_feedback(CalibrateShape.Feedback(elapsed=elapsed, betas=betas))


class _WarmUps(_Action):
    """Action ~/warmup."""

    def __init__(self, node: 'WholeBodyNode') -> None:
        super().__init__(node, WarmUp, 'warmup')

    def check(self, goal: WarmUp.Goal) -> None:
        if self._node.state != 'inactive':
            raise Unavailable(f'the node is {self._node.state}; warm up while it is inactive')
        if not 1 <= goal.fits <= MAX_WARM_UPS:
            raise Unavailable(f'fits {goal.fits}: must lie in [1, {MAX_WARM_UPS}]')

    def begin(self, goal: WarmUp.Goal) -> None:
        self._seconds: list[float] = []
        self._thread = threading.Thread(
            target=self._run, args=(goal.fits, self._node.model.rehearse), daemon=True
        )
        self._thread.start()

    def _run(self, fits: int, rehearse: Callable[[], None]) -> None:
        for _ in range(fits):
            if self._node.state != 'inactive':  # real work must not wait for this
                return
            begin = time.perf_counter()
            rehearse()
            self._seconds.append(time.perf_counter() - begin)

    def tick(self) -> None:
        done, fits = len(self._seconds), self._handle.request.fits
        if self._thread.is_alive():
            self._handle.publish_feedback(WarmUp.Feedback(done=done))
        elif done < fits:
            self._finish(False, f'ended after {done} of {fits} fits: the node is active')
        else:
            slowest, median = max(self._seconds), statistics.median(self._seconds)
            self._finish(True, f'{done} fits', slowest=slowest, median=median)
