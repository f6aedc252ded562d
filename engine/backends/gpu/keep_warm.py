"""Keep an idle GPU busy, so that it does not clock down before the next study."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class KeepWarm:
    """Thread that calls `work` whenever the GPU was idle for `seconds`, until closed."""

    def __init__(self, seconds: float, work: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Start the thread.

        Args:
            seconds: idle time before `work` is called.
            work: called on the thread while `gpu_lock` is held. An exception ends the thread.
            failed: called with that exception on the thread.
        """
        self._seconds, self._work, self._failed = seconds, work, failed
        self.gpu_lock = threading.Lock()
        """Held while the GPU is in use."""
        self.count = 0
        """Number of calls of `work`."""
        self._last = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keep-warm", daemon=True)
        self._thread.start()

    def restart_timer(self) -> None:
        """Restart the idle time: the GPU was just used."""
        self._last = time.monotonic()

    def close(self) -> None:
        """Stop the thread."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(max(0.0, self._last + self._seconds - time.monotonic())):
            if time.monotonic() < self._last + self._seconds or not self.gpu_lock.acquire(blocking=False):
                # The GPU is in use, or was used meanwhile.
                self._end.wait(min(self._seconds, 0.01))
                continue
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 - passed to `failed`: a thread has no caller
                self._failed(error)
                return
            finally:
                self.gpu_lock.release()
            self.count += 1
            self.restart_timer()
