"""Studies that name a patient wherever a header can: each tag has a string of its own, to be searched for.

    markers = write_marked_study(folder)

fills every attribute of DICOM's dictionary that holds a name, a free text or a date, those of sequences, and
private ones; and names the folder and the files after the patient.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

from dicom_factory import AXIAL, dataset, write
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LEVELS, CordMeasurement, LevelResult, LoadedStudy, StudyResult

PATH_MARKER = "ZQPATHXK"
"""Stands in the names of folders and files."""
DESCRIPTION_KEYWORDS = ("SeriesDescription", "ProtocolName")
"""Attributes that decide which series is graded: their marker follows the words that do."""
SAGITTAL_SLICES, AXIAL_SLICES = 7, 21
_TOP_MM, _AXIAL_STEP_MM, _LEVEL_STEP_MM = 50.0, 5.0, 20.0
"""Position of the uppermost axial slice and of C2/3, distance of axial slices, and of levels."""

_TEXT_VRS = {"PN", "LO", "SH", "LT", "ST", "UT", "UC", "AE", "DA", "DT"}
_KEPT = {
    # What is read to choose and to grade, or says how the file is encoded.
    *("SpecificCharacterSet", "SequenceName", "BodyPartExamined", "RescaleType", "ContrastBolusAgent"),
    *("AcquisitionDate", "AcquisitionDateTime", "ContentDate", "SeriesDate", "InstanceCreationDate"),
    *DESCRIPTION_KEYWORDS,
}
_SEQUENCES = (
    "OtherPatientIDsSequence",
    "ReferencedPatientSequence",
    "PatientInsurancePlanCodeSequence",
    "IssuerOfPatientIDQualifiersSequence",
    "ReferringPhysicianIdentificationSequence",
    "PhysiciansOfRecordIdentificationSequence",
    "PerformingPhysicianIdentificationSequence",
    "OperatorIdentificationSequence",
    "RequestAttributesSequence",
    "RequestedProcedureCodeSequence",
    "InstitutionCodeSequence",
    "AdmittingDiagnosesCodeSequence",
    "OriginalAttributesSequence",
    "ContributingEquipmentSequence",
    "SourceImageSequence",
    "MetaboliteMapCodeSequence",
)
_FIRST_DAY = date(1851, 2, 3)


class Markers:
    """Strings that stand for what may not be written, with the place of each.

    Attributes:
        places: keyword of the attribute by marker; attributes of items are "Sequence.Keyword".
    """

    def __init__(self) -> None:
        self.places: dict[str, str] = {PATH_MARKER: "path"}

    def text(self, place: str) -> str:
        """Return a new marker of 8 characters."""
        return self._add(f"ZQ{len(self.places):04d}XK", place)

    def day(self, place: str) -> str:
        """Return a new date as DICOM has it, of a year in which no image was made."""
        return self._add(f"{_FIRST_DAY + timedelta(days=7 * len(self.places)):%Y%m%d}", place)

    def of(self, place: str) -> str:
        """Return the marker of an attribute."""
        return next(marker for marker, known in self.places.items() if known == place)

    def _add(self, marker: str, place: str) -> str:
        self.places[marker] = place
        return marker


def markable() -> list[tuple[int, str, str]]:
    """Return tag, keyword and value representation of every attribute that is filled."""
    return [
        (tag, keyword, vr)
        for tag, (vr, _, _, _, keyword) in sorted(DicomDictionary.items())
        if vr in _TEXT_VRS and keyword and keyword not in _KEPT and tag >> 16 not in (0, 2, 4)
    ]


def filled_header() -> tuple[Dataset, Markers]:
    """Return a data set with a marker in each attribute, in items, and in private attributes."""
    markers, header = Markers(), Dataset()
    for tag, keyword, vr in markable():
        header.add_new(tag, vr, _value(markers, keyword, vr))
    for name in _SEQUENCES:
        item = Dataset()
        for keyword, vr in (
            ("PersonName", "PN"),
            ("PatientID", "LO"),
            ("CodeMeaning", "LO"),
            ("StudyDate", "DA"),
        ):
            setattr(item, keyword, _value(markers, f"{name}.{keyword}", vr))
        inner = Dataset()
        inner.PatientName = _value(markers, f"{name}.inner.PatientName", "PN")
        item.RequestAttributesSequence = DicomSequence([inner])
        setattr(header, name, DicomSequence([item]))
    block = header.private_block(0x0011, "STENOSIS TEST", create=True)
    for offset, vr in enumerate(("LO", "PN", "UT", "DA", "SH", "OB")):
        value = _value(markers, f"private {offset}", "LO" if vr == "OB" else vr)
        block.add_new(offset, vr, value.encode() if vr == "OB" else value)
    header.PatientIdentityRemoved = "NO"
    return header, markers


def _value(markers: Markers, place: str, vr: str) -> str:
    if vr == "DA":
        return markers.day(place)
    if vr == "DT":
        return f"{markers.day(place)}101112"
    marker = markers.text(place)
    return f"{marker}^GIVEN" if vr == "PN" else marker


def write_marked_study(folder: Path) -> Markers:
    """Write a study of a sagittal and an axial series that can be graded, and files that cannot be used."""
    header, markers = filled_header()
    descriptions = {keyword: markers.text(keyword) for keyword in DESCRIPTION_KEYWORDS}
    place = folder / f"{PATH_MARKER}_Mr" / "study"
    for plane, count in (("sag", SAGITTAL_SLICES), ("tra", AXIAL_SLICES)):
        for number in range(count):
            image = _image(plane, number)
            image.update(header)
            for keyword, marker in descriptions.items():
                setattr(image, keyword, f"t2_tse_{plane} {marker}")
            write(place / f"{PATH_MARKER}_{plane}{number}.dcm", image)
    _write_faulty(folder / f"{PATH_MARKER}_Faulty", header)
    return markers


def _image(plane: str, number: int) -> Dataset:
    tags: dict[str, Any] = {"StudyInstanceUID": generate_uid(entropy_srcs=["marked study"])}
    if plane == "tra":
        tags |= {
            "SeriesInstanceUID": generate_uid(entropy_srcs=["marked axial"]),
            "ImageOrientationPatient": AXIAL,
            "ImagePositionPatient": [-100.0, -100.0, _TOP_MM - _AXIAL_STEP_MM * number],
        }
    return dataset(number, **tags, SOPInstanceUID=generate_uid(entropy_srcs=["marked", plane, str(number)]))


def _write_faulty(folder: Path, header: Dataset) -> None:
    """Write a study that cannot be graded, and files whose faulty values are markers."""
    for number in range(3):
        other = dataset(number, Modality="CT")
        other.update(header)
        write(folder / "ct" / f"{PATH_MARKER}{number}.dcm", other)
    name = str(header.PatientName)
    broken = dataset(0, SOPInstanceUID=generate_uid(entropy_srcs=["marked broken"]))
    broken.update(header)
    path = write(folder / f"{PATH_MARKER}_spacing.dcm", broken)
    # A spacing that is no number, of the length of the one that is there.
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.8\\0.8 ", name[:8].encode()))
    (folder / f"{PATH_MARKER}_cut.dcm").write_bytes(content[: len(content) // 2])
    (folder / f"{PATH_MARKER}.txt").write_text(f"of {name}", encoding="utf-8")


def spoil_values(folder: Path, markers: Markers) -> None:
    """Give the images of a marked study values that are not valid, as a library that warns would quote."""
    words = {
        keyword: markers.text(f"not valid {keyword}")
        for keyword in ("PatientBirthDate", "StudyDate", "StudyTime", "PatientAge", "PatientSex")
    }
    long = {
        keyword: markers.text(f"not valid {keyword}") * 12
        for keyword in ("AccessionNumber", "StudyID", "IssuerOfPatientID", "StudyDescription")
    }
    name = Tag("PatientName")
    with disable_value_validation():
        for path in sorted(folder.glob("*_Mr/**/*.dcm")):
            image = dcmread(path)
            for keyword, value in {**words, **long}.items():
                setattr(image, keyword, value)
            # Bytes that are no UTF-8.
            image.SpecificCharacterSet = "ISO_IR 192"
            value = markers.of("PatientName").encode() + b"\xfc\xff^X"
            image._dict[name] = RawDataElement(name, "PN", len(value), value, 0, False, True)
            image.save_as(path)


def grade_marked_study(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
    """Return a result that refers to the slices of a marked study: all levels graded, one not found."""
    sagittal = study.sagittal[SAGITTAL_SLICES // 2]
    axial = {round(item.pose.origin[2]): item for item in study.axial}
    levels, cords = [], []
    for number, name in enumerate(LEVELS):
        x, y, z = 5.0, 0.0, _TOP_MM - _LEVEL_STEP_MM * number
        slice_ = axial[round(z)]
        points = ((x, y - 3.0, z), (x, y + 3.0, z), (x + 6.0, y, z), (x - 6.0, y, z))
        cord = CordMeasurement(slice_.frame.sop_instance_uid, points, 6.0, 12.0, 0.5, 0.9)
        cords.append(cord)
        grade = number % 4
        probabilities = (0.1, 0.1, 0.1, 0.1)
        probabilities = (*probabilities[:grade], 0.7, *probabilities[grade + 1 :])
        levels.append(
            LevelResult(
                name, (x, y - 5.0, z), grade, probabilities, cord, sagittal.frame.sop_instance_uid, 0.7
            )
        )
    levels[-1] = LevelResult(LEVELS[-1], None, None, None, None, "", 0.1, ("level_not_found",))
    assert study.axial_series is not None
    return StudyResult(
        study_uid=study.header.study_uid,
        patient_id=study.sagittal_series.patient_id,
        sagittal_series_uid=study.sagittal_series.series_uid,
        axial_series_uid=study.axial_series.series_uid,
        levels=tuple(levels),
        cord_slices=tuple(cords[:-1]),
        warnings=study.warnings,
        seconds={"grade": 0.1},
    )
