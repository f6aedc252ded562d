"""The element reader agrees with pydicom on real files and keeps to its limits on broken ones."""

from __future__ import annotations

import io
import random
import struct
import warnings
from pathlib import Path

import pydicom
import pytest
from dicom_factory import dataset, enhanced, write
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from shared_data import shared_data

from stenosis_trt.engine.dicom.elements import ElementReader, Elements
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.header import read_header
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.part10 import open_part10
from stenosis_trt.engine.dicom.tags import tag_table

_LIMITS = ReadLimits()
_NUMBERS = (
    "Rows",
    "Columns",
    "BitsStored",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "EchoTime",
    "RescaleSlope",
    "EffectiveEchoTime",
)
_TEXTS = ("StudyInstanceUID", "SOPInstanceUID", "Modality", "SeriesDescription", "PatientID", "ImageType")
_SEQUENCES = (
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PlanePositionSequence",
    "PixelMeasuresSequence",
    "MREchoSequence",
)
_WANTED = tag_table([*_NUMBERS, *_TEXTS, *_SEQUENCES, "SpecificCharacterSet"])
_STOP = 0x7FE00008


def _agree(found: Elements, expected: pydicom.Dataset) -> int:
    """Compare all that was read with pydicom's; returns how many values were compared."""
    compared = 0
    for keyword in _NUMBERS:
        value = expected.get(keyword)
        if value is not None and value != "":
            values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
            assert found.numbers(keyword) == tuple(float(x) for x in values)
            compared += 1
    for keyword in _TEXTS:
        value = expected.get(keyword)
        if value:
            parts = (value,) if isinstance(value, str) else tuple(value)
            assert found.texts(keyword) == tuple(str(part).strip() for part in parts)
            compared += 1
    for keyword in _SEQUENCES:
        items = expected.get(keyword) or []
        assert len(found.items(keyword)) == len(items)
        for mine, theirs in zip(found.items(keyword), items, strict=True):
            compared += _agree(mine, theirs)
    return compared


@pytest.mark.shared_data
def test_real_files_read_as_pydicom_reads_them() -> None:
    files = compared = 0
    for path in sorted(shared_data("dicom").rglob("*")):
        if not path.is_file():
            continue
        try:
            with open_part10(path, _LIMITS) as part:
                found = part.elements(_WANTED, _STOP)
        except DicomError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compared += _agree(found, pydicom.dcmread(path, stop_before_pixels=True, force=True))
        files += 1
    assert files > 85
    assert compared > 1500


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_each_encoding_of_nested_sequences_reads_the_same(
    syntax: str, undefined: bool, tmp_path: Path
) -> None:
    content = enhanced([0.0, 3.3, 6.6])
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        content[name].is_undefined_length = undefined
        for item in content[name].value:
            item.is_undefined_length_sequence_item = undefined
    path = write(tmp_path / "file.dcm", content, syntax)
    with open_part10(path, _LIMITS) as part:
        found = part.elements(_WANTED, _STOP)
    assert _agree(found, content) > 10
    assert found.stopped_at is not None
    assert found.stopped_at.tag == 0x7FE00010


def test_an_unrequested_sequence_is_skipped_in_every_encoding(tmp_path: Path) -> None:
    content = dataset(0)
    content.add_new(0x00091001, "UN", b"\x55" * 300_000)
    content.ReferencedImageSequence = [pydicom.Dataset(), pydicom.Dataset()]
    content.ReferencedImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"
    content["ReferencedImageSequence"].is_undefined_length = True
    path = write(tmp_path / "file.dcm", content)
    with open_part10(path, _LIMITS) as part:
        assert _agree(part.elements(_WANTED, _STOP), content) > 8


def test_text_is_decoded_by_the_files_character_set(tmp_path: Path) -> None:
    content = dataset(0, SpecificCharacterSet="ISO_IR 192", SeriesDescription="HWS längs T2 头颈")
    assert read_header(write(tmp_path / "a.dcm", content), _LIMITS).description == "HWS längs T2 头颈"
    content = dataset(0, SpecificCharacterSet="ISO_IR 100", SeriesDescription="médullaire")
    assert read_header(write(tmp_path / "b.dcm", content), _LIMITS).description == "médullaire"


def test_a_value_that_is_no_number_reads_as_absent() -> None:
    elements = Elements(values={"EchoTime": (b"DS", b"1e2 "), "RepetitionTime": (b"DS", b"long")})
    elements.values["InversionTime"] = (b"DS", b"nan")
    elements.values["Rows"] = (b"US", b"\1")
    assert elements.number("EchoTime") == 100.0
    assert elements.number("RepetitionTime") is None
    assert elements.number("InversionTime") is None
    assert elements.number("Rows") is None
    assert elements.number("Columns") is None


def test_an_endless_header_is_rejected_before_it_is_in_memory() -> None:
    limits = ReadLimits(max_header_bytes=1 << 20)
    element = struct.pack("<HH2sH", 0x0009, 0x0001, b"SH", 0)
    stream = io.BytesIO(element * (1 << 18))
    reader = ElementReader(stream, len(stream.getvalue()), limits)
    with pytest.raises(DicomError, match="longer than the limit"):
        reader.read(0, True, True, _WANTED, _STOP)
    assert stream.tell() <= 1 << 20


def test_a_length_beyond_the_file_is_refused_without_asking_for_the_memory() -> None:
    head = struct.pack("<HH2sHL", 0x0008, 0x103E, b"UT", 0, 0xFFFFFFF0)
    reader = ElementReader(io.BytesIO(head + b"x" * 100), len(head) + 100, _LIMITS)
    with pytest.raises(DicomError, match="beyond the end of the file"):
        reader.read(0, True, True, tag_table(["SeriesDescription"]), _STOP)


@pytest.mark.parametrize("wanted", [True, False])
def test_sequences_are_followed_to_a_limited_depth(wanted: bool) -> None:
    tag = (0x5200, 0x9229) if wanted else (0x0008, 0x1110)
    opened = struct.pack("<HH2sHL", *tag, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closed = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)

    def read(depth: int) -> Elements:
        data = opened * depth + closed * depth
        return ElementReader(io.BytesIO(data), len(data), _LIMITS).read(0, True, True, _WANTED, _STOP)

    assert read(20).end == 20 * (len(opened) + len(closed))
    with pytest.raises(DicomError, match="nested too deep"):
        read(100_000)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI", "ignore:Found unknown escape")
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian])
def test_damaged_headers_are_read_or_refused_but_raise_nothing_else(syntax: str, tmp_path: Path) -> None:
    """Two thousand files with some bytes changed, or cut off, anywhere in their headers."""
    whole = write(tmp_path / "whole.dcm", enhanced([0.0, 3.3]), syntax).read_bytes()
    header = len(whole) - 2 * 64 * 64 * 2
    draw = random.Random(7)
    path = tmp_path / "damaged.dcm"
    reasons: list[str] = []
    for _ in range(700):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(132, header)] = draw.randrange(256)
        if draw.random() < 0.3:
            del damaged[draw.randrange(132, len(damaged)) :]
        path.write_bytes(damaged)
        try:
            read_header(path, _LIMITS)
        except DicomError as error:
            reasons.append(error.reason)
    assert 200 < len(reasons) < 690
    assert all(reason.endswith(".") for reason in reasons)


def test_keywords_outside_the_dictionary_raise() -> None:
    with pytest.raises(ValueError, match="NoSuchThing"):
        tag_table(["NoSuchThing"])
