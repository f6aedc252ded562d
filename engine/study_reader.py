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

from stenosis_trt.engine.choose import Choice, choose
from stenosis_trt.engine.dicom.pixel_memory import PixelSlot
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.dicom.uids import was_replaced
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy, Problem, SeriesHeader, Stage, StudyHeader

_LOG = logging.getLogger(__name__)

_STUDIES_AHEAD = 1
"""One is enough to hide reading behind computing; each more would hold another study's pixels in memory."""
_SLOTS = _STUDIES_AHEAD + 1
"""What reading ahead needs: those of the studies that are read, and the one of the study that is computed."""
_MINIMUM_SAGITTAL_SLICES = 5
_GAP_FACTOR = 1.7
"""Neighbouring slices farther apart than this many median steps have one missing between them."""


@dataclass(frozen=True)
class ReadStudy:
    """A study ready to be graded, or None with the problems that keep it from being.

    Attributes:
        header: which study it is.
        study: its slices.
        problems: of a study that can be graded, those of its single files.
        seconds: what reading took, without `on_read`.
        left_out: slices that did not fit in the slot that the study was given.
        error: what `on_read` raised; or what held the slot, when it was to be free: then the study lies in
            arrays of its own. Its slices can be used all the same. To be looked at before the study is.
    """

    header: StudyHeader
    study: LoadedStudy | None
    problems: tuple[Problem, ...]
    seconds: float
    left_out: int = 0
    error: Exception | None = None


OnRead = Callable[[LoadedStudy], object]
"""Called with each study that can be graded, in the thread that read it, before the next one is read."""


def program_failed(header: StudyHeader, stage: Stage, error: Exception) -> Problem:
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
        finally:
            for future in pending:
                future.cancel()


def read_study(
    reader: DicomReader,
    header: StudyHeader,
    slot: PixelSlot | None = None,
    on_read: OnRead | None = None,
) -> ReadStudy:
    """Choose the series of a study and load them, into `slot`, which is reset before. Whatever goes wrong is
    among the problems, or is the `error`."""
    start = time.perf_counter()
    error = None if slot is None else _error_of(slot.reset)
    if error is not None:
        # Something may still copy from it.
        slot = None
    stage = Stage.CHOOSE
    study: LoadedStudy | None = None
    try:
        choice = choose(header)
        stage = Stage.PIXELS
        study, problems = _load(reader, choice, slot)
    except Exception as failure:  # noqa: BLE001 - one study's fault must not end the batch
        problems = (program_failed(header, stage, failure),)
    seconds = time.perf_counter() - start
    if study is not None and on_read is not None and error is None:
        error = _error_of(partial(on_read, study))
    return ReadStudy(header, study, problems, seconds, 0 if slot is None else slot.left_out, error)


def _error_of(call: Callable[[], object]) -> Exception | None:
    """What a call raises, to be handed out with the study."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - one study's fault must not end the batch
        return error
    return None


def _load(
    reader: DicomReader, choice: Choice, slot: PixelSlot | None
) -> tuple[LoadedStudy | None, tuple[Problem, ...]]:
    if choice.problem is not None:
        return None, (choice.problem,)
    if choice.sagittal is None:
        raise ValueError("A study without a sagittal series was chosen without a problem.")
    sagittal, broken = _load_series(reader, choice.sagittal, slot)
    axial: tuple[LoadedSlice, ...] = ()
    if choice.axial is not None:
        axial, more = _load_series(reader, choice.axial, slot)
        broken = (*broken, *more)
    if len(sagittal) < _MINIMUM_SAGITTAL_SLICES:
        reason = f"cannot grade: only {len(sagittal)} sagittal slices could be read."
        uid = choice.study.study_uid
        return None, (*broken, Problem(choice.study.path, Stage.PIXELS, reason, "Send the study again.", uid))
    flags = (
        *choice.flags,
        *(("slices_unreadable",) if broken or choice.study.lost_files else ()),
        *(("sagittal_slice_gap",) if _has_gap(sagittal) else ()),
        *(("uid_replaced",) if _has_replaced_uid(choice) else ()),
    )
    study = LoadedStudy(
        header=choice.study,
        sagittal_series=choice.sagittal,
        sagittal=sagittal,
        axial_series=choice.axial,
        axial=axial,
        same_frame_of_reference=choice.same_frame_of_reference,
        flags=flags,
    )
    return study, broken


def _load_series(
    reader: DicomReader, series: SeriesHeader, slot: PixelSlot | None
) -> tuple[tuple[LoadedSlice, ...], tuple[Problem, ...]]:
    slices, problems = reader.load(series.frames, slot)
    return slices, tuple(replace(problem, study_uid=series.study_uid) for problem in problems)


def _has_replaced_uid(choice: Choice) -> bool:
    """Whether a UID that results name is the hash of what the header holds."""
    chosen = [series for series in (choice.sagittal, choice.axial) if series is not None]
    uids = [choice.study.study_uid, *(series.series_uid for series in chosen)]
    uids.extend(frame.sop_instance_uid for series in chosen for frame in series.frames)
    return any(map(was_replaced, uids))


def _has_gap(slices: Sequence[LoadedSlice]) -> bool:
    normal = slices[0].pose.normal
    steps = np.abs(np.diff([float(item.pose.centre @ normal) for item in slices]))
    return bool(steps.max() > _GAP_FACTOR * np.median(steps))
