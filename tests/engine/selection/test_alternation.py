"""Interleaved slices of two series are detected by their pixels if no attribute separates them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import AXIAL, dataset, write
from pydicom.uid import generate_uid

from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.geometry import FloatArray, SlicePose
from stenosis_trt.engine.grading.read_ahead import read_study
from stenosis_trt.engine.records import FrameHeader, LoadedSlice, Stage
from stenosis_trt.engine.selection.alternation import alternating_slices_reason

_SIZE = 256
Change = Callable[[FloatArray], FloatArray]


def _anatomy(number: int) -> FloatArray:
    """A picture whose parts move slowly from slice to slice, as tissue does; 0 to 1."""
    y, x = np.mgrid[0:_SIZE, 0:_SIZE] / _SIZE
    image = 0.2 + 0.0 * x
    for k in range(12):
        angle = 0.9 * k + 0.12 * number
        across, down = 0.5 + 0.35 * np.cos(angle), 0.5 + 0.35 * np.sin(1.3 * angle)
        image += (0.3 + 0.05 * k) * np.exp(-((x - across) ** 2 + (y - down) ** 2) / 0.006)
    return np.asarray(np.clip(image, 0, 1))


def _loaded(count: int, every_second: Change, tilt: float = 0.0) -> list[LoadedSlice]:
    found = []
    for number in range(count):
        image = _anatomy(number)
        image = every_second(image) if number % 2 else image
        angle = np.deg2rad(tilt * number)
        column = (0.0, float(np.cos(angle)), float(np.sin(angle)))
        pose = SlicePose((0.0, 0.0, 3.3 * number), (1.0, 0.0, 0.0), column, 0.8, 0.8, _SIZE, _SIZE)
        stored = (1000 * image).astype(np.uint16)
        found.append(LoadedSlice(FrameHeader(Path("a"), number, "1", pose), pose, stored))
    return found


def _inverted(image: FloatArray) -> FloatArray:
    return 1.0 - image


def _moved(millimetres: float) -> Change:
    return lambda image: np.roll(image, round(millimetres / 0.8), axis=0)


@pytest.mark.parametrize(
    "every_second",
    [
        lambda image: image,
        lambda image: 0.7 * image,
        lambda image: np.clip(image + np.random.default_rng(0).normal(0, 0.1, image.shape), 0, 1),
        _moved(2.4),
    ],
)
def test_one_stack_is_one_also_where_every_second_slice_lost_signal_or_was_moved_a_little(
    every_second: Change,
) -> None:
    assert alternating_slices_reason(_loaded(13, every_second)) == ""


@pytest.mark.parametrize(
    ("every_second", "reason"),
    [
        (_inverted, "less with its neighbours"),
        (_moved(20.0), "less with its neighbours"),
        (lambda image: 0.5 * image, "2.0 times as bright"),
    ],
)
def test_slices_of_two_stacks_that_alternate_are_found(every_second: Change, reason: str) -> None:
    assert reason in alternating_slices_reason(_loaded(13, every_second))
    assert reason in alternating_slices_reason(_loaded(5, every_second))


def test_slices_are_not_compared_with_those_of_another_tilt() -> None:
    assert alternating_slices_reason(_loaded(13, _inverted, tilt=5.0)) == ""


def test_noise_does_not_alternate() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        slices = [
            LoadedSlice(item.frame, item.pose, rng.integers(0, 4096, item.stored.shape, dtype=np.uint16))
            for item in _loaded(6, lambda image: image)
        ]
        assert alternating_slices_reason(slices) == ""


def _write(folder: Path, number: int, image: FloatArray, **tags: object) -> None:
    uid = generate_uid(entropy_srcs=[folder.name, str(number)])
    pixels = (1000 * image).astype(np.uint16).tobytes()
    write(folder / f"{number}.dcm", dataset(number, SOPInstanceUID=uid, PixelData=pixels, **tags))


def _axial(folder: Path, every_second: Change) -> None:
    for number in range(12):
        place = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [-100.0, -100.0, 3.5 * number]}
        image = _anatomy(number)
        image = every_second(image) if number % 2 else image
        uid = generate_uid(entropy_srcs=["axial"])
        _write(folder, number, image, SeriesInstanceUID=uid, SeriesDescription="t2_tse_tra", **place)


def test_a_study_whose_sagittal_slices_alternate_is_refused_with_that_reason(tmp_path: Path) -> None:
    for number in range(9):
        _write(tmp_path, number, _inverted(_anatomy(number)) if number % 2 else _anatomy(number))
    with DicomReader() as reader:
        read = read_study(reader, reader.scan([tmp_path]).studies[0])
    assert read.study is None
    (problem,) = read.problems
    assert problem.reason.startswith(
        "cannot grade: the sagittal slices are of two contrasts, or the patient moved"
    )


def test_an_axial_series_whose_slices_alternate_is_left_out_and_the_study_says_so(tmp_path: Path) -> None:
    for number in range(9):
        _write(tmp_path / "sag", number, _anatomy(number))
    _axial(tmp_path / "tra", _inverted)
    with DicomReader() as reader:
        read = read_study(reader, reader.scan([tmp_path]).studies[0])
    assert read.study is not None
    assert (read.study.axial, read.study.axial_series) == ((), None)
    assert read.study.warnings == ("axial_slices_mixed",)
    assert [problem.stage for problem in read.problems] == [Stage.CHOOSE]
    assert read.problems[0].reason.startswith("The axial series is left out")
