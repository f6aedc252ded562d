"""Elements that deviate from the standard are read as other readers read them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from dicom_factory import dataset, enhanced, write
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from stenosis_trt.engine.dicom.elements import Elements
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.header import FileHeader, read_header
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.values import commas_are_decimal_points, decode_text, parse_decimals

_LIMITS = ReadLimits()
_UNDEFINED = 0xFFFFFFFF


def _explicit(group: int, number: int, form: bytes, value: bytes, order: str = "<") -> bytes:
    value += b" " * (len(value) % 2)
    if form in (b"UN", b"SQ"):
        return struct.pack(f"{order}HH2sHL", group, number, form, 0, len(value)) + value
    return struct.pack(f"{order}HH2sH", group, number, form, len(value)) + value


def _implicit(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", group, number, len(value)) + value


def _unknown(group: int, number: int, content: bytes, undefined: bool, order: str = "<") -> bytes:
    """A sequence of one item, written as VR UN; the items are little endian whatever the file is."""
    if undefined:
        item = (
            struct.pack("<HHL", 0xFFFE, 0xE000, _UNDEFINED) + content + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
        )
        end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
        return struct.pack(f"{order}HH2sHL", group, number, b"UN", 0, _UNDEFINED) + item + end
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content
    return struct.pack(f"{order}HH2sHL", group, number, b"UN", 0, len(item)) + item


_PRIVATE = {
    "implicit": _implicit(0x0019, 0x0010, b"TEST") + _implicit(0x0019, 0x1002, b"1.5000"),
    "explicit": _explicit(0x0019, 0x0010, b"LO", b"TEST") + _explicit(0x0019, 0x1002, b"DS", b"1.5000"),
    # A length of 20,300 bytes spells "LO".
    "implicit, a length like letters": _implicit(0x0019, 0x0010, b"T" * 0x4F4C)
    + _implicit(0x0019, 0x1002, b"1.5000"),
    "nested, explicit": _explicit(0x0019, 0x0010, b"LO", b"TEST")
    + _unknown(0x0019, 0x1003, _explicit(0x0019, 0x0010, b"LO", b"TEST"), True),
    "empty": b"",
}


def _insert(path: Path, element: bytes, before: bytes) -> Path:
    whole = path.read_bytes()
    at = whole.index(before)
    path.write_bytes(whole[:at] + element + whole[at:])
    return path


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("content", _PRIVATE)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_private_sequence_of_vr_un_is_stepped_over_whatever_its_items_are_encoded_in(
    syntax: str, content: str, undefined: bool, tmp_path: Path
) -> None:
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    whole = read_header(write(tmp_path / "whole.dcm", dataset(0), syntax), _LIMITS)
    path = write(tmp_path / "a.dcm", dataset(0), syntax)
    element = _unknown(0x0019, 0x1001, _PRIVATE[content], undefined, order)
    _insert(path, element, struct.pack(f"{order}HH2s", 0x0020, 0x000D, b"UI"))
    found = read_header(path, _LIMITS)
    assert (found.study_uid, found.frames[0].header.pose) == (whole.study_uid, whole.frames[0].header.pose)


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_a_known_sequence_written_as_un_is_read(explicit: bool, undefined: bool, tmp_path: Path) -> None:
    """The shared functional groups of an enhanced object, by a gateway that did not know them."""
    content = enhanced([0.0, 3.3])
    plain = read_header(write(tmp_path / "plain.dcm", content), _LIMITS)
    path = write(tmp_path / "a.dcm", content)
    whole = path.read_bytes()
    at = whole.index(struct.pack("<HH2s", 0x5200, 0x9229, b"SQ"))
    (length,) = struct.unpack_from("<L", whole, at + 8)
    source = write(tmp_path / "implicit.dcm", content, ImplicitVRLittleEndian).read_bytes()
    if explicit:
        items = whole[at + 12 : at + 12 + length]
    else:
        start = source.index(struct.pack("<HH", 0x5200, 0x9229))
        items = source[start + 8 : start + 8 + struct.unpack_from("<L", source, start + 4)[0]]
    (inner,) = struct.unpack_from("<L", items, 4)
    element = _unknown(0x5200, 0x9229, items[8 : 8 + inner], undefined)
    path.write_bytes(whole[:at] + element + whole[at + 12 + length :])
    assert _geometry(read_header(path, _LIMITS)) == _geometry(plain)


def _geometry(header: FileHeader) -> list[object]:
    return [(frame.header.pose, frame.volume, frame.contrast) for frame in header.frames]


def test_explicit_items_in_an_implicit_file_are_read(tmp_path: Path) -> None:
    content = enhanced([0.0, 3.3])
    explicit = write(tmp_path / "explicit.dcm", content).read_bytes()
    path = write(tmp_path / "a.dcm", content, ImplicitVRLittleEndian)
    plain = _geometry(read_header(path, _LIMITS))
    at = explicit.index(struct.pack("<HH2s", 0x5200, 0x9229, b"SQ"))
    items = explicit[at + 12 : at + 12 + struct.unpack_from("<L", explicit, at + 8)[0]]
    whole = path.read_bytes()
    start = whole.index(struct.pack("<HH", 0x5200, 0x9229))
    (length,) = struct.unpack_from("<L", whole, start + 4)
    path.write_bytes(whole[:start] + _implicit(0x5200, 0x9229, items) + whole[start + 8 + length :])
    assert _geometry(read_header(path, _LIMITS)) == plain


def test_elements_of_the_geometry_written_as_un_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", dataset(0))
    plain = _geometry(read_header(path, _LIMITS))
    whole = path.read_bytes()
    for group, number, form in ((0x20, 0x32, b"DS"), (0x28, 0x30, b"DS"), (0x28, 0x10, b"US")):
        at = whole.index(struct.pack("<HH2s", group, number, form))
        (length,) = struct.unpack_from("<H", whole, at + 6)
        value = whole[at + 8 : at + 8 + length]
        whole = (
            whole[:at]
            + struct.pack("<HH2sHL", group, number, b"UN", 0, length)
            + value
            + whole[at + 8 + length :]
        )
    path.write_bytes(whole)
    assert _geometry(read_header(path, _LIMITS)) == plain


def test_an_element_that_is_a_sequence_only_by_the_dictionary_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", dataset(0))
    odd = _explicit(0x0018, 0x0012, b"UN", b"gadolinium, by hand ")  # ContrastBolusAgentSequence
    _insert(path, odd, struct.pack("<HH2s", 0x0018, 0x0020, b"CS"))
    assert read_header(path, _LIMITS).modality == "MR"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "charset",
    [
        b"GB18030\\ISO IR 192",
        b"ISO_IR 100\\ISO 2022 IR 165",
        b"\t\0\x0c\0\r\0\x0b\0\t\0",
        b"ISO-8859-1",
        b"UTF8",
        b"hex",
        b"idna",
        b"undefined",
        b"\xa5l\x60\x12",
    ],
)
def test_an_invalid_character_set_loses_no_file(charset: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", dataset(0, SpecificCharacterSet="ISO_IR 100"))
    whole = path.read_bytes()
    whole = whole.replace(
        _explicit(0x0008, 0x0005, b"CS", b"ISO_IR 100"), _explicit(0x0008, 0x0005, b"CS", charset)
    )
    told = b"t2_tse_sag" + "颈椎".encode("gbk")
    whole = whole.replace(
        _explicit(0x0008, 0x103E, b"LO", b"t2_tse_sag"), _explicit(0x0008, 0x103E, b"LO", told)
    )
    path.write_bytes(whole)
    assert read_header(path, _LIMITS).description.startswith("t2_tse_sag")


@pytest.mark.filterwarnings("ignore")
@given(st.binary(max_size=64), st.lists(st.text(max_size=16), max_size=3))
def test_any_bytes_in_any_character_set_decode_to_text(raw: bytes, charsets: list[str]) -> None:
    assert isinstance(decode_text(raw, charsets), str)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("codec", ["unicode_escape", "idna", "punycode", "utf-7", "rot13", "undefined"])
def test_codecs_of_python_that_are_no_character_sets_of_dicom_are_not_used(codec: str) -> None:
    assert decode_text(b"T2 \\u0041\xe4", [codec]) == r"T2 \u0041\xe4"


@pytest.mark.filterwarnings("ignore")
def test_undecodable_bytes_are_escaped() -> None:
    assert decode_text(b"T2 \xbe\xb1\xd7\xb5", ["nonsense\0"]) == r"T2 \xbe\xb1\xd7\xb5"
    assert decode_text(b"T2 \xe4\xff", ["ISO_IR 192"]) == r"T2 \xe4\xff"
    assert decode_text("T2 längs 颈椎".encode(), []) == "T2 längs 颈椎"
    assert decode_text("längs".encode("latin-1"), []) == "längs"


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        (b"0.7\\0.7 ", (0.7, 0.7)),
        (b" 0.7 \\\t0.7\0\0", (0.7, 0.7)),
        (b"0.7\0\\0.7\0", (0.7, 0.7)),
        (b"0.7\\0.7\\", (0.7, 0.7)),
        (b"+1.5e+01\\-.5\\3.", (15.0, -0.5, 3.0)),
        (b"0.69999998807907104\\0.69999998807907104", (0.699999988079071, 0.699999988079071)),
        (b"0,7\\0,7", (0.7, 0.7)),
        (b"-101,25\\1,234\\0,5", (-101.25, 1.234, 0.5)),
        (b"-12,5E+01", (-125.0,)),
        (b"1,234", ()),
        (b"1,234\\2,345", ()),
        (b"1,234.5\\0,7", ()),
        (b"0.7,0.7", ()),
        (b"0,7,0,7", ()),
        (b"1,234,567", ()),
        (b"1_000", ()),
        (b"nan", ()),
        (b"inf", ()),
        (b"0.7\\\\0.7", ()),
        (b"", ()),
    ],
)
def test_only_unambiguous_decimal_strings_are_read(raw: bytes, values: tuple[float, ...]) -> None:
    elements = Elements(values={"PixelSpacing": (b"DS", raw)})
    if b"," in raw:
        elements.comma_decimals.append(raw)
    assert elements.numbers("PixelSpacing") == pytest.approx(values)


def test_whether_a_comma_is_a_decimal_point_is_decided_for_the_file() -> None:
    assert not commas_are_decimal_points([])
    assert not commas_are_decimal_points([b"1,234\\5,678"])
    assert commas_are_decimal_points([b"1,234\\5,678", b"0,703\\0,703"])
    assert not commas_are_decimal_points([b"1,234\\5,678", b"0,703\\0,703", b"1,234.5"])


def test_whole_numbers_have_no_decimal_point(tmp_path: Path) -> None:
    elements = Elements(values={"NumberOfFrames": (b"IS", b"1,5"), "Rows": (b"IS", b"256 ")})
    elements.comma_decimals.append(b"0,7")
    assert elements.numbers("NumberOfFrames") == ()
    assert elements.numbers("Rows") == (256.0,)


@given(st.floats(-1e6, 1e6), st.integers(0, 12))
def test_decimal_commas_give_the_number_or_nothing(value: float, digits: int) -> None:
    written = f"{value:.{digits}f}".replace(".", ",").encode()
    if commas_are_decimal_points([written]):
        assert parse_decimals(written, True) == pytest.approx([round(value, digits)])
    elif b"," in written:
        # Three digits before and behind: it could be thousands.
        assert digits == 3


def test_a_file_with_decimal_commas_is_read(tmp_path: Path) -> None:
    content = dataset(0, PixelSpacing=[0.703, 0.703], ImagePositionPatient=[-15.5, -1.234, 100.125])
    path = write(tmp_path / "a.dcm", content)
    whole = path.read_bytes()
    for old in (b"0.703\\0.703", b"-15.5\\-1.234\\100.125"):
        whole = whole.replace(old, old.replace(b".", b","))
    path.write_bytes(whole)
    pose = read_header(path, _LIMITS).frames[0].header.pose
    assert pose is not None
    assert (pose.row_spacing, pose.origin) == (0.703, (-15.5, -1.234, 100.125))


def test_a_uid_with_commas_for_dots_is_corrected(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.dcm", dataset(0, StudyInstanceUID="1.2.34.5678"))
    other = tmp_path / "b.dcm"
    other.write_bytes(plain.read_bytes().replace(b"1.2.34.5678", b"1.2,34.5678"))
    assert read_header(other, _LIMITS).study_uid == read_header(plain, _LIMITS).study_uid


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (
            {"ImagePositionPatient": None},
            ("position: ImagePositionPatient is absent", "copies of the screen"),
        ),
        ({"PixelSpacing": [0.7]}, ("pixel spacing: PixelSpacing is not two numbers", "again")),
        ({"PixelSpacing": [70.0, 70.0]}, ("implausible", "original")),
    ],
)
def test_geometry_that_cannot_be_used_is_named(
    tags: dict[str, object], words: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(DicomError) as caught:
        read_header(write(tmp_path / "a.dcm", dataset(0, **tags)), _LIMITS)
    assert words[0] in caught.value.reason
    assert words[1] in caught.value.advice


def test_a_comma_is_not_taken_for_a_copy_of_the_screen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", dataset(0, PixelSpacing=[1.234, 1.234]))
    path.write_bytes(path.read_bytes().replace(b"1.234\\1.234", b"1,234\\1,234"))
    with pytest.raises(DicomError) as caught:
        read_header(path, _LIMITS)
    assert "PixelSpacing has commas" in caught.value.reason
    assert "decimal points" in caught.value.advice


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("modality", "read"),
    [("", "MR"), (None, "MR"), (" mr", "MR"), ("MRI", "MR"), ("MR\\SR", "MR"), ("CT", "CT")],
)
def test_the_modality_is_mr_where_the_class_says_so_and_nothing_contradicts(
    modality: str | None, read: str, tmp_path: Path
) -> None:
    content = dataset(0, Modality=modality)
    if modality is None:
        del content.Modality
    assert read_header(write(tmp_path / "a.dcm", content), _LIMITS).modality == read
