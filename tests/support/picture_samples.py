"""A study to draw, made of numbers: images of any pose, with a bright spot at places in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from stenosis_trt.engine.geometry import SlicePose, Vector
from stenosis_trt.engine.records import LEVELS, CordMeasurement, FrameHeader, LevelResult, StudyResult
from stenosis_trt.engine.reports.study_report import Provenance, ReportImage, StudyImages, StudyReport

PROVENANCE = Provenance(
    "spine", "1.2", "ab" * 32, "Research.", False, "0.1.0", "onnxruntime", "fp32", "2026-01-02T03:04:05+00:00"
)
SPOT_MM = 1.5
"""Standard deviation of a spot."""


def pose(
    right: Vector, down: Vector, centre: Vector, spacing: tuple[float, float], size: tuple[int, int]
) -> SlicePose:
    """Return a pose. `right`, `down`: directions of rows and columns; `spacing`, `size`: of rows, columns."""
    across, along = (np.array(v) / np.linalg.norm(v) for v in (right, down))
    corner = centre - across * spacing[1] * (size[1] - 1) / 2 - along * spacing[0] * (size[0] - 1) / 2
    return SlicePose(_vector(corner), _vector(across), _vector(along), *spacing, *size, 3.0)


def spots(
    pose: SlicePose,
    points: Sequence[Vector],
    name: str = "1.2.3",
    slope: float = 1.0,
    frame_number: int | None = None,
) -> ReportImage:
    """Return an image that is dark but for a spot at each point."""
    rows, columns = np.mgrid[0 : pose.rows, 0 : pose.columns]
    places = pose.to_patient(np.stack([columns, rows], axis=-1))
    values = np.full((pose.rows, pose.columns), 100.0)
    for point in points:
        on_plane = pose.to_patient(pose.to_pixels(point)[:2])
        squared = ((places - on_plane) ** 2).sum(axis=-1)
        values = np.maximum(values, 100 + 1000 * np.exp(-squared / (2 * SPOT_MM**2)))
    stored = np.rint(values if slope > 0 else 2000 - values).astype(np.uint16)
    frame = FrameHeader(Path("image"), 0, name, pose, slope, 0.0, frame_number)
    dataset = header(name, "1.2.7" if name.startswith("1.2.3") else "1.2.8")
    if frame_number is not None:
        dataset.SOPClassUID = EnhancedMRImageStorage
    return ReportImage(frame, pose, stored, dataset)


def header(sop_instance_uid: str, series_uid: str) -> Dataset:
    """Return attributes of a classic MR image."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, sop_instance_uid
    dataset.PatientName, dataset.PatientID = "Müller^Jürgen", "ID-4711"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.6", series_uid
    dataset.StudyDate, dataset.StudyTime = "20250304", "101112"
    dataset.PhotometricInterpretation = "MONOCHROME2"
    return dataset


def made_report(
    grades: Sequence[int | None] = (0, 1, 2, 3, 0, None), multiframe: bool = False
) -> StudyReport:
    """Return a report with one sagittal image, an axial image of each graded level, and the given grades."""
    points = [(2.0, 5.0, 60.0 - 18.0 * k) for k in range(len(LEVELS))]
    number = 5 if multiframe else None
    sagittal = spots(
        pose((0, 1, 0), (0, 0, -1), (0, 10, 15), (0.8, 0.8), (250, 200)),
        points,
        "1.2.3.1",
        frame_number=number,
    )
    levels, axial, sagittals = [], {}, {}
    for k, (level, grade, point) in enumerate(zip(LEVELS, grades, points, strict=True)):
        if grade is None:
            levels.append(LevelResult(level, None, None, None, None, "", 0.1, ("level_out_of_view",)))
            continue
        sagittals[level] = sagittal
        x, y, z = point
        cord = ((x, y + 4, z), (x, y + 10.0 - grade, z), (x + 6.5, y + 7, z), (x - 6.5, y + 7, z))
        ap = 6.0 - grade
        uid = "1.2.4.1" if multiframe else f"1.2.4.{k + 1}"
        of_axial = k + 1 if multiframe else None
        axial[level] = spots(
            pose((1, 0, 0), (0, 1, 0), (0, 10, z), (0.5, 0.5), (160, 160)), cord, uid, frame_number=of_axial
        )
        chances = tuple(0.91 if k == grade else 0.03 for k in range(4))
        levels.append(
            LevelResult(
                level,
                point,
                grade,
                (chances[0], chances[1], chances[2], chances[3]),
                CordMeasurement(uid, cord, ap, 13.0, ap / 13.0, 0.9, (), of_axial),
                "1.2.3.1",
                0.9,
                (),
                None,
                number,
            )
        )
    result = StudyResult("1.2.6", "", "1.2.7", "1.2.8", tuple(levels), (), ())
    return StudyReport(1, "0123456789abcdef", "study", result, PROVENANCE, StudyImages(sagittals, axial))


def without_axial(report: StudyReport, level: str, *warnings: str) -> StudyReport:
    """Return the report without the measurement of a level, and with the warnings that say why."""
    assert report.images is not None
    levels = tuple(
        replace(item, cord=None, warnings=(*item.warnings, *warnings)) if item.level == level else item
        for item in report.result.levels
    )
    axial = {name: image for name, image in report.images.axial.items() if name != level}
    images = StudyImages(report.images.sagittal, axial)
    return replace(report, result=replace(report.result, levels=levels), images=images)


def _vector(values: np.ndarray) -> Vector:
    x, y, z = map(float, values)
    return x, y, z
