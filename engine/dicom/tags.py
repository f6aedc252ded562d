"""The data elements that are read: tag and value representation of each keyword (DICOM PS3.6).

`tests/engine/dicom/test_tags.py` holds them against pydicom's dictionary, whose import would take most of the
time of a start.
"""

from __future__ import annotations

from collections.abc import Iterable

from stenosis_trt.engine.dicom.plain_elements import TagTable

TAGS = {
    "MediaStorageSOPClassUID": (0x00020002, b"UI"),
    "TransferSyntaxUID": (0x00020010, b"UI"),
    "DirectoryRecordSequence": (0x00041220, b"SQ"),
    "ReferencedFileID": (0x00041500, b"CS"),
    "SpecificCharacterSet": (0x00080005, b"CS"),
    "ImageType": (0x00080008, b"CS"),
    "SOPClassUID": (0x00080016, b"UI"),
    "SOPInstanceUID": (0x00080018, b"UI"),
    "SeriesDate": (0x00080021, b"DA"),
    "AcquisitionDate": (0x00080022, b"DA"),
    "AcquisitionDateTime": (0x0008002A, b"DT"),
    "SeriesTime": (0x00080031, b"TM"),
    "AcquisitionTime": (0x00080032, b"TM"),
    "Modality": (0x00080060, b"CS"),
    "Manufacturer": (0x00080070, b"LO"),
    "CodeMeaning": (0x00080104, b"LO"),
    "SeriesDescription": (0x0008103E, b"LO"),
    "AnatomicRegionSequence": (0x00082218, b"SQ"),
    "FrameType": (0x00089007, b"CS"),
    "PatientName": (0x00100010, b"PN"),
    "PatientID": (0x00100020, b"LO"),
    "IssuerOfPatientID": (0x00100021, b"LO"),
    "PatientBirthDate": (0x00100030, b"DA"),
    "ContrastBolusAgent": (0x00180010, b"LO"),
    "ContrastBolusAgentSequence": (0x00180012, b"SQ"),
    "BodyPartExamined": (0x00180015, b"CS"),
    "ScanningSequence": (0x00180020, b"CS"),
    "SequenceVariant": (0x00180021, b"CS"),
    "ScanOptions": (0x00180022, b"CS"),
    "MRAcquisitionType": (0x00180023, b"CS"),
    "SequenceName": (0x00180024, b"SH"),
    "SliceThickness": (0x00180050, b"DS"),
    "RepetitionTime": (0x00180080, b"DS"),
    "EchoTime": (0x00180081, b"DS"),
    "InversionTime": (0x00180082, b"DS"),
    "EchoTrainLength": (0x00180091, b"IS"),
    "ProtocolName": (0x00181030, b"LO"),
    "TriggerTime": (0x00181060, b"DS"),
    "FlipAngle": (0x00181314, b"DS"),
    "PulseSequenceName": (0x00189005, b"SH"),
    "EchoPulseSequence": (0x00189008, b"CS"),
    "EchoPlanarPulseSequence": (0x00189018, b"CS"),
    "SpectrallySelectedSuppression": (0x00189025, b"CS"),
    "SpectrallySelectedExcitation": (0x00189026, b"CS"),
    "FrameAcquisitionDateTime": (0x00189074, b"DT"),
    "InversionTimes": (0x00189079, b"FD"),
    "EffectiveEchoTime": (0x00189082, b"FD"),
    "DiffusionBValue": (0x00189087, b"FD"),
    "MRTimingAndRelatedParametersSequence": (0x00189112, b"SQ"),
    "MREchoSequence": (0x00189114, b"SQ"),
    "MRModifierSequence": (0x00189115, b"SQ"),
    "MRDiffusionSequence": (0x00189117, b"SQ"),
    "MRImageFrameTypeSequence": (0x00189226, b"SQ"),
    "StudyInstanceUID": (0x0020000D, b"UI"),
    "SeriesInstanceUID": (0x0020000E, b"UI"),
    "SeriesNumber": (0x00200011, b"IS"),
    "AcquisitionNumber": (0x00200012, b"IS"),
    "ImagePositionPatient": (0x00200032, b"DS"),
    "ImageOrientationPatient": (0x00200037, b"DS"),
    "FrameOfReferenceUID": (0x00200052, b"UI"),
    "TemporalPositionIdentifier": (0x00200100, b"IS"),
    "StackID": (0x00209056, b"SH"),
    "FrameAnatomySequence": (0x00209071, b"SQ"),
    "FrameContentSequence": (0x00209111, b"SQ"),
    "PlanePositionSequence": (0x00209113, b"SQ"),
    "PlaneOrientationSequence": (0x00209116, b"SQ"),
    "TemporalPositionIndex": (0x00209128, b"UL"),
    "FrameAcquisitionNumber": (0x00209156, b"US"),
    "SamplesPerPixel": (0x00280002, b"US"),
    "PhotometricInterpretation": (0x00280004, b"CS"),
    "NumberOfFrames": (0x00280008, b"IS"),
    "Rows": (0x00280010, b"US"),
    "Columns": (0x00280011, b"US"),
    "PixelSpacing": (0x00280030, b"DS"),
    "BitsAllocated": (0x00280100, b"US"),
    "BitsStored": (0x00280101, b"US"),
    "HighBit": (0x00280102, b"US"),
    "PixelRepresentation": (0x00280103, b"US"),
    "PixelPaddingValue": (0x00280120, b"US or SS"),
    "PixelPaddingRangeLimit": (0x00280121, b"US or SS"),
    "RescaleIntercept": (0x00281052, b"DS"),
    "RescaleSlope": (0x00281053, b"DS"),
    "LossyImageCompression": (0x00282110, b"CS"),
    "PixelMeasuresSequence": (0x00289110, b"SQ"),
    "PixelValueTransformationSequence": (0x00289145, b"SQ"),
    "SharedFunctionalGroupsSequence": (0x52009229, b"SQ"),
    "PerFrameFunctionalGroupsSequence": (0x52009230, b"SQ"),
    "ExtendedOffsetTable": (0x7FE00001, b"OV"),
    "ExtendedOffsetTableLengths": (0x7FE00002, b"OV"),
}
"""Keyword → (tag, value representation)."""


def tag_table(keywords: Iterable[str]) -> TagTable:
    """Return the tag table of elements given by their keywords.

    Raises:
        ValueError: a keyword is not in TAGS.
    """
    found: TagTable = {}
    for keyword in keywords:
        if keyword not in TAGS:
            raise ValueError(f"{keyword} is not among the elements that are read; see `tags`.")
        tag, vr = TAGS[keyword]
        found[tag] = keyword, vr
    return found
