"""Every kind of bad input loses only its own file and gives one Problem that says what to do."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import compressed, dataset, enhanced, series, write
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from stenosis_trt.engine.dicom import reading_process
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.limits import ReadLimits, limits_from_settings
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import Problem, Stage

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
        content = compressed(dataset(77), JPEG2000Lossless)
        content.PixelData = encapsulate([change(get_frame(content.PixelData, 0))])
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


def _unknown_syntax(path: Path, tmp: Path) -> None:
    whole = _bytes(dataset(77), tmp)
    path.write_bytes(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.77"[:20], 1))


def _many_items(path: Path, tmp: Path) -> None:
    """Each empty item of eight bytes becomes an object of hundreds."""
    whole = _bytes(dataset(77), tmp)
    at = whole.index(b"\xe0\x7f\x10\0O")
    items = b"\xfe\xff\0\xe0\0\0\0\0" * 1_000_000
    sequence = b"\0\x52\x30\x92SQ\0\0" + struct.pack("<L", len(items))
    path.write_bytes(whole[:at] + sequence + items + whole[at:])


def _rle_overflow(path: Path, tmp: Path) -> None:
    """An honest size, and a segment of 2 MB that unpacks to 128 MB."""
    segment = b"\x81\x07" * (1 << 20)
    content = dataset(77)
    header = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13)
    content.PixelData = encapsulate([header + segment + segment])
    content["PixelData"].is_undefined_length = True
    write(path, content, RLELossless)


def _many_components(codestream: bytes) -> bytes:
    """SIZ with 16,384 components instead of one (ISO 15444-1, A.5.1)."""
    (length,) = struct.unpack(">H", codestream[4:6])
    one = codestream[2 + length - 1 : 4 + length]
    siz = struct.pack(">H", length + 3 * 16_383) + codestream[6:40] + struct.pack(">H", 16_384)
    return codestream[:4] + siz + one * 16_384 + codestream[4 + length :]


def _spacing_in_words(path: Path, tmp: Path) -> None:
    whole = _bytes(dataset(77, PixelSpacing=[0.75, 0.75]), tmp)
    path.write_bytes(whole.replace(b"0.75\\0.75", b"wide\\0.75"))


CASES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "empty": (lambda path, tmp: path.write_bytes(b""), "empty"),
    "text": (lambda path, tmp: path.write_text("Dear colleague,\n" * 40), "not DICOM"),
    "truncated header": (_truncated_header, "beyond the end"),
    "truncated pixels": (_raw(lambda whole: whole[:-40_000]), "ends within its pixels"),
    "fewer pixels than the header says": (_with(PixelData=b"\0" * 1000), "1000 bytes"),
    "bogus element length": (_bogus_length, "beyond the end"),
    "huge rows and columns": (_with(Rows=65000, Columns=65000), "over the limit"),
    "huge number of frames": (_with(NumberOfFrames=1_000_000), "over the limit"),
    "deflate bomb": (_deflate_bomb, "inflated"),
    "rle bomb of huge size": (_rle_bomb, "over the limit"),
    "rle bomb of modest size": (_rle_overflow, "far longer"),
    "jpeg 2000 that lies about its size": (_jpeg2000(_lying_size), "its header says"),
    "corrupt jpeg 2000": (_jpeg2000(_corrupt), "cannot be decoded"),
    "jpeg 2000 of ten thousand components": (_jpeg2000(_many_components), "its header says"),
    "unknown transfer syntax": (_unknown_syntax, "not supported"),
    "a million items": (_many_items, "more sequence items"),
    "no pixel data": (_without("PixelData"), "no pixel data"),
    "bits stored 0": (_with(BitsStored=0), "bits"),
    "zero spacing": (_with(PixelSpacing=[0.0, 0.8]), "spacing"),
    "one spacing": (_with(PixelSpacing=[0.8]), "spacing"),
    "spacing that is no number": (_spacing_in_words, "spacing"),
    "skew axes": (_with(ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]), "orientation"),
    "fewer frames than claimed": (
        _with(NumberOfFrames=3, PixelData=b"\0" * 256**2 * 6),
        "gives positions for",
    ),
    "a position beyond the scanner": (_with(ImagePositionPatient=[1e4, 1e200, 0.0]), "usable position"),
    "pixels of a picometre": (_with(PixelSpacing=[1e-9, 1e-9]), "spacing"),
    "pixels of a metre": (_with(PixelSpacing=[1000.0, 1000.0]), "spacing"),
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


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_loses_only_itself(name: str, reader: DicomReader, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("fill", [b"\x55", b"\x00", b""])
def test_a_jpeg_2000_that_lost_its_end_is_refused(
    seed: int, kept: float, fill: bytes, reader: DicomReader, tmp_path: Path
) -> None:
    """Overwritten or cut off. Some decoders make an image of either."""
    content = compressed(dataset(seed), JPEG2000Lossless)
    whole = get_frame(content.PixelData, 0)
    at = int(len(whole) * kept) // 2 * 2
    content.PixelData = encapsulate([whole[:at] + fill * (len(whole) - at)])
    content["PixelData"].is_undefined_length = True
    write(tmp_path / "bad.dcm", content, JPEG2000Lossless)
    count, problems = _read(reader, tmp_path)
    assert count == 0
    assert "cannot be decoded" in problems[0].reason


def test_a_frame_on_which_a_decoder_panics_loses_only_itself(reader: DicomReader, tmp_path: Path) -> None:
    """A decoder written in Rust panics on an index out of range; that is no Exception in Python."""
    content = enhanced([3.3 * number for number in range(9)])
    frames = [_rle_frame(number) for number in range(9)]
    # A run of 127 before the runs of 128: the last one crosses the end of the image.
    frames[4] = frames[4][:-64] + b"\x82\4" + frames[4][-64:]
    content.PixelData = encapsulate(frames)
    content["PixelData"].is_undefined_length = True
    write(tmp_path / "a.dcm", content, RLELossless)
    count, problems = _read(reader, tmp_path)
    assert count == 8
    assert problems[0].reason.startswith("1 of 9 frames cannot be decoded: ")


def _rle_frame(value: int) -> bytes:
    """64² pixels of one value, as two segments: the high bytes and the low ones."""
    runs = 64 * 64 // 128
    high, low = bytes([0x81, 0]) * runs, bytes([0x81, value]) * runs
    return struct.pack("<16L", 2, 64, 64 + len(high), *[0] * 13) + high + low


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


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """For the length of a test this process is nobody, if it was root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("unprivileged")
def test_a_file_without_permission_is_reported() -> None:
    # Not in tmp_path, which is closed to everybody but its owner: the file itself must be what is closed.
    with tempfile.TemporaryDirectory() as folder:
        paths = series(Path(folder), slices=3)
        paths[0].chmod(0)
        (answers,) = reading_process.headers(paths, b"key", ReadLimits())
        (pixels,) = reading_process.pixels(None, paths[0], [(0, None)], ReadLimits())
    assert [isinstance(answer, DicomError) for answer in answers] == [True, False, False]
    for error in (answers[0], pixels):
        assert isinstance(error, DicomError)
        assert error.reason == "Permission to read the file is denied."
        assert not error.harmless


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BaseException("SECRET-ID"), "broken (BaseException)"),
        (PermissionError(13, "denied"), "Permission to read the file is denied"),
        (FileNotFoundError(2, "gone"), "was removed"),
        (IsADirectoryError(21, "folder"), "replaced by a folder"),
        (MemoryError(), "more memory"),
        (OSError(5, "Input/output error"), "(Input/output error)"),
        (struct.error("SECRET-ID"), "broken (error)"),
    ],
)
def test_each_kind_of_failure_has_its_reason(error: Exception, words: str) -> None:
    described = reading_process.describe(error, Stage.PIXELS, ReadLimits())
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
    assert "was removed" in problems[0].reason


def test_a_path_that_does_not_exist_is_reported(reader: DicomReader, tmp_path: Path) -> None:
    scan = reader.scan([tmp_path / "nowhere"])
    assert [problem.reason for problem in scan.problems] == ["There is no such file or folder."]


def test_a_file_that_disappears_between_walk_and_header_is_reported(
    reader: DicomReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = series(tmp_path, slices=3)

    def find(*arguments: object) -> list[Path]:
        paths[1].unlink()
        return paths

    monkeypatch.setattr("stenosis_trt.engine.dicom.reader.find_files", find)
    scan = reader.scan([tmp_path])
    assert [Path(problem.path) for problem in scan.problems] == [paths[1]]
    assert "was removed" in scan.problems[0].reason
    assert len(scan.studies[0].series[0].frames) == 2


def test_a_folder_in_place_of_a_file_is_reported(reader: DicomReader, tmp_path: Path) -> None:
    paths = series(tmp_path, slices=3)
    frames = reader.scan([tmp_path]).studies[0].series[0].frames
    paths[1].unlink()
    paths[1].mkdir()
    slices, problems = reader.load(frames)
    assert len(slices) == 2
    assert [problem.reason for problem in problems] == ["The file was replaced by a folder."]


def test_a_special_file_does_not_block_the_reader(reader: DicomReader, tmp_path: Path) -> None:
    series(tmp_path, slices=3)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    scan = reader.scan([tmp_path])
    assert sorted(Path(problem.path).name for problem in scan.problems) == ["pipe", "zero"]


_MEASURE = """
import resource, sys
from pathlib import Path
from stenosis_trt.engine.dicom.reader import DicomReader
with DicomReader() as reader:
    scan = reader.scan([Path(path) for path in sys.argv[1:]])
    for study in scan.studies:
        reader.load(study.series[0].frames)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _peak_mib(*paths: Path) -> float:
    """The most memory that the process took which read some files, under the default limits."""
    program = [sys.executable, "-c", _MEASURE, *map(str, paths)]
    measured = subprocess.run(program, capture_output=True, text=True, check=True)
    return int(measured.stdout) / 1024


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("name", "limit_mib"),
    [
        ("huge rows and columns", 20),
        ("deflate bomb", 300),
        ("rle bomb of huge size", 20),
        ("rle bomb of modest size", 20),
        ("jpeg 2000 that lies about its size", 20),
        ("jpeg 2000 of ten thousand components", 20),
        ("deep sequences", 20),
        ("a million items", 90),
    ],
)
def test_a_bomb_takes_little_more_memory_than_a_good_file(name: str, limit_mib: int, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    CASES[name][0](tmp_path / "in" / "bad.dcm", tmp_path)
    (good,) = series(tmp_path / "good", slices=1)
    # With a compressed file, both processes import the decoders.
    small = dataset(9, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4")
    other = write(tmp_path / "rle.dcm", compressed(small, RLELossless), RLELossless)
    assert _peak_mib(tmp_path / "in" / "bad.dcm", other) < _peak_mib(good, other) + limit_mib


def test_a_codec_that_wants_more_memory_than_the_limit_fails_alone(tmp_path: Path) -> None:
    """Honest files, and less memory than one of them needs."""
    values = np.random.default_rng(0).integers(0, 4096, (4096, 4096), dtype=np.uint16)
    large = dataset(77, Rows=4096, Columns=4096, PixelData=values.tobytes())
    series(tmp_path, slices=5)
    write(tmp_path / "large.dcm", compressed(large, RLELossless), RLELossless)
    with DicomReader(ReadLimits(decode_memory_bytes=50 * _MIB)) as reader:
        count, problems = _read(reader, tmp_path)
    assert count == 5
    assert [Path(problem.path).name for problem in problems] == ["large.dcm"]


def test_a_lost_image_names_its_study_and_a_stray_file_none(reader: DicomReader, tmp_path: Path) -> None:
    paths = series(tmp_path, slices=3)
    paths[0].write_bytes(paths[0].read_bytes()[:-100])
    (tmp_path / "notes.txt").write_text("Dear colleague,")
    write(tmp_path / "screen.dcm", _screenshot())
    scan = reader.scan([tmp_path])
    told = {Path(problem.path).name: (problem.study_uid, problem.harmless) for problem in scan.problems}
    assert told == {
        "000.dcm": (scan.studies[0].study_uid, False),
        "notes.txt": ("", True),
        "screen.dcm": ("", True),
    }


def _screenshot() -> Dataset:
    content = dataset(77, SOPClassUID=SecondaryCaptureImageStorage, ImageType=["DERIVED", "SECONDARY"])
    del content.ImagePositionPatient
    return content


def test_limits_are_settings_that_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_frames"):
        ReadLimits(max_frames=0)


@pytest.mark.parametrize(
    ("limits", "advice"),
    [
        ({"max_file_bytes": 1000}, "--read-limit max_file_bytes=256KiB."),
        ({"max_frame_pixels": 1000}, "--read-limit max_frame_pixels=65536."),
        ({"max_pixel_bytes": 1000}, "--read-limit max_pixel_bytes=128KiB."),
        ({"max_series_bytes": 300_000}, "--read-limit max_series_bytes=1MiB."),
    ],
)
def test_the_advice_for_an_exceeded_limit_admits_the_file(
    limits: dict[str, int], advice: str, tmp_path: Path
) -> None:
    series(tmp_path, slices=5)
    with DicomReader(ReadLimits(**limits)) as reader:  # type: ignore[arg-type]
        count, problems = _read(reader, tmp_path)
    assert count == 0
    assert advice in problems[0].advice
    setting = problems[0].advice.split("--read-limit ")[1].removesuffix(".")
    with DicomReader(limits_from_settings([setting])) as reader:
        assert _read(reader, tmp_path) == (5, [])


def test_a_series_over_the_limit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    series(tmp_path, slices=5)
    with DicomReader(ReadLimits(max_series_bytes=5 * 2 * 256**2 - 1)) as reader:
        frames = reader.scan([tmp_path]).studies[0].series[0].frames
        slices, problems = reader.load(frames)
        assert slices == ()
        assert [(problem.path, problem.stage) for problem in problems] == [(str(tmp_path), Stage.PIXELS)]
        assert "over the limit" in problems[0].reason
        assert len(reader.load(frames[:4])[0]) == 4


def test_limits_are_set_by_name() -> None:
    limits = limits_from_settings(
        ["max_file_bytes=4GiB", "max_frames=7", "timeout_seconds=1.5", "max_items=9"]
    )
    assert (limits.max_file_bytes, limits.max_frames, limits.timeout_seconds) == (4 << 30, 7, 1.5)
    assert limits.max_pixel_bytes == ReadLimits().max_pixel_bytes


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("max_size=3", "max_file_bytes"),
        ("max_frames", "NAME=VALUE"),
        ("max_frames=many", "whole number"),
        ("max_frames=2KiB", "whole number"),
        ("max_file_bytes=2GB", "KiB, MiB or GiB"),
        ("max_file_bytes=0", "positive"),
        ("timeout_seconds=nan", "number"),
    ],
)
def test_an_invalid_limit_is_rejected_with_the_allowed_values(setting: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        limits_from_settings([setting])
