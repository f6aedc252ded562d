"""A network of its own for servers that listen on every address: a namespace with nothing but its loopback.

Nothing outside reaches a port in it, and nothing inside reaches another machine. Its processes have process
numbers of their own as well, so that all of them end with it, whatever they started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from viewer_tools import command_path, need_commands, skip_or_fail

_START_SECONDS = 10.0


class LoopbackNetwork:
    """A network namespace, from `with` to its end. The test is skipped where none can be made."""

    def __enter__(self) -> LoopbackNetwork:
        need_commands("unshare", "nsenter", "ip")
        as_user = [] if os.geteuid() == 0 else ["--map-root-user"]
        # It ends when its input does: with this process, however that ends.
        first = f"{command_path('ip')} link set lo up && echo up && exec cat"
        self._holder = subprocess.Popen(
            [
                command_path("unshare"),
                *as_user,
                *("--net", "--pid", "--fork", "--mount-proc", "--kill-child"),
                *("sh", "-c", first),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "up\n":
            said = self._holder.communicate(timeout=_START_SECONDS)[1].strip()
            skip_or_fail(f"needs a network namespace, which this machine does not allow: {said}")
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        first_process = children.read_text(encoding="ascii").split()[0]
        self._enter = [
            command_path("nsenter"),
            *("--target", first_process, "--net", "--pid", "--mount"),
            *(["--user", "--preserve-credentials"] if as_user else []),
            "--",
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The first process of a process namespace takes all others with it.
        try:
            self._holder.communicate(timeout=_START_SECONDS)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            raise

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a server; what it prints goes to `log`."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                [*self._enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(
        self, command: Sequence[str], stdin: bytes = b"", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end and return what it printed.

        Raises:
            subprocess.TimeoutExpired: it did not end in time and was killed.
        """
        with subprocess.Popen(
            [*self._enter, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(stdin, timeout)
            except BaseException:
                _signal(process, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def stop(process: subprocess.Popen[bytes], seconds: float = 5.0) -> None:
    """End a server: ask it, and kill it where it does not end in time."""
    _signal(process, signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait(seconds)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the process that nsenter waits for, so that nsenter sees it end and ends as well."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        inside = [int(child) for child in children.read_text(encoding="ascii").split()]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in inside or [process.pid]:
        # It may have ended meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
