"""What a report of a whole run is made from, besides the reports of its studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stenosis_trt.engine.reports.study_report import Provenance


class FailedStudy(NamedTuple):
    """A study without a result.

    Attributes:
        number: number of the study in its run, from 1.
        path: folder of the study; "" unless identifiers are kept.
        reason: why it was not graded, as one sentence.
        advice: what to do about it, as one sentence.
    """

    number: int
    path: str
    reason: str
    advice: str


@dataclass(frozen=True)
class RunCounts:
    """Numbers of a run, as run.json counts them.

    Attributes:
        studies: studies that were found.
        graded: studies with a result.
        failed: studies without one.
        lost_images: images of these studies that could not be read.
    """

    studies: int
    graded: int
    failed: int
    lost_images: int = 0

    @property
    def open(self) -> int:
        """Studies that the run did not reach."""
        return self.studies - self.graded - self.failed


@dataclass(frozen=True)
class RunReport:
    """A run to report.

    Attributes:
        key: name of the run, the same each time that its report is written: a hash, which identifies nobody.
            A browser keeps the progress of a review under it.
        provenance: what produced the results.
        counts: numbers of studies.
        failed: the studies without a result.
    """

    key: str
    provenance: Provenance
    counts: RunCounts
    failed: tuple[FailedStudy, ...] = ()
