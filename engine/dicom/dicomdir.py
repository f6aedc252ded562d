"""Files that a DICOMDIR references (DICOM PS3.3, F.3.2.2). Runs in a reading process."""

from __future__ import annotations

from pathlib import Path

from stenosis_trt.engine.dicom.elements import FIRST_PIXEL_TAG
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.part10 import open_part10
from stenosis_trt.engine.dicom.tags import tag_table
from stenosis_trt.engine.dicom.uids import DICOMDIR_CLASS
from stenosis_trt.engine.records import Stage

_WANTED = tag_table(["SpecificCharacterSet", "DirectoryRecordSequence", "ReferencedFileID"])


def list_dicomdir(path: Path, limits: ReadLimits) -> list[tuple[str, ...]]:
    """Return the files that a DICOMDIR references, each as the components of its path, in order.

    Raises:
        DicomError: the file is broken or is not a DICOMDIR.
        OSError: the file cannot be read.
    """
    with open_part10(path, limits) as part:
        if part.sop_class != DICOMDIR_CLASS:
            reason = "The file is named DICOMDIR but is not one."
            raise DicomError(Stage.FIND, reason, "Give the folder that holds the images.")
        elements = part.elements(_WANTED, FIRST_PIXEL_TAG)
    records = elements.items("DirectoryRecordSequence")
    return [parts for record in records if (parts := record.texts("ReferencedFileID"))]
