"""DICOMDIR files: `list_dicomdir`."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MediaStorageDirectoryStorage

from fuzz.harness import Target, main
from fuzz.headers import written
from fuzz.mutation import mutated_dicom
from stenosis_trt.engine.dicom.dicomdir import list_dicomdir
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.limits import ReadLimits


def seeds() -> list[bytes]:
    records = []
    for number in range(3):
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = ["DICOM", f"IM{number:04d}"]
        records.append(record)
    content = Dataset()
    content.SOPClassUID = MediaStorageDirectoryStorage
    content.SOPInstanceUID = "1.2.3"
    content.FileSetID = "A"
    content.DirectoryRecordSequence = records
    return [written(content, syntax) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)]


def check(data: bytes, folder: Path) -> None:
    path = folder / "DICOMDIR"
    path.write_bytes(data)
    for parts in list_dicomdir(path, ReadLimits()):
        assert all(isinstance(part, str) for part in parts)


TARGET = Target("dicomdirs", (DicomError,), seeds, mutated_dicom, check)

if __name__ == "__main__":
    main(TARGET)
