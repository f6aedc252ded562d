"""Headers of DICOM files: `read_header` and `open_pixels`."""

from __future__ import annotations

import random
from pathlib import Path

from dicom_factory import compressed, dataset, enhanced, write
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from fuzz.harness import Target, main
from fuzz.mutation import mutated_dicom
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.header import read_header
from stenosis_trt.engine.dicom.limits import ReadLimits

_SIZE = 8
_LIMITS = ReadLimits()
_CHARSET = b"ISO_IR 100"
_CHARSETS = (
    b"ISO_IR 192",
    b"ISO_IR 999",
    b"ISO_IR\x00100",
    b"\\ISO 2022 ",
    b"GB18030   ",
    b"\xff\xfe      \x80\x81",
)
"""Of one length: names of character sets, and what is none."""


def small(number: int = 0, **tags: object) -> Dataset:
    """A slice of 8² pixels."""
    pixels = bytes(2 * _SIZE * _SIZE)
    return dataset(number, Rows=_SIZE, Columns=_SIZE, PixelData=pixels, **tags)


def written(content: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A Part 10 file."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder) / "file.dcm", content, syntax).read_bytes()


def seeds() -> list[bytes]:
    frames = enhanced([-3.0, 0.0, 3.0])
    frames.Rows = frames.Columns = _SIZE
    frames.PixelData = bytes(3 * 2 * _SIZE * _SIZE)
    accented = small(SpecificCharacterSet=_CHARSET.decode(), SeriesDescription="t2 \u00e9tage")
    return [
        written(small()),
        written(frames),
        written(accented),
        written(small(), ImplicitVRLittleEndian),
        written(small(), DeflatedExplicitVRLittleEndian),
        written(small(), ExplicitVRBigEndian),
        written(compressed(small(), RLELossless), RLELossless),
    ]


def check(data: bytes, folder: Path) -> None:
    path = folder / "file.dcm"
    path.write_bytes(data)
    header = read_header(path, _LIMITS)
    # What a reading process hands over: by name and number only.
    for frame in header.frames:
        assert frame.header.path == path


def mutate(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.2:
        data = data.replace(_CHARSET, rng.choice(_CHARSETS))
    return mutated_dicom(rng, data)


TARGET = Target("headers", (DicomError,), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
