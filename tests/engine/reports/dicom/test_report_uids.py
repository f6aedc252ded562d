"""UIDs of reports: equal for equal results, and others for anything else."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from typing import Any

import pytest
from pydicom.uid import UID
from report_samples import sample_report, with_levels
from sr_trees import documents, groups

from stenosis_trt.engine.reports.dicom.contributing_equipment import contributing_equipment
from stenosis_trt.engine.reports.dicom.report_uids import derived_uid, device_uid, report_uid
from stenosis_trt.engine.reports.dicom.structured_report import make
from stenosis_trt.engine.reports.study_report import ReportOptions


def _provenance(**changes: Any) -> Any:
    return replace(sample_report().provenance, **changes)


def test_a_uid_is_a_uuid_as_an_integer() -> None:
    for uid in (report_uid(sample_report(), "a"), device_uid(_provenance()), derived_uid("1.2", "a")):
        assert UID(uid).is_valid
        assert re.fullmatch(r"2\.25\.[1-9]\d+", uid)
        assert uuid.UUID(int=int(uid.removeprefix("2.25."))).version == 8


@pytest.mark.parametrize(
    "same",
    [
        lambda report: replace(report, number=7, folder="other", path="elsewhere", images=None),
        lambda report: replace(report, result=replace(report.result, seconds={"grade": 3.0})),
        lambda report: replace(report, result=replace(report.result, patient_id="PHANTOM-33-0000")),
        lambda report: replace(report, provenance=_provenance(started="2030-01-01T00:00:00+00:00")),
        # The last bits of a computation differ between processors.
        lambda report: with_levels(report, lambda level: replace(level, confidence=level.confidence + 1e-9)),
    ],
)
def test_a_repeated_run_gives_the_same_uid(same: Any) -> None:
    report = sample_report()
    assert report_uid(same(report), "sr", "x") == report_uid(report, "sr", "x")


@pytest.mark.parametrize(
    "other",
    [
        lambda report: replace(report, provenance=_provenance(pack_sha256="0" * 64)),
        lambda report: replace(report, provenance=_provenance(software_version="9.9")),
        lambda report: replace(report, provenance=_provenance(precision="int8")),
        lambda report: replace(report, provenance=_provenance(backend="tensorrt")),
        lambda report: with_levels(report, lambda level: replace(level, grade=2)),
        lambda report: with_levels(report, lambda level: replace(level, confidence=level.confidence - 0.01)),
        lambda report: replace(report, result=replace(report.result, study_uid="1.2.3")),
        lambda report: replace(report, result=replace(report.result, warnings=("fat_suppressed",))),
    ],
)
def test_another_result_or_model_gives_another_uid(other: Any) -> None:
    report = sample_report()
    assert report_uid(other(report), "sr") != report_uid(report, "sr")


def test_parts_are_told_apart() -> None:
    report = sample_report()
    parts = [(), ("sr",), ("sr", "a"), ("sra",), ("a", "sr"), ("s", "ra")]
    assert len({report_uid(report, *part) for part in parts}) == len(parts)


@pytest.mark.parametrize(
    ("change", "changes"),
    [
        ({"pack_sha256": "0" * 64}, True),
        ({"software_version": "9.9"}, True),
        ({"precision": "int8"}, True),
        ({"backend": "tensorrt"}, False),
        ({"started": "2030-01-01T00:00:00+00:00"}, False),
    ],
)
def test_the_device_uid_changes_with_the_model(change: dict[str, str], changes: bool) -> None:
    before, after = (contributing_equipment(item) for item in (_provenance(), _provenance(**change)))
    assert (before.DeviceUID != after.DeviceUID) == changes
    assert before.DeviceUID == device_uid(_provenance())


def test_equipment_takes_any_name_of_a_pack() -> None:
    item = contributing_equipment(
        _provenance(pack_name="é\\\n" * 60, pack_version="v" * 99, intended_use="line\nline " * 300)
    )
    assert len(item.ManufacturerModelName) <= 64
    assert [len(text) <= 64 for text in item.SoftwareVersions] == [True, True]
    assert len(item.ContributionDescription) <= 1024
    assert "\\" not in item.ManufacturerModelName + item.ContributionDescription


def test_documents_of_one_result_have_stable_uids() -> None:
    first, second = documents(sample_report()), documents(sample_report())
    later = documents(replace(sample_report(), provenance=_provenance(started="2030-01-01T00:00:00+00:00")))
    for name, document in first.items():
        for other in (second[name], later[name]):
            assert other.SOPInstanceUID == document.SOPInstanceUID
            assert other.SeriesInstanceUID == document.SeriesInstanceUID
    assert later["sr_axial"].ContentDate != first["sr_axial"].ContentDate


@pytest.mark.parametrize("part", ["pack", "viewer", "text"])
def test_documents_with_other_content_have_other_uids(part: str, tmp_path: Any) -> None:
    report, options = sample_report(), ReportOptions()
    if part == "pack":
        report = replace(report, provenance=_provenance(pack_sha256="0" * 64))
    elif part == "viewer":
        options = ReportOptions(sr_for="slicer")
    else:
        template = tmp_path / "text.j2"
        template.write_text("Another text.", encoding="utf-8")
        options = ReportOptions(text_template=template)
    before, after = make(sample_report(), ReportOptions()), make(report, options)
    from sr_trees import read

    for name in before:
        one, other = read(before[name]), read(after[name])
        assert one.SOPInstanceUID != other.SOPInstanceUID
        assert one.SeriesInstanceUID != other.SeriesInstanceUID
        assert len(groups(one)) > 0
