"""The algorithm as equipment that contributed to a DICOM object (PS3.3, C.12.1, Contributing Equipment)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stenosis_trt.engine.reports.dicom.dicom_text import long_string
from stenosis_trt.engine.reports.dicom.report_uids import device_uid
from stenosis_trt.engine.reports.study_report import Provenance
from stenosis_trt.engine.reports.text.wording import NOT_FOR_CLINICAL_USE

if TYPE_CHECKING:
    from pydicom import Dataset

MANUFACTURER = "stenosis-trt"
"""Of every object that is written: the name of this software, which has no other maker."""
_DESCRIPTION_LIMIT = 1024
"""Characters of the value representation ST (PS3.5, 6.2)."""


def contributing_equipment(provenance: Provenance) -> Dataset:
    """Return the item of the Contributing Equipment Sequence that names the algorithm.

    Its Device UID changes with the pack, the software version and the precision of the models (see
    `report_uids.device_uid`), as IHE AI Results asks.

    A name of a pack may have any characters: the object that gets the item needs the character set UTF-8
    (ISO_IR 192).
    """
    from pydicom import Dataset

    purpose = Dataset()
    # CID 7005, Contributing Equipment Purpose of Reference.
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = long_string(provenance.pack_name)
    item.SoftwareVersions = [
        long_string(f"{MANUFACTURER} {provenance.software_version}"),
        long_string(f"{provenance.pack_name} {provenance.pack_version}"),
    ]
    item.DeviceSerialNumber = long_string(provenance.pack_sha256)
    item.DeviceUID = device_uid(provenance)
    use = "" if provenance.clinical_use else f"{NOT_FOR_CLINICAL_USE} "
    description = (
        f"{use}Intended use: {provenance.intended_use} Computed by {provenance.backend} in "
        f"{provenance.precision}."
    )
    item.ContributionDescription = long_string(description, _DESCRIPTION_LIMIT)
    return item
