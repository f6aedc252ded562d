"""The records that the stages of the pipe hand to one another. All frozen, none with behaviour of its own.

files ─▶ SeriesHeader ─▶ StudyHeader ─▶ LoadedStudy ─▶ StudyResult
                   anything unusable on the way ─▶ Problem
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import SlicePose, Vector

LEVELS: tuple[str, ...] = ("C2/3", "C3/4", "C4/5", "C5/6", "C6/7", "C7/T1")
"""The disc levels, from head to foot; the last one is graded only where it is seen."""


class Stage(str, Enum):
    """Where in the pipe a problem arose."""

    FIND = "find"
    HEADER = "header"
    CHOOSE = "choose"
    PIXELS = "pixels"
    LEVELS = "levels"
    GRADE = "grade"
    CORD = "cord"
    WRITE = "write"


@dataclass(frozen=True)
class Problem:
    """One row of errors.csv: a file or study that could not be used.

    `reason` says what is wrong, `advice` what to do about it: one sentence each, without any
    value from the header that could identify a patient. `harmless` problems lose no image: a file that is
    none, or a second copy. A problem `of_study` is that of a whole study that is not graded; others are of
    files. A `temporary` one may not be the file's fault: the process that read it died, took too long or
    could not be started. A study that lost an image so is read again when the run is resumed.
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
    """What the header says about image contrast. Times in milliseconds; None where absent."""

    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_degrees: float | None = None
    echo_train_length: int | None = None
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    sequence_name: str = ""
    contrast_agent: bool = False


@dataclass(frozen=True)
class FrameHeader:
    """One two-dimensional image: a whole classic file, or one frame of a multi-frame file.

    `index` counts from 0. `frame_number` is that of a multi-frame object, which counts from 1 as
    ReferencedFrameNumber does (PS3.3, 10.3); None for a single-frame object, which has no frame numbers.
    `pose` is None where the header gives no usable position, orientation or spacing.
    `intercept + slope × stored` is the real-world value; MONOCHROME1 has its slope negated and
    its intercept moved by the reader so that a higher value is always brighter.
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
    """One series, its frames ordered along the slice normal. No pixels.

    `acquired` grows with the time of acquisition, for nothing but comparing; see `frames` in `dicom`.
    `defect` says why the frames are not one stack of slices, and so cannot be graded; "" where they are.
    `lossy` says that at least one of the images was compressed with loss.
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
    """All series of one study: of one Study Instance UID and one patient.

    `lost_files` of its files could not be used, not even by their headers. `key` names the study within a
    run: its UID, with "#2", "#3" … behind it where patients share a UID. `warnings` become the result's.
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
    """One decoded slice: stored values, uint16 or int16 `(rows, columns)`, and where they lie."""

    frame: FrameHeader
    pose: SlicePose
    stored: npt.NDArray[np.uint16] | npt.NDArray[np.int16]


@dataclass(frozen=True)
class LoadedStudy:
    """The series a study is graded from. `axial` is empty where none was chosen.

    `axial_packs` are axial series joined to `axial_series`; for each slice of `axial`, `axial_series_index`
    has 0 for that one and 1, 2, … for them, and is empty where nothing was joined. `same_frame_of_reference`
    says whether axial slices may be matched to sagittal levels.
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
    """The cord on one axial slice. `points` are patient coordinates in the order of the pack; `frame_number`
    is that of `FrameHeader`."""

    sop_instance_uid: str
    points: tuple[Vector, Vector, Vector, Vector]
    ap_mm: float
    transverse_mm: float
    compression_ratio: float
    confidence: float
    warnings: tuple[str, ...] = ()
    frame_number: int | None = None


@dataclass(frozen=True)
class LevelResult:
    """One disc level. A grade or a measurement that could not be had is None, and a warning says why.

    `probabilities` are those of the four grades alone. `p_other` is the probability that the region is unlike
    all that the grader was trained to grade; None where it was not asked, or has no class for that.
    `sagittal_sop_uid` and `sagittal_frame_number` name the slice that was graded; see `FrameHeader`.
    """

    level: str
    point: Vector | None
    grade: int | None
    probabilities: tuple[float, float, float, float] | None
    cord: CordMeasurement | None
    sagittal_sop_uid: str
    confidence: float
    warnings: tuple[str, ...] = ()
    p_other: float | None = None
    sagittal_frame_number: int | None = None


@dataclass(frozen=True)
class StudyResult:
    """What a graded study yields: every level, in the order of LEVELS, and every cord slice measured.

    `axial_series_uid` holds the UIDs of several series, parted by semicolons, where packs were joined.
    """

    study_uid: str
    patient_id: str
    sagittal_series_uid: str
    axial_series_uid: str
    levels: tuple[LevelResult, ...]
    cord_slices: tuple[CordMeasurement, ...]
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
