"""Files of one Study Instance UID, of one patient or of several."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dicom_factory import AXIAL, dataset, write
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from stenosis_trt.engine.dicom import reading_process
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import StudyHeader

ANN = {"PatientID": "0012", "PatientName": "Secret^Ann", "PatientBirthDate": "19700131"}
BEN = {"PatientID": "0099", "PatientName": "Secret^Ben", "PatientBirthDate": "19650707"}
NOBODY = {"PatientID": "", "PatientName": "", "PatientBirthDate": ""}
SHARED, UNKNOWN = "study_uid_shared", "patient_identity_unknown"


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader(workers=2) as opened:
        yield opened


def _series(folder: Path, number: int, plane: str, slices: int = 3, **tags: object) -> None:
    """A series whose UIDs come from its folder."""
    for k in range(slices):
        uid = generate_uid(entropy_srcs=[str(folder), str(k)])
        place: dict[str, object] = {}
        if plane == "axial":
            place = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [-100.0, -100.0, 4.0 * k]}
        content = dataset(k, SOPInstanceUID=uid, SeriesNumber=number, **{**place, **tags})
        content.SeriesInstanceUID = generate_uid(entropy_srcs=[str(folder)])
        write(folder / f"{k}.dcm", content)


def _export(folder: Path, **tags: object) -> None:
    """A study as it is exported: a folder a series."""
    _series(folder / "sag", 2, "sagittal", **tags)
    _series(folder / "tra", 3, "axial", **tags)


def _studies(reader: DicomReader, folder: Path) -> list[StudyHeader]:
    scan = reader.scan([folder])
    assert scan.problems == ()
    return list(scan.studies)


def _warnings(studies: list[StudyHeader]) -> list[tuple[str, ...]]:
    return [study.warnings for study in studies]


def test_two_patients_with_one_study_uid_are_two_studies_in_the_order_of_their_paths(
    reader: DicomReader, tmp_path: Path
) -> None:
    _export(tmp_path / "b", **ANN)
    _export(tmp_path / "a", **BEN)
    found = _studies(reader, tmp_path)
    uid = found[0].study_uid
    assert [study.key for study in found] == [uid, f"{uid}#2"]
    assert {study.study_uid for study in found} == {uid}
    assert [Path(study.path).name for study in found] == ["a", "b"]
    assert [{series.patient_id for series in study.series} for study in found] == [{"0099"}, {"0012"}]
    assert [len(study.series) for study in found] == [2, 2]
    assert _warnings(found) == [(SHARED,), (SHARED,)]


def test_series_of_two_patients_with_one_frame_of_reference_are_never_joined(
    reader: DicomReader, tmp_path: Path
) -> None:
    _series(tmp_path, 2, "sagittal", **ANN)
    _series(tmp_path / "other", 3, "axial", **BEN)
    found = _studies(reader, tmp_path)
    assert [len(study.series) for study in found] == [1, 1]
    assert found[0].series[0].frame_of_reference_uid == found[1].series[0].frame_of_reference_uid


@pytest.mark.parametrize(
    "change",
    [
        {"PatientID": " 0012 "},
        {"PatientID": "0012\0"},
        {"PatientName": "SECRET^ANN^^^"},
        {"PatientName": "Secret, Ann"},
        {"PatientName": "Secret^Ann=秘密^アン"},
        {"PatientName": ""},
        {"PatientID": ""},
        {"PatientID": "", "PatientBirthDate": ""},
        {"PatientID": "ANONYMIZED"},
        {"PatientBirthDate": ""},
        {"PatientBirthDate": "1970.01.31"},
        {"IssuerOfPatientID": "HOSPITAL"},
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_patient_written_in_two_ways_stays_one_study(
    change: dict[str, str], reader: DicomReader, tmp_path: Path
) -> None:
    charset = {"SpecificCharacterSet": "ISO_IR 192"}
    _series(tmp_path / "sag", 2, "sagittal", **ANN, **charset)
    _series(tmp_path / "tra", 3, "axial", **{**ANN, **charset, **change})
    (found,) = _studies(reader, tmp_path)
    assert (found.key, found.warnings) == (found.study_uid, ())


@pytest.mark.parametrize(
    "change",
    [
        {"PatientID": "12"},
        {"PatientID": "012"},
        {"PatientID": "", "PatientName": "Secret^Ben"},
        {"PatientID": "", "PatientBirthDate": "19700201"},
        {"PatientName": "Secret^Ben", "PatientBirthDate": "19650707"},
        {"IssuerOfPatientID": "CLINIC"},
    ],
)
def test_what_differs_between_patients_makes_two_studies(
    change: dict[str, str], reader: DicomReader, tmp_path: Path
) -> None:
    issuer = {"IssuerOfPatientID": "HOSPITAL"} if "IssuerOfPatientID" in change else {}
    _series(tmp_path / "sag", 2, "sagittal", **{**ANN, **issuer})
    _series(tmp_path / "tra", 3, "axial", **{**ANN, **change})
    assert _warnings(_studies(reader, tmp_path)) == [(SHARED,), (SHARED,)]


def test_one_patient_id_with_two_names_is_one_study_that_says_so(reader: DicomReader, tmp_path: Path) -> None:
    _series(tmp_path / "sag", 2, "sagittal", **ANN)
    _series(tmp_path / "tra", 3, "axial", **{**ANN, "PatientName": "Married^Ann"})
    assert _warnings(_studies(reader, tmp_path)) == [("patient_names_differ",)]


@pytest.mark.parametrize("identity", [NOBODY, {**NOBODY, "PatientName": "anonymous"}, {"PatientID": "ANON"}])
def test_a_study_without_identity_in_a_folder_a_series_stays_whole_and_says_so(
    identity: dict[str, str], reader: DicomReader, tmp_path: Path
) -> None:
    _export(tmp_path, **{**NOBODY, **identity})
    (found,) = _studies(reader, tmp_path)
    assert (len(found.series), found.warnings) == (2, (UNKNOWN,))


def test_a_study_without_identity_whose_medium_was_written_in_portions_stays_whole(
    reader: DicomReader, tmp_path: Path
) -> None:
    _export(tmp_path / "1", **NOBODY)
    (tmp_path / "2").mkdir()
    for name in ("sag", "tra"):
        (tmp_path / "1" / name / "2.dcm").rename(tmp_path / "2" / f"{name}2.dcm")
    (found,) = _studies(reader, tmp_path)
    assert [len(series.frames) for series in found.series] == [3, 3]


@pytest.mark.parametrize("numbers", [True, False])
def test_two_exports_without_identity_are_two_patients(
    numbers: bool, reader: DicomReader, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        _export(tmp_path / name, **NOBODY)
    if not numbers:
        _each_file(tmp_path, lambda content: content.pop("SeriesNumber"))
    found = _studies(reader, tmp_path)
    assert [Path(study.path).name for study in found] == ["one", "two"]
    assert _warnings(found) == [(UNKNOWN, SHARED)] * 2


def _each_file(folder: Path, change: Callable[[Dataset], object]) -> None:
    for path in sorted(folder.rglob("*.dcm")):
        content = dcmread(path)
        change(content)
        content.save_as(path)


def test_two_exports_with_one_patient_id_are_one_study_that_says_so(
    reader: DicomReader, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        _export(tmp_path / name, **{**NOBODY, "PatientID": "0000"})
    (found,) = _studies(reader, tmp_path)
    assert (len(found.series), found.warnings) == (4, ("series_repeated",))


def test_files_without_identity_go_to_the_patient_whose_folder_they_are_in(
    reader: DicomReader, tmp_path: Path
) -> None:
    for name, patient in (("one", ANN), ("two", BEN)):
        _series(tmp_path / name / "sag", 2, "sagittal", **patient)
        _series(tmp_path / name / "tra", 3, "axial", **(NOBODY if name == "two" else patient))
    found = _studies(reader, tmp_path)
    assert [len(study.series) for study in found] == [2, 2]
    assert _warnings(found) == [(SHARED,), (UNKNOWN, SHARED)]


def test_an_export_without_identity_beside_a_named_patients_is_another_patient(
    reader: DicomReader, tmp_path: Path
) -> None:
    _export(tmp_path / "one", **ANN)
    _export(tmp_path / "two", **NOBODY)
    found = _studies(reader, tmp_path)
    assert _warnings(found) == [(SHARED,), (UNKNOWN, SHARED)]


def test_images_of_two_patients_with_one_sop_uid_are_no_duplicates(
    reader: DicomReader, tmp_path: Path
) -> None:
    for name, patient in (("one", ANN), ("two", BEN)):
        for k in range(3):
            write(tmp_path / name / f"{k}.dcm", dataset(k, SOPInstanceUID=f"1.2.{k}", **patient))
    found = _studies(reader, tmp_path)
    assert [len(study.series[0].frames) for study in found] == [3, 3]


def test_both_patients_of_a_shared_uid_are_told_of_a_lost_file(reader: DicomReader, tmp_path: Path) -> None:
    _export(tmp_path / "one", **ANN)
    _export(tmp_path / "two", **BEN)
    lost = tmp_path / "two" / "sag" / "0.dcm"
    lost.write_bytes(lost.read_bytes()[:-100])
    assert [study.lost_files for study in reader.scan([tmp_path]).studies] == [1, 1]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_name_in_no_known_character_set_loses_no_file(reader: DicomReader, tmp_path: Path) -> None:
    raw = dataset(0, SpecificCharacterSet="NO SUCH SET")
    raw.add_new("PatientName", "PN", b"\xff\xfe^\x81")
    write(tmp_path / "a.dcm", raw)
    assert len(_studies(reader, tmp_path)) == 1


def test_no_name_leaves_the_reading_process_and_digests_are_of_one_run(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", dataset(0, **ANN))
    answers = [
        next(reading_process.headers([path], key, ReadLimits()))[0] for key in (b"one", b"one", b"another")
    ]
    assert all(b"Secret" not in pickle.dumps(answer) for answer in answers)
    patients = [getattr(answer, "patient", None) for answer in answers]
    assert patients[0] == patients[1] != patients[2]
    assert all(patients)
