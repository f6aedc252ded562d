"""Pictures of the HTML report: grey JPEGs as data URLs, and where the findings lie on them.

The page draws over the pictures, so coordinates are handed over and nothing is burned in. They
are in millimetres from the upper left corner of the picture, rounded to hundredths.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import SlicePose, Vector
from stenosis_trt.engine.records import LevelResult
from stenosis_trt.engine.reports.pictures.windowing import Crop, DisplayImage, display_image, hang
from stenosis_trt.engine.reports.study_report import ReportImage, StudyImages

_SAGITTAL_MARGIN_MM = (48.0, 34.0)
"""Shown around the points of the levels of a sagittal slice: in front of and behind them, above and below."""
_SAGITTAL_LEAST_MM = (100.0, 120.0)
"""Least width and height of a sagittal picture."""
_SAGITTAL_SPACING_MM = 0.4
_AXIAL_SIDE_MM, _AXIAL_SPACING_MM = 56.0, 0.25
_QUALITY = 78
"""JPEG quality: five sagittal and six axial pictures take less than 150 KB."""
_REFERENCE_LINE_MM = 18.0
"""Half the length of the line that shows an axial slice on a sagittal picture."""


@dataclass(frozen=True)
class StudyPictures:
    """The pictures of a study as the page takes them.

    Attributes:
        pictures: by name, objects with `src` (a data URL), `width` and `height` in mm, and `letters` of the
            left, right, upper and lower side.
        sagittal: by level, `picture`, `point` and `slice`, the ends of the line where the axial slice of the
            level crosses; a value is None where there is none.
        axial: by level, `picture` and `points`: anterior, posterior, left and right point of the cord.
    """

    pictures: dict[str, dict[str, Any]]
    sagittal: dict[str, dict[str, Any]]
    axial: dict[str, dict[str, Any]]


def study_pictures(levels: Sequence[LevelResult], images: StudyImages) -> StudyPictures:
    """Make the pictures of a study: each sagittal slice once, and a part of the axial slice of each level."""
    found = StudyPictures({}, {}, {})
    _add_sagittal(found, levels, images)
    _add_axial(found, levels, images)
    return found


def _add_sagittal(found: StudyPictures, levels: Sequence[LevelResult], images: StudyImages) -> None:
    slices: dict[tuple[str, int | None], list[LevelResult]] = {}
    for level in levels:
        image = images.sagittal.get(level.level)
        if image is not None and level.point is not None:
            key = image.frame.sop_instance_uid, image.frame.frame_number
            slices.setdefault(key, []).append(level)
    for number, on_slice in enumerate(slices.values(), 1):
        image = images.sagittal[on_slice[0].level]
        points = np.array([level.point for level in on_slice])
        shown = display_image(image, _around(image, points), _SAGITTAL_SPACING_MM)
        found.pictures[f"sagittal-{number}"] = _picture(shown)
        for level, point in zip(on_slice, _on_picture(shown, points), strict=True):
            axial = images.axial.get(level.level)
            found.sagittal[level.level] = {
                "picture": f"sagittal-{number}",
                "point": point,
                "slice": _crossing(shown, axial.pose, point) if axial is not None else None,
            }


def _add_axial(found: StudyPictures, levels: Sequence[LevelResult], images: StudyImages) -> None:
    for level in levels:
        image = images.axial.get(level.level)
        if image is None or level.cord is None:
            continue
        name = f"axial-{level.level}"
        x, y, z = map(float, np.mean(level.cord.points, axis=0))
        shown = display_image(image, Crop((x, y, z), _AXIAL_SIDE_MM, _AXIAL_SIDE_MM), _AXIAL_SPACING_MM)
        found.pictures[name] = _picture(shown)
        found.axial[level.level] = {"picture": name, "points": _on_picture(shown, level.cord.points)}


def _around(image: ReportImage, points: npt.NDArray[np.float64]) -> Crop:
    """Return the part of a sagittal slice around points (n, 3); it is never larger than the slice."""
    _, pose = hang(image.stored, image.pose)
    low, high = points.min(axis=0), points.max(axis=0)
    sides = pose.columns * pose.column_spacing, pose.rows * pose.row_spacing
    # From front to back, and from head to foot.
    width, height = (
        min(max(float(extent) + 2 * margin, least), side)
        for extent, margin, least, side in zip(
            (high - low)[1:], _SAGITTAL_MARGIN_MM, _SAGITTAL_LEAST_MM, sides, strict=True
        )
    )
    x, y, z = map(float, (low + high) / 2)
    return Crop((x, y, z), width, height)


def _picture(shown: DisplayImage) -> dict[str, Any]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(shown.grey).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    rows, columns = shown.grey.shape
    letters = shown.letters
    return {
        "src": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
        "width": round(columns * shown.spacing_mm, 2),
        "height": round(rows * shown.spacing_mm, 2),
        "letters": [letters.left, letters.right, letters.top, letters.bottom],
    }


def _on_picture(shown: DisplayImage, points: npt.ArrayLike) -> list[list[float]]:
    """Patient points (n, 3) → n pairs of mm from the upper left corner."""
    # The corner of the first pixel lies half a pixel before its centre.
    millimetres = (shown.to_pixels(points) + 0.5) * shown.spacing_mm
    return [[round(float(x), 2), round(float(y), 2)] for x, y in millimetres]


def _crossing(shown: DisplayImage, plane: SlicePose, near: Sequence[float]) -> list[list[float]] | None:
    """Return the ends of the line where a plane crosses the picture, or None if they are nearly parallel."""
    normal = plane.normal
    across = float(normal @ np.asarray(shown.pose.row_direction))
    along = float(normal @ np.asarray(shown.pose.column_direction))
    if abs(along) < abs(across):
        return None
    origin: Vector = shown.pose.origin
    half = shown.spacing_mm / 2
    offset = float(normal @ (np.asarray(plane.origin) - np.asarray(origin)))
    ends = [max(0.0, near[0] - _REFERENCE_LINE_MM), min(near[0] + _REFERENCE_LINE_MM, _width(shown))]
    # offset = across · (x − half) + along · (y − half), with x and y from the corner.
    return [[round(x, 2), round((offset - across * (x - half)) / along + half, 2)] for x in ends]


def _width(shown: DisplayImage) -> float:
    return float(shown.grey.shape[1]) * shown.spacing_mm
