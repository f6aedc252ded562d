"""Pictures of a study: places, scale bars, letters, texts, missing images, and the PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from picture_samples import made_report, pose, spots, without_axial
from PIL import Image
from report_samples import sample_report, with_headers

from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.reports.pictures import overlay_png, pages, picture_panels
from stenosis_trt.engine.reports.pictures.drawing import WHITE, Canvas, wrapped
from stenosis_trt.engine.reports.pictures.grade_colours import GREYS, INK_LEVELS, MEASUREMENT_INK, PALETTE
from stenosis_trt.engine.reports.pictures.lettering import printable
from stenosis_trt.engine.reports.pictures.pages import Page
from stenosis_trt.engine.reports.pictures.windowing import Crop, display_image
from stenosis_trt.engine.reports.study_report import (
    CannotReport,
    ReportImage,
    ReportOptions,
    StudyImages,
    StudyReport,
)

PANEL = (300, 300)


def _inked(pixels: np.ndarray, ink: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and strengths of the pixels in the colour `ink`."""
    strength = pixels.astype(int) - GREYS - ink * INK_LEVELS
    strength[(strength < 0) | (strength >= INK_LEVELS)] = 0
    rows, columns = np.nonzero(strength)
    return rows, columns, strength[rows, columns]


def _centre(pixels: np.ndarray, ink: int) -> tuple[float, float]:
    rows, columns, strength = _inked(pixels, ink)
    return float(np.average(columns, weights=strength)), float(np.average(rows, weights=strength))


def _page(report: StudyReport, name: str) -> Page:
    return next(page for page in pages.pages(report) if page.name == name)


@pytest.mark.parametrize("place", [(50.0, 60.0), (50.25, 60.5), (50.9, 60.1)])
def test_a_drawn_point_lies_where_it_is_told_to_a_twentieth_of_a_pixel(place: tuple[float, float]) -> None:
    canvas = Canvas.blank(100, 100)
    canvas.disc(place, 4.0, 2)
    assert _centre(canvas.pixels, 2) == pytest.approx(place, abs=0.05)
    ring = Canvas.blank(100, 100)
    ring.ring(place, 6.0, 3)
    assert _centre(ring.pixels, 3) == pytest.approx(place, abs=0.05)


def test_a_drawn_line_has_its_ends_and_its_width() -> None:
    canvas = Canvas.blank(200, 100)
    canvas.line((20.3, 40.0), (170.8, 40.0), 1, 3.0)
    _, columns, strength = _inked(canvas.pixels, 1)
    area = strength.sum() / (INK_LEVELS - 1)
    assert area == pytest.approx(150.5 * 3.0 + np.pi * 1.5**2, rel=0.01)
    assert _centre(canvas.pixels, 1) == pytest.approx((95.55, 40.0), abs=0.05)
    assert columns.min() == 19
    assert columns.max() == 172


def test_dashes_lie_on_the_line_and_leave_gaps() -> None:
    canvas = Canvas.blank(200, 60)
    canvas.line((10.0, 10.0), (190.0, 50.0), 0, 1.0, dash=6.0)
    rows, columns, strength = _inked(canvas.pixels, 0)
    full = strength.sum() / (INK_LEVELS - 1)
    assert full == pytest.approx(np.hypot(180, 40) / 2 * 1.0, rel=0.2)
    away = (rows - 10 - (columns - 10) * 40 / 180) * np.cos(np.arctan2(40, 180))
    assert np.abs(away).max() < 1.2


def test_a_line_on_a_bright_image_has_a_dark_rim() -> None:
    canvas = Canvas.blank(80, 80)
    canvas.image(np.full((80, 80), 255, np.uint8))
    canvas.line((20.0, 40.0), (60.0, 40.0), 3, 2.0)
    column = PALETTE[canvas.pixels[:, 40]].astype(int)
    assert tuple(column[40]) == tuple(PALETTE[GREYS + 4 * INK_LEVELS - 1])
    assert column[42].max() < 100
    assert column[46].min() == 255


def test_only_the_sign_of_a_severe_stenosis_has_a_white_rim() -> None:
    def bright_beside(grade: int) -> int:
        canvas = Canvas.blank(60, 60)
        canvas.chip((30, 30), grade, 10.0)
        beside = canvas.pixels[30, 41:46]
        return int(((beside > WHITE // 2) & (beside <= WHITE)).sum())

    assert [bright_beside(grade) for grade in range(4)] == [0, 0, 0, 1]


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_the_points_of_the_cord_are_drawn_where_they_are_in_the_image(signs: tuple[int, int]) -> None:
    cord = made_report().result.levels[2].cord
    assert cord is not None
    middle = tuple(np.mean(cord.points, axis=0))
    place = pose((signs[0], 0, 0), (0, signs[1], 0.1), middle, (0.5, 0.7), (160, 150))
    image = spots(place, cord.points)
    canvas = Canvas.blank(*PANEL)
    shown = picture_panels.show(canvas, image, middle, 40.0)
    picture_panels.measure(canvas, shown, cord)
    rows, columns, strength = _inked(canvas.pixels, MEASUREMENT_INK)
    x, y = shown.to_pixels(cord.points).T
    # The outermost inked pixels are the edges of the points, of radius 2.4.
    assert columns.min() == pytest.approx(x.min() - 2.4, abs=1)
    assert columns.max() == pytest.approx(x.max() + 2.4, abs=1)
    assert rows.min() == pytest.approx(y.min() - 2.4, abs=1)
    assert rows.max() == pytest.approx(y.max() + 2.4, abs=1)
    for point in shown.to_pixels(cord.points):
        near = np.hypot(columns - point[0], rows - point[1]) < 2.0
        assert (strength[near] == INK_LEVELS - 1).sum() >= 9
    # The image under them is the image: its spots are at the same places.
    plain = display_image(image, Crop(middle, 40.0, 40.0), 40.0 / PANEL[0])
    assert all(plain.grey[round(v), round(u)] > 200 for u, v in shown.to_pixels(cord.points))


@pytest.mark.parametrize(("spacing", "length_mm"), [(0.07, 5), (0.14, 10), (0.3, 20), (0.6, 50), (1.4, 100)])
def test_the_scale_bar_has_the_length_it_names(spacing: float, length_mm: int) -> None:
    canvas = Canvas.blank(*PANEL)
    (left, y), (right, _) = picture_panels.scale_bar(canvas, spacing)
    assert right - left == pytest.approx(length_mm / spacing)
    assert canvas.texts == [f"{length_mm} mm"]
    # Measured on the picture: the outermost pixels of the end marks.
    lit = np.flatnonzero(canvas.pixels[round(y) - 3] > WHITE // 2)
    assert lit.max() - lit.min() == pytest.approx(right - left, abs=2)


def test_the_level_page_of_an_oblique_axial_image_has_its_letters() -> None:
    report = made_report()
    cord = report.result.levels[2].cord
    assert cord is not None
    assert report.images is not None
    place = pose(
        (0.9, -0.436, 0), (0.436, 0.9, 0), tuple(np.mean(cord.points, axis=0)), (0.5, 0.5), (160, 160)
    )
    image = spots(place, cord.points, cord.sop_instance_uid)
    axial = {**report.images.axial, "C4/5": image}
    page = _page(replace(report, images=StudyImages(report.images.sagittal, axial)), "C4-5")
    assert {"RP", "LA", "AR", "PL"} <= set(page.texts)
    assert {"A", "P", "H", "F"} <= set(page.texts)


def test_the_axial_slice_is_shown_as_a_line_through_its_plane() -> None:
    report = made_report()
    level = report.result.levels[2]
    assert level.point is not None
    assert report.images is not None
    shown = picture_panels.show(Canvas.blank(*PANEL), report.images.sagittal["C4/5"], level.point, 80.0)
    axial = pose((1, 0, 0), (0, 1, -0.3), (0, 10, level.point[2]), (0.5, 0.5), (160, 160))
    ends = picture_panels.crossing(shown, axial, level.point)
    assert ends is not None
    for x, y in (*ends[0], *ends[1]):
        assert abs(axial.to_pixels(shown.pose.to_patient((x, y)))[2]) < 0.01
    assert picture_panels.crossing(shown, shown.pose, level.point) is None


def test_labels_keep_their_distance_and_stay_inside() -> None:
    assert picture_panels.spread([10, 50, 90], 23, 0, 300) == [10, 50, 90]
    assert picture_panels.spread([10, 12, 90], 23, 0, 300) == [10, 33, 90]
    crowded = picture_panels.spread([280, 285, 290], 23, 0, 300)
    assert crowded == [254, 277, 300]


def test_the_summary_names_every_level_its_grade_and_the_pack() -> None:
    page = _page(made_report(), "summary")
    assert set(LEVELS) <= set(page.texts)
    assert "spine 1.2, stenosis-trt 0.1.0. Computed, not verified by a reader." in page.texts
    assert "Not for clinical use" in page.texts
    assert {"none", "mild", "moderate", "severe", "not graded", "the images do not reach a disc"} <= set(
        page.texts
    )
    assert {"A", "P", "H", "F", "R", "L", "20 mm", "10 mm"} <= set(page.texts)
    # Of the worst level, C5/6: grade 3.
    assert {"Axial at C5/6", "AP 3.0 mm", "Transverse 13.0 mm", "Ratio 0.23"} <= set(page.texts)


def test_a_pack_for_clinical_use_is_not_marked() -> None:
    report = made_report()
    clinical = replace(report, provenance=replace(report.provenance, clinical_use=True))
    for page in pages.pages(clinical):
        assert not any("clinical" in text for text in page.texts)
    assert all("Not for clinical use" in page.texts for page in pages.pages(report))


def test_each_level_with_an_image_has_a_page() -> None:
    report = made_report()
    assert [page.name for page in pages.pages(report)] == [
        "summary",
        *(level.replace("/", "-") for level in LEVELS[:5]),
    ]


def test_a_level_without_axial_image_shows_the_sagittal_one_and_says_why() -> None:
    report = without_axial(made_report(), "C5/6", "no_axial_slice")
    page = _page(report, "C5-6")
    text = " ".join(page.texts)
    assert "No axial image of C5/6: no axial slice near a level." in text
    assert [image.frame.sop_instance_uid for image in page.images] == ["1.2.3.1"]
    # The summary shows the worst level that has one, and names the other.
    summary = _page(report, "summary")
    assert "Axial at C4/5" in summary.texts
    assert "Of higher grade, without axial image: C5/6." in " ".join(summary.texts)


def test_a_study_without_axial_series_has_pictures() -> None:
    report = made_report()
    for level in LEVELS[:5]:
        report = without_axial(report, level, "no_axial_series")
    drawn = pages.pages(report)
    assert len(drawn) == 6
    assert "no axial T2 series" in " ".join(drawn[0].texts)
    texts = [text for page in drawn for text in page.texts]
    assert not any(text.startswith(("Transverse ", "Ratio 0", "Axial at")) for text in texts)


def test_a_level_that_was_found_and_not_graded_is_marked_with_its_reason() -> None:
    report = made_report()
    levels = list(report.result.levels)
    levels[1] = replace(levels[1], grade=None, probabilities=None, warnings=("out_of_distribution",))
    page = _page(replace(report, result=replace(report.result, levels=tuple(levels))), "C3-4")
    assert "C3/4: not graded" in page.texts
    assert "Not graded: a region is unlike the training data" in " ".join(page.texts)


def test_a_level_graded_on_another_slice_is_starred() -> None:
    report = made_report()
    assert report.images is not None
    levels = list(report.result.levels)
    levels[0] = replace(levels[0], sagittal_sop_uid="1.2.3.9")
    beside = pose((0, 1, 0), (0, 0, -1), (4, 10, 15), (0.8, 0.8), (250, 200))
    sagittal = {**report.images.sagittal, "C2/3": spots(beside, [], "1.2.3.9")}
    changed = replace(
        report,
        result=replace(report.result, levels=tuple(levels)),
        images=StudyImages(sagittal, report.images.axial),
    )
    page = _page(changed, "summary")
    assert "C2/3 *" in page.texts
    assert "* graded on another slice" in page.texts


def _other_uid(image: ReportImage) -> ReportImage:
    return replace(image, frame=replace(image.frame, sop_instance_uid="1.2.9"))


def _other_frame(image: ReportImage) -> ReportImage:
    return replace(image, frame=replace(image.frame, frame_number=7))


def _other_file(image: ReportImage) -> ReportImage:
    image.dataset.SOPInstanceUID = "1.2.9"
    return image


def _moved(image: ReportImage) -> ReportImage:
    x, y, z = image.pose.origin
    return replace(image, pose=replace(image.pose, origin=(x, y, z + 3.0)))


def _smaller(image: ReportImage) -> ReportImage:
    return replace(image, stored=image.stored[1:])


@pytest.mark.parametrize("change", [_other_uid, _other_frame, _other_file, _moved, _smaller])
def test_an_image_that_is_not_the_measured_one_is_refused(
    change: Callable[[ReportImage], ReportImage],
) -> None:
    report = made_report()
    assert report.images is not None
    axial = {**report.images.axial, "C4/5": change(report.images.axial["C4/5"])}
    with pytest.raises(CannotReport, match=r"An image of C4/5 is not the one"):
        pages.pages(replace(report, images=StudyImages(report.images.sagittal, axial)))


@pytest.mark.parametrize("images", [None, StudyImages()])
def test_pictures_without_images_are_refused(images: StudyImages | None) -> None:
    with pytest.raises(CannotReport, match="not available"):
        overlay_png.make(replace(made_report(), images=images), ReportOptions())


def test_no_text_of_a_header_is_drawn() -> None:
    planted = {
        "PatientName": "Leaky^Name",
        "PatientID": "LEAKID77",
        "PatientBirthDate": "19510607",
        "StudyDate": "20250304",
        "InstitutionName": "Leaky Hospital",
        "SeriesDescription": "t2 leaky",
        "AccessionNumber": "LEAKACC",
        "StudyDescription": "leaky study",
        "WindowCenterWidthExplanation": "leaky window",
    }
    report = with_headers(
        sample_report(path="/leaky/path"),
        lambda dataset: [setattr(dataset, name, value) for name, value in planted.items()],
    )
    said = " ".join(text for page in pages.pages(report) for text in page.texts).lower()
    uids = {report.result.study_uid, report.result.sagittal_series_uid, report.result.axial_series_uid}
    for secret in (
        *planted.values(),
        "leak",
        *uids,
        report.folder,
        report.provenance.started[:10],
        "2025",
        "2026",
    ):
        assert secret.lower() not in said


def test_pixels_do_not_depend_on_what_a_header_says_of_the_patient() -> None:
    first = overlay_png.make(sample_report(), ReportOptions())
    changed = with_headers(sample_report(), lambda dataset: setattr(dataset, "PatientName", "Other^Name"))
    assert overlay_png.make(changed, ReportOptions()) == first


def test_png_files_hold_the_pages() -> None:
    report = made_report()
    files = overlay_png.make(report, ReportOptions())
    drawn = pages.pages(report)
    assert list(files) == ["summary.png", "C2-3.png", "C3-4.png", "C4-5.png", "C5-6.png", "C6-7.png"]
    for content, page in zip(files.values(), drawn, strict=True):
        image = Image.open(io.BytesIO(content))
        image.load()
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image.convert("RGB")), PALETTE[page.pixels])
        # Pillow decodes no text or time from it.
        assert image.info == {}


def test_the_pages_of_one_report_are_drawn_once() -> None:
    report = made_report()
    assert pages.pages(report) is pages.pages(report)
    assert pages.pages(replace(report)) is not pages.pages(report)


def test_a_text_of_any_characters_can_be_drawn() -> None:
    assert printable("Köln ≥ 3\u202e\n") == "Koln \\u2265 3\\u202e\\n"
    assert printable("z \u22122.3") == "z -2.3"
    assert wrapped("one two three", 15, 60) == ["one two", "three"]
    canvas = Canvas.blank(100, 40)
    canvas.text(90, 20, "clipped at the edge", 20)
    assert canvas.pixels[:, 90:].any()
