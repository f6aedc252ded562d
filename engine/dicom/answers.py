"""Validation of the answers of a reading process, and the errors of files whose process was lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stenosis_trt.engine.dicom.archive_types import ArchiveMember, RefusedMember
from stenosis_trt.engine.dicom.duplicates import Likeness
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.header import FileHeader
from stenosis_trt.engine.dicom.pixel_memory import WrittenFrame, invalid_answer_error
from stenosis_trt.engine.dicom.process import ProcessLost, ReadingProcess
from stenosis_trt.engine.records import Stage


def _are(answers: Any, count: int, *types: type) -> bool:
    """Return True for a list of `count` answers, each of one of `types`."""
    return (
        isinstance(answers, list) and len(answers) == count and all(isinstance(one, types) for one in answers)
    )


_FRAME = (np.ndarray, WrittenFrame, DicomError)
_VALID: dict[str, Callable[[Sequence[Any], list[Any]], bool]] = {
    "dicomdir": lambda asked, found: _are(found, 1, list, DicomError),
    "headers": lambda asked, found: len(found) == 1 and _are(found[0], len(asked[0]), FileHeader, DicomError),
    "images": lambda asked, found: len(found) == 1 and _are(found[0], len(asked[0]), *_FRAME),
    "pixels": lambda asked, found: _are(found, len(asked[1]), *_FRAME) or _are(found, 1, DicomError),
    "archive": lambda asked, found: _are(found, len(found), ArchiveMember, RefusedMember, DicomError),
    "copies": lambda asked, found: _are(found, len(asked[0]), Likeness),
}
"""Kind of request → check of its arguments and answers."""


def ask_process(process: ReadingProcess, kind: str, *arguments: Any) -> list[Any]:
    """Send a request to a reading process and return its answers, whose types and number are checked.

    Raises:
        ProcessLost: the process was lost, or was stopped because its answers were invalid.
        ReaderError: see `ReadingProcess.ask`.
    """
    answers = process.ask(kind, *arguments)
    if not _VALID[kind](arguments, answers):
        process.stop()
        raise ProcessLost(hung=False, wrong=True)
    return answers


def lost_error(lost: ProcessLost, stage: Stage) -> DicomError:
    """Return the error of a file whose reading process was lost."""
    if lost.wrong:
        return invalid_answer_error(stage)
    what = "took longer than the limit" if lost.hung else "crashed the reading process"
    setting = "timeout_seconds" if lost.hung else "decode_memory_bytes"
    advice = f"The file is broken: send or export it again. If it is whole, raise --read-limit {setting}."
    return DicomError(stage, f"Reading the file {what}.", advice, temporary=True)


def lost_frames_error(answers: Sequence[Any], frames: int) -> DicomError | None:
    """Return one error for all lost frames of a file with `frames` requested frames, or None."""
    errors = [answer for answer in answers if isinstance(answer, DicomError)]
    if not errors or len(errors) == len(answers):
        return errors[0] if errors else None
    first = errors[0]
    reason = f"{len(errors)} of {frames} frames cannot be decoded: {first.reason}"
    return DicomError(first.stage, reason, first.advice, temporary=any(error.temporary for error in errors))
