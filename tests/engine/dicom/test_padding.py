"""Pixel padding becomes black, wherever it is declared and if it is not declared at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import compressed, dataset, enhanced, write
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from stenosis_trt.engine.dicom.pixel_memory import PixelMemory
from stenosis_trt.engine.dicom.reader import DicomReader

_BORDER = 12


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader() as opened:
        yield opened


def _anatomy(low: int = 0, high: int = 1000) -> np.ndarray:
    """96 × 80 values between two, with noise down to the lower one, as air has."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:96, 0:80]
    hill = np.exp(-(((y - 48) / 25.0) ** 2) - ((x - 40) / 20.0) ** 2)
    return np.clip(low + (high - low) * hill + rng.uniform(0, 30, hill.shape), low, high).astype(np.int64)


def _border() -> np.ndarray:
    mask = np.ones((96, 80), bool)
    mask[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    return mask


def _image(values: np.ndarray, bits: int, signed: bool, **tags: object) -> Dataset:
    content = dataset(0, Rows=values.shape[0], Columns=values.shape[1])
    content.BitsStored, content.HighBit, content.PixelRepresentation = bits, bits - 1, int(signed)
    content.PixelData = (values & 0xFFFF).astype("<u2").tobytes()
    for keyword, value in tags.items():
        setattr(content, keyword, value)
    return content


def _declare(content: Dataset, vr: str, value: int, limit: int | None = None) -> Dataset:
    content.add_new(0x00280120, vr, value)
    if limit is not None:
        content.add_new(0x00280121, vr, limit)
    return content


def _stored(reader: DicomReader, path: Path) -> np.ndarray:
    scan = reader.scan([path])
    assert scan.problems == ()
    (item,), problems = reader.load(scan.studies[0].series[0].frames)
    assert problems == ()
    return np.asarray(item.stored).astype(np.int64)


def _assert_black(found: np.ndarray, image: np.ndarray, mask: np.ndarray) -> None:
    """Padding has the first percentile of the rest, and the rest is as it was."""
    assert np.array_equal(found[~mask], image[~mask])
    assert np.unique(found[mask]).tolist() == [int(np.percentile(image[~mask], 1, method="nearest"))]


@pytest.mark.parametrize(
    ("bits", "signed", "padding", "vr", "declared"),
    [
        (16, True, -32768, "SS", -32768),
        (16, True, -32768, "US", 32768),  # the wrong one of the two
        (16, True, -2000, "SS", -2000),
        (16, False, 65535, "US", 65535),
        (16, False, 65535, "SS", -1),
        (16, False, 3000, "US", 3000),
        (12, False, 4095, "US", 4095),
        (12, False, 65535, "US", 65535),  # outside of what is stored
        (12, True, -30000, "SS", -30000),
        (12, True, -2048, "SS", -2048),
        (16, True, -32768, "SL", -32768),
    ],
)
def test_declared_padding_is_black(
    reader: DicomReader, tmp_path: Path, bits: int, signed: bool, padding: int, vr: str, declared: int
) -> None:
    image, mask = _anatomy(), _border()
    values = np.where(mask, padding, image)
    content = _declare(_image(values, bits, signed), vr, declared)
    _assert_black(_stored(reader, write(tmp_path / "a.dcm", content)), image, mask)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_declared_padding_is_found_in_every_encoding_of_the_header(
    reader: DicomReader, tmp_path: Path, syntax: str
) -> None:
    image, mask = _anatomy(), _border()
    values = np.where(mask, -32768, image)
    content = _declare(_image(values, 16, True), "SS", -32768)
    if syntax == ExplicitVRBigEndian:
        content.PixelData = (values & 0xFFFF).astype(">u2").tobytes()
    _assert_black(_stored(reader, write(tmp_path / "a.dcm", content, syntax)), image, mask)


def test_padding_of_compressed_pixels_is_black(reader: DicomReader, tmp_path: Path) -> None:
    image, mask = _anatomy(), _border()
    content = _declare(_image(np.where(mask, -32768, image), 16, True), "SS", -32768)
    path = write(tmp_path / "a.dcm", compressed(content, RLELossless), RLELossless)
    _assert_black(_stored(reader, path), image, mask)


@pytest.mark.parametrize(("value", "limit"), [(-32768, -1), (-1, -32768)])
def test_a_range_of_padding_is_black_whichever_end_is_named_first(
    reader: DicomReader, tmp_path: Path, value: int, limit: int
) -> None:
    image, mask = _anatomy(), _border()
    padding = np.random.default_rng(0).integers(-32768, 0, image.shape)
    content = _declare(_image(np.where(mask, padding, image), 16, True), "SS", value, limit)
    _assert_black(_stored(reader, write(tmp_path / "a.dcm", content)), image, mask)


@pytest.mark.parametrize("padding", [0, 4095])
@pytest.mark.parametrize("reason", ["MONOCHROME1", "negative slope"])
def test_where_higher_values_are_darker_padding_gets_a_high_one(
    reader: DicomReader, tmp_path: Path, padding: int, reason: str
) -> None:
    image, mask = 2500 - _anatomy(), _border()
    content = _declare(_image(np.where(mask, padding, image), 12, False), "US", padding)
    if reason == "MONOCHROME1":
        content.PhotometricInterpretation = "MONOCHROME1"
    else:
        content.RescaleSlope, content.RescaleIntercept = -1, 4095
    found = _stored(reader, write(tmp_path / "a.dcm", content))
    assert np.array_equal(found[~mask], image[~mask])
    assert np.unique(found[mask]).tolist() == [int(np.percentile(image[~mask], 99, method="nearest"))]


def test_both_signs_of_a_slope_that_make_an_image_positive_again_are_counted(
    reader: DicomReader, tmp_path: Path
) -> None:
    image, mask = _anatomy(), _border()
    content = _image(np.where(mask, 4095, image), 12, False, PhotometricInterpretation="MONOCHROME1")
    content.RescaleSlope, content.RescaleIntercept = -1, 0
    path = write(tmp_path / "a.dcm", _declare(content, "US", 4095))
    _assert_black(_stored(reader, path), image, mask)


def test_zeros_around_an_image_stay_as_they_are_also_where_they_are_declared(
    reader: DicomReader, tmp_path: Path
) -> None:
    values = np.where(_border(), 0, _anatomy())
    content = _declare(_image(values, 16, False), "US", 0)
    assert np.array_equal(_stored(reader, write(tmp_path / "a.dcm", content)), values)


def test_zeros_far_below_an_image_are_black_where_they_are_declared(
    reader: DicomReader, tmp_path: Path
) -> None:
    """Signed values that were stored with 32768 added."""
    image, mask = _anatomy(32768, 34000), _border()
    content = _declare(_image(np.where(mask, 0, image), 16, False), "US", 0)
    _assert_black(_stored(reader, write(tmp_path / "a.dcm", content)), image, mask)


@pytest.mark.parametrize(
    ("bits", "signed", "padding"),
    [(16, True, -32768), (16, True, 32767), (16, False, 65535), (12, False, 4095), (16, True, -5000)],
)
def test_padding_that_no_header_declares_is_recognised_by_its_distance_from_the_rest(
    reader: DicomReader, tmp_path: Path, bits: int, signed: bool, padding: int
) -> None:
    image, mask = _anatomy(), _border()
    path = write(tmp_path / "a.dcm", _image(np.where(mask, padding, image), bits, signed))
    _assert_black(_stored(reader, path), image, mask)


def test_padding_other_than_what_is_declared_is_recognised(reader: DicomReader, tmp_path: Path) -> None:
    image, mask = _anatomy(), _border()
    content = _declare(_image(np.where(mask, -32768, image), 16, True), "SS", -1)
    _assert_black(_stored(reader, write(tmp_path / "a.dcm", content)), image, mask)


def _saturated() -> np.ndarray:
    """Fat beside a surface coil: the highest value at one border, and all values below it beside it."""
    return np.clip(_anatomy(0, 1000) + np.linspace(6000, -4000, 80).astype(int)[None, :], 0, 4095)


def _spot() -> np.ndarray:
    """A bright spot in the middle of nothing."""
    values = np.zeros((96, 80), int)
    values[40:50, 40:50] = 1000
    return values


def _at_the_border() -> np.ndarray:
    """Two values, one at the border: which of them is the image nobody knows."""
    values = np.zeros((96, 80), int)
    values[:, :10] = 1000
    return values


def _inside() -> np.ndarray:
    """Metal: far from the rest, and not at the border."""
    values = _anatomy()
    values[30:50, 30:50] = 30000
    return values


@pytest.mark.parametrize("values", [_anatomy(), _saturated(), _spot(), _at_the_border(), _inside()])
def test_signal_is_not_taken_for_padding(reader: DicomReader, tmp_path: Path, values: np.ndarray) -> None:
    path = write(tmp_path / "a.dcm", _image(values, 16, False))
    assert np.array_equal(_stored(reader, path), values)


def test_a_header_that_declares_the_whole_image_to_be_padding_is_not_believed(
    reader: DicomReader, tmp_path: Path
) -> None:
    values = _anatomy()
    content = _declare(_image(values, 12, False), "US", 0, 4095)
    assert np.array_equal(_stored(reader, write(tmp_path / "a.dcm", content)), values)


def test_a_slice_of_nothing_but_padding_is_black(reader: DicomReader, tmp_path: Path) -> None:
    content = _declare(_image(np.full((96, 80), -32768), 16, True), "SS", -32768)
    assert not _stored(reader, write(tmp_path / "a.dcm", content)).any()


def test_every_frame_of_a_file_gets_its_own_black(reader: DicomReader, tmp_path: Path) -> None:
    image, mask = _anatomy()[:64, :64], _border()[:64, :64]
    frames = [np.where(mask, -32768, image), np.where(mask, -32768, image + 500)]
    content = _declare(enhanced([0.0, 3.3], PixelRepresentation=1, BitsStored=16, HighBit=15), "SS", -32768)
    content.PixelData = b"".join((frame & 0xFFFF).astype("<u2").tobytes() for frame in frames)
    scan = reader.scan([write(tmp_path / "a.dcm", content)])
    slices, problems = reader.load(scan.studies[0].series[0].frames)
    assert problems == ()
    for item, expected in zip(slices, (image, image + 500), strict=True):
        _assert_black(np.asarray(item.stored).astype(np.int64), expected, mask)


def test_padding_is_black_in_shared_memory_too(tmp_path: Path) -> None:
    image, mask = _anatomy(), _border()
    content = _declare(_image(np.where(mask, -32768, image), 16, True), "SS", -32768)
    path = write(tmp_path / "a.dcm", content)
    with PixelMemory(1 << 20) as memory, DicomReader(memory=memory) as reader:
        frames = reader.scan([path]).studies[0].series[0].frames
        (item,), _ = reader.load(frames, memory.slots[0])
        assert memory.offset_of(item.stored) is not None
        _assert_black(item.stored.astype(np.int64), image, mask)


@pytest.mark.parametrize("value", [b"", b"\x01\x02\x03\x04\x05\x06"])
def test_an_invalid_padding_value_is_ignored(reader: DicomReader, tmp_path: Path, value: bytes) -> None:
    values = _anatomy()
    content = _image(values, 16, False)
    content.add_new(0x00280120, "UN", value)
    assert np.array_equal(_stored(reader, write(tmp_path / "a.dcm", content)), values)
