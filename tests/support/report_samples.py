"""A study to report: a phantom graded on the CPU by the reference pack, with the images that reports need.

    report = sample_report()
    report = sample_report(provenance=replace(sample_report().provenance, clinical_use=True))

It is graded once (see `shared_products`); its data sets are copies, which a test may change.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
from pydicom import Dataset
from shared_phantoms import phantoms
from shared_products import shared_product

from stenosis_trt.engine.api import Grader
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.records import FrameHeader, LevelResult
from stenosis_trt.engine.reports.study_report import Provenance, ReportImage, StudyImages, StudyReport
from stenosis_trt.engine.runs.stored_results import FORMAT_VERSION, StoredStudy, read_study, study_json

SEED = 33
"""Of the phantom; its grades are 0, 0, 0, 3, 3 and 1, without warnings."""


def sample_report(**changes: Any) -> StudyReport:
    """Return the report of a phantom study, with some fields of `StudyReport` changed."""
    report = _graded()
    assert report.images is not None
    images = StudyImages(
        {level: _copied(image) for level, image in report.images.sagittal.items()},
        {level: _copied(image) for level, image in report.images.axial.items()},
    )
    return replace(report, **{"images": images, **changes})


def with_headers(report: StudyReport, change: Callable[[Dataset], object]) -> StudyReport:
    """Return the report after `change` altered the data set of each of its images."""
    assert report.images is not None
    for image in (*report.images.sagittal.values(), *report.images.axial.values()):
        change(image.dataset)
    return report


def with_levels(report: StudyReport, change: Callable[[LevelResult], LevelResult]) -> StudyReport:
    """Return the report with each level of its result changed."""
    return replace(report, result=replace(report.result, levels=tuple(map(change, report.result.levels))))


def with_warnings(report: StudyReport, *warnings: str) -> StudyReport:
    """Return the report with further warnings of the study."""
    return replace(report, result=replace(report.result, warnings=(*report.result.warnings, *warnings)))


def _copied(image: ReportImage) -> ReportImage:
    return replace(image, dataset=copy.deepcopy(image.dataset))


@cache
def _graded() -> StudyReport:
    study = phantoms(1, SEED) / "study_0001"
    product = shared_product("graded_phantom", _grade, SEED)
    stored = read_study(product / "study.json")
    assert stored.result is not None
    provenance = Provenance(**json.loads((product / "provenance.json").read_text(encoding="utf-8")))
    files = {str(dataset.SOPInstanceUID): (path, dataset) for path, dataset in _datasets(study)}
    levels = stored.result.levels
    images = StudyImages(
        {level.level: _image(*files[level.sagittal_sop_uid]) for level in levels if level.sagittal_sop_uid},
        {level.level: _image(*files[level.cord.sop_instance_uid]) for level in levels if level.cord},
    )
    return StudyReport(1, "9f86d081884c7d65", "study_0001", stored.result, provenance, images)


def _grade(folder: Path) -> None:
    with Grader("reference", device="cpu") as grader:
        result = grader(phantoms(1, SEED) / "study_0001")
    # The time that grading takes differs from one call to the next.
    stored = StoredStudy(FORMAT_VERSION, result.study_uid, "study_0001", "", replace(result, seconds={}), ())
    (folder / "study.json").write_text(study_json(stored), encoding="utf-8")
    pack = Pack.load(reference_pack())
    provenance = Provenance(
        pack_name=pack.name,
        pack_version=pack.version,
        pack_sha256=pack.sha256,
        intended_use=pack.intended_use,
        clinical_use=False,
        software_version="0.1.0",
        backend="onnxruntime",
        precision="fp32",
        started="2026-01-02T03:04:05+00:00",
    )
    (folder / "provenance.json").write_text(json.dumps(asdict(provenance)), encoding="utf-8")


def _datasets(study: Path) -> list[tuple[Path, pydicom.FileDataset]]:
    return [(path, pydicom.dcmread(path)) for path in sorted(study.rglob("*.dcm"))]


def _image(path: Path, dataset: pydicom.FileDataset) -> ReportImage:
    row, column = dataset.ImageOrientationPatient[:3], dataset.ImageOrientationPatient[3:]
    pose = SlicePose(
        origin=_vector(dataset.ImagePositionPatient),
        row_direction=_vector(row),
        column_direction=_vector(column),
        row_spacing=float(dataset.PixelSpacing[0]),
        column_spacing=float(dataset.PixelSpacing[1]),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        thickness=float(dataset.SliceThickness),
    )
    frame = FrameHeader(
        path,
        0,
        str(dataset.SOPInstanceUID),
        pose,
        float(dataset.get("RescaleSlope", 1)),
        float(dataset.get("RescaleIntercept", 0)),
    )
    header = Dataset()
    header.update({element.tag: element for element in dataset if element.keyword != "PixelData"})
    return ReportImage(frame, pose, dataset.pixel_array.copy(), header)


def _vector(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
