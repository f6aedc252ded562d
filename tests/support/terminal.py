"""A terminal for a command to write to, as a person would have."""

from __future__ import annotations

import os
import pty
from types import TracebackType


class Terminal:
    """A pseudo-terminal. `device` is the file descriptor to give to one process, as its output or errors."""

    def __enter__(self) -> Terminal:
        self._reader, self.device = pty.openpty()
        return self

    def read_all(self) -> bytes:
        """Everything that the process writes until it ends; call it once, after the process was started."""
        os.close(self.device)
        seen = b""
        while True:
            try:
                piece = os.read(self._reader, 65536)
            except OSError:  # how a pseudo-terminal says that nobody is at its other end
                return seen
            if not piece:
                return seen
            seen += piece

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._reader)
