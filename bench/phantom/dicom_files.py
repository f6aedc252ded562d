"""Write phantom studies as classic MR Image Storage files in any supported transfer syntax."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from stenosis_trt.bench.phantom.study import SeriesPlan

TRANSFER_SYNTAXES: dict[str, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg2000": JPEG2000Lossless,
}
"""Names that `--transfer-syntax` takes."""

_COMPRESSED = {RLELossless, JPEGLSLossless, JPEG2000Lossless}


class WritableStudy(Protocol):
    """Interface of a study that can be written: identity, two series and their pixels."""

    @property
    def seed(self) -> int: ...

    @property
    def index(self) -> int: ...

    @property
    def uid_source(self) -> tuple[object, ...]: ...

    @property
    def patient_id(self) -> str: ...

    @property
    def sagittal(self) -> SeriesPlan: ...

    @property
    def axial(self) -> SeriesPlan: ...

    def slice_pixels(self, series: Any, number: int) -> npt.NDArray[np.uint16]: ...


def phantom_uid(study: WritableStudy, *parts: object) -> str:
    """UID derived from the study's origin and `parts` alone."""
    return str(generate_uid(entropy_srcs=[*map(str, (*study.uid_source, *parts))]))


def sop_instance_uid(study: WritableStudy, series: SeriesPlan, number: int) -> str:
    """SOP Instance UID of slice `number` of a series."""
    return phantom_uid(study, series.protocol.plane, number)


def slice_path(folder: Path, series: SeriesPlan, number: int) -> Path:
    """Path of slice `number` of a series in a study's folder."""
    return folder / f"{series.protocol.plane}_t2" / f"{number + 1:04d}.dcm"


def write_study(study: WritableStudy, folder: Path, syntax: str) -> None:
    """Write both series below `folder`, one file per slice.

    Raises:
        KeyError: `syntax` is not one of `TRANSFER_SYNTAXES`.
    """
    transfer_syntax = TRANSFER_SYNTAXES[syntax]
    for series in (study.sagittal, study.axial):
        slice_path(folder, series, 0).parent.mkdir(parents=True, exist_ok=True)
        # Instance numbers are shuffled, so that nothing can rely on them for the order of slices.
        numbers = np.random.default_rng([study.seed, study.index, len(series.poses)]).permutation(
            len(series.poses)
        )
        for number in range(len(series.poses)):
            dataset = _dataset(study, series, number, int(numbers[number]) + 1)
            pixels = study.slice_pixels(series, number)
            _store(dataset, pixels, transfer_syntax, slice_path(folder, series, number))


def _dataset(study: WritableStudy, series: SeriesPlan, number: int, instance_number: int) -> Dataset:
    protocol, pose = series.protocol, series.poses[number]
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = sop_instance_uid(study, series, number)
    dataset.StudyDate = dataset.SeriesDate = "20250101"
    dataset.StudyTime = dataset.SeriesTime = "120000"
    dataset.AccessionNumber = ""
    dataset.Modality = "MR"
    dataset.Manufacturer = "stenosis-trt phantom"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Synthetic cervical spine"
    dataset.SeriesDescription = f"t2_tse_{protocol.plane[:3]}"
    dataset.PatientName = f"Phantom^{study.seed}^{study.index}"
    dataset.PatientID = study.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.BodyPartExamined = "CSPINE"
    dataset.ScanningSequence = "SE"
    dataset.SequenceVariant = ["SK", "SP"]
    dataset.ScanOptions = "FS" if protocol.fat_suppressed else ""
    dataset.MRAcquisitionType = "2D"
    dataset.SequenceName = "*tse2d1"
    dataset.SliceThickness = protocol.thickness
    dataset.RepetitionTime = protocol.repetition_time_ms
    dataset.EchoTime = protocol.echo_time_ms
    dataset.EchoTrainLength = protocol.echo_train_length
    dataset.FlipAngle = 150
    dataset.MagneticFieldStrength = 3
    dataset.SpacingBetweenSlices = protocol.slice_distance
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = phantom_uid(study, "study")
    dataset.SeriesInstanceUID = phantom_uid(study, "series", protocol.plane)
    dataset.StudyID = str(study.index + 1)
    dataset.SeriesNumber = 2 if protocol.plane == "sagittal" else 3
    dataset.InstanceNumber = instance_number
    dataset.FrameOfReferenceUID = phantom_uid(study, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.ImagePositionPatient = [round(value, 5) for value in pose.origin]
    dataset.ImageOrientationPatient = [
        round(value, 8) for value in (*pose.row_direction, *pose.column_direction)
    ]
    dataset.PixelSpacing = [pose.row_spacing, pose.column_spacing]
    return dataset


def _store(dataset: Dataset, pixels: npt.NDArray[np.uint16], transfer_syntax: UID, path: Path) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 600, 1200
    big_endian = transfer_syntax == ExplicitVRBigEndian
    dataset.PixelData = pixels.astype(">u2" if big_endian else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if transfer_syntax in _COMPRESSED:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(transfer_syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.save_as(path, enforce_file_format=True)
