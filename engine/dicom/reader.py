"""Reader of DICOM files: scans paths for studies, then loads the slices of selected series.

Files are read in separate processes (see `reading_process`). A process that dies or hangs is replaced; its
file becomes a Problem, and the other files are read normally.
"""

from __future__ import annotations

import os
import queue
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stenosis_trt.engine.dicom.answers import ask_process, lost_error, lost_frames_error
from stenosis_trt.engine.dicom.archive_types import ArchiveMember, RefusedMember
from stenosis_trt.engine.dicom.duplicates import Likeness, Pair, have_same_description
from stenosis_trt.engine.dicom.errors import ArchiveFound, DicomError, ReaderError, ReaderUnavailable
from stenosis_trt.engine.dicom.find import References, find_files
from stenosis_trt.engine.dicom.header import FileHeader
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.dicom.pixel_memory import (
    PixelMemory,
    PixelSlot,
    ReservedFrame,
    WrittenFrame,
    invalid_answer_error,
    written_frame,
)
from stenosis_trt.engine.dicom.process import ProcessLost, ReadingProcess
from stenosis_trt.engine.dicom.series import build_studies
from stenosis_trt.engine.dicom.unpacked_archives import UnpackedArchives, members_of
from stenosis_trt.engine.records import FrameHeader, LoadedSlice, Problem, Stage, StudyHeader
from stenosis_trt.engine.support.closeable import Closeable

_FILES_PER_REQUEST = 64
"""Files per request; amortises the 0.2 ms round trip."""
_PAIRS_PER_REQUEST = 16
"""Pairs of files that are compared per request."""
_IDENTITY_KEY_BYTES = 32
_STORED = np.uint16
"""Type of decoded pixels; int16 has the same size."""
_STORED_BYTES = np.dtype(_STORED).itemsize
_FRAMES_PER_REQUEST = 8
"""Single-frame files per request. The round trip takes about as long as decoding an uncompressed file of 512²
pixels."""
_BYTES_PER_REQUEST = 4 << 20
"""Pixels per request of several files, where they are part of the answer."""
_MAX_CRASHES_PER_FILE = 3
"""Processes that one file may crash before it is given up; each crash costs two starts."""

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Scan:
    """Result of a scan: studies, a Problem for each unusable file, and the number of files, where an archive
    counts as the files in it."""

    studies: tuple[StudyHeader, ...]
    problems: tuple[Problem, ...]
    files: int


@dataclass(frozen=True)
class _FrameRequest:
    """A frame to decode, and the shared memory reserved for it, if any."""

    frame: FrameHeader
    reserved: ReservedFrame | None

    @property
    def room(self) -> tuple[int, int] | None:
        """Offset and size in bytes of the reserved memory, for the reading process."""
        return None if self.reserved is None else (self.reserved.offset, self.reserved.view.nbytes)

    @property
    def answer_bytes(self) -> int:
        """Bytes of pixels in the answer: none if they go to shared memory."""
        pose = self.frame.pose
        return 0 if pose is None or self.reserved is not None else _STORED_BYTES * pose.rows * pose.columns


_File = tuple[Path, list[_FrameRequest]]


class DicomReader(Closeable):
    """Reads DICOM files in separate processes. Use it as a context manager. Thread-safe.

    Faults of files are returned as Problems. Methods raise ReaderError if no reading process can be started;
    once one was started, `scan` returns a Problem for each file that could not be read for this reason.
    Archives are unpacked into a temporary folder, which is removed when the reader is closed.

    Args:
        limits: limits of reading.
        workers: number of reading processes.
        memory: pixel memory that slices can be decoded into; must stay open as long as the reader.
    """

    def __init__(
        self, limits: ReadLimits | None = None, workers: int = 1, memory: PixelMemory | None = None
    ) -> None:
        if workers < 1:
            raise ValueError(f"{workers} reading processes were asked for. Ask for at least 1.")
        self.limits = limits or ReadLimits()
        self._workers, self._memory = workers, memory
        # Shared by all reading processes and never stored: digests reveal nothing after this run.
        self._identity_key = os.urandom(_IDENTITY_KEY_BYTES)
        self._unpacked = UnpackedArchives()
        self._closed = False
        self._processes = [ReadingProcess(self.limits, memory) for _ in range(workers)]
        self._free: queue.SimpleQueue[ReadingProcess] = queue.SimpleQueue()
        for process in self._processes:
            self._free.put(process)

    def start(self) -> None:
        """Start the reading processes now, without waiting for them, instead of with the first request."""
        for process in self._processes:
            process.start()

    def close(self) -> None:
        """Stop the reading processes and remove unpacked archives. A read in another thread raises
        ReaderError."""
        self._closed = True
        for process in self._processes:
            process.close()
        self._unpacked.close()

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Process ids of the reading processes that run."""
        return tuple(process.pid for process in self._processes if process.pid is not None)

    @property
    def peak_memory_bytes(self) -> int:
        """Peak resident memory of the reading processes that have ended."""
        return max(process.peak_memory_bytes for process in self._processes)

    def scan(self, paths: Sequence[Path], progress: Callable[[int], None] | None = None) -> Scan:
        """Read the headers of all files below `paths`, without pixels.

        Args:
            paths: folders, files, DICOMDIRs, archives.
            progress: called with the number of files read so far.
        """
        problems: list[Problem] = []
        files: list[Path] = []
        for found in find_files([Path(os.path.abspath(path)) for path in paths], self._list_dicomdir):
            if self._closed:
                raise ReaderError("The reader was closed while it was reading.", "Open another.")
            if isinstance(found, Problem):
                problems.append(found)
            else:
                files.append(found)
        headers: list[FileHeader] = []
        archives: list[tuple[Path, str]] = []
        done = unpacked = 0

        def read(files: Sequence[Path]) -> None:
            nonlocal done
            for path, answer in self._each_header(files):
                if isinstance(answer, ArchiveFound):
                    archives.append((path, answer.kind))
                elif isinstance(answer, DicomError):
                    problems.append(answer.problem(self._unpacked.shown(path)))
                else:
                    headers.append(answer)
                done += 1
                if progress and done % _FILES_PER_REQUEST == 0:
                    progress(done)

        read(files)
        for (archive, _), answers in self._map_ordered(self._unpack, list(archives)):
            members, refused = members_of(archive, answers)
            problems.extend(refused)
            read(self._unpacked.add(archive, members))
            unpacked += bool(members)
        if progress:
            progress(done)
        lost = Counter(problem.study_uid for problem in problems if not problem.harmless)
        studies, duplicates = build_studies(headers, self._compare)
        studies = tuple(replace(study, lost_files=lost[study.study_uid]) for study in studies)
        rows = (*problems, *self._unpacked.problems(duplicates))
        return Scan(self._unpacked.studies(studies), rows, done - unpacked)

    def load(
        self, frames: Sequence[FrameHeader], slot: PixelSlot | None = None
    ) -> tuple[tuple[LoadedSlice, ...], tuple[Problem, ...]]:
        """Decode frames.

        Args:
            frames: frames to decode.
            slot: slot of the reader's memory to which the pixels are appended. Frames that do not fit get
                their own arrays, as all do without a slot, and are counted in `outside_slot`. No process
                writes to the slot after this method has returned or raised.

        Returns:
            The decoded slices in the order of `frames`, and a Problem for each file with a frame that could
            not be decoded; or one Problem and no slice if the series exceeds `max_series_bytes`.

        Raises:
            ValueError: the slot belongs to another memory.
            ReaderError: no reading process can be started.
        """
        if slot is not None and (self._memory is None or slot not in self._memory.slots):
            raise ValueError("The slot is not of the memory that the reader was opened with.")
        poses = [frame.pose for frame in frames if frame.pose is not None]
        size = sum(_STORED_BYTES * pose.rows * pose.columns for pose in poses)
        if size > self.limits.max_series_bytes:
            reason = f"The series would take {size} bytes decoded, over the limit."
            advice = raise_limit("max_series_bytes", size)
            problem = Problem(str(frames[0].path.parent), Stage.PIXELS, reason, advice)
            return (), self._unpacked.problems([problem])
        files: dict[Path, list[_FrameRequest]] = {}
        for frame in frames:
            files.setdefault(frame.path, []).append(_FrameRequest(frame, _reserve(frame, slot)))
        decoded: dict[tuple[Path, int], Any] = {}
        problems: list[Problem] = []
        for chunk, found in self._map_ordered(self._decode_files, self._chunks(files)):
            for (path, members), answers in zip(chunk, found, strict=True):
                error = lost_frames_error(answers, len(members))
                if error:
                    problems.append(error.problem(self._unpacked.shown(path)))
                for wanted, answer in zip(members, answers, strict=False):
                    if not isinstance(answer, DicomError):
                        decoded[path, wanted.frame.index] = answer
        slices = [
            LoadedSlice(frame, frame.pose, decoded[frame.path, frame.index])
            for frame in frames
            if frame.pose is not None and (frame.path, frame.index) in decoded
        ]
        if slot is not None and self._memory is not None:
            slot.outside_slot += sum(self._memory.offset_of(item.stored) is None for item in slices)
        return tuple(slices), tuple(problems)

    def _list_dicomdir(self, path: Path) -> References | DicomError:
        try:
            answer: References | DicomError = self._ask("dicomdir", path)[0]
            return answer
        except ProcessLost as lost:
            return lost_error(lost, Stage.FIND)
        except ReaderUnavailable as error:
            return self._require_started(error).of_file(Stage.FIND)

    def _each_header(self, files: Sequence[Path]) -> Iterator[tuple[Path, FileHeader | DicomError]]:
        chunks = [list(files[k : k + _FILES_PER_REQUEST]) for k in range(0, len(files), _FILES_PER_REQUEST)]
        for chunk, answers in self._map_ordered(self._headers, chunks):
            yield from zip(chunk, answers, strict=True)

    def _unpack(self, found: tuple[Path, str]) -> list[ArchiveMember | RefusedMember | DicomError]:
        """Unpack an archive; return its members and the errors of those that were not unpacked."""
        path, kind = found
        try:
            folder = self._unpacked.new_folder(path)
        except OSError as error:
            reason = f"There is no temporary folder to unpack the archive in ({error.strerror})."
            advice = "Set TMPDIR to a folder that can be written, or unpack the archive and give the folder."
            return [DicomError(Stage.HEADER, reason, advice)]
        answers: list[ArchiveMember | RefusedMember | DicomError]
        try:
            answers = self._ask("archive", path, kind, folder)
        except ProcessLost as lost:
            answers = [lost_error(lost, Stage.HEADER)]
        except ReaderUnavailable as error:
            answers = [self._require_started(error).of_file(Stage.HEADER)]
        if answers and isinstance(answers[-1], DicomError):
            self._unpacked.discard(folder)
        return answers

    def _compare(self, pairs: Sequence[Pair]) -> list[Likeness]:
        """Compare pairs of files in the reading processes."""
        chunks = [pairs[k : k + _PAIRS_PER_REQUEST] for k in range(0, len(pairs), _PAIRS_PER_REQUEST)]
        return [one for _, answers in self._map_ordered(self._compare_files, chunks) for one in answers]

    def _compare_files(self, pairs: Sequence[Pair]) -> list[Likeness]:
        asked = [
            (one.path, other.path, len(one.frames) if have_same_description(one, other) else 0)
            for one, other in pairs
        ]
        try:
            answers: list[Likeness] = self._ask("copies", asked)
            return answers
        except (ProcessLost, ReaderUnavailable):
            if len(pairs) == 1:
                return [Likeness.DIFFERENT]
        # One of the files crashed the process: request each pair separately.
        return [answer for pair in pairs for answer in self._compare_files([pair])]

    def _headers(self, paths: list[Path]) -> list[FileHeader | DicomError]:
        try:
            answers: list[FileHeader | DicomError] = self._ask("headers", paths, self._identity_key)[0]
            return answers
        except ProcessLost as lost:
            if len(paths) == 1:
                return [lost_error(lost, Stage.HEADER)]
        except ReaderUnavailable as error:
            return [self._require_started(error).of_file(Stage.HEADER)] * len(paths)
        # One of the files crashed the process: request each separately.
        return [answer for path in paths for answer in self._headers([path])]

    def _require_started(self, error: ReaderUnavailable) -> ReaderUnavailable:
        """Return the error, or raise it if no process has ever run."""
        if not any(process.has_run for process in self._processes):
            raise error
        return error

    def _chunks(self, files: dict[Path, list[_FrameRequest]]) -> Iterator[list[_File]]:
        """Yield the files of each request. Files with one frame share a request, but not so many that a
        process is idle or that an answer exceeds the limit of one."""
        most = min(_FRAMES_PER_REQUEST, -(-len(files) // self._workers))
        bytes_left = most_bytes = min(_BYTES_PER_REQUEST, _STORED_BYTES * self.limits.max_frame_pixels)
        chunk: list[_File] = []
        for path, wanted in files.items():
            size = sum(item.answer_bytes for item in wanted)
            alone = len(wanted) > 1
            if chunk and (alone or len(chunk) >= most or size > bytes_left):
                yield chunk
                chunk, bytes_left = [], most_bytes
            chunk.append((path, wanted))
            bytes_left -= size
            if alone:
                yield chunk
                chunk, bytes_left = [], most_bytes
        if chunk:
            yield chunk

    def _decode_files(self, chunk: list[_File]) -> list[list[Any]]:
        """Decode the frames of several files; return the answers of each."""
        answers = self._decode_single_frames(chunk) if len(chunk) > 1 else None
        # If one of the files crashed the process, request each separately.
        return [self._decode_file(*file) for file in chunk] if answers is None else answers

    def _decode_single_frames(self, chunk: list[_File]) -> list[list[Any]] | None:
        """Decode one frame of each file with a single request; return None if the process was lost."""
        frames = [(path, wanted) for path, (wanted,) in chunk]
        try:
            (answers,) = self._ask(
                "images", [(path, wanted.frame.index, wanted.room) for path, wanted in frames]
            )
        except ProcessLost:
            return None
        return [[_frame_result(wanted, answer)] for (_, wanted), answer in zip(frames, answers, strict=True)]

    def _decode_file(self, path: Path, frames: list[_FrameRequest]) -> list[Any]:
        whole, lost = self._decode(path, frames)
        if lost is None or lost.hung or len(frames) == 1:
            return whole
        # One of the frames crashed the process: request each separately, until too many crash it.
        answers: list[Any] = []
        left = _MAX_CRASHES_PER_FILE
        for frame in frames:
            found, lost = self._decode(path, [frame]) if left else (whole, None)
            left -= lost is not None
            answers.extend(found)
        return answers

    def _decode(self, path: Path, frames: list[_FrameRequest]) -> tuple[list[Any], ProcessLost | None]:
        try:
            answers = self._ask("pixels", path, [(wanted.frame.index, wanted.room) for wanted in frames])
            return [_frame_result(*pair) for pair in zip(frames, answers, strict=False)], None
        except ProcessLost as lost:
            return [lost_error(lost, Stage.PIXELS)], lost

    def _ask(self, kind: str, *arguments: Any) -> list[Any]:
        """Send a request to a free process; repeat it once if something else may have ended the process."""
        with self._process() as process:
            try:
                return ask_process(process, kind, *arguments)
            except ProcessLost as lost:
                if lost.computed:
                    raise
                return ask_process(process, kind, *arguments)

    @contextmanager
    def _process(self) -> Iterator[ReadingProcess]:
        process = self._free.get()
        try:
            yield process
        finally:
            self._free.put(process)

    def _map_ordered(
        self, read: Callable[[_Request], _Answer], requests: Iterable[_Request]
    ) -> Iterator[tuple[_Request, _Answer]]:
        """Yield each request with its answer, in order. Few more requests than processes are pending, so that
        interrupts take effect soon and answers do not accumulate."""
        pending: deque[tuple[_Request, Future[_Answer]]] = deque()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="dicom") as pool:
            try:
                for request in requests:
                    pending.append((request, pool.submit(read, request)))
                    if len(pending) > 2 * self._workers:
                        done, future = pending.popleft()
                        yield done, future.result()
                while pending:
                    done, future = pending.popleft()
                    yield done, future.result()
            except KeyboardInterrupt:
                # Closing ends the reads in progress; the pool would wait for them, up to the time limit.
                self.close()
                raise
            finally:
                for _, future in pending:
                    future.cancel()


def _reserve(frame: FrameHeader, slot: PixelSlot | None) -> ReservedFrame | None:
    """Reserve memory for a frame by the size in its header."""
    if slot is None or frame.pose is None:
        return None
    return slot.reserve((frame.pose.rows, frame.pose.columns), _STORED)


def _frame_result(wanted: _FrameRequest, answer: Any) -> Any:
    """Return the pixels of a frame, or its DicomError."""
    if not isinstance(answer, WrittenFrame):
        return answer
    return invalid_answer_error() if wanted.reserved is None else written_frame(wanted.reserved, answer)
