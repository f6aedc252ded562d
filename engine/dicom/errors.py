"""What can go wrong in this package: with one file, or with reading as such."""

from __future__ import annotations

from typing import Any

from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.records import Problem, Stage


class DicomError(InputError):
    """A file, or something in it, that cannot be used.

    `reason` and `advice` are one sentence each and hold no value from the header that could identify
    a patient. `harmless` says that no image is lost with the file; `study_uid` is the study that lost
    one, where the file still tells. `temporary` says that the fault may not be the file's: see `Problem`.
    """

    def __init__(
        self,
        stage: Stage,
        reason: str,
        advice: str,
        harmless: bool = False,
        study_uid: str = "",
        temporary: bool = False,
    ) -> None:
        super().__init__(reason, advice)
        self.stage = stage
        self.harmless, self.study_uid, self.temporary = harmless, study_uid, temporary

    def __reduce__(self) -> tuple[type[DicomError], tuple[Any, ...]]:
        values = (self.stage, self.reason, self.advice, self.harmless, self.study_uid, self.temporary)
        return DicomError, values

    def problem(self, path: str) -> Problem:
        """The row of errors.csv for this error in `path`."""
        return Problem(
            path,
            self.stage,
            self.reason,
            self.advice,
            self.study_uid,
            self.harmless,
            temporary=self.temporary,
        )


class ArchiveFound(DicomError):
    """The file is an archive of a kind that can be read; `kind` is one of `archives.READABLE`. It is unpacked
    by the reader and becomes no row."""

    def __init__(self, kind: str) -> None:
        super().__init__(Stage.HEADER, f"The file is a {kind} archive.", "Unpack it and give the folder.")
        self.kind = kind

    def __reduce__(self) -> tuple[type[ArchiveFound], tuple[str]]:
        return ArchiveFound, (self.kind,)


class ReaderError(InputError):
    """Nothing can be read at all: the reading process does not start, or there is no memory for it to write
    pixels to. The message says what to do."""


class ReaderUnavailable(ReaderError):
    """Nothing can be read now, for a reason that may pass: no process can be started, or the answer of one
    does not fit into memory."""

    def of_file(self, stage: Stage) -> DicomError:
        """The error of a file that could not be read for this."""
        return DicomError(stage, self.reason, self.advice, temporary=True)
