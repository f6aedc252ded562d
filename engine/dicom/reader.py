"""The door to DICOM: scan paths to studies, then load the slices of a chosen series.

All reading happens in processes of its own (see `reading_process`). One that dies or hangs is replaced; the
file it was on becomes a Problem, and the others are read as if nothing had been.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.find import find_files
from stenosis_trt.engine.dicom.header import FileHeader
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.series import build_studies
from stenosis_trt.engine.records import FrameHeader, LoadedSlice, Problem, Stage, StudyHeader

_FILES_A_REQUEST = 64


@dataclass(frozen=True)
class Scan:
    """What a scan found: studies, a Problem for each unusable file, and how many files were looked at."""

    studies: tuple[StudyHeader, ...]
    problems: tuple[Problem, ...]
    files: int


class _ProcessLost(Exception):
    """The reading process died or did not answer in time; `hung` tells which."""

    def __init__(self, hung: bool) -> None:
        super().__init__("hung" if hung else "died")
        self.hung = hung


class _ReadingProcess:
    """One reading process, started on first use and again after it was lost."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        # The child works in the root folder: a file or folder of the user's working directory must not be
        # taken for a module.
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "stenosis_trt.engine.dicom.reading_process",
                str(theirs.fileno()),
                json.dumps(asdict(self._limits)),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        return self._connection

    def ask(self, request: tuple[Any, ...]) -> Any:
        """Send a request and wait for its answer.

        Raises:
            _ProcessLost: the process died or took too long; the next request starts another.
        """
        connection = self._connection or self._start()
        try:
            connection.send(request)
            if not connection.poll(self._limits.timeout_seconds):
                self.stop()
                raise _ProcessLost(hung=True)
            return connection.recv()
        except (EOFError, OSError) as error:
            self.stop()
            raise _ProcessLost(hung=False) from error

    def stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None


class DicomReader:
    """Reads DICOM files in `workers` processes, under `limits`. Use it as a context manager.

    Its methods may be called from several threads.
    """

    def __init__(self, limits: ReadLimits | None = None, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"{workers} reading processes were asked for. Ask for at least 1.")
        self.limits = limits or ReadLimits()
        self._workers = workers
        self._processes = [_ReadingProcess(self.limits) for _ in range(workers)]
        self._free: queue.SimpleQueue[_ReadingProcess] = queue.SimpleQueue()
        for process in self._processes:
            self._free.put(process)

    def __enter__(self) -> DicomReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the reading processes."""
        for process in self._processes:
            process.stop()

    @contextmanager
    def _process(self) -> Iterator[_ReadingProcess]:
        process = self._free.get()
        try:
            yield process
        finally:
            self._free.put(process)

    def scan(self, paths: Sequence[Path], progress: Callable[[int], None] | None = None) -> Scan:
        """Find and read the headers of all files below `paths`; no pixels.

        Args:
            paths: folders, files, DICOMDIRs.
            progress: called with the number of files read so far.
        """
        problems: list[Problem] = []
        files: list[Path] = []
        for found in find_files([Path(os.path.abspath(path)) for path in paths]):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                files.append(found)
        chunks = [files[k : k + _FILES_A_REQUEST] for k in range(0, len(files), _FILES_A_REQUEST)]
        headers: list[FileHeader] = []
        done = 0
        with ThreadPoolExecutor(self._workers) as pool:
            for chunk, answers in zip(chunks, pool.map(self._headers, chunks), strict=True):
                for path, answer in zip(chunk, answers, strict=True):
                    if isinstance(answer, DicomError):
                        problems.append(answer.problem(str(path)))
                    else:
                        headers.append(answer)
                done += len(chunk)
                if progress:
                    progress(done)
        studies, duplicates = build_studies(headers)
        return Scan(studies, (*problems, *duplicates), len(files))

    def _headers(self, paths: list[Path]) -> list[FileHeader | DicomError]:
        try:
            with self._process() as process:
                answers: list[FileHeader | DicomError] = process.ask(("headers", paths))
                return answers
        except _ProcessLost as lost:
            if len(paths) == 1:
                return [_lost(lost, Stage.HEADER)]
        # One of the files ended the process: each gets a request of its own.
        return [answer for path in paths for answer in self._headers([path])]

    def load(self, frames: Sequence[FrameHeader]) -> tuple[tuple[LoadedSlice, ...], tuple[Problem, ...]]:
        """Decode frames, in the order given.

        Returns:
            The slices that could be decoded, and a Problem for each file that could not.
        """
        files = [(path, [*group]) for path, group in groupby(frames, key=lambda frame: frame.path)]
        slices: list[LoadedSlice] = []
        problems: list[Problem] = []
        with ThreadPoolExecutor(self._workers) as pool:
            for (path, group), answer in zip(files, pool.map(self._pixels, files), strict=True):
                if isinstance(answer, DicomError):
                    problems.append(answer.problem(str(path)))
                    continue
                for frame, stored in zip(group, answer, strict=True):
                    if frame.pose is not None:
                        slices.append(LoadedSlice(frame, frame.pose, stored))
        return tuple(slices), tuple(problems)

    def _pixels(self, request: tuple[Path, list[FrameHeader]]) -> Any:
        path, frames = request
        try:
            with self._process() as process:
                return process.ask(("pixels", path, [frame.index for frame in frames]))
        except _ProcessLost as lost:
            return _lost(lost, Stage.PIXELS)


def _lost(lost: _ProcessLost, stage: Stage) -> DicomError:
    what = "took longer than the limit" if lost.hung else "ended the process that did it"
    return DicomError(stage, f"Reading the file {what}.", "The file is broken: send or export it again.")
