"""The fit in a process of its own (`worker.isolation: process`), so that its death is survived.

`IsolatedFitter` stands in the ROS process and answers for the worker: with the worker's results,
or, while there is none, with a filter that needs no model. `main` is the template: a process that
has loaded the model and does nothing but fork workers, so that the next one needs no time to load.
They talk over socket pairs that nobody else has; what goes over them are our own value types,
pickled.
"""

import contextlib
import dataclasses
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, NoReturn

import numpy as np

from dposer_core.config import Config
from dposer_core.errors import DPoserError
from dposer_core.observation import Observation
from dposer_core.state import FitResult, Quality, Source, Status
from dposer_ros.conversions import ModelInfo
from dposer_ros.live_model import LiveModel

# Not `-m`: what is pickled must belong to this module on both sides, and to no `__main__`.
_PROGRAM = 'from dposer_ros.isolation import main; main()'

START_TIMEOUT = 120.0  # s, loading of a model
FORK_TIMEOUT = 2.0  # s, after which the template is given up too
STOP_TIMEOUT = 0.3  # s, before a worker that was asked to end is killed
ORPHAN_PERIOD = 0.2  # s
RESTART_WINDOW = 60.0  # s, in which `max_restarts` counts

SAME_PLACE = 0.5  # m: who stands here after a restart is who stood here before
_VELOCITY_TAU = 0.2  # s, decay of motion in the filter
_SIGMA_GROWTH = 0.5  # m/s

Tell = Callable[[bool, str], None]
"""Called with whether things are well again, and what happened."""


class WorkerError(DPoserError):
    """The worker raised an exception, or could not be started."""


@dataclasses.dataclass(frozen=True)
class _Hello:
    """What the worker says of its model once it is loaded."""

    info: ModelInfo
    rest_template: np.ndarray  # (55, 3) m
    rest_dirs: np.ndarray  # (55, 3, 10) m per unit of beta
    details: dict[str, Any]


# --- in the ROS process --------------------------------------------------------------------------


def load_isolated(
    factory: Callable[[Config], LiveModel], config: Config, hang_timeout: float,
    max_restarts: int, tell: Tell,
) -> LiveModel:  # fmt: skip
    """A live model whose fitter runs in a worker process.

    Args:
        factory: makes the model in the worker; a function of a module.
        config: all parameters.
        hang_timeout: seconds after which a call that does not return is a hang.
        max_restarts: per minute.
        tell: told when the worker ends and when it is back.

    Raises:
        WorkerError: the worker did not come up; the message is its own.
    """
    fitter = IsolatedFitter(factory, config, hang_timeout, max_restarts, tell)
    hello = fitter.hello
    return LiveModel(
        fitter=fitter,
        info=hello.info,
        rest_joints=lambda betas: hello.rest_template + hello.rest_dirs[..., : len(betas)] @ betas,
        details=fitter.details,
        close=fitter.close,
    )


class IsolatedFitter:
    """A `live_model.Fitter` that outlives its worker; see `load_isolated`."""

    def __init__(
        self,
        factory: Callable[[Config], LiveModel],
        config: Config,
        hang_timeout: float,
        max_restarts: int,
        tell: Tell,
    ) -> None:
        self._spec = f'{factory.__module__}:{factory.__qualname__}'
        self._config = config
        self._hang_timeout = hang_timeout
        self._max_restarts = max_restarts
        self._tell = tell
        self._people: list[FitResult] = []
        self._names: dict[str, str] = {}  # the worker's body id -> ours, after a restart
        self._to_match: list[FitResult] = []
        self._generation = 0
        self._ends: deque[float] = deque()
        self._starting: threading.Thread | None = None
        self._is_closed = False
        self.details: dict[str, Any] = {}
        self._template = _Template(self._spec, config)
        self._worker: _Worker | None = self._template.worker(config)
        self.hello = self._template.hello
        self.details |= self.hello.details | {'isolation': 'process', 'worker_restarts': 0}
        self.details['worker_pid'] = self._worker.pid

    def step(
        self,
        stamp_ns: int,
        observations: list[Observation],
        budget_s: float | None = None,
        foremost: str = '',
    ) -> list[FitResult]:
        """Fit one frame; without a worker, answer with the filter."""
        theirs = self._theirs(foremost)
        results = self._call('step', stamp_ns, observations, budget_s, theirs)
        return self._filtered(stamp_ns) if results is None else self._named(results)

    def predict(self, stamp_ns: int) -> list[FitResult]:
        """Everybody at a time without a frame."""
        results = self._call('predict', stamp_ns)
        return self._filtered(stamp_ns) if results is None else self._named(results)

    def reset(self) -> None:
        """Forget everybody."""
        self._people, self._names, self._to_match = [], {}, []
        self._call('reset')

    def configure(self, config: Config) -> None:
        """Use other live parameters from now on; a worker to come starts with them."""
        self._config = config
        self._call('configure', config)

    def forget(self, body_id: str) -> None:
        """Forget one person."""
        self._people = [person for person in self._people if person.body_id != body_id]
        self._call('forget', self._theirs(body_id))

    def fix_shape(self, body_id: str, betas: np.ndarray) -> None:
        """Keep these betas (10,) of a person."""
        self._call('fix_shape', self._theirs(body_id), betas)

    def calibrate_shape(self, body_id: str, seconds: float) -> None:
        """Estimate a person's betas anew, then freeze them."""
        self._call('calibrate_shape', self._theirs(body_id), seconds)

    def close(self) -> None:
        """End the worker."""
        self._is_closed = True
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        if self._starting is not None:
            self._starting.join(STOP_TIMEOUT)
        self._template.stop()

    # --- the worker ---

    def _call(self, method: str, *arguments: Any) -> Any:
        """The worker's answer; None if there is no worker now.

        Raises:
            WorkerError: the call raised an exception there.
        """
        worker = self._worker
        if worker is None:
            return None
        try:
            return worker.call(method, arguments, self._hang_timeout)
        except (OSError, EOFError, TimeoutError) as error:
            self._lost(worker, 'hangs' if isinstance(error, TimeoutError) else 'ended')
            return None

    def _lost(self, worker: '_Worker', how: str) -> None:
        self._worker = None
        worker.kill()
        now = time.monotonic()
        self._ends.append(now)
        while now - self._ends[0] > RESTART_WINDOW:
            self._ends.popleft()
        if len(self._ends) > self._max_restarts:
            self.details['error'] = f'the worker ended {len(self._ends)} times in a minute'
            self._tell(False, f'{self.details["error"]}; clean up and configure again')
            return
        self._tell(False, f'the worker process {how}; a filter answers until it is back')
        self._starting = threading.Thread(target=self._restart, name='restart', daemon=True)
        self._starting.start()

    def _restart(self) -> None:
        begin = time.monotonic()
        try:
            worker = self._new_worker()
        except (WorkerError, OSError, EOFError, TimeoutError) as error:
            self.details['error'] = str(error)
            self._tell(False, str(error))
            return
        if self._is_closed:
            worker.stop()
            return
        self._generation += 1
        self._names, self._to_match = {}, list(self._people)
        self.details['worker_restarts'] += 1
        self.details['worker_pid'] = worker.pid
        self._worker = worker
        self._tell(True, f'the worker process is back after {time.monotonic() - begin:.1f} s')

    def _new_worker(self) -> '_Worker':
        """Forked from the template; if that is gone, from a new one, which takes its time."""
        try:
            return self._template.worker(self._config)
        except (OSError, EOFError, TimeoutError):
            self._template.stop()
        if self._is_closed:
            raise WorkerError('the node needs no worker any more')
        self._template = _Template(self._spec, self._config)
        return self._template.worker(self._config)

    # --- results ---

    def _named(self, results: list[FitResult]) -> list[FitResult]:
        """The worker's results under our ids, which a restart must not change or repeat."""
        named = []
        for result in results:
            if self._generation and result.body_id not in self._names:
                self._names[result.body_id] = self._name_of(result)
            body_id = self._names.get(result.body_id, result.body_id)
            named.append(dataclasses.replace(result, body_id=body_id))
        self._people = [person for person in named if person.status != Status.LOST]
        return named

    def _name_of(self, result: FitResult) -> str:
        """Id for somebody the new worker sees first: that of who stood there, or a new one."""
        place = result.state.joints[0]
        near = [
            p for p in self._to_match if np.linalg.norm(p.state.joints[0] - place) < SAME_PLACE
        ]
        if not near:
            return f'{result.body_id}r{self._generation}'
        known = min(near, key=lambda p: float(np.linalg.norm(p.state.joints[0] - place)))
        self._to_match = [person for person in self._to_match if person is not known]
        return known.body_id

    def _theirs(self, body_id: str) -> str:
        return next((name for name, ours in self._names.items() if ours == body_id), body_id)

    def _filtered(self, stamp_ns: int) -> list[FitResult]:
        """Everybody carried on from the last real results; lost as the fit would lose them."""
        results, timeouts = [], self._config.occlusion
        for person in self._people:
            gap = (stamp_ns - person.state.stamp_ns) * 1e-9
            moving = min(gap, timeouts.predict_timeout)
            status = Status.LOST if gap >= timeouts.lost_timeout else Status.PREDICTED
            results.append(_carried_on(person, stamp_ns, gap, moving, status))
        lost = {result.body_id for result in results if result.status == Status.LOST}
        self._people = [person for person in self._people if person.body_id not in lost]
        return results


def _carried_on(
    person: FitResult, stamp_ns: int, gap: float, moving: float, status: Status
) -> FitResult:
    """A person who moves on as a whole with dying speed; what is not known grows."""
    state = person.state
    step = state.joint_velocities[0] * _VELOCITY_TAU * (1.0 - np.exp(-moving / _VELOCITY_TAU))
    growth = _SIGMA_GROWTH * max(gap, 0.0)
    source = state.source.copy()
    source[source != Source.DEFAULT] = Source.PREDICTED
    return dataclasses.replace(
        person,
        status=status,
        quality=Quality.FILTER_ONLY,
        observed_fraction=0.0,
        confidence=person.confidence * float(np.exp(-max(gap, 0.0))),
        hand_occluded_s=tuple(seconds + max(gap, 0.0) for seconds in person.hand_occluded_s),
        state=dataclasses.replace(
            state,
            joints=state.joints + step,
            landmarks=state.landmarks + step,
            transl=state.transl + step,
            joint_velocities=np.zeros_like(state.joint_velocities),
            rotation_sigma=np.hypot(state.rotation_sigma, 2.0 * growth),
            position_covariance=state.position_covariance + np.eye(3) * growth**2,
            pelvis_covariance=state.pelvis_covariance + np.eye(6) * growth**2,
            source=source,
            stamp_ns=stamp_ns,
        ),
    )


class _Template:
    """The process that has loaded the model, from its start to its end."""

    def __init__(self, spec: str, config: Config) -> None:
        ours, theirs = socket.socketpair()
        environment = os.environ | {
            'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, '-c', _PROGRAM, str(theirs.fileno()), spec],
                env=environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C in the terminal is the node's to answer
            )
        self._config = config
        self._connection = Connection(ours.detach())
        try:
            self._connection.send(config)
            self.hello: _Hello = _answer(self._connection, START_TIMEOUT)
        except (OSError, EOFError, TimeoutError) as error:
            self.stop()
            raise WorkerError(f'the worker process did not come up ({error!r})') from error
        except WorkerError:
            self.stop()
            raise

    def worker(self, config: Config) -> '_Worker':
        """A new worker; raises OSError, EOFError or TimeoutError if there is no template."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            send_handle(self._connection, theirs.fileno(), self._process.pid)
            worker = _Worker(Connection(ours.detach()))
        if config != self._config:
            worker.call('configure', (config,), FORK_TIMEOUT)
        return worker

    def stop(self) -> None:
        """End it now: it has nothing to lose."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


class _Worker:
    """One worker process, from its start to its end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        try:
            self.pid: int = _answer(connection, FORK_TIMEOUT)
        except (OSError, EOFError, TimeoutError, WorkerError):
            connection.close()
            raise
        self._process = os.pidfd_open(self.pid)  # not our child, and the number may come again

    def call(self, method: str, arguments: tuple, timeout: float) -> Any:
        """The result of a method of the fitter there."""
        self._connection.send((method, arguments))
        return _answer(self._connection, timeout)

    def stop(self) -> None:
        """Ask it to end, and see that it does."""
        self._connection.close()
        if not select.select([self._process], [], [], STOP_TIMEOUT)[0]:
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        self._release()

    def kill(self) -> None:
        """End it now."""
        self._connection.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        self._release()

    def _release(self) -> None:
        select.select([self._process], [], [], STOP_TIMEOUT)
        os.close(self._process)


def _answer(connection: Connection, timeout: float) -> Any:
    if not connection.poll(timeout):
        raise TimeoutError
    is_well, answer = connection.recv()
    if not is_well:
        raise WorkerError(answer)
    return answer


# --- in the other processes ----------------------------------------------------------------------


def main() -> None:
    """The template: load the model, then fork a worker for every socket that comes."""
    descriptor, spec = int(sys.argv[1]), sys.argv[2]
    connection = Connection(descriptor)
    module, _, name = spec.partition(':')
    config: Config = connection.recv()
    try:
        model = getattr(importlib.import_module(module), name)(config)
        connection.send((True, _hello(model)))
    except Exception as error:
        connection.send((False, f'{type(error).__name__}: {error}'))
        return
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers leave no zombies
    gc.collect()
    gc.freeze()  # what is loaded is shared with the workers, and stays so
    while True:
        try:
            handle = recv_handle(connection)
        except (EOFError, OSError):
            return  # the node has ended
        template = os.getpid()
        if os.fork() == 0:
            connection.close()
            _serve(model, Connection(handle), template)
        os.close(handle)


def _serve(model: LiveModel, connection: Connection, template: int) -> NoReturn:
    """The worker: answer calls until the other side is gone."""
    threading.Thread(target=_end_with, args=(template,), daemon=True).start()
    try:
        connection.send((True, os.getpid()))
        while True:
            method, arguments = connection.recv()
            try:
                answer = True, getattr(model.fitter, method)(*arguments)
            except Exception:
                answer = False, traceback.format_exc()
            connection.send(answer)
    except (EOFError, OSError):
        os._exit(0)  # the node has ended, or no longer wants us


def _hello(model: LiveModel) -> _Hello:
    """Rest joints are linear in the betas: eleven of them tell all."""
    template = model.rest_joints(np.zeros(10))
    dirs = [model.rest_joints(row) - template for row in np.eye(10)]
    return _Hello(model.info, template, np.stack(dirs, axis=-1), dict(model.details))


def _end_with(parent: int) -> None:
    """A worker that hangs must not stay when its node was killed, and the template with it."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_PERIOD)
    os._exit(1)
