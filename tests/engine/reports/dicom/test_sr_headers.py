"""Structured reports of images with odd headers: valid, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from report_samples import sample_report, with_headers, with_warnings
from shared_data import shared_data
from sr_trees import dciodvfy_errors, documents, groups

from stenosis_trt.engine.reports.dicom.patient_study import patient_and_study
from stenosis_trt.engine.reports.dicom.structured_report import make
from stenosis_trt.engine.reports.study_report import CannotReport, ReportOptions, StudyReport

IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "StudyDescription",
    "SpecificCharacterSet",
)


def _raw(**values: bytes) -> Callable[[Dataset], None]:
    """A change of a header: elements with these bytes, as read from a file."""

    def change(dataset: Dataset) -> None:
        for keyword, value in values.items():
            tag = Tag(tag_for_keyword(keyword) or 0)
            vr = pydicom.datadict.dictionary_VR(tag)
            dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)

    return change


def _without(*keywords: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword in keywords:
            if keyword in dataset:
                del dataset[keyword]

    return change


def _empty(dataset: Dataset) -> None:
    for keyword in IDENTITY:
        setattr(dataset, keyword, None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_without(*IDENTITY), {"PatientName": "", "PatientID": "", "StudyDate": "", "StudyID": ""}),
        (_empty, {"PatientName": "", "PatientID": "", "StudyDate": "", "PatientSex": ""}),
        (_raw(StudyDate=b"2025.01.31"), {"StudyDate": "20250131"}),
        (_raw(StudyDate=b"20250231"), {"StudyDate": ""}),
        (_raw(StudyDate=b"yesterday "), {"StudyDate": ""}),
        (_raw(PatientBirthDate=b"1950"), {"PatientBirthDate": ""}),
        (_raw(StudyTime=b"12:34:56"), {"StudyTime": "123456"}),
        (_raw(StudyTime=b"250000"), {"StudyTime": ""}),
        (_raw(StudyTime=b"123456.123"), {"StudyTime": "123456.123"}),
        (_raw(PatientSex=b"f "), {"PatientSex": "F"}),
        (_raw(PatientSex=b"unknown "), {"PatientSex": ""}),
        (_raw(AccessionNumber=b"0123456789012345678"), {"AccessionNumber": ""}),
        (_raw(StudyID=b"one\\two "), {"StudyID": ""}),
        (_raw(PatientName=b"Doe^Jane^^Dr^PhD^MD^and more"), {"PatientName": "Doe^Jane^^Dr^PhD"}),
        (_raw(PatientName=b"Doe\\Jane"), {"PatientName": "Doe/Jane"}),
        (_raw(PatientName=b"Doe^Jane\0"), {"PatientName": "Doe^Jane"}),
        (_raw(PatientName=b"Doe\r\nJane"), {"PatientName": "Doe Jane"}),
        (_raw(PatientName=b"A" * 99), {"PatientName": "A" * 61 + "..."}),
        (_raw(StudyDescription=b"B" * 100), {"StudyDescription": "B" * 61 + "..."}),
        (_raw(PatientName="Müller^Jörg".encode("latin-1")), {"PatientName": "Müller^Jörg"}),
        (
            _raw(SpecificCharacterSet=b"ISO_IR 192", PatientName="王^小东=Wáng".encode()),
            {"PatientName": "王^小东=Wáng"},
        ),
        (
            _raw(SpecificCharacterSet=b"GB18030 ", PatientName="Wang^XiaoDong=王^小东".encode("gb18030")),
            {"PatientName": "Wang^XiaoDong=王^小东"},
        ),
        (
            _raw(
                SpecificCharacterSet=b"\\ISO 2022 IR 87 ",
                PatientName=b"Yamada^Tarou=\033$B;3ED\033(B^\033$BB@O:\033(B",
            ),
            {"PatientName": "Yamada^Tarou=山田^太郎"},
        ),
        # No character set is declared: UTF-8 where it is valid, Latin-1 otherwise.
        (_raw(SpecificCharacterSet=b"", PatientName="Jörg".encode()), {"PatientName": "Jörg"}),
        (_raw(SpecificCharacterSet=b"", PatientName="Jörg".encode("latin-1")), {"PatientName": "Jörg"}),
        # Not what the declared set can be: what is not ASCII is escaped.
        (_raw(SpecificCharacterSet=b"ISO_IR 192", PatientName=b"J\xf6rg"), {"PatientName": "J/xf6rg"}),
        (_raw(SpecificCharacterSet=b"\t\0\x0c\0", PatientName=b"Jane"), {"PatientName": "Jane"}),
        (_raw(TimezoneOffsetFromUTC=b"+0530 "), {"TimezoneOffsetFromUTC": "+0530"}),
        (
            _raw(PatientIdentityRemoved=b"YES "),
            {"PatientIdentityRemoved": "YES", "DeidentificationMethod": "See images"},
        ),
    ],
)
def test_an_odd_header_gives_a_valid_report(
    change: Callable[[Dataset], None], expected: dict[str, str], tmp_path: Path
) -> None:
    report = with_headers(sample_report(), change)
    for name, content in make(report, ReportOptions()).items():
        assert dciodvfy_errors(content, tmp_path / name) == []
        document = pydicom.dcmread(tmp_path / name)
        assert document.SpecificCharacterSet == "ISO_IR 192"
        assert {keyword: str(document.get(keyword)) for keyword in expected} == expected
        assert len(groups(document)) == 6


@pytest.mark.parametrize("time_zone", [b"+1500 ", b"CET ", b"+01:00"])
def test_an_invalid_time_zone_is_left_out(time_zone: bytes) -> None:
    report = with_headers(sample_report(), _raw(TimezoneOffsetFromUTC=time_zone))
    assert "TimezoneOffsetFromUTC" not in documents(report)["sr_axial"]


@pytest.mark.parametrize("syntax", ["implicit", "big-endian"])
def test_a_header_may_come_from_any_transfer_syntax(syntax: str, tmp_path: Path) -> None:
    from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

    uid = {"implicit": ImplicitVRLittleEndian, "big-endian": ExplicitVRBigEndian}[syntax]
    report = sample_report()
    assert report.images is not None
    image = next(iter(report.images.axial.values())).dataset
    image.PatientName = "Müller^Jörg"
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = uid
    pydicom.dcmwrite(tmp_path / "image.dcm", image, enforce_file_format=True)
    found = patient_and_study(pydicom.dcmread(tmp_path / "image.dcm"))
    assert (found.PatientName, found.StudyDate) == ("Müller^Jörg", "20250101")
    assert found.StudyInstanceUID == report.result.study_uid


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_raw(PatientID=b"1" * 65 + b" "), "PatientID"),
        (_raw(PatientID=b"one\\two "), "PatientID"),
        (_raw(PatientID=b"one\x1btwo "), "PatientID"),
        (_raw(StudyInstanceUID=b"1.2.0840.ANON_01"), "Study Instance UID"),
        (_without("StudyInstanceUID"), "Study Instance UID"),
        (_without("SeriesInstanceUID"), "Series Instance UID"),
        (_raw(SeriesInstanceUID=b"ANON.SER.01 "), "Series Instance UID"),
        (_without("SOPInstanceUID"), "SOP Instance UID"),
        (_raw(SOPInstanceUID=b"ANON/IMG/1"), "SOP Instance UID"),
        (_without("SOPClassUID"), "SOP Class UID"),
        (_raw(SOPInstanceUID=b"1.2.3.4 "), "other UIDs"),
        (_raw(StudyInstanceUID=b"1.2.3.4 "), "other UIDs"),
    ],
)
def test_a_header_whose_identifiers_cannot_be_written_is_refused(
    change: Callable[[Dataset], None], reason: str
) -> None:
    with pytest.raises(CannotReport, match=reason) as caught:
        make(with_headers(sample_report(), change), ReportOptions())
    assert "Phantom" not in str(caught.value)
    assert caught.value.advice.endswith(".")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda report: replace(report, images=None), "images are not available"),
        (lambda report: with_warnings(report, "sop_uid_shared"), "share a SOP Instance UID"),
        (
            lambda report: replace(report, result=replace(report.result, study_uid="hash:" + "0" * 32)),
            "Study Instance UID is not valid",
        ),
    ],
)
def test_a_report_that_could_mean_another_image_is_refused(change: Any, reason: str) -> None:
    with pytest.raises(CannotReport, match=reason):
        make(change(sample_report()), ReportOptions())


@pytest.mark.parametrize("warning", ["uid_replaced", "axial_unmatched", "study_uid_shared"])
def test_other_warnings_do_not_prevent_a_report(warning: str) -> None:
    """A UID that was replaced may be one of another series, or of a frame of reference."""
    assert len(make(with_warnings(sample_report(), warning), ReportOptions())) == 2


def test_a_uid_with_leading_zeros_is_written_as_it_is() -> None:
    """The images have no other one, and archives hold them under it."""
    report = sample_report()
    uid = "1.2.840.0113619.2.5"
    report = with_headers(report, _raw(StudyInstanceUID=uid.encode() + b"\0"))
    report = replace(report, result=replace(report.result, study_uid=uid))
    for document in documents(report).values():
        assert document.StudyInstanceUID == uid
        assert document.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID == uid


@pytest.mark.shared_data
def test_headers_of_many_vendors_give_valid_reports(tmp_path: Path) -> None:
    folders = [folder for folder in sorted(shared_data("dicom").iterdir()) if folder.is_dir()]
    checked = 0
    for folder in folders:
        path = next(path for path in sorted(folder.rglob("*")) if path.is_file())
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            continue
        report = with_headers(sample_report(), lambda dataset, header=header: _take_identity(dataset, header))
        content = _report_of(report, str(header.StudyInstanceUID))["sr_axial.dcm"]
        assert dciodvfy_errors(content, tmp_path / "sr.dcm") == [], folder.name
        checked += 1
    assert checked >= 5


def _take_identity(dataset: Dataset, header: Dataset) -> None:
    for keyword in (*IDENTITY, "StudyInstanceUID", "TimezoneOffsetFromUTC", "IssuerOfPatientID"):
        item = header.get_item(keyword)
        if item is not None:
            dataset[tag_for_keyword(keyword) or 0] = item


def _report_of(report: StudyReport, study_uid: str) -> dict[str, bytes]:
    return make(replace(report, result=replace(report.result, study_uid=study_uid)), ReportOptions())
