"""A stand-in for the pipe, and folders of small studies, for tests of everything around it."""

from __future__ import annotations

from pathlib import Path

from dicom_factory import series
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LEVELS, CordMeasurement, LevelResult, LoadedStudy, StudyResult

_CORNER = (0.0, 0.0, 0.0)


def result(uid: str, patient_id: str = "SECRET-ID", compression_ratio: float = 0.5) -> StudyResult:
    """One graded level, five that were not found."""
    cord = CordMeasurement("9.9", (_CORNER,) * 4, 6.5, 13.0, compression_ratio, 0.9)
    graded = LevelResult("C2/3", (1.0, 2.0, 3.0), 2, (0.1, 0.1, 0.7, 0.1), cord, "8.8", 0.7)
    others = tuple(
        LevelResult(level, None, None, None, None, "", 0.1, ("level_not_found",)) for level in LEVELS[1:]
    )
    return StudyResult(
        uid, patient_id, "1.1", "1.2", (graded, *others), (cord,), ("sagittal_slice_gap",), {"grade": 0.1}
    )


def grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
    """The same result for every study."""
    return result(study.header.study_uid, study.sagittal_series.patient_id)


def write_studies(folder: Path, count: int, slices: int = 6) -> Path:
    """`count` studies of one sagittal T2 series each; the n-th is the same whatever the count."""
    for number in range(count):

        def change(content: Dataset, index: int, number: int = number) -> None:
            content.StudyInstanceUID = generate_uid(entropy_srcs=["study", str(number)])
            content.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(number)])
            content.SOPInstanceUID = generate_uid(entropy_srcs=["image", str(number), str(index)])

        series(folder / f"study{number}", slices, change)
    return folder
