"""Invalid UIDs are replaced by their hash; frames that share a UID have numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_factory import dataset, enhanced, series, write
from pydicom import config
from pydicom.dataset import Dataset

from stenosis_trt.engine.dicom.header import read_header
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.dicom.uids import is_replacement, safe_uid
from stenosis_trt.engine.grading.read_ahead import read_study


@pytest.mark.parametrize("uid", ["1.2.840.10008", "1.2.0840.01", "1." + "2" * 62, "2.25.3", ""])
def test_a_uid_is_left_as_it_is_even_where_it_is_sloppy(uid: str) -> None:
    assert safe_uid(uid) == uid
    assert not is_replacement(safe_uid(uid))


@pytest.mark.parametrize(
    "text", ["=cmd|'/C calc'!A0", "1.2\x1b[2J", "ANON_01", "1." + "2" * 63, "1.2\n", "１.２"]
)
def test_an_invalid_uid_becomes_its_hash(text: str) -> None:
    assert safe_uid(text) == safe_uid(text) != safe_uid(text + "1")
    assert safe_uid(text).startswith("hash:")
    assert len(safe_uid(text)) == len("hash:") + 32
    assert is_replacement(safe_uid(text))


def test_a_hash_in_a_header_is_hashed_again() -> None:
    assert safe_uid(safe_uid("ANON")) != safe_uid("ANON")


def test_files_of_a_study_with_invalid_uids_stay_together_and_are_flagged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)

    def change(content: Dataset, index: int) -> None:
        content.StudyInstanceUID = "=HYPERLINK(1)"
        content.SeriesInstanceUID = "ANON/SERIES"
        content.SOPInstanceUID = f"@SUM{index}"

    series(tmp_path, 7, change)
    with DicomReader() as reader:
        (study,) = reader.scan([tmp_path]).studies
        read = read_study(reader, study)
    (found,) = study.series
    assert len(found.frames) == 7
    uids = {study.study_uid, found.series_uid, *(frame.sop_instance_uid for frame in found.frames)}
    assert len(uids) == 9
    assert all(map(is_replacement, uids))
    # `inspect` shows the warnings of the study before anything is graded.
    assert "uid_replaced" in study.warnings
    assert read.study is not None
    assert "uid_replaced" in read.study.warnings


def test_a_study_with_real_uids_is_not_flagged(tmp_path: Path) -> None:
    series(tmp_path, 7)
    with DicomReader() as reader:
        read = read_study(reader, reader.scan([tmp_path]).studies[0])
    assert read.study is not None
    assert "uid_replaced" not in read.study.warnings


def test_frames_of_a_multi_frame_object_are_numbered_from_1_and_single_images_are_not(tmp_path: Path) -> None:
    many = read_header(write(tmp_path / "many.dcm", enhanced([6.0, 0.0, 3.0])), ReadLimits())
    assert [found.header.frame_number for found in many.frames] == [1, 2, 3]
    one = read_header(write(tmp_path / "one.dcm", enhanced([0.0])), ReadLimits())
    assert [found.header.frame_number for found in one.frames] == [1]
    classic = read_header(write(tmp_path / "classic.dcm", dataset()), ReadLimits())
    assert [found.header.frame_number for found in classic.frames] == [None]
