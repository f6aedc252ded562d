"""DICOM files for tests: a small valid MR series, to be changed as a test needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

SAGITTAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
CORONAL = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]


def dataset(number: int = 0, **tags: object) -> Dataset:
    """Slice `number` of a sagittal T2 series of 256² pixels at 0.8 mm, with `tags` put over it."""
    result = Dataset()
    result.SOPClassUID = MRImageStorage
    result.SOPInstanceUID = generate_uid(entropy_srcs=["test", str(number), str(sorted(tags))])
    result.StudyInstanceUID = generate_uid(entropy_srcs=["test study"])
    result.SeriesInstanceUID = generate_uid(entropy_srcs=["test series"])
    result.FrameOfReferenceUID = generate_uid(entropy_srcs=["test frame"])
    result.Modality = "MR"
    result.PatientID = "SECRET-ID"
    result.PatientName = "Secret^Name"
    result.SeriesDescription = "t2_tse_sag"
    result.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    result.ScanningSequence = "SE"
    result.EchoTime, result.RepetitionTime = 100.0, 3500.0
    result.SliceThickness = 3.0
    result.InstanceNumber = 100 - number
    result.ImageOrientationPatient = SAGITTAL
    result.ImagePositionPatient = [-15.0 + 3.3 * number, -100.0, 100.0]
    result.PixelSpacing = [0.8, 0.8]
    result.Rows = result.Columns = 256
    result.SamplesPerPixel = 1
    result.PhotometricInterpretation = "MONOCHROME2"
    result.BitsAllocated, result.BitsStored, result.HighBit, result.PixelRepresentation = 16, 12, 11, 0
    rng = np.random.default_rng(number)
    result.PixelData = rng.integers(0, 4096, (256, 256), dtype=np.uint16).tobytes()
    for name, value in tags.items():
        setattr(result, name, value)
    return result


def write(path: Path, content: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write as a DICOM Part 10 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content.file_meta = FileMetaDataset()
    content.file_meta.MediaStorageSOPClassUID = content.get("SOPClassUID", MRImageStorage)
    content.file_meta.MediaStorageSOPInstanceUID = content.get("SOPInstanceUID", "1.2.3")
    content.file_meta.TransferSyntaxUID = syntax
    content.save_as(path, enforce_file_format=True)
    return path


def enhanced(positions: Sequence[float], **tags: object) -> Dataset:
    """An enhanced MR object: one sagittal frame of 64² pixels at each x in `positions`, in that order.

    Frame n holds the constant n; all frames share orientation and pixel measures.
    """
    result = dataset(0, SOPClassUID=EnhancedMRImageStorage, Rows=64, Columns=64)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(result, keyword)
    for keyword in ("EchoTime", "RepetitionTime", "ScanningSequence"):
        delattr(result, keyword)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=SAGITTAL)]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[0.7, 0.6], SliceThickness=3.0)]
    shared.MRTimingAndRelatedParametersSequence = [_item(RepetitionTime=3500.0, EchoTrainLength=17)]
    shared.MREchoSequence = [_item(EffectiveEchoTime=100.0)]
    result.SharedFunctionalGroupsSequence = [shared]
    result.PerFrameFunctionalGroupsSequence = [
        _item(PlanePositionSequence=[_item(ImagePositionPatient=[x, -20.0, 20.0])]) for x in positions
    ]
    result.EchoPulseSequence = "SPIN"
    result.NumberOfFrames = len(positions)
    result.PixelData = b"".join(np.full((64, 64), n, np.uint16).tobytes() for n in range(len(positions)))
    for name, value in tags.items():
        setattr(result, name, value)
    return result


def _item(**tags: object) -> Dataset:
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return item


def compressed(content: Dataset, syntax: str) -> Dataset:
    """The same content with its pixels compressed. It is to be written in that syntax."""
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content.compress(syntax, generate_instance_uid=False)
    return content


def series(folder: Path, slices: int = 9, change: Callable[[Dataset, int], None] | None = None) -> list[Path]:
    """Write a series; `change` may alter each slice's dataset before it is written."""
    paths = []
    for number in range(slices):
        content = dataset(number)
        if change:
            change(content, number)
        paths.append(write(folder / f"{number:03d}.dcm", content))
    return paths
