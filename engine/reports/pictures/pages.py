"""Pictures of a study: a summary page, then a page for each level, for PNG files and secondary captures.

Nothing that names a patient is drawn: no text of a header, no date, no UID. Every text comes from the result,
from the pack's name and version, and from this module; `Page.texts` lists what a page says.
"""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from stenosis_trt.engine.dicom.uids import stated_uid
from stenosis_trt.engine.records import LEVELS, LevelResult
from stenosis_trt.engine.reports.dicom.patient_study import text_of
from stenosis_trt.engine.reports.pictures import picture_panels as panels
from stenosis_trt.engine.reports.pictures import picture_text as text
from stenosis_trt.engine.reports.pictures.drawing import LIGHT, WHITE, Bytes, Canvas, text_width, wrapped
from stenosis_trt.engine.reports.pictures.grade_colours import GRADE_STYLES
from stenosis_trt.engine.reports.pictures.picture_text import MARGIN
from stenosis_trt.engine.reports.study_report import (
    CannotReport,
    Provenance,
    ReportImage,
    StudyImages,
    StudyReport,
)
from stenosis_trt.engine.reports.text.wording import (
    NO_RATIO,
    NOT_FOR_CLINICAL_USE,
    cautions,
    join_levels,
    reasons,
)

_SUMMARY_SIZE, _LEVEL_SIZE = (1024, 720), (960, 480)
_HEADER = 60
"""Height of the header, in pixels."""

_SAGITTAL_LEAST_MM, _SAGITTAL_MARGIN_MM = 120.0, 52.0
"""Least height of the sagittal image of the summary, and what it shows beyond the outer levels."""
_LEVEL_SAGITTAL_MM, _AXIAL_MM = 80.0, 56.0
"""Widths of the other images: a level with the neighbouring discs; the canal with both foramina."""
_PLANE_TOLERANCE_MM = 1.0
"""Largest distance of a measured point from the slice it was measured on."""


@dataclass(frozen=True)
class Page:
    """One finished picture.

    Attributes:
        name: "summary", or the level as a file name, such as "C5-6".
        level: the level, or None for the summary.
        pixels: values of `grade_colours.PALETTE`, uint8 (height, width).
        texts: every text on it.
        images: the images that it shows.
    """

    name: str
    level: LevelResult | None
    pixels: Bytes
    texts: tuple[str, ...]
    images: tuple[ReportImage, ...]


class _LastPages:
    """The pages of the report that was drawn last: PNG files and secondary captures of a study share them."""

    def __init__(self) -> None:
        self._report: weakref.ref[StudyReport] | None = None
        self._pages: tuple[Page, ...] = ()

    def of(self, report: StudyReport) -> tuple[Page, ...]:
        if self._report is None or self._report() is not report:
            self._pages = _draw(report)
            self._report = weakref.ref(report)
        return self._pages


_last = _LastPages()


def pages(report: StudyReport) -> tuple[Page, ...]:
    """Draw the pages of a study: the summary, then a page for each level that has an image.

    Args:
        report: the study. The pages of the last report are kept, and returned for the same object.

    Raises:
        CannotReport: the images are not available, or are not those that were graded and measured.
    """
    return _last.of(report)


def check_images(report: StudyReport) -> StudyImages:
    """Return the images of a report, of which at least one is there.

    Raises:
        CannotReport: there are none, or one is not the image that was graded or measured.
    """
    images = report.images
    if images is None or not (images.sagittal or images.axial):
        raise CannotReport(
            "The images of the study are not available.",
            "Grade the study again with its images, or choose a format without pictures.",
        )
    for level in report.result.levels:
        sagittal, axial, cord = images.sagittal.get(level.level), images.axial.get(level.level), level.cord
        if sagittal is not None:
            _check_image(level, sagittal, level.sagittal_sop_uid, level.sagittal_frame_number)
        if axial is not None:
            if cord is None:
                raise _wrong_image(level)
            _check_image(level, axial, cord.sop_instance_uid, cord.frame_number)
            if np.abs(axial.pose.to_pixels(cord.points)[:, 2]).max() > _PLANE_TOLERANCE_MM:
                raise _wrong_image(level)
    return images


def _draw(report: StudyReport) -> tuple[Page, ...]:
    images = check_images(report)
    shown = images.sagittal.keys() | images.axial.keys()
    with_image = [level for level in report.result.levels if level.level in shown]
    return _summary(report, images), *(_level_page(report, images, level) for level in with_image)


def _check_image(level: LevelResult, image: ReportImage, uid: str, frame_number: int | None) -> None:
    same = (image.frame.sop_instance_uid, image.frame.frame_number) == (uid, frame_number)
    # The file may have changed since its header was read.
    same = same and stated_uid(text_of(image.dataset, "SOPInstanceUID")) == uid
    if not same or image.stored.shape != (image.pose.rows, image.pose.columns):
        raise _wrong_image(level)


def _wrong_image(level: LevelResult) -> CannotReport:
    return CannotReport(
        f"An image of {level.level} is not the one that was graded or measured.",
        "Grade the study again: its files may have changed.",
    )


def _summary(report: StudyReport, images: StudyImages) -> Page:
    width, height = _SUMMARY_SIZE
    canvas = Canvas.blank(width, height)
    _header(canvas, report, "Cervical spinal stenosis: Kang grade of each disc level")
    levels = report.result.levels
    left, top, panel_height = MARGIN, _HEADER, height - _HEADER - 44
    sagittal = canvas.region(left, top, 440, panel_height)
    shown = [_sagittal_overview(sagittal, levels, images)]

    right = left + 440 + MARGIN
    axial = canvas.region(right, top, 330, 330)
    worst = _worst(levels, images)
    if worst is not None:
        shown.append(_axial_panel(axial, worst, images))
        numbers = canvas.region(right + 344, top, width - right - 344 - MARGIN, 330)
        end = round(text.numbers(numbers, worst))
        higher = [x.level for x in levels if (x.grade or 0) > (worst.grade or 0)]
        if higher:
            words = f"Of higher grade, without axial image: {join_levels(higher)}."
            text.notes(numbers.region(0, end, numbers.width, numbers.height - end), [words])
    text.table(canvas.region(right, top + 346, width - right - MARGIN, 7 * 28 + 4), levels)
    notes = canvas.region(right, top + 346 + 7 * 28 + 10, width - right - MARGIN, 72)
    text.notes(notes, cautions(report.result))
    text.legend(canvas.region(0, height - 38, width, 38))
    used = tuple(image for image in shown if image is not None)
    return Page("summary", None, canvas.pixels, tuple(canvas.texts), used)


def _sagittal_overview(
    panel: Canvas, levels: tuple[LevelResult, ...], images: StudyImages
) -> ReportImage | None:
    """Show the sagittal slice that most levels were graded on, with all levels."""
    keys = {name: _key(image) for name, image in images.sagittal.items()}
    if not keys:
        panels.note(panel, ["No sagittal image."])
        return None
    (most, _), *_ = Counter(keys[name] for name in LEVELS if name in keys).most_common(1)
    on_slice = {name for name, key in keys.items() if key == most}
    image = images.sagittal[next(name for name in LEVELS if name in on_slice)]
    points = [level.point for level in levels if level.point is not None]
    centre = panels.centre_of([points[0], points[-1]] if points else image.pose.centre[None])
    along = abs(points[0][2] - points[-1][2]) if points else 0.0
    height_mm = max(_SAGITTAL_LEAST_MM, along + _SAGITTAL_MARGIN_MM)
    shown = panels.show(panel, image, centre, height_mm * panel.width / panel.height)
    panels.mark_levels(panel, shown, levels, on_slice)
    panels.furnish(panel, shown, "Sagittal")
    if any(level.point is not None and level.level not in on_slice for level in levels):
        panel.text(8, 32, "* graded on another slice", 13)
    return image


def _axial_panel(panel: Canvas, level: LevelResult, images: StudyImages) -> ReportImage | None:
    image = images.axial.get(level.level)
    if image is None or level.cord is None:
        why = reasons(level.warnings, NO_RATIO)
        words = f"No axial image of {level.level}{f': {why}' if why else ''}."
        panels.note(panel, wrapped(words, 15, panel.width - 40))
        return None
    shown = panels.show(panel, image, panels.centre_of(level.cord.points), _AXIAL_MM)
    panels.measure(panel, shown, level.cord)
    panels.furnish(panel, shown, f"Axial at {level.level}")
    return image


def _level_page(report: StudyReport, images: StudyImages, level: LevelResult) -> Page:
    width, height = _LEVEL_SIZE
    canvas = Canvas.blank(width, height)
    _header(canvas, report, f"{level.level}: {_grade_words(level)}")
    side = height - _HEADER - 44
    sagittal = canvas.region(MARGIN, _HEADER, side, side)
    axial = canvas.region(2 * MARGIN + side, _HEADER, side, side)
    image = images.sagittal.get(level.level)
    crossing = images.axial.get(level.level)
    if image is None:
        panels.note(sagittal, ["No sagittal image."])
    else:
        centre = level.point or panels.centre_of(image.pose.centre[None])
        shown = panels.show(sagittal, image, centre, _LEVEL_SAGITTAL_MM)
        panels.mark_level(sagittal, shown, level, None if crossing is None else crossing.pose)
        panels.furnish(sagittal, shown, f"Sagittal at {level.level}")
    measured = _axial_panel(axial, level, images)
    column = 3 * MARGIN + 2 * side
    end = round(text.numbers(canvas.region(column, _HEADER, width - column - MARGIN, side), level))
    of_level = replace(report.result, levels=(level,), warnings=())
    notes = canvas.region(column, _HEADER + end, width - column - MARGIN, side - end)
    text.notes(notes, cautions(of_level))
    text.legend(canvas.region(0, height - 38, width, 38))
    used = tuple(item for item in (image, measured) if item is not None)
    return Page(level.level.replace("/", "-"), level, canvas.pixels, tuple(canvas.texts), used)


def _header(canvas: Canvas, report: StudyReport, title: str) -> None:
    canvas.text(MARGIN, 20, title, 21)
    canvas.text(MARGIN, 44, _source(report.provenance), 13, LIGHT)
    if not report.provenance.clinical_use:
        warning = NOT_FOR_CLINICAL_USE.rstrip(".")
        width = text_width(warning, 18)
        left = canvas.width - MARGIN - width - 20
        canvas.region(left, 8, width + 20, 30).frame(WHITE)
        canvas.text(left + 10, 23, warning, 18)


def _source(provenance: Provenance) -> str:
    software = f"stenosis-trt {provenance.software_version}"
    return (
        f"{provenance.pack_name} {provenance.pack_version}, {software}. Computed, not verified by a reader."
    )


def _grade_words(level: LevelResult) -> str:
    if level.grade is None:
        return "not graded"
    return f"Kang grade {level.grade} ({GRADE_STYLES[level.grade].name})"


def _worst(levels: tuple[LevelResult, ...], images: StudyImages) -> LevelResult | None:
    """Return the level of the highest grade, and of several the one of the lowest ratio.

    Levels with an axial image come first. None if no level has an image.
    """

    def rank(level: LevelResult) -> tuple[bool, int, float]:
        ratio = level.cord.compression_ratio if level.cord else 1.0
        return level.level in images.axial, -1 if level.grade is None else level.grade, -ratio

    shown = [level for level in levels if level.level in images.axial or level.level in images.sagittal]
    return max(shown, key=rank, default=None)


def _key(image: ReportImage) -> tuple[str, int | None]:
    return image.frame.sop_instance_uid, image.frame.frame_number
