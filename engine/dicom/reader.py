"""The door to DICOM: scan paths to studies, then load the slices of a chosen series.

All reading happens in processes of its own (see `reading_process`). One that dies or hangs is replaced; the
file it was on becomes a Problem, and the others are read as if nothing had been.
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
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from stenosis_trt.engine.dicom.archives import ArchiveMember, RefusedMember
from stenosis_trt.engine.dicom.duplicates import have_same_description
from stenosis_trt.engine.dicom.errors import ArchiveFound, DicomError, ReaderUnavailable
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
from stenosis_trt.engine.dicom.unpacked import UnpackedArchives, members_of
from stenosis_trt.engine.records import FrameHeader, LoadedSlice, Problem, Stage, StudyHeader

_FILES_A_REQUEST = 64
"""A request and its answer take 0.2 ms beside the reading; shared by 64 files, that is nothing."""

_IDENTITY_KEY_BYTES = 32
_STORED = np.uint16
"""What a pixel is decoded to, or int16, which takes as much."""
_FRAMES_A_REQUEST = 8
"""Files of one frame that share a request whose answer holds no pixels. It takes about as long as decoding a
file of 512² pixels that are not compressed."""
_LOST_A_FILE = 3
"""Frames of one file that may end a process before the file is given up: each costs two starts."""

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Scan:
    """What a scan found: studies, a Problem for each unusable file, and how many files were looked at. The
    files of an archive count instead of it."""

    studies: tuple[StudyHeader, ...]
    problems: tuple[Problem, ...]
    files: int


@dataclass(frozen=True)
class _Wanted:
    """A frame to be decoded, and its place in shared memory, where it has one."""

    frame: FrameHeader
    place: ReservedFrame | None

    @property
    def room(self) -> tuple[int, int] | None:
        """The same for the reading process: the first byte, and how many there are."""
        return None if self.place is None else (self.place.offset, self.place.view.nbytes)


_File = tuple[Path, list[_Wanted]]


class DicomReader:
    """Reads DICOM files in `workers` processes, under `limits`. Use it as a context manager.

    Archives are unpacked into a temporary folder, which lasts until the reader is closed.

    With `memory`, slices can be decoded into its slots; it has to be open as long as the reader.

    Its methods may be called from several threads. They raise ReaderError where no reading process can be
    started; whatever is wrong with a file is a Problem. `scan` makes a Problem of each file, too, that it
    cannot read for want of a process, once one could be started.
    """

    def __init__(
        self, limits: ReadLimits | None = None, workers: int = 1, memory: PixelMemory | None = None
    ) -> None:
        if workers < 1:
            raise ValueError(f"{workers} reading processes were asked for. Ask for at least 1.")
        self.limits = limits or ReadLimits()
        self._workers, self._memory = workers, memory
        # The same for all reading processes, and in no file: digests under it tell nothing after this run.
        self._identity_key = os.urandom(_IDENTITY_KEY_BYTES)
        self._unpacked = UnpackedArchives()
        self._processes = [ReadingProcess(self.limits, memory) for _ in range(workers)]
        self._free: queue.SimpleQueue[ReadingProcess] = queue.SimpleQueue()
        for process in self._processes:
            self._free.put(process)

    def __enter__(self) -> DicomReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the reading processes, and remove what was unpacked of archives. What is being read by another
        thread ends with a ReaderError."""
        for process in self._processes:
            process.close()
        self._unpacked.close()

    @property
    def peak_memory_bytes(self) -> int:
        """Largest resident memory of a reading process, of those that have ended."""
        return max(process.peak_memory_bytes for process in self._processes)

    def scan(self, paths: Sequence[Path], progress: Callable[[int], None] | None = None) -> Scan:
        """Find and read the headers of all files below `paths`; no pixels.

        Args:
            paths: folders, files, DICOMDIRs, archives.
            progress: called with the number of files read so far.
        """
        problems: list[Problem] = []
        files: list[Path] = []
        for found in find_files([Path(os.path.abspath(path)) for path in paths], self._list_dicomdir):
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
                if progress and done % _FILES_A_REQUEST == 0:
                    progress(done)

        read(files)
        for (archive, _), answers in self._each(self._unpack, list(archives)):
            members, refused = members_of(archive, answers)
            problems.extend(refused)
            read(self._unpacked.add(archive, members))
            unpacked += bool(members)
        if progress:
            progress(done)
        lost = Counter(problem.study_uid for problem in problems if not problem.harmless)
        studies, duplicates = build_studies(headers, self._same_image)
        studies = tuple(replace(study, lost_files=lost[study.study_uid]) for study in studies)
        rows = (*problems, *self._unpacked.problems(duplicates))
        return Scan(self._unpacked.studies(studies), rows, done - unpacked)

    def load(
        self, frames: Sequence[FrameHeader], slot: PixelSlot | None = None
    ) -> tuple[tuple[LoadedSlice, ...], tuple[Problem, ...]]:
        """Decode frames.

        Args:
            frames: what to decode.
            slot: of the reader's memory: where to put the pixels, behind what is there. Frames that do not
                fit get arrays of their own, as all do without a slot, and are counted in its `left_out`. Once
                this returns or raises, no process writes to the slot.

        Returns:
            The slices that could be decoded, in the order of `frames`, and a Problem for each file of which
            something could not; or one Problem and no slice, where all together are over the limit.

        Raises:
            ValueError: the slot is of another memory.
            ReaderError: no reading process can be started.
        """
        if slot is not None and (self._memory is None or slot not in self._memory.slots):
            raise ValueError("The slot is not of the memory that the reader was opened with.")
        poses = [frame.pose for frame in frames if frame.pose is not None]
        size = sum(np.dtype(_STORED).itemsize * pose.rows * pose.columns for pose in poses)
        if size > self.limits.max_series_bytes:
            reason = f"The series would take {size} bytes decoded, over the limit."
            advice = raise_limit("max_series_bytes", size)
            problem = Problem(str(frames[0].path.parent), Stage.PIXELS, reason, advice)
            return (), self._unpacked.problems([problem])
        files: dict[Path, list[_Wanted]] = {}
        for frame in frames:
            files.setdefault(frame.path, []).append(_Wanted(frame, _place(frame, slot)))
        decoded: dict[tuple[Path, int], Any] = {}
        problems: list[Problem] = []
        for chunk, found in self._each(self._files, _chunks(files, self._workers)):
            for (path, members), answers in zip(chunk, found, strict=True):
                error = _lost_frames(answers, len(members))
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
            return _lost(lost, Stage.FIND)
        except ReaderUnavailable as error:
            return self._unread(error).of_file(Stage.FIND)

    def _each_header(self, files: Sequence[Path]) -> Iterator[tuple[Path, FileHeader | DicomError]]:
        chunks = [list(files[k : k + _FILES_A_REQUEST]) for k in range(0, len(files), _FILES_A_REQUEST)]
        for chunk, answers in self._each(self._headers, chunks):
            yield from zip(chunk, answers, strict=True)

    def _unpack(self, found: tuple[Path, str]) -> list[ArchiveMember | RefusedMember | DicomError]:
        """The files of an archive, unpacked, and what is wrong with others."""
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
            answers = [_lost(lost, Stage.HEADER)]
        except ReaderUnavailable as error:
            answers = [self._unread(error).of_file(Stage.HEADER)]
        if answers and isinstance(answers[-1], DicomError):
            self._unpacked.discard(folder)
        return answers

    def _same_image(self, one: FileHeader, other: FileHeader) -> bool:
        """Whether two files hold one image, in the same place and with the same pixels."""
        if not have_same_description(one, other):
            return False
        try:
            (same,) = self._ask("same_pixels", one.path, other.path, len(one.frames))
        except (ProcessLost, ReaderUnavailable):
            return False
        return bool(same)

    def _headers(self, paths: list[Path]) -> list[FileHeader | DicomError]:
        try:
            answers: list[FileHeader | DicomError] = self._ask("headers", paths, self._identity_key)[0]
            return answers
        except ProcessLost as lost:
            if len(paths) == 1:
                return [_lost(lost, Stage.HEADER)]
        except ReaderUnavailable as error:
            return [self._unread(error).of_file(Stage.HEADER)] * len(paths)
        # One of the files ended the process: each gets a request of its own.
        return [answer for path in paths for answer in self._headers([path])]

    def _unread(self, error: ReaderUnavailable) -> ReaderUnavailable:
        """Why files are not read now; raised where nothing could ever be read here."""
        if not any(process.has_run for process in self._processes):
            raise error
        return error

    def _files(self, chunk: list[_File]) -> list[list[Any]]:
        """The answers for the frames of each file."""
        answers = self._images(chunk) if len(chunk) > 1 else None
        # Where one of the files ended the process, each gets a request of its own.
        return [self._pixels(*file) for file in chunk] if answers is None else answers

    def _images(self, chunk: list[_File]) -> list[list[Any]] | None:
        """The same by one request, for files of which one frame each is wanted; None where the process was
        lost."""
        frames = [(path, wanted) for path, (wanted,) in chunk]
        try:
            (answers,) = self._ask(
                "images", [(path, wanted.frame.index, wanted.room) for path, wanted in frames]
            )
        except ProcessLost:
            return None
        return [[_received(wanted, answer)] for (_, wanted), answer in zip(frames, answers, strict=True)]

    def _pixels(self, path: Path, frames: list[_Wanted]) -> list[Any]:
        whole, lost = self._decoded(path, frames)
        if lost is None or lost.hung or len(frames) == 1:
            return whole
        # One of the frames ended the process: each gets a request of its own, until too many have.
        answers: list[Any] = []
        left = _LOST_A_FILE
        for frame in frames:
            found, lost = self._decoded(path, [frame]) if left else (whole, None)
            left -= lost is not None
            answers.extend(found)
        return answers

    def _decoded(self, path: Path, frames: list[_Wanted]) -> tuple[list[Any], ProcessLost | None]:
        try:
            answers = self._ask("pixels", path, [(wanted.frame.index, wanted.room) for wanted in frames])
            return [_received(*pair) for pair in zip(frames, answers, strict=False)], None
        except ProcessLost as lost:
            return [_lost(lost, Stage.PIXELS)], lost

    def _ask(self, kind: str, *arguments: Any) -> list[Any]:
        """Ask a free process; once more where it was lost and the file need not be why: something else may
        have ended it, or kept it from going on."""
        with self._process() as process:
            try:
                return _asked(process, kind, *arguments)
            except ProcessLost as lost:
                if lost.computed:
                    raise
                return _asked(process, kind, *arguments)

    @contextmanager
    def _process(self) -> Iterator[ReadingProcess]:
        process = self._free.get()
        try:
            yield process
        finally:
            self._free.put(process)

    def _each(
        self, read: Callable[[_Request], _Answer], requests: Iterable[_Request]
    ) -> Iterator[tuple[_Request, _Answer]]:
        """Each request with its answer, in order; not many more are under way than there are processes, so
        that an interrupt is soon obeyed and answers do not pile up."""
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
                # The pool waits for what is being read, which may take as long as its time limit.
                self.close()
                raise
            finally:
                for _, future in pending:
                    future.cancel()


def _asked(process: ReadingProcess, kind: str, *arguments: Any) -> list[Any]:
    """The answers of a process, of the kind that was asked for; one that answers otherwise is lost."""
    answers = process.ask(kind, *arguments)
    if not _ANSWERS[kind](arguments, answers):
        process.stop()
        raise ProcessLost(hung=False, wrong=True)
    return answers


def _are(answers: Any, count: int, *kinds: type) -> bool:
    """Whether these are `count` answers, each of one of `kinds`."""
    return (
        isinstance(answers, list) and len(answers) == count and all(isinstance(one, kinds) for one in answers)
    )


_PIXELS = (np.ndarray, WrittenFrame, DicomError)
_ANSWERS: dict[str, Callable[[Sequence[Any], list[Any]], bool]] = {
    "dicomdir": lambda asked, found: _are(found, 1, list, DicomError),
    "headers": lambda asked, found: len(found) == 1 and _are(found[0], len(asked[0]), FileHeader, DicomError),
    "images": lambda asked, found: len(found) == 1 and _are(found[0], len(asked[0]), *_PIXELS),
    "pixels": lambda asked, found: _are(found, len(asked[1]), *_PIXELS) or _are(found, 1, DicomError),
    "archive": lambda asked, found: _are(found, len(found), ArchiveMember, RefusedMember, DicomError),
    "same_pixels": lambda asked, found: _are(found, 1, bool),
}
"""What the answers to each request must be: arguments and answers → whether they are."""


def _chunks(files: dict[Path, list[_Wanted]], workers: int) -> Iterator[list[_File]]:
    """The files in requests. Those of one frame that has a place share one, but few enough that all processes
    have something to do."""
    most = min(_FRAMES_A_REQUEST, -(-len(files) // workers))
    chunk: list[_File] = []
    for file in files.items():
        small = len(file[1]) == 1 and file[1][0].place is not None
        if chunk and (not small or len(chunk) >= most):
            yield chunk
            chunk = []
        if small:
            chunk.append(file)
        else:
            yield [file]
    if chunk:
        yield chunk


def _place(frame: FrameHeader, slot: PixelSlot | None) -> ReservedFrame | None:
    """Room for a frame by what its header said when it was scanned."""
    if slot is None or frame.pose is None:
        return None
    return slot.reserve((frame.pose.rows, frame.pose.columns), _STORED)


def _received(wanted: _Wanted, answer: Any) -> Any:
    """The pixels of a frame, or the DicomError that it has none for."""
    if not isinstance(answer, WrittenFrame):
        return answer
    return invalid_answer_error() if wanted.place is None else written_frame(wanted.place, answer)


def _lost(lost: ProcessLost, stage: Stage) -> DicomError:
    if lost.wrong:
        return invalid_answer_error(stage)
    what = "took longer than the limit" if lost.hung else "ended the process that did it"
    setting = "timeout_seconds" if lost.hung else "decode_memory_bytes"
    advice = f"The file is broken: send or export it again. If it is whole, raise --read-limit {setting}."
    return DicomError(stage, f"Reading the file {what}.", advice, temporary=True)


def _lost_frames(answers: Sequence[Any], frames: int) -> DicomError | None:
    """One row for a file, however many of its frames are lost."""
    errors = [answer for answer in answers if isinstance(answer, DicomError)]
    if not errors or len(errors) == len(answers):
        return errors[0] if errors else None
    first = errors[0]
    reason = f"{len(errors)} of {frames} frames cannot be decoded: {first.reason}"
    return DicomError(first.stage, reason, first.advice, temporary=any(error.temporary for error in errors))
