"""The reader's side of a reading process: started when needed, replaced when lost."""

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
"""A start takes 0.3 s from a warm disk; a cold one on a slow machine has been seen to take ten."""
_END_SECONDS = 1.0
_START_WAITS = (0.5, 2.0)
"""Seconds before the second and the third try to start a process."""
_COMPUTED_SHARE = 0.5
"""A process that computed for this share of the time limit was kept by its file, and by nothing else."""
_TEXT_FACTOR, _FRAME_BYTES = 4, 4096
"""Bounds of an answer: of its text, in bytes a byte of the header; of a frame's record, in bytes."""


class ProcessLost(Exception):
    """The reading process died, did not answer in time, or answered what cannot be.

    Attributes:
        hung: it did not answer in time.
        wrong: it answered what cannot be.
        computed: it hung, and computed for most of the time: another try would end alike.
    """

    def __init__(self, hung: bool, wrong: bool = False, computed: bool = False) -> None:
        super().__init__("hung" if hung else "wrong answer" if wrong else "died")
        self.hung, self.wrong, self.computed = hung, wrong, computed


class ReadingProcess:
    """One reading process, started on first use and again after it was lost. For one thread at a time.

    Args:
        limits: of reading.
        memory: shared with the process.
        sleep: waits between tries to start it; tests put another in its place.
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
        self._lifeline: int | None = None
        self._numbers = itertools.count(1)
        self._closed = False
        self.has_run = False
        """Whether one could be started."""
        self.peak_memory_bytes = 0
        """Largest resident memory of the processes that have ended."""

    @property
    def pid(self) -> int | None:
        """Its process id, or None where none runs."""
        return None if self._process is None else self._process.pid

    def ask(self, kind: str, *arguments: Any) -> list[Any]:
        """Send a request and wait for all its answers.

        Each answer carries the number of its request. After any exception the process is stopped: what it had
        still to answer must not be taken for the answer to the next request.

        Raises:
            ProcessLost: the process died, took too long, or answered what cannot be; the next request starts
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
                belongs, answer = channel.receive(seconds, _longest_answer(self._limits), unpickle_answer)
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
        """Start a process; again after a while where it cannot be started."""
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
        shared = [] if self._memory is None else [self._memory.descriptor]
        try:
            self._process, channel = self._spawn(shared)
        except OSError as error:
            raise ReaderUnavailable(
                f"The process that reads files cannot be started ({error.strerror or type(error).__name__}).",
                "Close other programs, or allow this user more processes, memory and files; then try again.",
            ) from error
        try:
            channel.receive(_START_SECONDS, _longest_answer(self._limits), unpickle_answer)
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

    def _spawn(self, shared: list[int]) -> tuple[subprocess.Popen[bytes], Channel]:
        """A process, and the channel to it. What was opened for it is closed where it cannot be started."""
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as undo:
            undo.callback(ours.close)
            lifeline, self._lifeline = os.pipe()
            undo.callback(self._cut_lifeline)
            limits = json.dumps(asdict(self._limits))
            connected = str(theirs.fileno()), str(lifeline), limits, *map(str, shared)
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", _MODULE, *connected],
                    pass_fds=[theirs.fileno(), lifeline, *shared],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    # Codecs and pydicom write warnings there that may quote the header.
                    stderr=subprocess.DEVNULL,
                    # In the root folder nothing of the user's can be taken for a module: a folder named `dl`
                    # where a program runs keeps gdcm from being imported.
                    cwd="/",
                    env=_environment(),
                )
            finally:
                os.close(lifeline)
            undo.pop_all()
        return process, Channel(ours.detach())

    def _ended_with(self) -> str:
        """How a process that did not start has ended, in words."""
        process = self._process
        try:
            # It closes its end of the channel a little before it has ended.
            code = None if process is None else process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        if code is None:
            return "it did not answer in time"
        return f"exit code {code}" if code >= 0 else f"ended by signal {-code}"

    def _cpu_seconds(self) -> float:
        """CPU time that the process has taken."""
        pid = self.pid
        if pid is None:
            return 0.0
        # What clock_getcpuclockid(3) gives for a process on Linux. One that has ended may have none.
        with suppress(OSError):
            return time.clock_gettime((~pid << 3) | 2)
        return 0.0

    def _cut_lifeline(self) -> None:
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)

    def stop(self) -> None:
        """End the process and wait for its end; the next request starts another.

        It may be writing to shared memory. Once the wait is over none of its threads runs, and no write of
        its is under way: the memory can be given to the next study.
        """
        if self._process is not None:
            self.peak_memory_bytes = max(self.peak_memory_bytes, _peak_memory_bytes(self._process.pid))
        process, channel = self._process, self._channel
        if process is not None:
            # First: where another thread waits for an answer, this ends its wait.
            process.kill()
        if channel is not None:
            channel.close()
        self._cut_lifeline()
        if process is not None:
            process.wait()
        self._channel = self._process = None

    def close(self) -> None:
        """End the process for good."""
        self._closed = True
        self.stop()


def _longest_answer(limits: ReadLimits) -> int:
    """The most bytes that the answer for one file or frame can have; a longer one is not received."""
    header = _TEXT_FACTOR * limits.max_header_bytes + _FRAME_BYTES * limits.max_frames
    return max(header, 2 * limits.max_frame_pixels) + (1 << 16)


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
