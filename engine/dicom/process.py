"""The reader's side of a reading process: started when needed, replaced when lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stenosis_trt.engine.dicom.errors import ReaderError
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.pixel_memory import PixelMemory

_MODULE = "stenosis_trt.engine.dicom.reading_process"
_START_SECONDS = 60.0
"""A start takes 0.3 s from a warm disk; a cold one on a slow machine has been seen to take ten."""


class ProcessLost(Exception):
    """The reading process died or did not answer in time; `hung` tells which."""

    def __init__(self, hung: bool) -> None:
        super().__init__("hung" if hung else "died")
        self.hung = hung


class ReadingProcess:
    """One reading process, started on first use and again after it was lost. For one thread at a time."""

    def __init__(self, limits: ReadLimits, memory: PixelMemory | None = None) -> None:
        self._limits, self._memory = limits, memory
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._closed = False
        self.peak_memory_bytes = 0
        """Largest resident memory of the processes that have ended."""

    @property
    def pid(self) -> int | None:
        """Its process id, or None where none runs."""
        return None if self._process is None else self._process.pid

    def ask(self, kind: str, *arguments: Any) -> list[Any]:
        """Send a request and wait for all its answers.

        Raises:
            ProcessLost: the process died or took too long; the next request starts another.
            ReaderError: no process can be started.
        """
        connection = self._connection or self._start()
        answers: list[Any] = []
        try:
            connection.send((kind, *arguments))
            while True:
                if not connection.poll(self._limits.timeout_seconds):
                    self.stop()
                    raise ProcessLost(hung=True)
                answer = connection.recv()
                if answer is None:
                    return answers
                answers.append(answer)
        except (EOFError, OSError) as error:
            self.stop()
            raise ProcessLost(hung=False) from error

    def _start(self) -> Connection:
        if self._closed:
            raise ReaderError("The reader was closed while it was reading. Open another.")
        shared = [] if self._memory is None else [self._memory.descriptor]
        ours, theirs = socket.socketpair()
        with theirs:
            connected = str(theirs.fileno()), json.dumps(asdict(self._limits)), *map(str, shared)
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, *connected],
                pass_fds=[theirs.fileno(), *shared],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Codecs and pydicom write warnings there that may quote the header.
                stderr=subprocess.DEVNULL,
                # In the root folder nothing of the user's can be taken for a module: a folder named `dl`
                # where a program runs keeps gdcm from being imported.
                cwd="/",
                env=_environment(),
            )
        self._connection = connection = Connection(ours.detach())
        try:
            started = connection.poll(_START_SECONDS) and connection.recv() is not None
        except (EOFError, OSError):
            started = False
        if not started:
            code = self._process.poll()
            self.stop()
            raise ReaderError(
                f"The process that reads files does not start (exit code {code}). "
                f"Run `{sys.executable} -c 'import {_MODULE}'` to see why."
            )
        return connection

    def stop(self) -> None:
        """End the process; the next request starts another."""
        if self._process is not None:
            self.peak_memory_bytes = max(self.peak_memory_bytes, _peak_memory_bytes(self._process.pid))
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None

    def close(self) -> None:
        """End the process for good."""
        self._closed = True
        self.stop()


def _peak_memory_bytes(pid: int) -> int:
    """Largest resident memory of a running process; 0 of one that is gone.

    The system's own count for children (RUSAGE_CHILDREN) holds what the parent had when it started them.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _environment() -> dict[str, str]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if search := environment.get("PYTHONPATH"):
        # Relative entries would mean something else in the folder that the process works in.
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, search.split(os.pathsep)))
    return environment
