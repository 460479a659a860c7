"""Child processes of the demo: a domain of their own, an orderly end, and nothing left behind."""

import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import numpy as np

from dposer_core.errors import ConfigError
from dposer_ros.child import ENDING, end_with_parent
from dposer_ros.environment import ros_environment

# Domains up to 101 keep all DDS ports below Linux's ephemeral range; 0 is everybody's default.
DOMAINS = range(1, 102)


class Children:
    """The processes of one run, ended together by `close`."""

    def __init__(self, log_folder: Path, domain: int) -> None:
        self._log_folder = log_folder
        self._environment = ros_environment() | {
            'ROS_DOMAIN_ID': str(domain),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'PYTHONUNBUFFERED': '1',
        }
        self._processes: dict[str, subprocess.Popen] = {}
        self._started = time.time()
        log_folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, module: str, *arguments: str) -> subprocess.Popen:
        """Run `python -m module arguments...`; its output goes to <log folder>/<name>.log."""
        # Python runs its own callbacks after a fork, and swallows what a signal raises in them.
        with (self._log_folder / f'{name}.log').open('wb') as log, _signals_held():
            self._processes[name] = subprocess.Popen(
                [sys.executable, '-m', module, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the parent, which ends us in order
                preexec_fn=end_with_parent,
            )
        return self._processes[name]

    def check(self) -> None:
        """Raise ConfigError with the end of the log if a child ended with an error."""
        for name, process in self._processes.items():
            if process.poll() not in (None, 0):
                raise ConfigError(
                    f'{name} ended with code {process.returncode}:\n{self.tail(name)}'
                )

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines that a child wrote."""
        text = (self._log_folder / f'{name}.log').read_text(errors='replace')
        return '\n'.join(text.splitlines()[-lines:])

    def names(self) -> list[str]:
        """Names of the children that run."""
        return [name for name, process in self._processes.items() if process.poll() is None]

    def peak_memory(self, name: str) -> float:
        """Largest resident memory so far of a child or a process that it started, MiB.

        `dposer up` supervises the node, which is the larger of the two. NaN where unknown.
        """
        import psutil

        peaks = [float('nan')]
        with suppress(OSError, psutil.Error):
            child = psutil.Process(self._processes[name].pid)
            for process in (child, *child.children(recursive=True)):
                status = Path(f'/proc/{process.pid}/status').read_text()
                peaks += [
                    int(line.split()[1]) / 1024
                    for line in status.splitlines()
                    if line.startswith('VmHWM')
                ]
        return float(np.nanmax(peaks)) if len(peaks) > 1 else peaks[0]

    def end(self, name: str, timeout: float) -> int | None:
        """SIGINT, then SIGKILL after `timeout` seconds; the exit code."""
        process = self._processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode

    def close(self) -> None:
        """End every child, the last started first; a second Ctrl-C does not cut this short."""
        handlers = {s: signal.signal(s, signal.SIG_IGN) for s in ENDING}
        try:
            for name in reversed(self._processes):
                self.end(name, timeout=15.0 if name in ('recorder', 'node') else 4.0)
        finally:
            _remove_shared_memory(self._started)
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that would end us come after the block."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@contextmanager
def own_domain(requested: int | None = None) -> Iterator[int]:
    """A ROS domain that no other process of this machine uses, held while the block runs.

    Args:
        requested: use this one; None: a free one at random.

    Raises:
        ConfigError: `requested` is in use or out of range, or no domain is free.
    """
    if requested is not None and requested not in range(233):
        raise ConfigError(f'domain {requested}: must lie in [0, 232]')
    candidates = random.sample(DOMAINS, len(DOMAINS)) if requested is None else [requested]
    for domain in candidates:
        lock = _lock_domain(domain)
        if lock is not None:
            with lock:
                yield domain
            return
    if requested is not None:
        raise ConfigError(
            f'domain {requested} is in use by other ROS processes here; give another one'
        )
    raise ConfigError(
        'no ROS domain from 1 to 101 is free; end other ROS processes of this machine'
    )


def _lock_domain(domain: int) -> TextIO | None:
    """An open, locked file, or None if the domain is in use.

    The lock keeps two runs of ours apart before either has opened its ports; the port (participant
    0's discovery port of the RTPS specification) tells about everybody else.
    """
    path = Path(tempfile.gettempdir()) / f'dposer_ros_domain_{domain}_{os.getuid()}.lock'
    lock = path.open('w')
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(('', 7400 + 250 * domain + 10))
    except OSError:
        lock.close()
        return None
    return lock


def _remove_shared_memory(since: float) -> None:
    """Remove Fast DDS segments that this run's killed processes left in /dev/shm.

    Only files of ours, made after `since` (Unix seconds), that no living process has mapped.
    """
    folder = Path('/dev/shm')
    candidates = [
        path
        for pattern in ('fastrtps_*', 'fastdds_*', 'sem.fastrtps_*', 'sem.fastdds_*')
        for path in folder.glob(pattern)
        if _made_by_us(path, since)
    ]
    if not candidates:
        return
    mapped = ''
    for maps in Path('/proc').glob('[0-9]*/maps'):
        with suppress(OSError):
            mapped += maps.read_text()
    for path in candidates:
        # A segment, its lock file (_el) and its semaphore live and die together.
        segment = path.name.removeprefix('sem.').removesuffix('_el').removesuffix('_mutex')
        if segment not in mapped:
            path.unlink(missing_ok=True)


def _made_by_us(path: Path, since: float) -> bool:
    with suppress(OSError):
        status = path.stat()
        return status.st_uid == os.getuid() and status.st_ctime >= since
    return False
