"""A child process that does not outlive its parent."""

import ctypes
import signal
from contextlib import suppress

ENDING = (signal.SIGINT, signal.SIGTERM)
"""Signals that end our processes in order."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: after a fork, in a process with threads, it is too late


def end_with_parent() -> None:
    """In the child, before it starts: get SIGTERM when the parent dies, even if it is killed.

    Linux only; elsewhere nothing happens.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    with suppress(OSError, AttributeError):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
