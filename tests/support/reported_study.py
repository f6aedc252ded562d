"""A graded phantom and its DICOM reports in files, as a site sends them to its PACS."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.uid import generate_uid
from report_samples import SEED, sample_report, with_levels
from shared_phantoms import phantoms

from stenosis_trt.engine.records import LevelResult
from stenosis_trt.engine.reports.formats import study_format
from stenosis_trt.engine.reports.study_report import ReportImage, ReportOptions, StudyReport

FORMATS = ("sr",)
UNGRADED = "C2/3"
"""Level without a grade: the report tells of it in words, without a measurement."""
UNMEASURED = "C7/T1"
"""Level with a grade and without a measurement of the cord."""
TWIN = "Twin with a group without coordinates"
"""Series description of `ReportedStudy.twin`."""


@dataclass(frozen=True)
class ReportedStudy:
    """A study with its reports.

    Attributes:
        report: what is reported.
        images: files of the study.
        reports: files of its reports, of all formats.
        axial, sagittal: the structured report of the axial and that of the sagittal images.
        twin: `axial` with one more group, which has no coordinates: viewers do not show such a report.
    """

    report: StudyReport
    images: tuple[Path, ...]
    reports: tuple[Path, ...]
    axial: Path
    sagittal: Path
    twin: Path

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return self.report.result.study_uid

    @classmethod
    def write(cls, folder: Path) -> ReportedStudy:
        """Report the sample study, and write the files into a folder."""
        report = _with_missing_results(sample_report())
        reports = []
        for name in FORMATS:
            for file, content in study_format(name)(report, ReportOptions()).items():
                path = folder / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                if path.suffix == ".dcm":
                    reports.append(path)
        structured = [path for path in reports if path.parent.name == "sr"]
        assert report.images is not None
        axial = _drawn_on(structured, report.images.axial)
        sagittal = _drawn_on(structured, report.images.sagittal)
        twin = folder / "twin.dcm"
        _with_group_without_coordinates(pydicom.dcmread(axial)).save_as(twin)
        images = tuple(sorted((phantoms(1, SEED) / "study_0001").rglob("*.dcm")))
        return cls(report, images, tuple(reports), axial, sagittal, twin)


def tree(item: Dataset) -> Iterator[Dataset]:
    """A content item of a structured report and all items below it, from the top."""
    yield item
    for child in item.get("ContentSequence", ()):
        yield from tree(child)


def is_group(item: Dataset) -> bool:
    """Whether a content item is a measurement group of TID 1501 or TID 1410: (125007, DCM)."""
    return item.ValueType == "CONTAINER" and item.ConceptNameCodeSequence[0].CodeValue == "125007"


def _with_missing_results(report: StudyReport) -> StudyReport:
    """Take the grade from one level, and the measurement of the cord from another."""

    def change(level: LevelResult) -> LevelResult:
        if level.level == UNGRADED:
            return replace(
                level, grade=None, probabilities=None, cord=None, warnings=(*level.warnings, "low_contrast")
            )
        if level.level == UNMEASURED:
            return replace(level, cord=None, warnings=(*level.warnings, "no_axial_slice"))
        return level

    changed = with_levels(report, change)
    assert changed.images is not None
    axial = {
        level: image for level, image in changed.images.axial.items() if level not in (UNGRADED, UNMEASURED)
    }
    return replace(changed, images=replace(changed.images, axial=axial))


def _drawn_on(files: Iterable[Path], images: Mapping[str, ReportImage]) -> Path:
    """The one report whose coordinates are all on some of the images."""
    known = {image.frame.sop_instance_uid for image in images.values()}
    found = []
    for path in files:
        references = {
            str(reference.ReferencedSOPInstanceUID)
            for item in tree(pydicom.dcmread(path))
            if item.get("ValueType") == "SCOORD"
            for below in item.ContentSequence
            for reference in below.ReferencedSOPSequence
        }
        if references and references <= known:
            found.append(path)
    (only,) = found
    return only


def _with_group_without_coordinates(dataset: Dataset) -> Dataset:
    """A report in a series of its own with its last measurement group once more, without coordinates."""
    changed = copy.deepcopy(dataset)
    changed.SeriesDescription = TWIN
    changed.SeriesInstanceUID, changed.SOPInstanceUID = generate_uid(), generate_uid()
    changed.file_meta.MediaStorageSOPInstanceUID = changed.SOPInstanceUID
    (parent, group) = [
        (item, child)
        for item in tree(changed)
        for child in item.get("ContentSequence", ())
        if is_group(child)
    ][-1]
    bare = copy.deepcopy(group)
    for item in tree(bare):
        if item.get("ValueType") == "NUM":
            del item.ContentSequence
    parent.ContentSequence.append(bare)
    return changed
