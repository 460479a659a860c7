"""The newest item wins: a mailbox of depth one and the one worker thread that empties it.

A queue would hand the fit older and older frames as soon as it is slower than the input: a 200
ms fit of a 30 Hz stream let the age grow to 646 ms with depth 10; it stayed near 20 ms with one.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar('Item')


class LatestWorker(Generic[Item]):
    """One thread that handles the newest item put in, and idles in between.

    Args:
        handle: called in the thread with each item taken.
        idle: called in the thread when nothing has come for `idle_period`.
        on_error: called in the thread with any exception of the two; the thread goes on.
        idle_period: seconds.
    """

    def __init__(
        self,
        handle: Callable[[Item], None],
        idle: Callable[[], None],
        on_error: Callable[[Exception], None],
        idle_period: float = 0.05,
    ) -> None:
        self._handle = handle
        self._idle = idle
        self._on_error = on_error
        self._idle_period = idle_period
        self._slot: Item | None = None
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._running = True
        self._busy_since: float | None = None
        self._dropped = 0
        # A fit that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name='fit', daemon=True)

    @property
    def dropped(self) -> int:
        """Items that a newer one replaced before they were handled."""
        return self._dropped

    @property
    def busy_for(self) -> float:
        """Seconds since the call in progress began; 0 between calls."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """Begin to handle items."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over the newest item; never blocks on the work itself."""
        with self._changed:
            self._dropped += self._slot is not None
            self._slot = item
            self._changed.notify()

    def post(self, job: Callable[[], None]) -> None:
        """Have the thread call `job` before the next item; never blocks on the work itself."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def forget(self) -> None:
        """Drop the item that waits."""
        with self._changed:
            self._slot = None

    def stop(self, timeout: float) -> bool:
        """End the thread after the call in progress, forgetting what waits.

        Returns:
            False if that call did not come back within `timeout` seconds.
        """
        with self._changed:
            self._running = False
            self._slot = None
            self._jobs.clear()
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._running:
            job, item = self._take()
            if not self._running:
                return
            self._busy_since = time.monotonic()
            try:
                if job is not None:
                    job()
                elif item is None:
                    self._idle()
                else:
                    self._handle(item)
            except Exception as error:  # the thread must survive whatever a frame does to it
                self._on_error(error)
            finally:
                self._busy_since = None

    def _take(self) -> tuple[Callable[[], None] | None, Item | None]:
        """A waiting job, or the waiting item; two None when neither came in the idle period."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._slot is not None or bool(self._jobs) or not self._running,
                self._idle_period,
            )
            if self._jobs:
                return self._jobs.popleft(), None
            item, self._slot = self._slot, None
            return None, item
