"""Work for a GPU that has none, so that it does not clock down before the next study comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class KeepWarm:
    """Calls `work` whenever nothing else was done for some seconds, until it is closed."""

    def __init__(self, seconds: float, work: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Begin.

        Args:
            seconds: after the last work.
            work: called on a thread of its own while `working` is held. What it raises ends this.
            failed: called with that, on the same thread; the next study finds out by itself.
        """
        self._seconds, self._work, self._failed = seconds, work, failed
        self.gpu_lock = threading.Lock()
        """Held by whoever uses the GPU."""
        self.count = 0
        """How often it worked."""
        self._last = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keep-warm", daemon=True)
        self._thread.start()

    def restart_timer(self) -> None:
        """Something was done."""
        self._last = time.monotonic()

    def close(self) -> None:
        """End it."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(max(0.0, self._last + self._seconds - time.monotonic())):
            if time.monotonic() < self._last + self._seconds or not self.gpu_lock.acquire(blocking=False):
                # In use, or used meanwhile.
                self._end.wait(min(self._seconds, 0.01))
                continue
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 - told to `failed`; a thread has nobody to raise to
                self._failed(error)
                return
            finally:
                self.gpu_lock.release()
            self.count += 1
            self.restart_timer()
