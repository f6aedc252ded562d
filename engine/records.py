"""The records that the stages of the pipeline hand to one another. All are frozen.

files ─▶ SeriesHeader ─▶ StudyHeader ─▶ LoadedStudy ─▶ StudyResult
                   anything unusable on the way ─▶ Problem
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import SlicePose, Vector

if TYPE_CHECKING:
    import pandas

LEVELS: tuple[str, ...] = ("C2/3", "C3/4", "C4/5", "C5/6", "C6/7", "C7/T1")
"""The disc levels, from head to foot; the last one is graded only where it is seen."""

LANDMARKS: tuple[str, ...] = ("T1/2", "T2/3", "C2", "dens")
"""Points that tell which disc is which, and are not graded. "T1/2" and "T2/3" are disc points as those of
`LEVELS`, "C2" is the point of the anterior wall of the canal at the base of the dens, "dens" is the apex of
the dens."""

LEVEL_COLUMNS = (
    "study_uid",
    "patient_id",
    "level",
    "kang_grade",
    "p0",
    "p1",
    "p2",
    "p3",
    "compression_ratio",
    "ap_mm",
    "transverse_mm",
    "sagittal_sop_uid",
    "sagittal_frame_number",
    "axial_sop_uid",
    "axial_frame_number",
    "x_mm",
    "y_mm",
    "z_mm",
    "confidence",
    "warnings",
    "mscc",
    "mscc_reference",
    "compression_ratio_z",
    "ap_z",
    "transverse_z",
    "compression_ratio_percentile",
    "ap_percentile",
    "transverse_percentile",
    "slice_angle_degrees",
)
"""Columns of results.csv that describe one level, in their order. New ones are added at the end."""

MsccReference = Literal["above and below", "above", "below", "none"]
"""Where the normal cord that an MSCC refers to was measured; "none" if neither above nor below the level."""

Cell = str | int | float | None
"""A value in a row; None where there is none."""

_DIGITS = 4
_DIGITS_MM = 2
"""Hundredths of a millimetre: well below a pixel."""
_DIGITS_Z = 2
_DIGITS_DEGREES = 1
_DIGITS_PERCENTILE = 1
"""The norms come from 203 persons: one of them is half a percent."""

MR_IMAGE_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
}
"""SOP classes of MR images."""


class Stage(str, Enum):
    """Stage of the pipeline in which a problem arose."""

    FIND = "find"
    HEADER = "header"
    CHOOSE = "choose"
    PIXELS = "pixels"
    LEVELS = "levels"
    GRADE = "grade"
    CORD = "cord"
    WRITE = "write"
    REPORT = "report"


@dataclass(frozen=True)
class Problem:
    """One row of errors.csv: a file or study that could not be used.

    Attributes:
        path: the file, or the folder of the study. stage: stage of the pipeline. reason: what is wrong, as
        one sentence without values that could identify a patient. advice: what to do about it, as one
        sentence. study_uid: Study Instance UID; "" where it is unknown. harmless: no image is lost: the file
        is not an image, or is a second copy. of_study: the whole study is not graded; otherwise the problem
        concerns a file. temporary: the file may be valid: the process that read it died, took too long or
        could not be started.
            A resumed run reads the study again.
    """

    path: str
    stage: Stage
    reason: str
    advice: str
    study_uid: str = ""
    harmless: bool = False
    of_study: bool = False
    temporary: bool = False


@dataclass(frozen=True)
class Contrast:
    """Attributes of image contrast. Times are in milliseconds; None where the header has no value."""

    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_degrees: float | None = None
    echo_train_length: int | None = None
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    sequence_name: str = ""
    contrast_agent: bool = False
    fat_suppressed: bool = False


@dataclass(frozen=True)
class FrameHeader:
    """One two-dimensional image: a classic file, or one frame of a multi-frame file.

    Attributes:
        path: the file. index: index of the frame in the file, from 0. sop_instance_uid: SOP Instance UID.
        pose: position, orientation and spacing; None if the header has no valid ones. slope, intercept:
        `intercept + slope × stored` is the real-world value. For MONOCHROME1 the reader negates
            the slope and shifts the intercept, so that a higher value is always brighter.
        frame_number: number of the frame in a multi-frame object, from 1 as ReferencedFrameNumber (PS3.3,
        10.3);
            None for a single-frame object.
    """

    path: Path
    index: int
    sop_instance_uid: str
    pose: SlicePose | None
    slope: float = 1.0
    intercept: float = 0.0
    frame_number: int | None = None


@dataclass(frozen=True)
class SeriesHeader:
    """Headers of one series, with its frames in order along the slice normal.

    Attributes:
        acquired: value that increases with the time of acquisition, for comparisons only; see `dicom.frames`.
        defect: why the frames are not one stack of slices and cannot be graded; "" if they are.
        lossy: at least one of the images was compressed with loss.
    """

    study_uid: str
    series_uid: str
    modality: str
    frames: tuple[FrameHeader, ...]
    frame_of_reference_uid: str = ""
    sop_class_uid: str = ""
    description: str = ""
    protocol: str = ""
    body_part: str = ""
    image_type: tuple[str, ...] = ()
    acquisition_3d: bool = False
    contrast: Contrast = field(default_factory=Contrast)
    manufacturer: str = ""
    patient_id: str = ""
    series_number: int | None = None
    acquired: float | None = None
    defect: str = ""
    lossy: bool = False


@dataclass(frozen=True)
class StudyHeader:
    """All series of one study, that is of one Study Instance UID and one patient.

    Attributes:
        path: folder of the study. lost_files: number of its files whose headers could not be read.
        key: name of the study within a run: its UID, followed by "#2", "#3" … if several patients share the
        UID. warnings: warnings that the result gets.
    """

    study_uid: str
    path: str
    series: tuple[SeriesHeader, ...]
    lost_files: int = 0
    key: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.study_uid)


@dataclass(frozen=True)
class LoadedSlice:
    """One decoded slice: its header, its pose and the stored values, uint16 or int16 (rows, columns)."""

    frame: FrameHeader
    pose: SlicePose
    stored: npt.NDArray[np.uint16] | npt.NDArray[np.int16]


@dataclass(frozen=True)
class LoadedStudy:
    """The decoded series that a study is graded from.

    Attributes:
        axial: slices of the axial series; empty if none was selected. same_frame_of_reference: axial slices
        may be matched to sagittal levels. axial_packs: axial series joined to `axial_series`.
        axial_series_index: for each slice of `axial`, 0 for `axial_series` and 1, 2, … for `axial_packs`;
        empty if
            nothing was joined.
    """

    header: StudyHeader
    sagittal_series: SeriesHeader
    sagittal: tuple[LoadedSlice, ...]
    axial_series: SeriesHeader | None
    axial: tuple[LoadedSlice, ...]
    same_frame_of_reference: bool
    warnings: tuple[str, ...] = ()
    axial_packs: tuple[SeriesHeader, ...] = ()
    axial_series_index: tuple[int, ...] = ()


@dataclass(frozen=True)
class CordMeasurement:
    """The cord on one axial slice.

    Attributes:
        sop_instance_uid, frame_number: the slice; see `FrameHeader`.
        points: anterior, posterior, left and right point in the slice, LPS, mm.
        ap_mm, transverse_mm: anteroposterior and transverse diameter across the cord: distances of the
            points, projected on the plane perpendicular to the cord.
        compression_ratio: ap_mm / transverse_mm.
        confidence: lowest of the four heatmap peaks, 0 to 1.
        warnings: reasons to doubt the measurement.
        slice_angle_degrees: angle between the slice and the plane perpendicular to the cord, 0 to 90.
    """

    sop_instance_uid: str
    points: tuple[Vector, Vector, Vector, Vector]
    ap_mm: float
    transverse_mm: float
    compression_ratio: float
    confidence: float
    warnings: tuple[str, ...] = ()
    frame_number: int | None = None
    slice_angle_degrees: float = 0.0


@dataclass(frozen=True)
class HealthyComparison:
    """The cord of one level compared with that of healthy adults.

    A z-score is (value − mean) / standard deviation, a percentile the share of healthy adults with a lower
    value in percent. None where the norm is not to be trusted; see `engine.grading.healthy`.

    Attributes:
        compression_ratio_z, ap_z, transverse_z: z-scores.
        compression_ratio_percentile, ap_percentile, transverse_percentile: percentiles, 0 to 100.
    """

    compression_ratio_z: float | None = None
    ap_z: float | None = None
    transverse_z: float | None = None
    compression_ratio_percentile: float | None = None
    ap_percentile: float | None = None
    transverse_percentile: float | None = None


@dataclass(frozen=True)
class LevelResult:
    """One disc level. A missing grade or measurement is None, and a warning says why.

    Attributes:
        level: one of LEVELS.
        point: disc mid-plane at the anterior wall of the canal, LPS, mm.
        grade: Kang grade, 0 to 3.
        probabilities: of the four grades; they add up to 1.
        cord: measurement of the cord at the level.
        sagittal_sop_uid, sagittal_frame_number: the slice that was graded; see `FrameHeader`.
        confidence: the lower one of the level's heatmap peak and the probability of its grade, 0 to 1.
        warnings: why a value is missing or doubtful.
        p_ood: probability that the region is out of distribution; None if the grader has no class for it.
        mscc: maximum spinal cord compression, 1 − AP diameter / that of the normal cord above and below; see
            `engine.grading.compression`. Negative where the cord is deeper at the level. None where it was
            not computed.
        mscc_reference: where the normal cord was measured; None if the cord was not measured at the level.
        healthy: comparison with healthy adults; None where it was not made.
    """

    level: str
    point: Vector | None
    grade: int | None
    probabilities: tuple[float, float, float, float] | None
    cord: CordMeasurement | None
    sagittal_sop_uid: str
    confidence: float
    warnings: tuple[str, ...] = ()
    p_ood: float | None = None
    sagittal_frame_number: int | None = None
    mscc: float | None = None
    mscc_reference: MsccReference | None = None
    healthy: HealthyComparison | None = None


@dataclass(frozen=True)
class StudyResult:
    """Result of a graded study.

    Attributes:
        study_uid: Study Instance UID. patient_id: PatientID; "" unless identifiers are kept.
        sagittal_series_uid: Series Instance UID of the sagittal series. axial_series_uid: the same of the
        axial series, separated by semicolons if packs were joined; "" if none. levels: one entry for each of
        LEVELS, in that order. cord_slices: every axial slice on which the cord was measured. warnings:
        warnings that concern the whole study. seconds: duration of each stage.
    """

    study_uid: str
    patient_id: str
    sagittal_series_uid: str
    axial_series_uid: str
    levels: tuple[LevelResult, ...]
    cord_slices: tuple[CordMeasurement, ...]
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Cell]]:
        """Return one row per level, with the keys LEVEL_COLUMNS, rounded as in results.csv.

        Lengths are in millimetres, with two decimals; positions in DICOM patient coordinates (LPS).
        Probabilities, the ratio, MSCC and the confidence have four decimals, z-scores two, percentiles and
        angles one.
        A missing value is None.
        """
        return [self._row(level) for level in self.levels]

    def _row(self, level: LevelResult) -> dict[str, Cell]:
        cord, point = level.cord, level.point or (None, None, None)
        healthy = level.healthy or HealthyComparison()
        probabilities = level.probabilities or (None,) * 4
        return {
            "study_uid": self.study_uid,
            "patient_id": self.patient_id,
            "level": level.level,
            "kang_grade": level.grade,
            **{f"p{grade}": _rounded(value, _DIGITS) for grade, value in enumerate(probabilities)},
            "compression_ratio": _rounded(cord.compression_ratio if cord else None, _DIGITS),
            "ap_mm": _rounded(cord.ap_mm if cord else None, _DIGITS_MM),
            "transverse_mm": _rounded(cord.transverse_mm if cord else None, _DIGITS_MM),
            "sagittal_sop_uid": level.sagittal_sop_uid,
            "sagittal_frame_number": level.sagittal_frame_number,
            "axial_sop_uid": cord.sop_instance_uid if cord else None,
            "axial_frame_number": cord.frame_number if cord else None,
            **{f"{axis}_mm": _rounded(value, _DIGITS_MM) for axis, value in zip("xyz", point, strict=True)},
            "confidence": _rounded(level.confidence, _DIGITS),
            # The level's warnings, then the study's, each once.
            "warnings": ";".join(dict.fromkeys([*level.warnings, *self.warnings])),
            "mscc": _rounded(level.mscc, _DIGITS),
            "mscc_reference": level.mscc_reference,
            "compression_ratio_z": _rounded(healthy.compression_ratio_z, _DIGITS_Z),
            "ap_z": _rounded(healthy.ap_z, _DIGITS_Z),
            "transverse_z": _rounded(healthy.transverse_z, _DIGITS_Z),
            "compression_ratio_percentile": _rounded(
                healthy.compression_ratio_percentile, _DIGITS_PERCENTILE
            ),
            "ap_percentile": _rounded(healthy.ap_percentile, _DIGITS_PERCENTILE),
            "transverse_percentile": _rounded(healthy.transverse_percentile, _DIGITS_PERCENTILE),
            "slice_angle_degrees": _rounded(cord.slice_angle_degrees if cord else None, _DIGITS_DEGREES),
        }

    def to_frame(self) -> pandas.DataFrame:
        """Return `rows()` as a pandas DataFrame with one row per level.

        Raises:
            ModuleNotFoundError: pandas is not installed; it is no dependency of this package.
        """
        import pandas

        return pandas.DataFrame(self.rows(), columns=list(LEVEL_COLUMNS))

    def to_json(self) -> str:
        """Return the whole result as a JSON object on one line, without rounding.

        Raises:
            ValueError: a number is not finite.
        """
        return json.dumps(asdict(self), allow_nan=False)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
