"""Tests of a study's piece of the HTML report."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from html_runs import sample_piece
from PIL import Image
from pydicom import Dataset
from report_samples import sample_report, with_headers, with_levels

from stenosis_trt.engine.records import HealthyComparison
from stenosis_trt.engine.reports.page.html_study import PIECE, make
from stenosis_trt.engine.reports.study_report import ReportOptions, StudyImages, StudyReport

_MAX_BYTES = 150 << 10


def _piece(report: StudyReport) -> dict[str, Any]:
    made = make(report, ReportOptions())
    assert list(made) == [PIECE]
    piece: dict[str, Any] = json.loads(made[PIECE])
    return piece


def _grey(picture: dict[str, Any]) -> np.ndarray:
    head, _, data = picture["src"].partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_piece_has_each_level_with_its_numbers() -> None:
    report = sample_report()
    piece = _piece(report)
    assert [level["level"] for level in piece["levels"]] == [level.level for level in report.result.levels]
    for shown, level in zip(piece["levels"], report.result.levels, strict=True):
        assert level.cord is not None
        assert level.probabilities is not None
        assert shown["grade"] == level.grade
        assert shown["probabilities"] == pytest.approx(level.probabilities, abs=1e-4)
        assert shown["ratio"] == pytest.approx(level.cord.compression_ratio, abs=1e-4)
        assert (shown["ap"], shown["transverse"]) == pytest.approx(
            (level.cord.ap_mm, level.cord.transverse_mm), abs=1e-4
        )
        assert shown["sentence"].startswith(f"{level.level}: ")


def test_a_piece_has_the_report_text_and_the_words_of_its_warnings() -> None:
    report = with_levels(sample_report(), lambda level: replace(level, warnings=("axial_slice_gap",)))
    piece = _piece(report)
    assert piece["text"].count("\n") > 10
    assert piece["impression"][0] in piece["text"]
    assert piece["meanings"] == {"axial_slice_gap": "the nearest axial slice is over 4 mm away"}


def test_comparisons_with_healthy_adults_and_mscc_are_in_the_piece() -> None:
    healthy = HealthyComparison(compression_ratio_z=-2.31, compression_ratio_percentile=1.04)
    report = with_levels(sample_report(), lambda level: replace(level, healthy=healthy, mscc=0.25))
    level = _piece(report)["levels"][0]
    assert level["mscc"] == 0.25
    assert level["healthy"]["compression_ratio_z"] == -2.31
    assert level["healthy"]["ap_z"] is None


def test_a_piece_is_smaller_than_150_kb() -> None:
    assert 20_000 < len(sample_piece()) < _MAX_BYTES


def test_each_sagittal_slice_is_in_the_piece_once() -> None:
    report = sample_report()
    assert report.images is not None
    slices = {image.frame.sop_instance_uid for image in report.images.sagittal.values()}
    piece = _piece(report)
    pictures = [name for name in piece["pictures"] if name.startswith("sagittal")]
    assert len(pictures) == len(slices)
    assert {level["sagittal"]["picture"] for level in piece["levels"]} == set(pictures)


def test_a_bright_spot_in_the_image_lies_where_the_picture_has_its_point() -> None:
    report = sample_report()
    assert report.images is not None
    axial = {}
    for level in report.result.levels:
        assert level.cord is not None
        image = report.images.axial[level.level]
        stored = np.zeros_like(image.stored)
        column, row = np.rint(image.pose.to_pixels(level.cord.points[0])[:2]).astype(int)
        stored[row - 1 : row + 2, column - 1 : column + 2] = 1000
        axial[level.level] = replace(image, stored=stored)
    piece = _piece(replace(report, images=replace(report.images, axial=axial)))
    for level in piece["levels"]:
        picture = piece["pictures"][level["axial"]["picture"]]
        grey = _grey(picture).astype(float)
        rows, columns = np.nonzero(grey > 200)
        millimetres = picture["width"] / grey.shape[1]
        found = ((columns.mean() + 0.5) * millimetres, (rows.mean() + 0.5) * millimetres)
        assert found == pytest.approx(level["axial"]["points"][0], abs=0.5)


def test_points_of_levels_lie_inside_their_pictures() -> None:
    piece = _piece(sample_report())
    for level in piece["levels"]:
        picture = piece["pictures"][level["sagittal"]["picture"]]
        x, y = level["sagittal"]["point"]
        assert 20 < x < picture["width"] - 20
        assert 15 < y < picture["height"] - 15


def test_the_line_of_an_axial_slice_passes_near_the_point_of_its_level() -> None:
    for level in _piece(sample_report())["levels"]:
        (x1, y1), (x2, y2) = level["sagittal"]["slice"]
        x, y = level["sagittal"]["point"]
        assert x1 < x < x2
        assert abs(y1 + (y2 - y1) * (x - x1) / (x2 - x1) - y) < 10


def test_pictures_have_orientation_letters() -> None:
    pictures = _piece(sample_report())["pictures"]
    left, right, top, bottom = pictures["sagittal-1"]["letters"]
    assert (left[0], right[0], top[0], bottom[0]) == ("A", "P", "H", "F")
    assert [letters[0] for letters in pictures["axial-C4/5"]["letters"]] == ["R", "L", "A", "P"]


def test_without_images_a_piece_says_so() -> None:
    piece = _piece(sample_report(images=None))
    assert piece["pictures"] is None
    assert piece["no_pictures"] == "Made from results alone: the images were not read."
    assert all(level["sagittal"] is None and level["axial"] is None for level in piece["levels"])
    assert piece["levels"][0]["ratio"] is not None


def test_a_level_whose_image_is_missing_has_no_picture() -> None:
    report = sample_report()
    assert report.images is not None
    piece = _piece(replace(report, images=StudyImages(report.images.sagittal, {})))
    assert all(level["axial"] is None for level in piece["levels"])
    assert all(level["sagittal"]["slice"] is None for level in piece["levels"])


def test_a_piece_has_nothing_of_the_headers() -> None:
    def name_patient(dataset: Dataset) -> None:
        dataset.PatientName, dataset.PatientID = "SECRET^NAME", "SECRET-ID"
        dataset.InstitutionName, dataset.StudyDescription = "SECRET SITE", "SECRET STUDY"

    report = with_headers(sample_report(), name_patient)
    assert b"SECRET" not in make(report, ReportOptions())[PIECE]


def test_a_piece_has_the_patient_id_where_the_result_keeps_it() -> None:
    report = sample_report()
    assert _piece(report)["patient_id"] == ""
    kept = replace(report, result=replace(report.result, patient_id="P-17"))
    assert _piece(kept)["patient_id"] == "P-17"


def test_control_characters_of_a_path_are_escaped() -> None:
    assert _piece(sample_report(path="a\x1b[31m\u202eb"))["path"] == "a\\x1b[31m\\u202eb"
