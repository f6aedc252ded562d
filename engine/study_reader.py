"""From the header of a study to its decoded slices, the next study being read while one is computed."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from stenosis_trt.engine.choose import Choice, choose
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy, Problem, SeriesHeader, Stage, StudyHeader

_LOG = logging.getLogger(__name__)

_STUDIES_AHEAD = 1
"""One is enough to hide reading behind computing; each more would hold another study's pixels in memory."""
_MINIMUM_SAGITTAL_SLICES = 5
_GAP_FACTOR = 1.7
"""Neighbouring slices farther apart than this many median steps have one missing between them."""


@dataclass(frozen=True)
class ReadStudy:
    """A study ready to be graded, or None with the problems that keep it from being.

    `problems` of a study that can be graded are those of its single files. `seconds` is what reading took.
    """

    header: StudyHeader
    study: LoadedStudy | None
    problems: tuple[Problem, ...]
    seconds: float


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


def read_ahead(reader: DicomReader, studies: deque[StudyHeader]) -> Generator[ReadStudy, None, None]:
    """Each study, loaded; the next one is being read while the caller works on this one.

    Args:
        reader: decodes the slices.
        studies: emptied on the way, so that no more headers are kept than are still needed.
    """
    pending: deque[Future[ReadStudy]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        while studies:
            pending.append(pool.submit(read_study, reader, studies.popleft()))
            if len(pending) > _STUDIES_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def read_study(reader: DicomReader, header: StudyHeader) -> ReadStudy:
    """Choose the series of a study and load them. Whatever goes wrong is among the problems."""
    start = time.perf_counter()
    stage = Stage.CHOOSE
    study: LoadedStudy | None = None
    try:
        choice = choose(header)
        stage = Stage.PIXELS
        study, problems = _load(reader, choice)
    except Exception as error:  # noqa: BLE001 - one study's fault must not end the batch
        problems = (program_failed(header, stage, error),)
    return ReadStudy(header, study, problems, time.perf_counter() - start)


def _load(reader: DicomReader, choice: Choice) -> tuple[LoadedStudy | None, tuple[Problem, ...]]:
    if choice.problem is not None:
        return None, (choice.problem,)
    if choice.sagittal is None:
        raise ValueError("A study without a sagittal series was chosen without a problem.")
    sagittal, broken = _load_series(reader, choice.sagittal)
    axial: tuple[LoadedSlice, ...] = ()
    if choice.axial is not None:
        axial, more = _load_series(reader, choice.axial)
        broken = (*broken, *more)
    if len(sagittal) < _MINIMUM_SAGITTAL_SLICES:
        reason = f"cannot grade: only {len(sagittal)} sagittal slices could be read."
        uid = choice.study.study_uid
        return None, (*broken, Problem(choice.study.path, Stage.PIXELS, reason, "Send the study again.", uid))
    flags = (
        *choice.flags,
        *(("slices_unreadable",) if broken or choice.study.lost_files else ()),
        *(("sagittal_slice_gap",) if _has_gap(sagittal) else ()),
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
    reader: DicomReader, series: SeriesHeader
) -> tuple[tuple[LoadedSlice, ...], tuple[Problem, ...]]:
    slices, problems = reader.load(series.frames)
    return slices, tuple(replace(problem, study_uid=series.study_uid) for problem in problems)


def _has_gap(slices: Sequence[LoadedSlice]) -> bool:
    normal = slices[0].pose.normal
    steps = np.abs(np.diff([float(item.pose.centre @ normal) for item in slices]))
    return bool(steps.max() > _GAP_FACTOR * np.median(steps))
