"""What can go wrong in this package: with one file, or with reading as such."""

from __future__ import annotations

from stenosis_trt.engine.records import Problem, Stage


class DicomError(Exception):
    """A file, or something in it, that cannot be used.

    `reason` and `advice` are one sentence each and hold no value from the header that could identify
    a patient. `harmless` says that no image is lost with the file; `study_uid` is the study that lost
    one, where the file still tells.
    """

    def __init__(
        self, stage: Stage, reason: str, advice: str, harmless: bool = False, study_uid: str = ""
    ) -> None:
        super().__init__(reason)
        self.stage, self.reason, self.advice = stage, reason, advice
        self.harmless, self.study_uid = harmless, study_uid

    def __reduce__(self) -> tuple[type[DicomError], tuple[Stage, str, str, bool, str]]:
        return DicomError, (self.stage, self.reason, self.advice, self.harmless, self.study_uid)

    def problem(self, path: str) -> Problem:
        """The row of errors.csv for this error in `path`."""
        return Problem(path, self.stage, self.reason, self.advice, self.study_uid, self.harmless)


class ArchiveFound(DicomError):
    """The file is an archive of a kind that can be read; `kind` is one of `archives.READABLE`. It is unpacked
    by the reader and becomes no row."""

    def __init__(self, kind: str) -> None:
        super().__init__(Stage.HEADER, f"The file is a {kind} archive.", "Unpack it and give the folder.")
        self.kind = kind

    def __reduce__(self) -> tuple[type[ArchiveFound], tuple[str]]:  # type: ignore[override]
        return ArchiveFound, (self.kind,)


class ReaderError(Exception):
    """Nothing can be read at all: the reading process does not start, or there is no memory for it to write
    pixels to. The message says what to do."""
