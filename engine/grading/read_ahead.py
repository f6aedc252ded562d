"""Loading of studies: selects and decodes their series, and reads the next study while one is computed."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from stenosis_trt.engine.dicom.errors import ReaderUnavailable
from stenosis_trt.engine.dicom.pixel_memory import PixelSlot
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy, Problem, SeriesHeader, Stage, StudyHeader
from stenosis_trt.engine.selection.alternation import alternating_slices_reason
from stenosis_trt.engine.selection.select import SeriesSelection, select_series

_LOG = logging.getLogger(__name__)

_STUDIES_AHEAD = 1
"""One hides reading behind computing; each more would keep another study's pixels in memory."""
_SLOTS = _STUDIES_AHEAD + 1
"""Slots that reading ahead needs: one for each study read ahead and one for the study being computed."""
_MINIMUM_SAGITTAL_SLICES = 5
_MAX_ATTEMPTS = 4
"""Sagittal series of a study that are attempted before it is given up."""
_MIXED_REASON = "of two contrasts, or the patient moved between them"
_MIXED_ADVICE = "Send each series with a Series Instance UID of its own, or a series without motion."
_GAP_FACTOR = 1.7
"""Median steps between neighbouring slices above which a slice is missing."""


@dataclass(frozen=True)
class FailedAttempt:
    """A sagittal series that could not be graded: its index in the study, the stage and the reason."""

    index: int
    stage: Stage
    reason: str
    advice: str


@dataclass(frozen=True)
class ReadStudy:
    """A study whose slices were loaded, or the problems that prevent it from being graded.

    Attributes:
        header: header of the study.
        study: the loaded study, or None if it cannot be graded.
        problems: problems of single files, or of the study if `study` is None.
        seconds: duration of reading, without `on_read`.
        outside_slot: number of slices that did not fit into the slot.
        upload_error: exception raised by `on_read` or while waiting for the slot; the slices stay valid.
            Check it before grading.
        index: index of the sagittal series in the study's header.
        attempts: sagittal series that were attempted before this one.
    """

    header: StudyHeader
    study: LoadedStudy | None
    problems: tuple[Problem, ...]
    seconds: float
    outside_slot: int = 0
    upload_error: Exception | None = None
    index: int = -1
    attempts: tuple[FailedAttempt, ...] = ()


OnRead = Callable[[LoadedStudy], object]
"""Called with each study that can be graded, in the reading thread, before the next one is read."""


def internal_error_problem(header: StudyHeader, stage: Stage, error: Exception) -> Problem:
    """Return the Problem of a study on which the program itself failed, and log the traceback at debug level.

    Call it while the exception is handled. The error's text is left out, since it may quote the header.
    """
    _LOG.debug("%s failed", stage.value, exc_info=True)
    return Problem(
        header.path,
        stage,
        f"cannot grade: the program failed ({type(error).__name__}).",
        "Run it again with `stenosis-trt --verbose grade` and report what it prints.",
        header.study_uid,
        of_study=True,
    )


def read_ahead(
    reader: DicomReader,
    studies: deque[StudyHeader],
    slots: Sequence[PixelSlot] = (),
    on_read: OnRead | None = None,
) -> Generator[ReadStudy, None, None]:
    """Yield each study, loaded, while one thread reads the next.

    Asking for a study releases the previous one and starts the reading of the one after. With two slots, A
    and B:

        caller                     reading thread
        asks for study 1, waits    1 into A, on_read(1)
        works on 1                 2 into B, on_read(2)
        asks for 2, releases 1     (the caller waits until 2 is read)
        works on 2                 waits until A is released, 3 into A, on_read(3)

    The slices of a study are valid from `on_read` until the caller asks for the next study; a copy that takes
    longer delays the reuse of the slot with `PixelSlot.add_release_wait`. Closing the generator ends reading;
    `on_read` may have been called with a study that was not yielded.

    Args:
        reader: decodes the slices.
        studies: headers; consumed, so that memory is freed as early as possible.
        slots: slots of the reader's memory that receive the slices in turn; without any, each slice has its
            own array.
        on_read: called with each loaded study; what it raises is `ReadStudy.upload_error`.

    Raises:
        ValueError: only one slot was given.
    """
    if slots and len(slots) < _SLOTS:
        raise ValueError(f"Reading ahead takes {_SLOTS} slots, and {len(slots)} was given.")
    turns = itertools.cycle(slots or [None])
    pending: deque[Future[ReadStudy]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        try:
            while studies:
                # The caller has released all yielded studies, and those read ahead occupy at most all slots
                # but the next one.
                pending.append(pool.submit(read_study, reader, studies.popleft(), next(turns), on_read))
                if len(pending) > _STUDIES_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except KeyboardInterrupt:
            # Closing the reader ends the read in progress; the pool would wait for it, up to its time limit.
            reader.close()
            raise
        finally:
            for future in pending:
                future.cancel()


def read_study(
    reader: DicomReader,
    header: StudyHeader,
    slot: PixelSlot | None = None,
    on_read: OnRead | None = None,
    attempts: tuple[FailedAttempt, ...] = (),
) -> ReadStudy:
    """Select the series of a study and load them into `slot`, which is reset first.

    If the sagittal series cannot be graded, the next best is loaded. Errors are returned as `problems` or
    `upload_error`, not raised.
    """
    start = time.perf_counter()
    error = None if slot is None else _exception_of(slot.reset)
    if error is not None:
        # A copy from the slot may still be running.
        slot = None
    stage = Stage.CHOOSE
    study: LoadedStudy | None = None
    problems: tuple[Problem, ...] = ()
    index = -1
    try:
        while study is None and len(attempts) < _MAX_ATTEMPTS:
            stage = Stage.CHOOSE
            selection = select_series(header, [item.index for item in attempts])
            if selection.problem is not None:
                problems = problems if attempts else (selection.problem,)
                break
            index, stage = selection.sagittal_index, Stage.PIXELS
            loaded, broken = _load(reader, selection, slot)
            problems = (*problems, *broken)
            if isinstance(loaded, FailedAttempt):
                attempts = (*attempts, loaded)
            else:
                second = ("sagittal_second_choice",) if attempts else ()
                study = replace(loaded, warnings=(*loaded.warnings, *second))
        if study is None and attempts:
            problems = (*problems, ungradable_problem(header, attempts))
    except ReaderUnavailable as failure:
        reason = f"cannot grade: {failure.reason}"
        problems = (Problem(header.path, stage, reason, failure.advice, header.study_uid, of_study=True),)
    except Exception as failure:  # noqa: BLE001 - one study's fault must not end the batch
        problems = (internal_error_problem(header, stage, failure),)
    seconds = time.perf_counter() - start
    if study is not None and on_read is not None and error is None:
        error = _exception_of(partial(on_read, study))
    outside_slot = 0 if slot is None else slot.outside_slot
    return ReadStudy(header, study, problems, seconds, outside_slot, error, index, attempts)


def read_next_candidate(
    reader: DicomReader, read: ReadStudy, stage: Stage, reason: str, advice: str
) -> ReadStudy:
    """Load the next best sagittal series of a study in which no cervical spine was recognised.

    The problems include those of `read`. If no series is left, the last problem gives the reason of each.
    """
    attempts = (*read.attempts, FailedAttempt(read.index, stage, reason, advice))
    again = read_study(reader, read.header, attempts=attempts)
    problems = tuple(dict.fromkeys((*read.problems, *again.problems)))
    return replace(again, problems=problems, seconds=read.seconds + again.seconds)


def ungradable_problem(header: StudyHeader, attempts: Sequence[FailedAttempt]) -> Problem:
    """Return the Problem of a study that cannot be graded, with the reason of each attempted series."""
    last = attempts[-1]
    if len(attempts) == 1:
        reason = f"cannot grade: {last.reason}"
    else:
        told = "; ".join(f"series {item.index + 1}: {item.reason.rstrip('.')}" for item in attempts)
        reason = f"cannot grade: {len(attempts)} sagittal T2 series were tried ({told})."
    return Problem(header.path, last.stage, reason, last.advice, header.study_uid, of_study=True)


def attempt_warnings(read: ReadStudy) -> tuple[Problem, ...]:
    """Return a harmless Problem for each series that was attempted before the one that was graded."""
    advice = "Nothing to do: another sagittal series of the study was graded."
    return tuple(
        Problem(
            read.header.path,
            item.stage,
            f"Series {item.index + 1} was tried first and could not be graded: {item.reason}",
            advice,
            read.header.study_uid,
            harmless=True,
        )
        for item in read.attempts
    )


def _exception_of(call: Callable[[], object]) -> Exception | None:
    """Return the exception that a call raises, or None."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - one study's fault must not end the batch
        return error
    return None


def _load(
    reader: DicomReader, selection: SeriesSelection, slot: PixelSlot | None
) -> tuple[LoadedStudy | FailedAttempt, tuple[Problem, ...]]:
    """Load the selected series; return the study, or the failed sagittal series, and problems of files."""
    if selection.sagittal is None:
        raise ValueError("The selection has neither a sagittal series nor a problem.")
    sagittal, broken = _load_series(reader, selection.sagittal, slot)
    if len(sagittal) < _MINIMUM_SAGITTAL_SLICES:
        reason = f"only {len(sagittal)} sagittal slices could be read."
        return FailedAttempt(selection.sagittal_index, Stage.PIXELS, reason, "Send the study again."), broken
    if mixed := alternating_slices_reason(sagittal):
        reason = f"the sagittal slices are {_MIXED_REASON}: {mixed}."
        return FailedAttempt(selection.sagittal_index, Stage.CHOOSE, reason, _MIXED_ADVICE), broken
    packs, axial, more = _load_axial_series(reader, selection, slot)
    axial_mixed = any(problem.stage is Stage.CHOOSE for problem in more)
    broken = (*broken, *(problem for problem in more if problem.stage is not Stage.CHOOSE))
    warnings = (
        *selection.warnings,
        *(("axial_slices_mixed",) if axial_mixed else ()),
        *(("slices_unreadable",) if broken or selection.study.lost_files else ()),
        *(("sagittal_slice_gap",) if _has_gap(sagittal) else ()),
    )
    study = LoadedStudy(
        header=selection.study,
        sagittal_series=selection.sagittal,
        sagittal=sagittal,
        axial_series=packs[0] if packs else None,
        axial=tuple(item for slices in axial for item in slices),
        same_frame_of_reference=selection.same_frame_of_reference,
        warnings=warnings,
        axial_packs=tuple(packs[1:]),
        axial_series_index=tuple(k for k, slices in enumerate(axial) for _ in slices)
        if len(packs) > 1
        else (),
    )
    return study, (*broken, *(problem for problem in more if problem.stage is Stage.CHOOSE))


def _load_axial_series(
    reader: DicomReader, selection: SeriesSelection, slot: PixelSlot | None
) -> tuple[list[SeriesHeader], list[tuple[LoadedSlice, ...]], tuple[Problem, ...]]:
    """Load the axial series; return those that are used, the slices of each, and the problems of files and of
    series left out because their slices alternate."""
    packs, loaded = [], []
    problems: tuple[Problem, ...] = ()
    for pack in () if selection.axial is None else (selection.axial, *selection.axial_packs):
        slices, broken = _load_series(reader, pack, slot)
        problems = (*problems, *broken)
        if mixed := alternating_slices_reason(slices):
            study = selection.study
            reason = f"The axial series is left out: its slices are {_MIXED_REASON}: {mixed}."
            mix = Problem(study.path, Stage.CHOOSE, reason, _MIXED_ADVICE, study.study_uid)
            problems = (*problems, mix)
            continue
        packs.append(pack)
        loaded.append(slices)
    return packs, loaded, problems


def _load_series(
    reader: DicomReader, series: SeriesHeader, slot: PixelSlot | None
) -> tuple[tuple[LoadedSlice, ...], tuple[Problem, ...]]:
    slices, problems = reader.load(series.frames, slot)
    return slices, tuple(replace(problem, study_uid=series.study_uid) for problem in problems)


def _has_gap(slices: Sequence[LoadedSlice]) -> bool:
    normal = slices[0].pose.normal
    steps = np.abs(np.diff([float(item.pose.centre @ normal) for item in slices]))
    return bool(steps.max() > _GAP_FACTOR * np.median(steps))
