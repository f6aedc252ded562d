"""What every report is made from: the result of a study, its images, and what produced the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import FrameHeader, StudyResult

if TYPE_CHECKING:
    from pydicom import Dataset


SR_VIEWERS = ("ohif", "slicer")


class CannotReport(Exception):
    """A study cannot have a format; it becomes a row of errors.csv.

    Args:
        reason: what is wrong, as one sentence without values that could identify a patient.
        advice: what to do about it, as one sentence.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason} {advice}")
        self.reason, self.advice = reason, advice


@dataclass(frozen=True)
class Provenance:
    """What produced the results of a run, as run.json records it.

    Attributes:
        pack_name, pack_version, pack_sha256: the model pack.
        intended_use: intended use as the pack states it.
        clinical_use: the pack declares that it is for clinical use. Otherwise every report says that it is
            not.
        software_version: version of stenosis-trt.
        backend: the backend that computed, such as "onnxruntime".
        precision: precision of the models, such as "fp32".
        started: begin of the run, UTC, ISO 8601.
    """

    pack_name: str
    pack_version: str
    pack_sha256: str
    intended_use: str
    clinical_use: bool
    software_version: str
    backend: str
    precision: str
    started: str


@dataclass(frozen=True)
class ReportImage:
    """One image that a report shows or refers to.

    Attributes:
        frame: its header; `frame.frame_number` is None for a single-frame object.
        pose: position, orientation and spacing.
        stored: stored values, uint16 or int16 (rows, columns); `frame.slope` and `frame.intercept` make them
            real-world values of which higher is brighter.
        dataset: attributes of the file without its pixels. It names the patient.
    """

    frame: FrameHeader
    pose: SlicePose
    stored: npt.NDArray[np.uint16] | npt.NDArray[np.int16]
    dataset: Dataset

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """Real-world values, float32 (rows, columns)."""
        values = self.stored.astype(np.float32)
        values *= np.float32(self.frame.slope)
        values += np.float32(self.frame.intercept)
        return values


@dataclass(frozen=True)
class StudyImages:
    """The images of a study that its result refers to.

    Attributes:
        sagittal: image on which each level was graded, by level.
        axial: image on which the cord of each level was measured, by level.
    """

    sagittal: Mapping[str, ReportImage] = field(default_factory=dict)
    axial: Mapping[str, ReportImage] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyReport:
    """One study to report.

    Attributes:
        number: number of the study in its run, from 1.
        folder: name of the folder of its reports: a hash, which identifies nobody.
        path: folder of the study; "" unless identifiers are kept, since folders are named after patients.
        result: the result.
        provenance: what produced it.
        images: None where they are not available, as in a report from results alone.
    """

    number: int
    folder: str
    path: str
    result: StudyResult
    provenance: Provenance
    images: StudyImages | None = None


@dataclass(frozen=True)
class ReportOptions:
    """Options of reports.

    Attributes:
        sr_for: viewer that the structure of the SR is meant for, one of SR_VIEWERS.
        text_template: Jinja2 template of the report text; None for the one of this package.

    Raises:
        ValueError: there is no such viewer.
    """

    sr_for: str = "ohif"
    text_template: Path | None = None

    def __post_init__(self) -> None:
        if self.sr_for not in SR_VIEWERS:
            raise ValueError(f"--sr-for has no value {self.sr_for!r}. Give one of {', '.join(SR_VIEWERS)}.")
