"""All attributes of a file are read, whatever its character set is called."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from dicom_factory import dataset, write
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from stenosis_trt.engine.dicom.whole_header import read_whole_header

ODD = b"\t\0\x0c\0\r\0\x0b\0\t\0"
"""A value that pydicom cannot look up: seen in files of a public report."""


def _with_charset(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    return path


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_character_set_that_names_no_codec_reads_as_empty(tmp_path: Path, syntax: str) -> None:
    image = dataset()
    image.SpecificCharacterSet = "ISO_IR 100"
    path = write(tmp_path / "image.dcm", image, syntax)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    head = struct.pack(f"{order}HH", 8, 5)
    if syntax == ImplicitVRLittleEndian:
        old, new = struct.pack("<L", 10), struct.pack("<L", len(ODD))
    else:
        old, new = b"CS" + struct.pack(f"{order}H", 10), b"CS" + struct.pack(f"{order}H", len(ODD))
    _with_charset(path, head + old + b"ISO_IR 100", head + new + ODD)
    with pytest.raises(ValueError, match="null"):
        dcmread(path)
    found = read_whole_header(path)
    assert str(found.get("SpecificCharacterSet", "")).strip() == ""
    assert found.SOPInstanceUID == image.SOPInstanceUID
    assert found.PatientID == image.PatientID
    assert "PixelData" not in found


def test_another_fault_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_whole_header(tmp_path / "gone.dcm")
