"""Client of a reading process: starts it when needed and replaces it when it is lost."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stenosis_trt.engine.dicom.channel import Channel, MessageError, unpickle_answer
from stenosis_trt.engine.dicom.errors import ReaderError, ReaderUnavailable
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.pixel_memory import PixelMemory

_MODULE = "stenosis_trt.engine.dicom.reading_process"
_START_SECONDS = 60.0
"""Time limit of a start, which takes 0.3 s from a warm and up to 10 s from a cold disk."""
_END_SECONDS = 1.0
_START_WAITS = (0.5, 2.0)
"""Seconds before the second and third attempt to start a process."""
_COMPUTED_SHARE = 0.5
"""Share of CPU time within the time limit above which the file itself is the cause of a timeout."""
_TEXT_FACTOR, _FRAME_BYTES = 4, 4096
"""Bounds of an answer: bytes of text per byte of the header, and bytes of the record of one frame."""


class ProcessLost(Exception):
    """The reading process died, did not answer in time, or gave an invalid answer.

    Attributes:
        hung: it did not answer in time.
        wrong: its answer was invalid.
        computed: it hung and computed most of the time, so that another attempt would hang too.
    """

    def __init__(self, hung: bool, wrong: bool = False, computed: bool = False) -> None:
        super().__init__("hung" if hung else "wrong answer" if wrong else "died")
        self.hung, self.wrong, self.computed = hung, wrong, computed


class ReadingProcess:
    """A reading process, started on first use and again after it was lost. For one thread at a time.

    Args:
        limits: limits of reading.
        memory: pixel memory shared with the process.
        sleep: waits between attempts to start it; replaced in tests.
    """

    def __init__(
        self,
        limits: ReadLimits,
        memory: PixelMemory | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limits, self._memory, self._sleep = limits, memory, sleep
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._starting: Channel | None = None
        """Channel of a process that was not yet waited for."""
        self._lifeline: int | None = None
        self._numbers = itertools.count(1)
        self._closed = False
        self.has_run = False
        """True once a process could be started."""
        self.peak_memory_bytes = 0
        """Largest resident memory of the processes that have ended."""

    @property
    def pid(self) -> int | None:
        """Process id, or None if no process runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process without waiting for it. What fails is raised by the first request."""
        if self._process is None and not self._closed:
            with suppress(OSError):
                self._process, self._starting = self._spawn()

    def ask(self, kind: str, *arguments: Any) -> list[Any]:
        """Send a request and return all its answers.

        Each answer carries the number of its request. After an exception the process is stopped, so that no
        late answer is taken for the answer to the next request.

        Raises:
            ProcessLost: the process died, took too long, or gave an invalid answer; the next request starts
                another.
            ReaderUnavailable: no process can be started, or there is no memory for the answer.
            ReaderError: the reader was closed.
        """
        channel = self._channel or self._start()
        number, seconds = next(self._numbers), self._limits.timeout_seconds
        computed = self._cpu_seconds()
        answers: list[Any] = []
        try:
            channel.send(number, (kind, *arguments), seconds)
            while True:
                belongs, answer = channel.receive(seconds, _max_answer_bytes(self._limits), unpickle_answer)
                if belongs != number:
                    raise MessageError(f"Request {number} was answered with one to {belongs}.")
                if answer is None:
                    return answers
                answers.append(answer)
        except TimeoutError as error:
            share = (self._cpu_seconds() - computed) / seconds
            self.stop()
            raise ProcessLost(hung=True, computed=share > _COMPUTED_SHARE) from error
        except (EOFError, OSError) as error:
            self.stop()
            raise ProcessLost(hung=False) from error
        except MessageError as error:
            self.stop()
            raise ProcessLost(hung=False, wrong=True) from error
        except MemoryError as error:
            self.stop()
            raise ReaderUnavailable(
                "There is not enough memory to receive what a reading process read.",
                "Free memory, then try again.",
            ) from error
        except BaseException:
            self.stop()
            raise

    def _start(self) -> Channel:
        """Start a process, with several attempts."""
        for wait in (*_START_WAITS, None):
            if self._closed:
                raise ReaderError("The reader was closed while it was reading.", "Open another.")
            try:
                self._channel = channel = self._start_once()
            except ReaderUnavailable:
                if wait is None:
                    raise
                self._sleep(wait)
            else:
                self.has_run = True
                return channel
        raise AssertionError("the last try either returns or raises")

    def _start_once(self) -> Channel:
        channel, self._starting = self._starting, None
        try:
            if channel is None:
                self._process, channel = self._spawn()
        except OSError as error:
            raise ReaderUnavailable(
                f"The process that reads files cannot be started ({error.strerror or type(error).__name__}).",
                "Close other programs, or allow this user more processes, memory and files; then try again.",
            ) from error
        try:
            channel.receive(_START_SECONDS, _max_answer_bytes(self._limits), unpickle_answer)
        except (EOFError, OSError, MessageError) as error:
            code = self._ended_with()
            channel.close()
            self.stop()
            raise ReaderUnavailable(
                f"The process that reads files does not start ({code}).",
                f"Run `{sys.executable} -c 'import {_MODULE}'` to see why.",
            ) from error
        except BaseException:
            channel.close()
            self.stop()
            raise
        return channel

    def _spawn(self) -> tuple[subprocess.Popen[bytes], Channel]:
        """Start a process and connect to it. On failure all descriptors opened for it are closed."""
        shared = [] if self._memory is None else [self._memory.descriptor]
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as undo:
            undo.callback(ours.close)
            lifeline, self._lifeline = os.pipe()
            undo.callback(self._close_lifeline)
            limits = json.dumps(asdict(self._limits))
            connected = str(theirs.fileno()), str(lifeline), limits, *map(str, shared)
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", _MODULE, *connected],
                    pass_fds=[theirs.fileno(), lifeline, *shared],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    # Warnings of codecs and pydicom may quote the header.
                    stderr=subprocess.DEVNULL,
                    # The root folder has no user files that shadow modules: a folder named `dl` in the
                    # working directory prevents the import of gdcm.
                    cwd="/",
                    env=_environment(),
                )
            finally:
                os.close(lifeline)
            undo.pop_all()
        return process, Channel(ours.detach())

    def _ended_with(self) -> str:
        """Describe how a process that did not start has ended."""
        process = self._process
        try:
            # The process closes its end of the channel shortly before it ends.
            code = None if process is None else process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        if code is None:
            return "it did not answer in time"
        return f"exit code {code}" if code >= 0 else f"ended by signal {-code}"

    def _cpu_seconds(self) -> float:
        """Return the CPU time of the process in seconds."""
        pid = self.pid
        if pid is None:
            return 0.0
        # The clock id of clock_getcpuclockid(3) on Linux. A process that has ended may have none.
        with suppress(OSError):
            return time.clock_gettime((~pid << 3) | 2)
        return 0.0

    def _close_lifeline(self) -> None:
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)

    def stop(self) -> None:
        """Kill the process and wait for its end; the next request starts another.

        Afterwards no thread of the process runs and no write to shared memory is in progress, so that the
        memory can be reused.
        """
        if self._process is not None:
            self.peak_memory_bytes = max(self.peak_memory_bytes, _peak_memory_bytes(self._process.pid))
        process, channel = self._process, self._channel or self._starting
        if process is not None:
            # First, so that a thread that waits for an answer returns.
            process.kill()
        if channel is not None:
            channel.close()
        self._close_lifeline()
        if process is not None:
            process.wait()
        self._channel = self._starting = self._process = None

    def close(self) -> None:
        """Stop the process; no other is started."""
        self._closed = True
        self.stop()


def _max_answer_bytes(limits: ReadLimits) -> int:
    """Return the largest size in bytes of an answer for one file or frame; a longer one is rejected."""
    header = _TEXT_FACTOR * limits.max_header_bytes + _FRAME_BYTES * limits.max_frames
    return max(header, 2 * limits.max_frame_pixels) + (1 << 16)


def _peak_memory_bytes(pid: int) -> int:
    """Return the peak resident memory of a running process, or 0 if it has ended.

    RUSAGE_CHILDREN would include the memory of the parent at the time of the fork.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _environment() -> dict[str, str]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if search := environment.get("PYTHONPATH"):
        # Relative entries would refer to the working directory of the process.
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, search.split(os.pathsep)))
    return environment
