"""Pixels are decoded to stored values from every encoding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import compressed, dataset, enhanced, write
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import LoadedSlice, Problem

_NATIVE = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]
_COMPRESSED = [RLELossless, JPEGLSLossless, JPEG2000Lossless]


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader() as opened:
        yield opened


def _load(reader: DicomReader, path: Path) -> tuple[tuple[LoadedSlice, ...], tuple[Problem, ...]]:
    scan = reader.scan([path])
    assert scan.problems == ()
    return reader.load(scan.studies[0].series[0].frames)


def _one(reader: DicomReader, path: Path) -> LoadedSlice:
    slices, problems = _load(reader, path)
    assert problems == ()
    return slices[0]


def _image(content: Dataset, values: np.ndarray, bits: int) -> Dataset:
    """Put `values` into a dataset, as so many bits."""
    content.Rows, content.Columns = values.shape
    content.BitsAllocated = 8 * values.dtype.itemsize
    content.BitsStored, content.HighBit = bits, bits - 1
    content.PixelRepresentation = int(values.dtype.kind == "i")
    content.PixelData = values.tobytes()
    content["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    return content


def _values(dtype: str, bits: int) -> np.ndarray:
    """40 × 33 values that cover the range."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if dtype.startswith("i") else (0, (1 << bits) - 1)
    values = np.random.default_rng(bits).integers(low, high, (40, 33), endpoint=True)
    values[0, :2] = low, high
    return values.astype(dtype)


@pytest.mark.parametrize(("dtype", "bits"), [("u2", 16), ("u2", 12), ("i2", 16), ("i2", 12), ("u1", 8)])
@pytest.mark.parametrize("syntax", [*_NATIVE, *_COMPRESSED])
def test_every_syntax_gives_back_the_values(
    syntax: str, dtype: str, bits: int, reader: DicomReader, tmp_path: Path
) -> None:
    values = _values(dtype, bits)
    content = _image(dataset(0), values, bits)
    if syntax in _COMPRESSED:
        content = compressed(content, syntax)
    elif syntax == ExplicitVRBigEndian and values.dtype.itemsize == 2:
        content.PixelData = values.byteswap().tobytes()
    stored = _one(reader, write(tmp_path / "a.dcm", content, syntax)).stored
    assert stored.dtype == (np.int16 if dtype.startswith("i") else np.uint16)
    assert stored.dtype.isnative
    assert np.array_equal(stored, values)


def test_bits_above_the_stored_ones_are_cleared(reader: DicomReader, tmp_path: Path) -> None:
    values = _values("u2", 12)
    content = _image(dataset(0), values | 0xA000, 12)
    assert np.array_equal(_one(reader, write(tmp_path / "a.dcm", content)).stored, values)


def test_signs_are_extended_below_dirty_bits(reader: DicomReader, tmp_path: Path) -> None:
    values = _values("i2", 12)
    content = _image(dataset(0), ((values.view("u2") & 0x0FFF) | 0x5000).view("i2"), 12)
    assert np.array_equal(_one(reader, write(tmp_path / "a.dcm", content)).stored, values)


def test_values_in_the_high_bits_are_moved_down(reader: DicomReader, tmp_path: Path) -> None:
    values = _values("u2", 12)
    content = _image(dataset(0), values << 4, 12)
    content.HighBit = 15
    assert np.array_equal(_one(reader, write(tmp_path / "a.dcm", content)).stored, values)


@pytest.mark.parametrize(("bits", "high_bit"), [(16, 11), (12, 10), (12, 20)])
def test_a_highest_bit_that_cannot_be_is_not_believed(
    bits: int, high_bit: int, reader: DicomReader, tmp_path: Path
) -> None:
    values = _values("u2", 12)
    content = _image(dataset(0), values, bits)
    content.HighBit = high_bit
    assert np.array_equal(_one(reader, write(tmp_path / "a.dcm", content)).stored, values)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_single_image_that_counts_no_frames_is_one(reader: DicomReader, tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", dataset(0, NumberOfFrames=0))
    assert _one(reader, path).stored.shape == (256, 256)


def _jpeg_lossless(path: Path, target: Path) -> Path:
    """The same file, its pixels compressed by GDCM."""
    gdcm = pytest.importorskip("gdcm")
    source = gdcm.ImageReader()
    source.SetFileName(str(path))
    assert source.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(source.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(source.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    assert writer.Write()
    return target


@pytest.mark.parametrize(("dtype", "bits"), [("u2", 16), ("u2", 12), ("i2", 16), ("i2", 12), ("u1", 8)])
def test_jpeg_lossless_gives_back_the_values(
    dtype: str, bits: int, reader: DicomReader, tmp_path: Path
) -> None:
    values = _values(dtype, bits)
    plain = write(tmp_path / "plain.dcm", _image(dataset(0), values, bits))
    packed = _jpeg_lossless(plain, tmp_path / "packed.dcm")
    assert pydicom.dcmread(packed).file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert np.array_equal(_one(reader, packed).stored, values)


@pytest.mark.parametrize(("photometric", "sign"), [("MONOCHROME2", 1), ("MONOCHROME1", -1)])
def test_a_higher_rescaled_value_is_always_brighter(
    photometric: str, sign: int, reader: DicomReader, tmp_path: Path
) -> None:
    values = _values("u2", 12)
    content = _image(dataset(0, PhotometricInterpretation=photometric), values, 12)
    content.RescaleSlope, content.RescaleIntercept = 2.5, -100
    item = _one(reader, write(tmp_path / "a.dcm", content))
    rescaled = item.frame.intercept + item.frame.slope * item.stored.astype(float)
    assert np.allclose(rescaled, sign * (2.5 * values - 100))


def test_compressed_frames_of_one_file_are_decoded_one_by_one(reader: DicomReader, tmp_path: Path) -> None:
    content = compressed(enhanced([0.0, 3.3, 6.6, 9.9]), RLELossless)
    slices, problems = _load(reader, write(tmp_path / "a.dcm", content, RLELossless))
    assert problems == ()
    assert [int(item.stored[0, 0]) for item in slices] == [0, 1, 2, 3]


def test_frames_are_found_by_the_extended_offset_table(reader: DicomReader, tmp_path: Path) -> None:
    frames = [_rle_constant(value) for value in (7, 8, 9)]
    content = enhanced([0.0, 3.3, 6.6])
    content.PixelData, content.ExtendedOffsetTable, content.ExtendedOffsetTableLengths = encapsulate_extended(
        frames
    )
    content["PixelData"].is_undefined_length = True
    slices, problems = _load(reader, write(tmp_path / "a.dcm", content, RLELossless))
    assert problems == ()
    assert [int(item.stored[0, 0]) for item in slices] == [7, 8, 9]


def _rle_constant(value: int) -> bytes:
    """64² pixels of 16 bits and one value below 256, in RLE (PS3.5, annex G)."""
    runs = 64 * 64 // 128
    high, low = bytes([0x81, 0]) * runs, bytes([0x81, value]) * runs
    return np.array([2, 64, 64 + len(high), *[0] * 13], "<u4").tobytes() + high + low


def test_one_broken_frame_costs_itself_and_one_row(reader: DicomReader, tmp_path: Path) -> None:
    content = enhanced([0.0, 3.3, 6.6])
    frames = [_rle_constant(7), b"\2" + b"\0" * 63 + b"\x81\x07", _rle_constant(9)]
    content.PixelData = encapsulate(frames)
    content["PixelData"].is_undefined_length = True
    slices, problems = _load(reader, write(tmp_path / "a.dcm", content, RLELossless))
    assert [int(item.stored[0, 0]) for item in slices] == [7, 9]
    assert len(problems) == 1
    assert problems[0].reason.startswith("1 of 3 frames cannot be decoded")


def test_slices_come_in_the_order_asked_for(reader: DicomReader, tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", enhanced([0.0, 6.6], SOPInstanceUID="1.2.1"))
    write(tmp_path / "b.dcm", enhanced([3.3, 9.9], SOPInstanceUID="1.2.2"))
    frames = reader.scan([tmp_path]).studies[0].series[0].frames
    assert [frame.path.name for frame in frames] == ["a.dcm", "b.dcm", "a.dcm", "b.dcm"]
    slices, _ = reader.load(frames[::-1])
    assert [item.frame for item in slices] == list(frames[::-1])


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not grey-scale"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not grey-scale"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31, "PixelData": b"\0" * 4 * 256**2}, "32 bits"),
    ],
)
def test_what_is_no_grey_scale_image_of_8_or_16_bits_is_refused(
    tags: dict[str, object], words: str, reader: DicomReader, tmp_path: Path
) -> None:
    scan = reader.scan([write(tmp_path / "a.dcm", dataset(0, **tags))])
    assert scan.studies == ()
    assert words in scan.problems[0].reason
    assert not scan.problems[0].harmless
