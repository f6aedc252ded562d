"""A header is the same whether files of its series were read before or not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_factory import compressed, dataset, enhanced, series, write
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from shared_data import shared_data

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.header import FileHeader, HeaderReader, read_header
from stenosis_trt.engine.dicom.limits import ReadLimits

_LIMITS, _KEY = ReadLimits(), b"key of the digests"


def _same_as_alone(paths: list[Path]) -> int:
    """Compare headers read one after the other with headers read alone; return how many there are."""
    reader, count = HeaderReader(_LIMITS, _KEY), 0
    for path in [*paths, *paths]:
        found = _read(reader.read, path)
        assert found == _read(lambda path: read_header(path, _LIMITS, _KEY), path)
        count += isinstance(found, FileHeader)
    return count


def _read(read: Callable[[Path], FileHeader], path: Path) -> FileHeader | tuple[str, str]:
    """Return the header, or the error of the file and its study."""
    try:
        return read(path)
    except DicomError as error:
        return str(error), error.study_uid


def _acquired_in_turn(content: Dataset, number: int) -> None:
    content.AcquisitionDate, content.AcquisitionTime = "20250101", f"1200{number:02d}.5"
    content.AcquisitionNumber, content.TriggerTime = number, 10.0 * number


def _echoes(content: Dataset, number: int) -> None:
    content.EchoTime = 80.0 + 20 * (number % 2)
    content.RescaleSlope, content.RescaleIntercept = 1.5, float(number)


def _commas(content: Dataset, number: int) -> None:
    content.RepetitionTime = 3500
    if number == 4:
        content.PixelSpacing = [0.8, 0.8]
        content["PixelSpacing"]._value = "0,8\\0,8"


def _other_people(content: Dataset, number: int) -> None:
    content.PatientName = f"Other^{number // 3}"
    content.PatientBirthDate = "19500101"


def _sizes(content: Dataset, number: int) -> None:
    if number > 4:
        content.Rows = 128


def _no_place(content: Dataset, number: int) -> None:
    if number == 2:
        content.ImagePositionPatient = [20_000.0, 0.0, 0.0]
    if number == 3:
        del content.ImagePositionPatient
    if number == 5:
        del content.SOPInstanceUID
    if number == 6:
        content.SOPInstanceUID = "=1+1"


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    "change", [None, _acquired_in_turn, _echoes, _commas, _other_people, _sizes, _no_place]
)
def test_files_of_a_series_are_read_as_each_alone(
    change: Callable[[Dataset, int], None] | None, tmp_path: Path
) -> None:
    assert _same_as_alone(series(tmp_path, 8, change)) >= 8


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_files_of_any_transfer_syntax_are_read_as_each_alone(syntax: str, tmp_path: Path) -> None:
    paths = series(tmp_path, 3)
    for number in range(3):
        content = dataset(number)
        if syntax == RLELossless:
            content = compressed(content, syntax)
        paths.append(write(tmp_path / f"other_{number}.dcm", content, syntax))
    paths.append(write(tmp_path / "frames.dcm", enhanced([-3.0, 0.0, 3.0]), ExplicitVRLittleEndian))
    assert _same_as_alone(paths) == 14


def test_a_file_that_ends_within_its_pixels_is_refused_after_whole_ones(tmp_path: Path) -> None:
    paths = series(tmp_path, 4)
    os.truncate(paths[2], paths[2].stat().st_size - 100)
    reader = HeaderReader(_LIMITS, _KEY)
    assert reader.read(paths[0]).sop_instance_uid != reader.read(paths[1]).sop_instance_uid
    with pytest.raises(DicomError, match="ends within its pixels") as raised:
        reader.read(paths[2])
    assert raised.value.study_uid == reader.read(paths[3]).study_uid


def test_long_elements_are_not_kept(tmp_path: Path) -> None:
    """A broken file may have an element of any length; those of hundreds of files would fill the memory."""
    reader = HeaderReader(_LIMITS, _KEY)
    reader.read(write(tmp_path / "long.dcm", dataset(0, SeriesDescription="t2 " + "x" * 20_000)))
    assert not reader.kept_series
    reader.read(write(tmp_path / "usual.dcm", dataset(1)))
    assert reader.kept_series == 1


@pytest.mark.shared_data
def test_files_of_scanners_are_read_as_each_alone() -> None:
    paths = sorted(path for path in shared_data("dicom").rglob("*") if path.is_file())
    assert _same_as_alone(paths) > 100
