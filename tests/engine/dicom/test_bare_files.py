"""Files without preamble and prefix, files that only look like them, empty files, deflated files."""

from __future__ import annotations

import io
import json
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dicom_factory import compressed, dataset, series, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.header import read_header
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.part10 import inflate
from stenosis_trt.engine.dicom.reader import DicomReader

_LIMITS = ReadLimits()
_SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader() as opened:
        yield opened


def _bare(path: Path, syntax: str, content: Dataset | None = None) -> Path:
    """The dataset alone, as old archives of Siemens and GE keep it."""
    whole = write(path, content or dataset(0), syntax).read_bytes()
    (length,) = struct.unpack_from("<L", whole, 140)
    path.write_bytes(whole[144 + length :])
    return path


def _without_meta(path: Path, syntax: str) -> Path:
    """Preamble and mark, and then the dataset."""
    bare = _bare(path, syntax).read_bytes()
    path.write_bytes(b"\0" * 128 + b"DICM" + bare)
    return path


def _without_preamble(path: Path, syntax: str) -> Path:
    """Begins with the meta header."""
    path.write_bytes(write(path, dataset(0), syntax).read_bytes()[132:])
    return path


def _mark_first(path: Path, syntax: str) -> Path:
    """Begins with the mark."""
    path.write_bytes(write(path, dataset(0), syntax).read_bytes()[128:])
    return path


def _syntax_left_out(path: Path, syntax: str) -> Path:
    """A meta header without the transfer syntax."""
    whole = write(path, dataset(0), syntax).read_bytes()
    at = whole.index(b"\x02\0\x10\0UI")
    (length,) = struct.unpack_from("<H", whole, at + 6)
    path.write_bytes(whole[:at] + whole[at + 8 + length :])
    return path


_FORMS = [_bare, _without_meta, _without_preamble, _mark_first, _syntax_left_out]


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("syntax", _SYNTAXES)
def test_a_file_without_preamble_and_prefix_gives_the_same_image(
    form: Callable[[Path, str], Path], syntax: str, reader: DicomReader, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    path = form(tmp_path / "in" / "a", syntax)
    whole = write(tmp_path / "whole.dcm", dataset(0), syntax)
    found, expected = (reader.load(reader.scan([p]).studies[0].series[0].frames)[0][0] for p in (path, whole))
    assert (found.stored == expected.stored).all()
    assert (found.pose, found.frame.sop_instance_uid) == (expected.pose, expected.frame.sop_instance_uid)


def test_a_bare_file_with_a_group_length_and_private_elements_first_is_read(tmp_path: Path) -> None:
    bare = _bare(tmp_path / "a", ImplicitVRLittleEndian).read_bytes()
    (tmp_path / "a").write_bytes(struct.pack("<HHLL", 8, 0, 4, 200) + bare)
    assert read_header(tmp_path / "a", _LIMITS).modality == "MR"


def test_compressed_pixels_without_a_transfer_syntax_are_refused_as_what_they_are(tmp_path: Path) -> None:
    path = _bare(tmp_path / "a", JPEGLSLossless, compressed(dataset(0), JPEGLSLossless))
    with pytest.raises(DicomError, match="compressed, but the transfer syntax is uncompressed"):
        read_header(path, _LIMITS)


def test_an_image_older_than_dicom_is_not_harmless(tmp_path: Path) -> None:
    bare = _bare(tmp_path / "a", ImplicitVRLittleEndian, dataset(0)).read_bytes()
    at = bare.index(struct.pack("<HHL", 8, 0x16, 26))
    (tmp_path / "a").write_bytes(bare[:at] + bare[at + 34 :])
    with pytest.raises(DicomError, match="no image UIDs") as caught:
        read_header(tmp_path / "a", _LIMITS)
    assert not caught.value.harmless


def test_a_truncated_bare_image_is_not_harmless(tmp_path: Path) -> None:
    path = _bare(tmp_path / "a", ExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DicomError, match="ends within its pixels") as caught:
        read_header(path, _LIMITS)
    assert not caught.value.harmless


def _png() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">L", 13) + b"IHDR" + b"\0" * 200


_JUNK = {
    "text": b"Dear colleague,\n" * 50,
    "text that begins with control characters": b"\x08\0" + b"Dear colleague,\n" * 50,
    "json": json.dumps({"StudyInstanceUID": "1.2.3", "Rows": 256}).encode() * 20,
    "png": _png(),
    "utf-16": "Liebe Kollegen, ".encode("utf-16") * 20,
    "zeros": b"\0" * 1000,
    "a group and no more": b"\x08\0",
    "one element": struct.pack("<HH2sH", 8, 5, b"CS", 10) + b"ISO_IR 100",
    "elements in falling order": (
        struct.pack("<HH2sH", 8, 0x60, b"CS", 2)
        + b"MR"
        + struct.pack("<HH2sH", 8, 5, b"CS", 10)
        + b"ISO_IR 100"
    )
    * 4,
    "thumbs": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600,
    "ds_store": b"\0\0\0\1Bud1" + b"\0" * 600,
}


@pytest.mark.parametrize("name", _JUNK)
def test_other_files_are_not_datasets_and_harmless(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(_JUNK[name])
    with pytest.raises(DicomError, match="not DICOM") as caught:
        read_header(tmp_path / "a", _LIMITS)
    assert caught.value.harmless


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from([b"\x08\0", b"\x02\0", b"\0\x08"]), rest=st.binary(max_size=400))
def test_random_bytes_are_not_a_dataset(start: bytes, rest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.done"
    path.write_bytes(start + rest)
    with pytest.raises(DicomError) as caught:
        read_header(path, _LIMITS)
    assert caught.value.harmless


def test_many_junk_files_take_little_time(tmp_path: Path) -> None:
    draw = random.Random(1)
    for number in range(2000):
        start = (b"\x08\0", b"\x02\0", b"\0\x08", b"text")[number % 4]
        (tmp_path / f"{number}").write_bytes(start + draw.randbytes(2000))
    begun = time.process_time()
    with DicomReader() as reader:
        scan = reader.scan([tmp_path])
    assert len(scan.problems) == 2000
    assert all(problem.harmless for problem in scan.problems)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        (".done", True),
        ("study.done", True),
        ("READY", True),
        ("_SUCCESS", True),
        ("Thumbs.db", True),
        ("desktop.ini", True),
        (".DS_Store", True),
        ("notes.txt", True),
        ("a.dcm", False),
        ("A.DCM", False),
        ("a.ima", False),
        ("IM000001", False),
        ("1.2.840.113619.2.5", False),
        ("study.zip", False),
    ],
)
def test_an_empty_file_is_harmless_where_its_name_is_no_images(
    name: str, harmless: bool, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DicomError, match="empty") as caught:
        read_header(tmp_path / name, _LIMITS)
    assert caught.value.harmless is harmless


def test_an_empty_marker_file_beside_images_is_harmless(reader: DicomReader, tmp_path: Path) -> None:
    series(tmp_path, 5)
    (tmp_path / ".done").write_bytes(b"")
    (tmp_path / "export.ok").write_bytes(b"complete\n")
    scan = reader.scan([tmp_path])
    assert len(scan.studies[0].series[0].frames) == 5
    assert [problem.harmless for problem in scan.problems] == [True, True]


@pytest.mark.parametrize("start", range(0, 640, 64))
def test_deflated_datasets_of_every_length_are_inflated(start: int) -> None:
    """zlib may take in all of its input and keep output back; that is no early end."""
    for extra in range(start, start + 64):
        plain = random.Random(extra).randbytes(100) * ((1 << 20) // 100) + b"x" * extra
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = packer.compress(plain) + packer.flush()
        assert inflate(io.BytesIO(packed), 4 << 20).getvalue() == plain


def test_a_deflated_dataset_that_is_cut_off_is_refused() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(random.Random(0).randbytes(3 << 20)) + packer.flush()
    with pytest.raises(DicomError, match="too early"):
        inflate(io.BytesIO(packed[:-10]), 4 << 20)
    with pytest.raises(DicomError, match="larger than"):
        inflate(io.BytesIO(packed), 1 << 20)
