"""Every kind of bad input costs its own file and no more, with one row that says what to do."""

from __future__ import annotations

import os
import resource
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import dataset, series, write
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import Problem

_MIB = 1 << 20


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader(ReadLimits(decode_memory_bytes=400 * _MIB)) as opened:
        yield opened


def _bytes(content: Dataset, tmp: Path) -> bytes:
    return write(tmp / "whole.dcm", content).read_bytes()


def _with(**tags: object) -> Callable[[Path, Path], None]:
    def make(path: Path, tmp: Path) -> None:
        write(path, dataset(77, **tags))

    return make


def _raw(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    def make(path: Path, tmp: Path) -> None:
        path.write_bytes(change(_bytes(dataset(77), tmp)))

    return make


def _without(*names: str) -> Callable[[Path, Path], None]:
    def make(path: Path, tmp: Path) -> None:
        content = dataset(77)
        for name in names:
            delattr(content, name)
        write(path, content)

    return make


def _truncated_header(path: Path, tmp: Path) -> None:
    whole = _bytes(dataset(77), tmp)
    path.write_bytes(whole[:420])


def _bogus_length(path: Path, tmp: Path) -> None:
    # SeriesDescription claims four gigabytes less one.
    whole = _bytes(dataset(77, SeriesDescription="A" * 20), tmp)
    at = whole.index(b"\x08\x00\x3e\x10LO")
    path.write_bytes(whole[: at + 4] + b"UN\0\0" + struct.pack("<L", 0xFFFFFFF0) + whole[at + 8 :])


def _deflate_bomb(path: Path, tmp: Path) -> None:
    plain = _bytes(dataset(77), tmp)
    start = 132 + 12 + struct.unpack("<L", plain[140:144])[0]
    meta_end = start
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(plain[meta_end:])
    for _ in range(600):
        body += packer.compress(b"\0" * _MIB)
    body += packer.flush()
    shell = write(tmp / "shell.dcm", dataset(77), DeflatedExplicitVRLittleEndian).read_bytes()
    shell_start = 132 + 12 + struct.unpack("<L", shell[140:144])[0]
    path.write_bytes(shell[:shell_start] + body)


def _rle_bomb(path: Path, tmp: Path) -> None:
    content = dataset(77, Rows=40000, Columns=40000)
    segment = b"\x81\x00" * 4_000
    header = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13)
    content.PixelData = encapsulate([header + segment + segment])
    content["PixelData"].is_undefined_length = True
    write(path, content, RLELossless)


def _jpeg2000(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    def make(path: Path, tmp: Path) -> None:
        content = dataset(77)
        content.file_meta = FileMetaDataset()
        content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        content.compress(JPEG2000Lossless, generate_instance_uid=False)
        frame = content.PixelData
        start = frame.index(b"\xff\x4f\xff\x51")
        content.PixelData = frame[:start] + change(frame[start:])
        write(path, content, JPEG2000Lossless)

    return make


def _lying_size(codestream: bytes) -> bytes:
    return codestream[:8] + struct.pack(">2L", 60000, 60000) + codestream[16:]


def _corrupt(codestream: bytes) -> bytes:
    return codestream[:200] + b"\x55" * (len(codestream) - 200)


def _deep_sequences(path: Path, tmp: Path) -> None:
    # Written by hand: 5,000 sequences of undefined length, one in the other.
    depth = 5_000
    opened = b"\x08\x00\x10\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    whole = _bytes(dataset(77), tmp)
    at = whole.index(b"\x08\x00\x3e\x10LO")
    path.write_bytes(whole[:at] + opened * depth + closed * depth + whole[at:])


def _huge_header(path: Path, tmp: Path) -> None:
    whole = _bytes(dataset(77), tmp)
    path.write_bytes(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.77"[:20], 1))


CASES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "empty": (lambda path, tmp: path.write_bytes(b""), "empty"),
    "text": (lambda path, tmp: path.write_text("Dear colleague,\n" * 40), "not DICOM"),
    "no preamble": (_raw(lambda whole: whole[132:]), "not DICOM"),
    "truncated header": (_truncated_header, ""),
    "truncated pixels": (_raw(lambda whole: whole[:-40_000]), ""),
    "bogus element length": (_bogus_length, ""),
    "huge rows and columns": (_with(Rows=65000, Columns=65000), "over the limit"),
    "huge number of frames": (_with(NumberOfFrames=2_000_000), "over the limit"),
    "deflate bomb": (_deflate_bomb, "inflated"),
    "rle bomb": (_rle_bomb, "over the limit"),
    "jpeg 2000 that lies about its size": (_jpeg2000(_lying_size), "its header says"),
    "corrupt jpeg 2000": (_jpeg2000(_corrupt), ""),
    "unknown transfer syntax": (_huge_header, ""),
    "no pixel data": (_without("PixelData"), "no pixel data"),
    "bits stored 0": (_with(BitsStored=0), "bits"),
    "zero spacing": (_with(PixelSpacing=[0.0, 0.8]), "spacing"),
    "no orientation": (_without("ImageOrientationPatient"), "orientation"),
    "no position": (_without("ImagePositionPatient"), "position"),
    "deep sequences": (_deep_sequences, "deep"),
}


def _read(reader: DicomReader, folder: Path) -> tuple[int, list[Problem]]:
    """Slices that could be read below a folder, and all problems on the way."""
    scan = reader.scan([folder])
    problems = list(scan.problems)
    count = 0
    for study in scan.studies:
        for found in study.series:
            slices, broken = reader.load(found.frames)
            count += len(slices)
            problems.extend(broken)
    return count, problems


@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_costs_itself_and_nothing_else(name: str, reader: DicomReader, tmp_path: Path) -> None:
    make, words = CASES[name]
    folder = tmp_path / "in"
    series(folder, slices=5)
    make(folder / "bad.dcm", tmp_path)
    count, problems = _read(reader, folder)
    assert count == 5
    assert [Path(problem.path).name for problem in problems] == ["bad.dcm"]
    assert words in problems[0].reason
    assert problems[0].reason.endswith(".")
    assert problems[0].advice.endswith(".")
    assert "SECRET" not in problems[0].reason + problems[0].advice


def test_spacing_that_is_no_number_is_refused(reader: DicomReader, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    series(folder, slices=5)
    whole = _bytes(dataset(77, PixelSpacing=[0.75, 0.75]), tmp_path)
    (folder / "bad.dcm").write_bytes(whole.replace(b"0.75\\0.75", b"wide\\0.75"))
    count, problems = _read(reader, folder)
    assert count == 5
    assert len(problems) == 1
    assert "spacing" in problems[0].reason or "broken" in problems[0].reason


def test_identifiers_with_a_path_in_them_name_no_file(reader: DicomReader, tmp_path: Path) -> None:
    folder = tmp_path / "in"

    def traverse(content: Dataset, number: int) -> None:
        content.PatientID = "../../../etc/passwd"

    series(folder, 5, traverse)
    scan = reader.scan([folder])
    assert scan.problems == ()
    assert scan.studies[0].path == str(folder)


def test_same_uid_with_different_content_is_reported_once(reader: DicomReader, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paths = series(folder, slices=5)
    content = dataset(2)
    content.PixelData = np.zeros((256, 256), np.uint16).tobytes()
    write(folder / "zz_other.dcm", content)
    (folder / "zz_same.dcm").write_bytes(paths[1].read_bytes())
    count, problems = _read(reader, folder)
    assert count == 5
    assert [Path(problem.path).name for problem in problems] == ["zz_other.dcm"]
    assert "same SOP Instance UID" in problems[0].reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file; see the test below")
def test_a_file_without_permission_is_reported(reader: DicomReader, tmp_path: Path) -> None:
    paths = series(tmp_path / "in", slices=5)
    paths[0].chmod(0)
    count, problems = _read(reader, tmp_path / "in")
    assert count == 4
    assert "may not be read" in problems[0].reason


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "denied"), "may not be read"),
        (FileNotFoundError(2, "gone"), "went away"),
        (IsADirectoryError(21, "folder"), "folder stands"),
        (MemoryError(), "more memory"),
        (RecursionError(), "nested too deep"),
        (NotImplementedError(), "not supported"),
        (struct.error("SECRET-ID"), "broken (error)"),
    ],
)
def test_each_kind_of_failure_has_its_words(error: Exception, words: str) -> None:
    from stenosis_trt.engine.dicom.reading_process import describe
    from stenosis_trt.engine.records import Stage

    described = describe(error, Stage.PIXELS)
    assert words in described.reason
    assert "SECRET" not in described.reason


def test_a_file_that_disappears_between_header_and_pixels_is_reported(
    reader: DicomReader, tmp_path: Path
) -> None:
    paths = series(tmp_path / "in", slices=5)
    scan = reader.scan([tmp_path / "in"])
    paths[3].unlink()
    slices, problems = reader.load(scan.studies[0].series[0].frames)
    assert len(slices) == 4
    assert [Path(problem.path) for problem in problems] == [paths[3]]
    assert "went away" in problems[0].reason


def test_a_path_that_does_not_exist_is_reported(reader: DicomReader, tmp_path: Path) -> None:
    scan = reader.scan([tmp_path / "nowhere"])
    assert [problem.reason for problem in scan.problems] == ["There is no such file or folder."]


def test_a_reading_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    series(tmp_path / "in", slices=5)
    with DicomReader() as reader:
        scan = reader.scan([tmp_path / "in"])
        process = reader._processes[0]._process
        assert process is not None
        process.kill()
        process.wait()
        first, problems = reader.load(scan.studies[0].series[0].frames[:2])
        again, none = reader.load(scan.studies[0].series[0].frames)
    # The file that was asked for while the process was gone is reported; the next ones are read.
    assert len(first) + len(problems) == 2
    assert len(again) == 5
    assert none == ()


def test_reading_takes_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    """A deflated bomb of 600 MB, read under the default limits: the process stays far below that."""
    (tmp_path / "in").mkdir()
    _deflate_bomb(tmp_path / "in" / "bad.dcm", tmp_path)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with DicomReader(ReadLimits(max_inflated_bytes=64 * _MIB)) as reader:
        scan = reader.scan([tmp_path / "in"])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert len(scan.problems) == 1
    assert max(peak, before) * 1024 < 420 * _MIB


def test_limits_are_settings_that_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_frames"):
        ReadLimits(max_frames=0)
