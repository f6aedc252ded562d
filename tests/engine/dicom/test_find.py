"""Search for files: nested folders, links, DICOMDIRs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dicom_factory import series, write
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.find import References, find_files
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import Problem, Stage

# Names as on no medium that follows the standard, which pydicom remarks when they are written.
pytestmark = pytest.mark.filterwarnings("ignore:(Invalid value|The value length)")


def _no_dicomdir(path: Path) -> References | DicomError:
    raise AssertionError(f"{path} was taken for a DICOMDIR")


def _find(*paths: Path) -> list[Path | Problem]:
    return list(find_files(paths, _no_dicomdir))


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader() as opened:
        yield opened


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_nested_folders_are_walked_in_sorted_order(tmp_path: Path) -> None:
    names = ["b/2", "b/10", "a/z/1", "a/1", "0"]
    _touch(*(tmp_path / name for name in names))
    found = [path.relative_to(tmp_path).as_posix() for path in _find(tmp_path) if isinstance(path, Path)]
    assert found == ["0", "a/1", "a/z/1", "b/10", "b/2"]


def test_a_file_reached_by_several_ways_is_found_once(tmp_path: Path) -> None:
    _touch(tmp_path / "a" / "1", tmp_path / "a" / "2")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "1")
    found = _find(tmp_path / "a", tmp_path / "a" / "2", tmp_path / "link", tmp_path)
    assert found == [tmp_path / "a" / "1", tmp_path / "a" / "2"]


def test_linked_folders_are_walked_and_loops_end(tmp_path: Path) -> None:
    _touch(tmp_path / "store" / "study" / "1", tmp_path / "in" / "2")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "store" / "study")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert _find(tmp_path / "in") == [tmp_path / "in" / "2", tmp_path / "in" / "linked" / "1"]


def test_a_path_that_does_not_exist_is_a_problem(tmp_path: Path) -> None:
    (found,) = _find(tmp_path / "nowhere")
    assert isinstance(found, Problem)
    assert found.stage is Stage.FIND
    assert not found.harmless


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nothing can be looked at, as for a user without permission (root has it always)."""
    folder = tmp_path / "closed"
    _touch(folder / "1")
    real = os.stat

    def stat(path: str | Path, **options: bool) -> os.stat_result:
        if Path(path).parent == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    return folder


def test_a_path_that_may_not_be_looked_at_is_a_problem(closed: Path) -> None:
    (found,) = _find(closed / "1")
    assert isinstance(found, Problem)
    assert (found.reason, found.harmless) == ("The path cannot be reached (Permission denied).", False)
    assert "permission" in found.advice


def test_a_name_that_is_too_long_is_a_problem(tmp_path: Path) -> None:
    _touch(tmp_path / "a")
    found = _find(tmp_path / ("A" * 300), tmp_path / "a")
    assert isinstance(found[0], Problem)
    assert "too long" in found[0].reason
    assert found[1:] == [tmp_path / "a"]


def test_a_broken_link_has_its_own_reason(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "gone")
    for given in (tmp_path / "in", tmp_path / "in" / "link"):
        (found,) = _find(given)
        assert isinstance(found, Problem)
        assert found.path == str(tmp_path / "in" / "link")
        assert found.reason == "The link is broken."


def test_a_folder_that_cannot_be_listed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "a" / "1", tmp_path / "closed" / "2")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = _find(tmp_path)
    assert found[0] == tmp_path / "a" / "1"
    assert isinstance(found[1], Problem)
    assert found[1].path == str(tmp_path / "closed")
    assert "cannot be listed" in found[1].reason
    assert not found[1].harmless


def _dicomdir(path: Path, *references: list[str]) -> Path:
    content = Dataset()
    content.SOPClassUID = MediaStorageDirectoryStorage
    content.SOPInstanceUID = "1.2.3"
    records = []
    for reference in references:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = reference
        records.append(record)
    folder = Dataset()
    folder.DirectoryRecordType = "PATIENT"
    content.DirectoryRecordSequence = [folder, *records]
    return write(path, content)


def test_a_dicomdir_given_by_name_stands_for_its_files(reader: DicomReader, tmp_path: Path) -> None:
    series(tmp_path / "IMAGES", 3)
    for number in range(3):
        (tmp_path / "IMAGES" / f"{number:03d}.dcm").rename(tmp_path / "IMAGES" / f"IM{number}")
    index = _dicomdir(tmp_path / "DICOMDIR", ["IMAGES", "IM0"], ["IMAGES", "IM2"])
    scan = reader.scan([index])
    assert (scan.files, scan.problems) == (2, ())
    assert [frame.path.name for frame in scan.studies[0].series[0].frames] == ["IM0", "IM2"]


def test_a_dicomdir_met_in_a_walk_is_passed_over(reader: DicomReader, tmp_path: Path) -> None:
    series(tmp_path / "IMAGES", 3)
    _dicomdir(tmp_path / "DICOMDIR", ["IMAGES", "000.dcm"])
    scan = reader.scan([tmp_path])
    assert (scan.files, scan.problems) == (3, ())


def test_names_of_a_dicomdir_are_found_in_lower_case(reader: DicomReader, tmp_path: Path) -> None:
    series(tmp_path / "images", 1)
    scan = reader.scan([_dicomdir(tmp_path / "DICOMDIR", ["IMAGES", "000.DCM"])])
    assert (scan.files, scan.problems) == (1, ())


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (["..", "secret"], "outside its folder"),
        (["/etc/passwd"], "outside its folder"),
        (["IMAGES", "IM9"], "not there"),
        (["A" * 300], "cannot be reached"),
    ],
)
def test_a_wrong_reference_of_a_dicomdir_is_a_problem(
    reference: list[str], words: str, reader: DicomReader, tmp_path: Path
) -> None:
    _touch(tmp_path / "secret")
    (tmp_path / "medium").mkdir()
    scan = reader.scan([_dicomdir(tmp_path / "medium" / "DICOMDIR", reference)])
    assert scan.files == 0
    assert len(scan.problems) == 1
    assert words in scan.problems[0].reason


def test_a_dicomdir_without_images_or_broken_is_a_problem(reader: DicomReader, tmp_path: Path) -> None:
    empty = _dicomdir(tmp_path / "a" / "DICOMDIR")
    broken = tmp_path / "b" / "DICOMDIR"
    broken.parent.mkdir()
    broken.write_bytes(_dicomdir(tmp_path / "c" / "DICOMDIR", ["A"]).read_bytes()[:-30])
    scan = reader.scan([empty, broken])
    assert [problem.stage for problem in scan.problems] == [Stage.FIND, Stage.FIND]
    assert [Path(problem.path) for problem in scan.problems] == [empty, broken]
    assert "lists no image" in scan.problems[0].reason


def test_an_image_called_dicomdir_is_not_followed(reader: DicomReader, tmp_path: Path) -> None:
    (path,) = series(tmp_path, 1)
    scan = reader.scan([path.rename(tmp_path / "DICOMDIR")])
    assert [problem.reason for problem in scan.problems] == ["The file is named DICOMDIR but is not one."]


@pytest.mark.parametrize(
    ("listed", "on_disk"),
    [
        (["IMAGES", "IM0"], "IMAGES/IM0.dcm"),
        (["IMAGES", "IM0"], "images/im0.dcm"),
        (["IMAGES", "IM0"], "IMAGES/IM0.;1"),
        (["IMAGES", "IM0"], "Images/IM0;1"),
        (["IMAGES", "IM0.DCM"], "IMAGES/IM0"),
        (["IMAGES", "IM0"], "IMAGES/im0.IMA"),
    ],
)
def test_files_of_a_dicomdir_are_found_in_another_case_with_another_ending_and_with_versions(
    listed: list[str], on_disk: str, reader: DicomReader, tmp_path: Path
) -> None:
    (path,) = series(tmp_path / "plain", 1)
    target = tmp_path / "medium" / on_disk
    target.parent.mkdir(parents=True)
    path.rename(target)
    scan = reader.scan([_dicomdir(tmp_path / "medium" / "DICOMDIR", listed)])
    assert (scan.files, scan.problems) == (1, ())


def test_an_ambiguous_reference_of_a_dicomdir_is_a_problem(reader: DicomReader, tmp_path: Path) -> None:
    series(tmp_path / "plain", 2)
    (tmp_path / "IMAGES").mkdir()
    (tmp_path / "plain" / "000.dcm").rename(tmp_path / "IMAGES" / "IM0.dcm")
    (tmp_path / "plain" / "001.dcm").rename(tmp_path / "IMAGES" / "IM0.ima")
    scan = reader.scan([_dicomdir(tmp_path / "DICOMDIR", ["IMAGES", "IM0"])])
    assert [problem.reason for problem in scan.problems] == [
        "The DICOMDIR lists this file, and IM0.dcm and IM0.ima both match it."
    ]


def test_a_better_match_leaves_out_worse_ones(reader: DicomReader, tmp_path: Path) -> None:
    series(tmp_path / "plain", 2)
    (tmp_path / "IMAGES").mkdir()
    (tmp_path / "plain" / "000.dcm").rename(tmp_path / "IMAGES" / "im0")
    (tmp_path / "plain" / "001.dcm").rename(tmp_path / "IMAGES" / "IM0.dcm")
    scan = reader.scan([_dicomdir(tmp_path / "DICOMDIR", ["IMAGES", "IM0"])])
    assert scan.studies[0].series[0].frames[0].path.name == "im0"


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "DICOMDIR;1", "DICOMDIR.dcm", "index"])
def test_a_dicomdir_is_followed_whatever_it_is_called(name: str, reader: DicomReader, tmp_path: Path) -> None:
    series(tmp_path / "IMAGES", 2)
    index = _dicomdir(tmp_path / name, ["IMAGES", "000.dcm"])
    scan = reader.scan([index])
    assert (scan.files, scan.problems) == (1, ())


def test_a_file_whose_name_only_begins_with_dicomdir_is_a_file(reader: DicomReader, tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR_notes.txt").write_text("Dear colleague,\n" * 40)
    (problem,) = reader.scan([tmp_path / "DICOMDIR_notes.txt"]).problems
    assert problem.harmless
