"""Reports sent to a PACS, as docs/viewers.md says: storescu and Orthanc; and dcmtk reads what was sent."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pydicom
import pytest
from orthanc_server import OrthancError, OrthancServer
from reported_study import TWIN, ReportedStudy, tree
from viewer_tools import command_path, need_commands

pytestmark = pytest.mark.viewers

_UTF_8 = "W: The VR checker does not support this Specific Character Set: ISO_IR 192"
"""dcmtk 3.6.7 prints UTF-8 and does not check it."""

MODALITIES = {"sr": "SR", "sc": "OT", "gsps": "PR"}
"""Modality of each format."""


@pytest.mark.parametrize("name", MODALITIES)
def test_a_pacs_finds_the_reports_of_a_format_in_the_study(
    orthanc: OrthancServer, reported: ReportedStudy, name: str
) -> None:
    found = orthanc.find("Instance", StudyInstanceUID=reported.study_uid, Modality=MODALITIES[name])
    uids = {str(item["MainDicomTags"]["SOPInstanceUID"]) for item in found}
    sent = {_header(path).SOPInstanceUID for path in reported.reports[name]}
    assert uids - {_header(reported.twin).SOPInstanceUID} == sent


@pytest.mark.parametrize("name", MODALITIES)
def test_a_pacs_returns_a_report_as_it_was_sent(
    orthanc: OrthancServer, reported: ReportedStudy, name: str
) -> None:
    path = reported.reports[name][0]
    (found,) = orthanc.find("Instance", SOPInstanceUID=str(_header(path).SOPInstanceUID))
    returned = orthanc.request("GET", f"/instances/{found['ID']}/file")
    assert pydicom.dcmread(io.BytesIO(returned)) == pydicom.dcmread(path)


def test_the_two_structured_reports_are_two_series_with_a_description_each(
    orthanc: OrthancServer, reported: ReportedStudy
) -> None:
    found = orthanc.find("Series", StudyInstanceUID=reported.study_uid, Modality="SR")
    described = {str(item["MainDicomTags"]["SeriesDescription"]) for item in found} - {TWIN}
    assert described == {_header(path).SeriesDescription for path in reported.reports["sr"]}
    assert len(described) == 2


def test_a_report_that_is_sent_twice_is_there_once(orthanc: OrthancServer, reported: ReportedStudy) -> None:
    orthanc.store([reported.axial])
    assert len(orthanc.find("Instance", SOPInstanceUID=str(_header(reported.axial).SOPInstanceUID))) == 1


def test_a_file_that_is_not_dicom_is_refused(orthanc: OrthancServer, tmp_path: Path) -> None:
    (tmp_path / "report.dcm").write_bytes(b"not DICOM" * 100)
    with pytest.raises(OrthancError, match="storescu ended with"):
        orthanc.store([tmp_path / "report.dcm"])


def test_dsrdump_reads_both_structured_reports(reported: ReportedStudy) -> None:
    need_commands("dsrdump")
    for path in (reported.axial, reported.sagittal):
        done = subprocess.run([command_path("dsrdump"), str(path)], capture_output=True, timeout=60)
        said = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == 0, said
        complaints = {line for line in said.splitlines() if line.startswith(("E: ", "W: "))}
        assert complaints <= {_UTF_8}
        for item in tree(pydicom.dcmread(path)):
            if item.get("ValueType") == "NUM":
                assert f'"{item.MeasuredValueSequence[0].NumericValue}"' in said


def _header(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)
