"""The one exception of this package: a file that cannot be used, and what to do about it."""

from __future__ import annotations

from stenosis_trt.engine.records import Problem, Stage


class DicomError(Exception):
    """A file, or something in it, that cannot be used.

    `reason` and `advice` are one sentence each and hold no value from the header that could identify
    a patient. `harmless` says that no image is lost with the file.
    """

    def __init__(self, stage: Stage, reason: str, advice: str, harmless: bool = False) -> None:
        super().__init__(reason)
        self.stage, self.reason, self.advice, self.harmless = stage, reason, advice, harmless

    def __reduce__(self) -> tuple[type[DicomError], tuple[Stage, str, str, bool]]:
        return DicomError, (self.stage, self.reason, self.advice, self.harmless)

    def problem(self, path: str) -> Problem:
        """The row of errors.csv for this error in `path`."""
        return Problem(path, self.stage, self.reason, self.advice, harmless=self.harmless)
