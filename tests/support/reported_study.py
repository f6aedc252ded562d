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

FORMATS = ("sr", "sc", "gsps")
UNGRADED = "C2/3"
"""Level with a measurement of the cord and without a grade."""
EMPTY = "C3/4"
"""Level with neither: no measurement group may tell of it."""
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
        reports: files of its reports, by format.
        axial, sagittal: the structured report of the axial and that of the sagittal images.
        twin: `axial` with one more group, which has no coordinates: viewers do not show such a report.
    """

    report: StudyReport
    images: tuple[Path, ...]
    reports: Mapping[str, tuple[Path, ...]]
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
        reports = {name: _written(name, report, folder) for name in FORMATS}
        assert report.images is not None
        axial = _drawn_on(reports["sr"], report.images.axial)
        sagittal = _drawn_on(reports["sr"], report.images.sagittal)
        twin = folder / "twin.dcm"
        _with_group_without_coordinates(pydicom.dcmread(axial)).save_as(twin)
        images = tuple(sorted((phantoms(1, SEED) / "study_0001").rglob("*.dcm")))
        return cls(report, images, reports, axial, sagittal, twin)


def tree(item: Dataset) -> Iterator[Dataset]:
    """A content item of a structured report and all items below it, from the top."""
    yield item
    for child in item.get("ContentSequence", ()):
        yield from tree(child)


def is_group(item: Dataset) -> bool:
    """Whether a content item is a measurement group of TID 1501 or TID 1410: (125007, DCM)."""
    return item.ValueType == "CONTAINER" and item.ConceptNameCodeSequence[0].CodeValue == "125007"


def _with_missing_results(report: StudyReport) -> StudyReport:
    """Take the grade, the measurement of the cord or both from some levels."""

    def change(level: LevelResult) -> LevelResult:
        if level.level in (UNGRADED, EMPTY):
            level = replace(
                level, grade=None, probabilities=None, warnings=(*level.warnings, "out_of_distribution")
            )
        if level.level in (UNMEASURED, EMPTY):
            level = replace(level, cord=None, warnings=(*level.warnings, "no_axial_slice"))
        return level

    changed = with_levels(report, change)
    assert changed.images is not None
    axial = {
        level: image for level, image in changed.images.axial.items() if level not in (UNMEASURED, EMPTY)
    }
    return replace(changed, images=replace(changed.images, axial=axial))


def _written(name: str, report: StudyReport, folder: Path) -> tuple[Path, ...]:
    """Write the files of a format, and return their paths."""
    paths = []
    for file, content in study_format(name)(report, ReportOptions()).items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        paths.append(path)
    return tuple(paths)


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
    """A report in a series of its own, and in it one more measurement group that has no coordinates."""
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
            item.pop("ContentSequence", None)
        if item.get("ValueType") == "UIDREF":
            item.UID = generate_uid()
    parent.ContentSequence.append(bare)
    return changed
