"""Rates, latencies and counters of the node, and the 1 Hz /diagnostics made from them.

Keys of Input and Output are those of NVIDIA's greenwave monitor, so its dashboards read them.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from dposer_core.config import Config
from dposer_core.state import FitResult, Quality, Status
from dposer_ros.msg import FitStats
from dposer_ros.node_config import DiagnosticsConfig, NodeConfig
from dposer_ros.refusals import Refusals

WINDOW = 10.0  # s, over which rates and latencies are judged
NO_OUTPUT = 0.5  # s without output, while input flows, that are an error
MAX_REFUSED = 0.01  # share of refused frames above which the input is bad

STAGES = ('age_in', 'queue', 'preprocess', 'fit', 'postprocess', 'publish', 'total')


@dataclass
class FrameTimes:
    """Stopwatch of one frame through the node; all in seconds, from `arrived` on by one clock."""

    age_in: float  # acquisition -> arrival, by the ROS clock
    arrived: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)

    def taken(self) -> None:
        """The worker has taken the frame."""
        self.stages['queue'] = time.perf_counter() - self.arrived

    @property
    def work(self) -> float:
        """Seconds that the worker spent on the frame so far."""
        return sum(seconds for name, seconds in self.stages.items() if name != 'queue')

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to stage `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begin
            self.stages[name] = self.stages.get(name, 0.0) + seconds

    def fill(self, stats: FitStats) -> FitStats:
        """Put the stages so far, and the total until now, into the message."""
        stats.age_in = self.age_in
        for name, seconds in self.stages.items():
            setattr(stats, name, seconds)
        stats.total = self.age_in + time.perf_counter() - self.arrived
        return stats


class RateMonitor:
    """Rate, jitter and delay of a stream of stamped messages."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, float]] = deque()  # time, stamp_ns, age
        self._non_increasing = 0
        self.last: float | None = None  # monotonic seconds

    def add(self, stamp_ns: int, age: float) -> None:
        """One message, `age` seconds after its stamp."""
        now = time.monotonic()
        if self._seen and stamp_ns <= self._seen[-1][1]:
            self._non_increasing += 1
        self._seen.append((now, stamp_ns, age))
        self.last = now
        while now - self._seen[0][0] > WINDOW:
            self._seen.popleft()

    def rate(self) -> float:
        """Messages per second over the window; 0 when they have stopped."""
        now = time.monotonic()
        times = [t for t, _, _ in self._seen if now - t <= WINDOW]
        return (len(times) - 1) / max(now - times[0], 1e-3) if len(times) > 1 else 0.0

    def keys(self, expected_rate: float, dropped: int, tolerance: float) -> dict[str, Any]:
        """The keys of greenwave; times in ms."""
        stamps = np.array([s for _, s, _ in self._seen], dtype=np.float64) * 1e-9
        steps = np.diff(stamps)
        rate = 1.0 / steps.mean() if len(steps) and steps.mean() > 0 else 0.0
        period = 1.0 / expected_rate if expected_rate > 0 else (1.0 / rate if rate > 0 else 0.0)
        jitter = np.abs(steps - period) if len(steps) else np.zeros(1)
        return {
            'frame_rate_node': round(self.rate(), 2),
            'frame_rate_msg': round(rate, 2),
            'current_delay_from_realtime_ms': round(self._seen[-1][2] * 1e3, 3)
            if self._seen
            else 0.0,
            'mean_abs_jitter_msg': round(float(jitter.mean()) * 1e3, 3),
            'max_abs_jitter_msg': round(float(jitter.max()) * 1e3, 3),
            'num_jitter_outliers_msg': int((jitter > tolerance * period).sum()),
            'num_non_increasing_msg': self._non_increasing,
            'total_dropped_frames': dropped,
            'expected_frequency': expected_rate,
            'tolerance': tolerance,
        }


@dataclass(frozen=True)
class Summary:
    """The last ten seconds in a few numbers."""

    input_rate: float  # Hz
    output_rate: float  # Hz
    latency_p50: float  # s, acquisition -> publication; NaN without frames
    latency_p95: float  # s
    received: int  # frames since activation


class Diagnostics:
    """Collects from both threads; `report` reads.

    Args:
        name: of the node, the prefix of every status.
        refusals: counters per cause.
    """

    def __init__(self, name: str, refusals: Refusals) -> None:
        self._name = name
        self._refusals = refusals
        self._lock = threading.Lock()
        self._process = psutil.Process()
        self.clear()

    def clear(self) -> None:
        """Start over (on activation)."""
        with self._lock:
            self._input, self._output = RateMonitor(), RateMonitor()
            self._frames: deque[tuple[float, dict[str, float]]] = deque()
            self._results: list[FitResult] = []
            self._received = 0
            self._lost_upstream = 0
            self._last_seq = 0
            self._deadline_misses = 0
            self._clock_jumps: list[str] = []
            self._events: Counter[str] = Counter()
            self._sides_exchanged = 0

    def happened(self, kind: str, reason: str) -> None:
        """Count an event by its kind, and remember the newest jump of time."""
        with self._lock:
            self._events[kind] += 1
            if kind == 'TIME_JUMP':
                self._clock_jumps.append(reason)
                del self._clock_jumps[:-1]

    def summary(self) -> Summary:
        """Rates, latency and counters as `~/get_status` gives them."""
        with self._lock:
            totals = [times['total'] for _, times in self._frames]
            p50, p95 = np.percentile(totals, (50, 95)) if totals else (np.nan, np.nan)
            return Summary(
                self._input.rate(), self._output.rate(), float(p50), float(p95), self._received
            )

    @property
    def deadline_misses(self) -> int:
        """Frames whose fit took longer than `fit.deadline`, since activation."""
        return self._deadline_misses

    def arrived(self, stamp_ns: int, age: float, seq: int) -> None:
        """A keypoint message came in, good or bad."""
        with self._lock:
            self._received += 1
            self._input.add(stamp_ns, age)
            if self._last_seq and seq > self._last_seq + 1:
                self._lost_upstream += seq - self._last_seq - 1
            self._last_seq = seq

    def answered(
        self, stamp_ns: int, times: FrameTimes, results: list[FitResult], deadline: float
    ) -> None:
        """A frame was fitted and published."""
        total = times.age_in + time.perf_counter() - times.arrived
        with self._lock:
            self._output.add(stamp_ns, total)
            now = time.monotonic()
            self._frames.append((now, {'age_in': times.age_in, **times.stages, 'total': total}))
            while now - self._frames[0][0] > WINDOW:
                self._frames.popleft()
            self._results = results
            self._sides_exchanged += sum(r.stats.sides_exchanged for r in results)
            self._deadline_misses += times.stages.get('fit', 0.0) > deadline

    def report(
        self,
        state: str,
        model: Mapping[str, Any],
        dropped: int,
        config: Config,
        node: NodeConfig,
        worker_age: float = 0.0,
    ) -> DiagnosticArray:
        """The statuses of the last seconds; the header is left to the caller.

        Args:
            state: lifecycle state.
            model: what is loaded, for the Model status.
            dropped: frames that a newer one replaced before they were fitted.
            config: for the thresholds.
            node: for the expected rate.
            worker_age: seconds since the fit in progress began.
        """
        with self._lock:
            statuses = [
                self._input_status(state, node.diagnostics),
                self._fit_status(state, dropped, config.fit.deadline, worker_age, node),
                self._output_status(state, node.diagnostics),
                self._model_status(state, model),
                self._tracks_status(),
                self._clock_status(state, config),
            ]
        return DiagnosticArray(status=statuses)

    def _input_status(self, state: str, limits: DiagnosticsConfig) -> DiagnosticStatus:
        expected = limits.expected_rate
        keys = self._input.keys(expected, self._lost_upstream, limits.tolerance)
        keys['received'] = self._received
        keys['refused'] = self._refusals.total
        keys.update({f'refused_{cause}': n for cause, n in sorted(self._refusals.counts.items())})
        level, message = DiagnosticStatus.OK, 'receiving'
        if state != 'active':
            message = f'node is {state}'
        elif keys['frame_rate_node'] == 0.0:
            level, message = DiagnosticStatus.STALE, 'no keypoints'
            if self._refusals.counts['incompatible_qos']:
                level = DiagnosticStatus.ERROR
                message = 'no keypoints: the QoS of their publisher does not fit'
        elif self._refusals.total > MAX_REFUSED * self._received:
            cause, count = self._refusals.counts.most_common(1)[0]
            level, message = DiagnosticStatus.WARN, f'refused input, mostly {cause} ({count})'
        elif expected and keys['frame_rate_node'] < (1.0 - limits.tolerance) * expected:
            level = DiagnosticStatus.WARN
            message = f'{keys["frame_rate_node"]} Hz, expected {expected} Hz'
        return self._status('Input', level, message, keys)

    def _fit_status(
        self, state: str, dropped: int, deadline: float, worker_age: float, node: NodeConfig
    ) -> DiagnosticStatus:
        keys: dict[str, Any] = {'worker_age_ms': round(worker_age * 1e3, 1)}
        for stage in STAGES:
            seconds = [times[stage] for _, times in self._frames if stage in times]
            if seconds:
                p50, p95, p99 = np.percentile(seconds, (50, 95, 99)) * 1e3
                keys[f'{stage}_p50_ms'] = round(float(p50), 3)
                keys[f'{stage}_p95_ms'] = round(float(p95), 3)
                keys[f'{stage}_p99_ms'] = round(float(p99), 3)
                keys[f'{stage}_max_ms'] = round(max(seconds) * 1e3, 3)
        keys['deadline_ms'] = deadline * 1e3
        keys['deadline_misses'] = self._deadline_misses
        keys['dropped_frames'] = dropped
        for result in self._results:
            stats = result.stats
            keys[f'{result.body_id}_iterations'] = stats.iterations
            keys[f'{result.body_id}_quality'] = Quality(result.quality).name
            keys[f'{result.body_id}_betas'] = 'frozen' if result.state.betas_frozen else 'settling'
        level, message = DiagnosticStatus.OK, 'fitting' if self._frames else 'no frames yet'
        if state == 'active' and keys.get('fit_p95_ms', 0.0) > deadline * 1e3:
            level = DiagnosticStatus.WARN
            message = f'p95 of the fit {keys["fit_p95_ms"]} ms is above the deadline'
        if worker_age > node.worker.hang_timeout:
            level, message = DiagnosticStatus.ERROR, f'the fit hangs for {worker_age:.1f} s'
        return self._status('Fit', level, message, keys)

    def _output_status(self, state: str, limits: DiagnosticsConfig) -> DiagnosticStatus:
        keys = self._output.keys(0.0, 0, limits.tolerance)
        keys['people'] = sum(r.status != Status.LOST for r in self._results)
        now = time.monotonic()
        is_fed = self._input.last is not None and now - self._input.last < NO_OUTPUT
        is_late = self._output.last is None or now - self._output.last > NO_OUTPUT
        level, message = DiagnosticStatus.OK, f'{keys["people"]} people'
        if state == 'active' and is_fed and is_late:
            level, message = DiagnosticStatus.ERROR, 'input flows but nothing is published'
        return self._status('Output', level, message, keys)

    def _model_status(self, state: str, model: Mapping[str, Any]) -> DiagnosticStatus:
        keys = dict(model) | {'rss_mib': round(self._process.memory_info().rss / 2**20, 1)}
        error = model.get('error', '')
        level = DiagnosticStatus.ERROR if error else DiagnosticStatus.OK
        return self._status('Model/GPU', level, str(error) or state, keys)

    def _tracks_status(self) -> DiagnosticStatus:
        keys: dict[str, Any] = {}
        for result in self._results:
            keys[f'{result.body_id}_status'] = Status(result.status).name
            keys[f'{result.body_id}_observed'] = round(result.observed_fraction, 3)
        keys['sides_exchanged'] = self._sides_exchanged
        keys |= {f'events_{kind.lower()}': n for kind, n in sorted(self._events.items())}
        present = sum(result.status != Status.LOST for result in self._results)
        swaps = self._events['ID_SWAP_SUSPECTED']
        level = DiagnosticStatus.WARN if swaps else DiagnosticStatus.OK
        message = f'{present} tracked' + (f', {swaps} suspected id swaps' if swaps else '')
        return self._status('Tracks', level, message, keys)

    def _clock_status(self, state: str, config: Config) -> DiagnosticStatus:
        counts = self._refusals.counts
        causes = ('stamp_zero', 'stamp_future', 'stamp_stale', 'stamp_order', 'stamp_repeated')
        keys: dict[str, Any] = {cause: counts[cause] for cause in causes}
        keys['jumps'] = self._events['TIME_JUMP']
        keys['max_age_s'] = config.input.max_age
        keys['max_future_s'] = config.input.max_future
        level, message = DiagnosticStatus.OK, 'stamps fit the clock'
        if self._clock_jumps:
            message = self._clock_jumps[-1]
        if state == 'active' and counts['stamp_future'] + counts['stamp_stale'] > (
            MAX_REFUSED * self._received
        ):
            level, message = (
                DiagnosticStatus.WARN,
                'stamps and clock do not fit: see input.max_age',
            )
        return self._status('Clock', level, message, keys)

    def _status(
        self, part: str, level: bytes, message: str, keys: Mapping[str, Any]
    ) -> DiagnosticStatus:
        values = [KeyValue(key=key, value=str(value)) for key, value in keys.items()]
        return DiagnosticStatus(
            level=level,
            name=f'{self._name}: {part}',
            message=message,
            hardware_id='',
            values=values,
        )
