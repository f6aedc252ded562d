"""Exceptions of reading: of one file, and of reading as a whole."""

from __future__ import annotations

from typing import Any

from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.records import Problem, Stage

EXPORT_AGAIN = "Send or export the file again."


class DicomError(InputError):
    """A file, or a part of it, that cannot be used.

    Attributes:
        stage, reason, advice: see `Problem`; they contain no header value that could identify a patient.
        harmless: no image is lost with the file.
        study_uid: the study that lost an image, if the file could be read so far.
        temporary: the cause may not be the file itself; see `Problem`.
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
        """Return the Problem of this error in the file `path`."""
        return Problem(
            path,
            self.stage,
            self.reason,
            self.advice,
            self.study_uid,
            self.harmless,
            temporary=self.temporary,
        )


def header_error(reason: str, advice: str = EXPORT_AGAIN, harmless: bool = False) -> DicomError:
    """Return the error of a file that cannot be used because of what its header or container holds."""
    return DicomError(Stage.HEADER, reason, advice, harmless)


class ArchiveFound(DicomError):
    """The file is a readable archive of type `kind`, see `archive_types`. The reader unpacks it and reports
    no Problem."""

    def __init__(self, kind: str) -> None:
        super().__init__(Stage.HEADER, f"The file is a {kind} archive.", "Unpack it and give the folder.")
        self.kind = kind

    def __reduce__(self) -> tuple[type[ArchiveFound], tuple[str]]:
        return ArchiveFound, (self.kind,)


class ReaderError(InputError):
    """Nothing can be read: no reading process starts, or there is no shared memory for pixels. The message
    says what to do."""


class ReaderUnavailable(ReaderError):
    """Nothing can be read at present: no reading process can be started, or its answer does not fit into
    memory."""

    def of_file(self, stage: Stage) -> DicomError:
        """Return the error of a file that could not be read for this reason."""
        return DicomError(stage, self.reason, self.advice, temporary=True)
