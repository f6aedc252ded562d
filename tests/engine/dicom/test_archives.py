"""Archives are read like folders, under limits, or rejected as a whole with the reason."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dicom_factory import series

from stenosis_trt.engine.dicom import archives, reading_process
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.limits import ReadLimits, limits_from_settings
from stenosis_trt.engine.dicom.reader import DicomReader, Scan
from stenosis_trt.engine.records import Problem

_SLICES = 5


@pytest.fixture(scope="module", autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what is unpacked, empty but for that."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        yield folder


def _kept(temporary: Path) -> set[Path]:
    """Files that lie unpacked."""
    return {path for path in temporary.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def reader(temporary: Path) -> Iterator[DicomReader]:
    with DicomReader() as opened:
        yield opened


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """The files of a study by their names, and a text."""
    found = {f"study/{path.name}": path.read_bytes() for path in series(tmp_path / "plain", _SLICES)}
    return {**found, "README.txt": b"Dear colleague,\n" * 40}


def _zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _tar(path: Path, files: dict[str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _each_compressed(path: Path, files: dict[str, bytes]) -> Path:
    """A folder whose files are compressed one by one."""
    path.mkdir(parents=True)
    packs = (gzip.compress, bz2.compress, lzma.compress)
    for number, (name, content) in enumerate(files.items()):
        (path / f"{Path(name).name}.gz").write_bytes(packs[number % 3](content))
    return path


_KINDS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "zip": _zip,
    "zip, stored": lambda path, files: _zip(path, files, zipfile.ZIP_STORED),
    "zip, lzma": lambda path, files: _zip(path, files, zipfile.ZIP_LZMA),
    "tar": _tar,
    "tar, old": lambda path, files: _tar(path.with_suffix(".tar"), files, form=tarfile.USTAR_FORMAT),
    "tar.gz": lambda path, files: _tar(path, files, "w:gz"),
    "tar.bz2": lambda path, files: _tar(path, files, "w:bz2"),
    "tar.xz": lambda path, files: _tar(path, files, "w:xz"),
    "each": _each_compressed,
    "zip within a tar": lambda path, files: _tar(
        path, {"outer.txt": b"text " * 200, "in/x.zip": _zip(path.with_name("x"), files).read_bytes()}
    ),
    "gz within a zip": lambda path, files: _zip(
        path, {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    ),
}


def _loaded(reader: DicomReader, scan: Scan) -> tuple[int, list[Problem]]:
    count, problems = 0, list(scan.problems)
    for study in scan.studies:
        for item in study.series:
            slices, broken = reader.load(item.frames)
            count += len(slices)
            problems.extend(broken)
    return count, problems


@pytest.mark.parametrize("kind", _KINDS)
def test_a_study_in_an_archive_is_read(
    kind: str, reader: DicomReader, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = _KINDS[kind](tmp_path / "in" / "export.archive", files)
    (tmp_path / "in" / "x").unlink(missing_ok=True)
    scan = reader.scan([tmp_path / "in"])
    count, problems = _loaded(reader, scan)
    assert count == _SLICES
    assert all(problem.harmless for problem in problems)
    assert scan.studies[0].path == str(path)
    assert scan.files == _SLICES + (kind == "each")


def test_paths_of_files_in_an_archive_are_shown_with_the_archives(
    reader: DicomReader, files: dict[str, bytes], tmp_path: Path, temporary: Path
) -> None:
    broken = dict(files)
    broken["study/001.dcm"] = files["study/001.dcm"][:-1000]
    path = _zip(tmp_path / "in" / "a.zip", broken)
    scan = reader.scan([tmp_path / "in"])
    found = {problem.path: problem.harmless for problem in scan.problems}
    assert found == {f"{path}!/study/001.dcm": False, f"{path}!/README.txt": True}
    frames = scan.studies[0].series[0].frames
    frames[1].path.write_bytes(b"")
    _, problems = reader.load(frames)
    assert [problem.path for problem in problems] == [f"{path}!/study/002.dcm"]
    assert str(temporary) not in repr(scan.problems) + scan.studies[0].path


def test_unpacked_files_are_private_and_removed_at_the_end(
    files: dict[str, bytes], tmp_path: Path, temporary: Path
) -> None:
    _zip(tmp_path / "in" / "a.zip", files)
    before = set(temporary.iterdir())

    def fail_after_reading() -> None:
        with DicomReader() as reader:
            reader.scan([tmp_path / "plain"])
            assert set(temporary.iterdir()) == before
            reader.scan([tmp_path / "in"])
            (folder,) = set(temporary.iterdir()) - before
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert len(_kept(folder)) == _SLICES
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_reading()
    assert set(temporary.iterdir()) == before


def test_names_that_lead_out_of_the_archive_name_no_file(
    reader: DicomReader, files: dict[str, bytes], tmp_path: Path
) -> None:
    names = ["../../evil", "/etc/evil", "a\\..\\evil", "x\n\x1b[31m", "."]
    images = [content for name, content in files.items() if name != "README.txt"]
    _zip(tmp_path / "in" / "a.zip", dict(zip(names, images, strict=True)))
    before = set(tmp_path.rglob("*"))
    scan = reader.scan([tmp_path / "in"])
    assert _loaded(reader, scan) == (_SLICES, [])
    assert set(tmp_path.rglob("*")) == before
    frames = scan.studies[0].series[0].frames
    frames[0].path.unlink()
    assert "\n" not in reader.load(frames)[1][0].path


def test_the_same_files_in_an_archive_and_beside_it_count_once(
    reader: DicomReader, files: dict[str, bytes], tmp_path: Path
) -> None:
    _zip(tmp_path / "plain" / "a.zip", {name: files[name] for name in files if name != "README.txt"})
    scan = reader.scan([tmp_path / "plain"])
    assert _loaded(reader, scan) == (_SLICES, [])
    assert scan.studies[0].path == str(tmp_path / "plain")


def _encrypted(path: Path) -> None:
    """The mark of encryption in both headers of each file; the content does not matter."""
    whole = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = whole.find(mark)
        while place >= 0:
            whole[place + at] |= 1
            place = whole.find(mark, place + 4)
    path.write_bytes(whole)


def _method(path: Path) -> None:
    """Deflate64, which zlib does not know."""
    whole = path.read_bytes()
    whole = whole.replace(b"PK\x01\x02\x14\x03\x14\0\0\0\x08\0", b"PK\x01\x02\x14\x03\x14\0\0\0\x09\0")
    path.write_bytes(whole)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


_WRONG: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "encrypted": ("zip", _encrypted, "The zip archive is encrypted.", "password"),
    "deflate64": ("zip", _method, "by an unsupported method", "Unpack it"),
    "zip cut off": ("zip", _cut, "broken or cut off", "again"),
    "tar cut off": ("tar", _cut, "broken or cut off", "again"),
    "tar.gz cut off": ("tar.gz", _cut, "broken or cut off", "again"),
    "tar.bz2 cut off": ("tar.bz2", _cut, "broken or cut off", "again"),
    "tar.xz cut off": ("tar.xz", _cut, "broken or cut off", "again"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_an_archive_that_cannot_be_read_whole_is_not_read_at_all(
    name: str, reader: DicomReader, files: dict[str, bytes], tmp_path: Path, temporary: Path
) -> None:
    kind, spoil, reason, advice = _WRONG[name]
    path = _KINDS[kind](tmp_path / "in" / "a", files)
    spoil(path)
    before = _kept(temporary)
    scan = reader.scan([path])
    assert scan.studies == ()
    (problem,) = scan.problems
    assert (problem.path, problem.harmless) == (str(path), False)
    assert reason in problem.reason
    assert advice in problem.advice
    assert _kept(temporary) == before


def test_a_tar_that_ends_between_two_files_is_cut_off(
    reader: DicomReader, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = _tar(tmp_path / "in" / "a.tar", files)
    size = 512 + -(-len(files["study/000.dcm"]) // 512) * 512
    path.write_bytes(path.read_bytes()[: 2 * size])
    assert "cut off" in reader.scan([path]).problems[0].reason


def test_a_broken_member_of_a_zip_loses_only_itself(
    reader: DicomReader, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = _zip(tmp_path / "in" / "a.zip", files, zipfile.ZIP_STORED)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(files["study/002.dcm"][-500:], b"\0" * 500, 1))
    scan = reader.scan([path])
    assert _loaded(reader, scan)[0] == _SLICES - 1
    assert [problem.path for problem in scan.problems if not problem.harmless] == [f"{path}!/study/002.dcm"]


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        ({"max_archive_bytes": 300_000}, "max_archive_bytes="),
        ({"max_archive_members": 3}, "max_archive_members="),
        ({"max_file_bytes": 100_000}, "max_file_bytes="),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_over_a_limit_is_refused_and_told_how_to_raise_it(
    kind: str, limits: dict[str, int], setting: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = _KINDS[kind](tmp_path / "in" / "a", {name: files[name][:132] * 1100 for name in files})
    with DicomReader(ReadLimits(**limits)) as reader:  # type: ignore[arg-type]
        scan = reader.scan([path])
    assert scan.studies == ()
    (problem,) = scan.problems
    assert not problem.harmless
    assert setting in problem.advice
    assert limits_from_settings([problem.advice.split("--read-limit ")[1].removesuffix(".")])


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_a_bomb_is_given_up_at_the_limit(kind: str, tmp_path: Path, temporary: Path) -> None:
    """Sixty-four megabytes of zeros behind DICOM's mark, in less than one."""
    before = _kept(temporary)
    bomb = b"\0" * 128 + b"DICM"
    path = tmp_path / "a"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as file:
            file.write(bomb)
            for _ in range(64):
                file.write(b"\0" * (1 << 20))
    else:
        with gzip.open(path, "wb") as packed:
            packed.write(bomb)
            for _ in range(64):
                packed.write(b"\0" * (1 << 20))
    with DicomReader(ReadLimits(max_archive_bytes=8 << 20)) as reader:
        (problem,) = reader.scan([path]).problems
        assert _kept(temporary) == before
    assert "larger than the limit" in problem.reason


def test_a_bomb_is_given_up_by_how_far_it_expands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_UNPACKED_BYTES", 1 << 20)
    path = _zip(tmp_path / "a.zip", {"a": b"\0" * 128 + b"DICM" + bytes(8 << 20)})
    (tmp_path / "unpacked").mkdir()
    with pytest.raises(DicomError, match="more than 100 times its size") as error:
        list(archives.unpack(path, "zip", tmp_path / "unpacked", ReadLimits()))
    assert limits_from_settings([error.value.advice.split("--read-limit ")[1].removesuffix(".")])


def test_members_that_are_not_dicom_are_not_unpacked(
    reader: DicomReader, tmp_path: Path, temporary: Path
) -> None:
    before = _kept(temporary)
    path = _zip(tmp_path / "a.docx", {"word/document.xml": b"<xml>" * 1000, "b.png": b"\x89PNG" * 100})
    (problem,) = reader.scan([path]).problems
    assert (problem.path, problem.reason) == (str(path), "The zip archive holds no DICOM file.")
    assert problem.harmless
    assert _kept(temporary) == before


def test_an_archive_nested_twice_is_reported(
    reader: DicomReader, files: dict[str, bytes], tmp_path: Path
) -> None:
    inner = _zip(tmp_path / "x", files).read_bytes()
    middle = _zip(tmp_path / "y", {"inner.zip": inner}).read_bytes()
    path = _zip(tmp_path / "in" / "a.zip", {"middle.zip": middle})
    scan = reader.scan([path])
    assert [(problem.path, problem.harmless) for problem in scan.problems] == [
        (f"{path}!/middle.zip!/inner.zip", False)
    ]


def test_a_viewers_own_archives_beside_the_images_are_harmless(
    reader: DicomReader, files: dict[str, bytes], tmp_path: Path
) -> None:
    jar = _zip(tmp_path / "x", {"Viewer.class": b"\xca\xfe\xba\xbe" * 100}).read_bytes()
    path = _zip(tmp_path / "in" / "a.zip", {**files, "viewer/viewer.jar": jar, "DICOMDIR": b"x"})
    count, problems = _loaded(reader, reader.scan([path]))
    assert count == _SLICES
    assert {problem.path: problem.harmless for problem in problems} == {
        f"{path}!/README.txt": True,
        f"{path}!/viewer/viewer.jar": True,
    }


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        (b"Rar!\x1a\x07\x01\0", "RAR"),
        (b"\x28\xb5\x2f\xfd", "Zstandard"),
        (b"\x1f\x9d\x90", "compress"),
    ],
)
def test_an_unsupported_archive_is_reported_as_one(
    start: bytes, name: str, reader: DicomReader, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(start + b"\x55" * 1000)
    (problem,) = reader.scan([tmp_path / "a"]).problems
    assert f"is a {name}" in problem.reason
    assert "Unpack it" in problem.advice
    assert not problem.harmless


def test_a_full_disk_refuses_the_archive_and_says_where(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_KEPT_FREE_BYTES", 1 << 60)
    path = _zip(tmp_path / "a.zip", files)
    folder = tmp_path / "temporary" / "root" / "0"
    folder.mkdir(parents=True)
    answers = list(archives.unpack(path, "zip", folder, ReadLimits()))
    assert isinstance(answers[-1], archives.DicomError)
    assert f"no room in {tmp_path / 'temporary'}" in answers[-1].reason
    assert "TMPDIR" in answers[-1].advice


def test_a_temporary_folder_that_cannot_be_created_is_reported(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refused)
    with DicomReader() as reader:
        (problem,) = reader.scan([_zip(tmp_path / "a.zip", files)]).problems
    assert problem.reason == "There is no temporary folder to unpack the archive in (Permission denied)."


def test_damaged_archives_are_read_or_refused_but_raise_nothing_else(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    small = {name: content[:1500] for name, content in files.items()}
    draw = random.Random(3)
    for kind in ("zip", "tar", "tar.gz", "tar.xz"):
        whole = _KINDS[kind](tmp_path / kind.replace(".", ""), small).read_bytes()
        for turn in range(40):
            damaged = bytearray(whole)
            for _ in range(draw.randint(1, 6)):
                damaged[draw.randrange(6, len(damaged))] = draw.randrange(256)
            path = tmp_path / f"damaged{turn}"
            path.write_bytes(damaged)
            folder = tmp_path / "out" / f"{kind}{turn}"
            folder.mkdir(parents=True)
            name = {"zip": "zip", "tar": "tar", "tar.gz": "gzip", "tar.xz": "xz"}[kind]
            assert list(reading_process.archive(path, name, folder, ReadLimits()))


def test_a_file_that_lies_about_its_size_in_a_zip_is_broken(
    reader: DicomReader, files: dict[str, bytes], tmp_path: Path
) -> None:
    path = _zip(tmp_path / "a.zip", {"a": files["study/000.dcm"]}, zipfile.ZIP_STORED)
    whole = bytearray(path.read_bytes())
    at = whole.index(b"PK\x01\x02")
    struct.pack_into("<LL", whole, at + 20, 0x7FFFFFFF, 0x7FFFFFFF)
    path.write_bytes(whole)
    (problem,) = reader.scan([path]).problems
    assert "broken" in problem.reason
