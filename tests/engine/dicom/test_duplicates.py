"""One image in two files: harmless if pose and pixels are equal, a Problem if they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import compressed, dataset, enhanced, series, write
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from stenosis_trt.engine.dicom.reader import DicomReader


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader() as opened:
        yield opened


def _copy(folder: Path, change: Callable[[Dataset], object], syntax: str = ExplicitVRLittleEndian) -> None:
    for number in range(5):
        content = dataset(number)
        change(content)
        content = compressed(content, syntax) if syntax in (RLELossless, JPEGLSLossless) else content
        write(folder / f"{number:03d}.dcm", content, syntax)


def _other_names(content: Dataset) -> None:
    content.RetrieveAETitle = "PACS2"
    content.InstitutionName = "REMOVED"
    content.SeriesDescription = "T2 SAG"


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless]
)
def test_images_sent_again_by_another_archive_are_one_harmless_problem(
    syntax: str, reader: DicomReader, tmp_path: Path
) -> None:
    series(tmp_path / "a", 5)
    _copy(tmp_path / "b", _other_names, syntax)
    scan = reader.scan([tmp_path])
    (problem,) = scan.problems
    assert problem.harmless
    assert problem.reason.startswith("5 files hold images that other files hold too")
    assert (problem.path, problem.study_uid) == (str(tmp_path / "b"), scan.studies[0].study_uid)
    (found,) = scan.studies[0].series
    assert {frame.path.parent.name for frame in found.frames} == {"a"}


def test_frames_of_an_enhanced_object_are_all_compared(reader: DicomReader, tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", enhanced([0.0, 3.3, 6.6]))
    write(tmp_path / "b.dcm", compressed(enhanced([0.0, 3.3, 6.6]), RLELossless), RLELossless)
    other = enhanced([0.0, 3.3, 6.6])
    other.PixelData = other.PixelData[:-2] + b"\7\0"
    write(tmp_path / "c.dcm", other)
    found = {Path(problem.path).name: problem.harmless for problem in reader.scan([tmp_path]).problems}
    assert found == {"b.dcm": True, "c.dcm": False}


def _pixels(content: Dataset) -> None:
    values = np.frombuffer(content.PixelData, np.uint16).copy()
    values[1000] ^= 1
    content.PixelData = values.tobytes()


def _spacing(content: Dataset) -> None:
    content.PixelSpacing = [0.8, 0.81]


def _rescale(content: Dataset) -> None:
    content.RescaleSlope, content.RescaleIntercept = -1.0, 4095.0


def _echo(content: Dataset) -> None:
    content.EchoTime = 90.0


@pytest.mark.parametrize("change", [_pixels, _spacing, _rescale, _echo])
def test_what_differs_in_pixels_place_or_contrast_is_another_image(
    change: Callable[[Dataset], None], reader: DicomReader, tmp_path: Path
) -> None:
    series(tmp_path, 5)
    content = dataset(2)
    change(content)
    write(tmp_path / "other.dcm", content)
    (problem,) = reader.scan([tmp_path]).problems
    assert not problem.harmless
    assert "different content" in problem.reason


def test_a_copy_whose_pixels_are_broken_is_not_the_same_image(reader: DicomReader, tmp_path: Path) -> None:
    series(tmp_path, 5)
    path = write(tmp_path / "other.dcm", compressed(dataset(2), JPEGLSLossless), JPEGLSLossless)
    path.write_bytes(path.read_bytes()[:-30_000] + b"\0" * 30_000)
    (problem,) = reader.scan([tmp_path]).problems
    assert not problem.harmless
