"""From the header of a study to its decoded slices, the next study being read while one is computed."""

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
from stenosis_trt.engine.dicom.uids import is_replacement
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy, Problem, SeriesHeader, Stage, StudyHeader
from stenosis_trt.engine.selection.alternation import alternating_slices_reason
from stenosis_trt.engine.selection.select import SeriesSelection, select_series

_LOG = logging.getLogger(__name__)

_STUDIES_AHEAD = 1
"""One is enough to hide reading behind computing; each more would hold another study's pixels in memory."""
_SLOTS = _STUDIES_AHEAD + 1
"""What reading ahead needs: those of the studies that are read, and the one of the study that is computed."""
_MINIMUM_SAGITTAL_SLICES = 5
_MOST_TRIES = 4
"""Sagittal series of a study that are tried: more than that many T2 series are a study of something else."""
_MIXED = "of two contrasts, or the patient moved between them"
_SEND_APART = "Send each series with a Series Instance UID of its own, or a series without motion."
_GAP_FACTOR = 1.7
"""Neighbouring slices farther apart than this many median steps have one missing between them."""


@dataclass(frozen=True)
class FailedAttempt:
    """A sagittal series that could not be graded: its index in the study, and at which stage and why."""

    index: int
    stage: Stage
    reason: str
    advice: str


@dataclass(frozen=True)
class ReadStudy:
    """A study ready to be graded, or None with the problems that keep it from being.

    Attributes:
        header: which study it is.
        study: its slices.
        problems: of a study that can be graded, those of its single files.
        seconds: what reading took, without `on_read`.
        outside_slot: slices that did not fit in the slot that the study was given.
        index: of the sagittal series in the study's header.
        attempts: sagittal series that were tried before this one.
        upload_error: what `on_read` raised; or what held the slot, when it was to be free: then the study
            lies in
            arrays of its own. Its slices can be used all the same. To be looked at before the study is.
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
"""Called with each study that can be graded, in the thread that read it, before the next one is read."""


def internal_error_problem(header: StudyHeader, stage: Stage, error: Exception) -> Problem:
    """The Problem of a study on which the program itself failed; the traceback goes to the debug log.

    The error's own text is left out: it may quote the header. To be called while the exception is handled.
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
    """Each study, loaded; the next one is being read while the caller works on this one.

    One thread reads the studies, in their order. To ask for a study is to say that the one before is done
    with, and it is what lets the study after the one asked for be read. With two slots, A and B:

        the caller                 the thread that reads
        asks for study 1, waits    1 into A, on_read(1)
        works on 1                 2 into B, on_read(2)
        asks for 2: 1 is done      if it is not yet done with that, the caller waits
        works on 2                 waits for what holds A, 3 into A, on_read(3)

    So a study's slices stay as they are from before `on_read` until the caller asks for the next study. What
    copies from them for longer holds the slot (`PixelSlot.hold`). Once the generator is closed, nothing is
    read any more; `on_read` may have been called with a study that was not handed out.

    Args:
        reader: decodes the slices.
        studies: emptied on the way, so that no more headers are kept than are still needed.
        slots: of the reader's memory, where slices are put, in turn; with none they get arrays of their own.
        on_read: see there. What it raises is handed out with the study.

    Raises:
        ValueError: a single slot: a study would be read into it while another, in it too, is worked on.
    """
    if slots and len(slots) < _SLOTS:
        raise ValueError(f"Reading ahead takes {_SLOTS} slots, and {len(slots)} was given.")
    turns = itertools.cycle(slots or [None])
    pending: deque[Future[ReadStudy]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        try:
            while studies:
                # The caller is done with all that was handed out, and studies ahead have at most all slots
                # but one. That one is the next in turn.
                pending.append(pool.submit(read_study, reader, studies.popleft(), next(turns), on_read))
                if len(pending) > _STUDIES_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except KeyboardInterrupt:
            # The pool waits for the study that is being read, which may take as long as its time limit.
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
    tries: tuple[FailedAttempt, ...] = (),
) -> ReadStudy:
    """Choose the series of a study and load them, into `slot`, which is reset before. Whatever goes wrong is
    among the problems, or is the `error`. Where too few slices of the chosen series can be read, the next one
    is taken."""
    start = time.perf_counter()
    error = None if slot is None else _error_of(slot.reset)
    if error is not None:
        # Something may still copy from it.
        slot = None
    stage = Stage.CHOOSE
    study: LoadedStudy | None = None
    problems: tuple[Problem, ...] = ()
    index = -1
    try:
        while study is None and len(tries) < _MOST_TRIES:
            stage = Stage.CHOOSE
            choice = select_series(header, [item.index for item in tries])
            if choice.problem is not None:
                problems = problems if tries else (choice.problem,)
                break
            index, stage = choice.sagittal_index, Stage.PIXELS
            loaded, broken = _load(reader, choice, slot)
            problems = (*problems, *broken)
            if isinstance(loaded, FailedAttempt):
                tries = (*tries, loaded)
            else:
                second = ("sagittal_second_choice",) if tries else ()
                study = replace(loaded, warnings=(*loaded.warnings, *second))
        if study is None and tries:
            problems = (*problems, ungradable_problem(header, tries))
    except ReaderUnavailable as failure:
        reason = f"cannot grade: {failure.reason}"
        problems = (Problem(header.path, stage, reason, failure.advice, header.study_uid, of_study=True),)
    except Exception as failure:  # noqa: BLE001 - one study's fault must not end the batch
        problems = (internal_error_problem(header, stage, failure),)
    seconds = time.perf_counter() - start
    if study is not None and on_read is not None and error is None:
        error = _error_of(partial(on_read, study))
    left_out = 0 if slot is None else slot.outside_slot
    return ReadStudy(header, study, problems, seconds, left_out, error, index, tries)


def read_next_candidate(
    reader: DicomReader, read: ReadStudy, stage: Stage, reason: str, advice: str
) -> ReadStudy:
    """The same study with its next best sagittal series, once no cervical spine was recognised in one.

    Its problems include those of `read`. Where no series is left, the last of them says of each why it could
    not be graded.
    """
    tries = (*read.attempts, FailedAttempt(read.index, stage, reason, advice))
    again = read_study(reader, read.header, tries=tries)
    problems = tuple(dict.fromkeys((*read.problems, *again.problems)))
    return replace(again, problems=problems, seconds=read.seconds + again.seconds)


def ungradable_problem(header: StudyHeader, tries: Sequence[FailedAttempt]) -> Problem:
    """Why a study cannot be graded, of each series that was tried."""
    last = tries[-1]
    if len(tries) == 1:
        reason = f"cannot grade: {last.reason}"
    else:
        told = "; ".join(f"series {item.index + 1}: {item.reason.rstrip('.')}" for item in tries)
        reason = f"cannot grade: {len(tries)} sagittal T2 series were tried ({told})."
    return Problem(header.path, last.stage, reason, last.advice, header.study_uid, of_study=True)


def attempt_warnings(read: ReadStudy) -> tuple[Problem, ...]:
    """Of a study that was graded: the series that were tried before, as problems that lose nothing."""
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


def _error_of(call: Callable[[], object]) -> Exception | None:
    """What a call raises, to be handed out with the study."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - one study's fault must not end the batch
        return error
    return None


def _load(
    reader: DicomReader, choice: SeriesSelection, slot: PixelSlot | None
) -> tuple[LoadedStudy | FailedAttempt, tuple[Problem, ...]]:
    """The chosen series, or why the sagittal one cannot be graded; and the problems of single files."""
    if choice.sagittal is None:
        raise ValueError("A study without a sagittal series was chosen without a problem.")
    sagittal, broken = _load_series(reader, choice.sagittal, slot)
    if len(sagittal) < _MINIMUM_SAGITTAL_SLICES:
        reason = f"only {len(sagittal)} sagittal slices could be read."
        return FailedAttempt(choice.sagittal_index, Stage.PIXELS, reason, "Send the study again."), broken
    if mixed := alternating_slices_reason(sagittal):
        reason = f"the sagittal slices are {_MIXED}: {mixed}."
        return FailedAttempt(choice.sagittal_index, Stage.CHOOSE, reason, _SEND_APART), broken
    packs, axial, more = _load_axial(reader, choice, slot)
    left_out = any(problem.stage is Stage.CHOOSE for problem in more)
    broken = (*broken, *(problem for problem in more if problem.stage is not Stage.CHOOSE))
    warnings = (
        *choice.warnings,
        *(("axial_slices_mixed",) if left_out else ()),
        *(("slices_unreadable",) if broken or choice.study.lost_files else ()),
        *(("sagittal_slice_gap",) if _has_gap(sagittal) else ()),
        *(("uid_replaced",) if _has_replaced_uid(choice) else ()),
    )
    study = LoadedStudy(
        header=choice.study,
        sagittal_series=choice.sagittal,
        sagittal=sagittal,
        axial_series=packs[0] if packs else None,
        axial=tuple(item for slices in axial for item in slices),
        same_frame_of_reference=choice.same_frame_of_reference,
        warnings=warnings,
        axial_packs=tuple(packs[1:]),
        axial_series_index=tuple(k for k, slices in enumerate(axial) for _ in slices)
        if len(packs) > 1
        else (),
    )
    return study, (*broken, *(problem for problem in more if problem.stage is Stage.CHOOSE))


def _load_axial(
    reader: DicomReader, choice: SeriesSelection, slot: PixelSlot | None
) -> tuple[list[SeriesHeader], list[tuple[LoadedSlice, ...]], tuple[Problem, ...]]:
    """The axial series that can be used, the slices of each, and the problems of files and of series that are
    left out since their slices alternate."""
    packs, loaded = [], []
    problems: tuple[Problem, ...] = ()
    for pack in () if choice.axial is None else (choice.axial, *choice.axial_packs):
        slices, broken = _load_series(reader, pack, slot)
        problems = (*problems, *broken)
        if mixed := alternating_slices_reason(slices):
            study = choice.study
            reason = f"The axial series is left out: its slices are {_MIXED}: {mixed}."
            mix = Problem(study.path, Stage.CHOOSE, reason, _SEND_APART, study.study_uid)
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


def _has_replaced_uid(choice: SeriesSelection) -> bool:
    """Whether a UID that results name is the hash of what the header holds."""
    chosen = [series for series in (choice.sagittal, choice.axial) if series is not None]
    uids = [choice.study.study_uid, *(series.series_uid for series in chosen)]
    uids.extend(frame.sop_instance_uid for series in chosen for frame in series.frames)
    return any(map(is_replacement, uids))


def _has_gap(slices: Sequence[LoadedSlice]) -> bool:
    normal = slices[0].pose.normal
    steps = np.abs(np.diff([float(item.pose.centre @ normal) for item in slices]))
    return bool(steps.max() > _GAP_FACTOR * np.median(steps))
