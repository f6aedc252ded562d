"""Panels of a picture: a sagittal or an axial image with its marks, orientation letters and a scale bar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stenosis_trt.engine.geometry import FloatArray, SlicePose, Vector
from stenosis_trt.engine.records import CordMeasurement, LevelResult
from stenosis_trt.engine.reports.pictures.drawing import LIGHT, Canvas, Point
from stenosis_trt.engine.reports.pictures.grade_colours import GRADE_STYLES, MEASUREMENT_INK
from stenosis_trt.engine.reports.pictures.windowing import Crop, DisplayImage, display_image
from stenosis_trt.engine.reports.study_report import ReportImage

_SCALE_LENGTHS_MM = (5, 10, 20, 50, 100)
_MAX_SCALE_SHARE = 0.3
"""Longest scale bar, as a share of the panel's width."""
_INSET = 12
"""Distance of letters and scale bar from the panel's edge, in pixels."""

_LABEL_ROW = 23.0
"""Least distance between the labels of two levels, in pixels."""
_MOVED = 3.0
"""Distance in pixels from which a line leads from a label to its point; it would hide the disc otherwise."""
_LABEL_MM = 21.0
"""Distance from the point of a level to its label, which is in front of the disc."""
_REFERENCE_LINE_MM = (12.0, 21.0)
"""How far the line of the axial slice reaches in front of a level's point, and behind it."""


def show(panel: Canvas, image: ReportImage, centre: Vector, width_mm: float) -> DisplayImage:
    """Fill a panel with the part of an image around `centre`, `width_mm` wide."""
    spacing = width_mm / panel.width
    shown = display_image(image, Crop(centre, width_mm, panel.height * spacing), spacing)
    panel.image(shown.grey)
    return shown


def furnish(panel: Canvas, shown: DisplayImage, title: str) -> None:
    """Draw the orientation letters, a scale bar, a title in the upper left corner, and a frame."""
    letters = shown.letters
    middle_x, middle_y = panel.width / 2, panel.height / 2
    panel.text(_INSET, middle_y, letters.left, 16)
    panel.text(panel.width - _INSET, middle_y, letters.right, 16, align="right")
    panel.text(middle_x, _INSET, letters.top, 16, align="middle")
    panel.text(middle_x, panel.height - _INSET, letters.bottom, 16, align="middle")
    scale_bar(panel, shown.spacing_mm)
    panel.text(8, _INSET, title, 13)
    panel.frame()


def scale_bar(panel: Canvas, spacing_mm: float) -> tuple[Point, Point]:
    """Draw a scale bar in the lower right corner, and return its ends in pixels."""
    fitting = [mm for mm in _SCALE_LENGTHS_MM if mm / spacing_mm <= _MAX_SCALE_SHARE * panel.width]
    length_mm = max(fitting, default=_SCALE_LENGTHS_MM[0])
    right, y = panel.width - 1.0 - _INSET, panel.height - 1.0 - _INSET
    left = right - length_mm / spacing_mm
    panel.line((left, y), (right, y), None)
    for x in (left, right):
        panel.line((x, y - 4), (x, y + 4), None)
    panel.text((left + right) / 2, y - 13, f"{length_mm} mm", 13, align="middle")
    return (left, y), (right, y)


def mark_levels(
    panel: Canvas, shown: DisplayImage, levels: Sequence[LevelResult], on_slice: set[str]
) -> None:
    """Mark levels on a sagittal image: a dot at the point, and in front of it the grade's sign and the name.

    Args:
        panel: the panel that shows the image.
        shown: the image.
        levels: from head to foot; those without a point are left out.
        on_slice: levels that were graded on this slice; the others get an asterisk.
    """
    placed = [(level, *_pixel(shown, level.point)) for level in levels if level.point is not None]
    heights = spread([y for _, _, y in placed], _LABEL_ROW, 30.0, panel.height - 30.0)
    for (level, x, y), label_y in zip(placed, heights, strict=True):
        label_x = max(x - _LABEL_MM / shown.spacing_mm, 100.0)
        if abs(label_y - y) > _MOVED:
            panel.line((label_x + 14, label_y), (x - 8, y), level.grade, 1.0)
        panel.disc((x, y), 3.4, level.grade)
        if level.grade is not None and GRADE_STYLES[level.grade].rim:
            panel.ring((x, y), 6.2, None, 1.2)
        panel.chip((label_x, label_y), level.grade)
        name = level.level if level.level in on_slice else f"{level.level} *"
        panel.text(label_x - 16, label_y, name, 15, align="right")


def mark_level(panel: Canvas, shown: DisplayImage, level: LevelResult, axial: SlicePose | None) -> None:
    """Mark the point of one level, and as a broken line where its axial slice crosses."""
    if level.point is None:
        return
    x, y = _pixel(shown, level.point)
    if axial is not None:
        ends = crossing(shown, axial, level.point)
        if ends is not None:
            # The line leaves the canal free, which is looked at.
            panel.line(*ends[0], MEASUREMENT_INK, 1.0, dash=5.0)
            panel.line(*ends[1], MEASUREMENT_INK, 1.0, dash=5.0)
    panel.ring((x, y), 5.0, level.grade, 2.0)


def crossing(
    shown: DisplayImage, axial: SlicePose, point: Vector
) -> tuple[tuple[Point, Point], tuple[Point, Point]] | None:
    """Return where an axial slice crosses a sagittal picture: two pieces, before and behind the canal.

    Returns:
        Ends of both pieces as (x, y); None if the planes are nearly parallel.
    """
    direction = np.cross(axial.normal, shown.pose.normal)
    size = float(np.linalg.norm(direction))
    if size < 0.2:
        return None
    direction /= size
    # Along the picture's plane from the point to the slice.
    in_plane = np.cross(shown.pose.normal, direction)
    start = np.asarray(point, dtype=np.float64)
    off = float((np.asarray(axial.origin) - start) @ axial.normal)
    start = start + in_plane * (off / float(in_plane @ axial.normal))
    if direction[1] < 0:
        direction = -direction
    front, behind = _REFERENCE_LINE_MM
    pieces = ((-front - 8.0, -3.0), (behind - 5.0, behind + 12.0))
    a, b = (tuple(_pixel(shown, _vector(start + direction * mm)) for mm in piece) for piece in pieces)
    return (a[0], a[1]), (b[0], b[1])


def measure(panel: Canvas, shown: DisplayImage, cord: CordMeasurement) -> None:
    """Draw both diameters of the cord with their lengths, and its four points."""
    anterior, posterior, left, right = (_pixel(shown, point) for point in cord.points)
    for start, end in ((anterior, posterior), (left, right)):
        panel.line(start, end, MEASUREMENT_INK, 1.2)
    for point in (anterior, posterior, left, right):
        panel.disc(point, 2.4, MEASUREMENT_INK)
    # In a corner, where it hides nothing of the canal.
    lines = (
        f"AP {cord.ap_mm:.1f} mm",
        f"Transverse {cord.transverse_mm:.1f} mm",
        f"Ratio {cord.compression_ratio:.2f}",
    )
    for k, line in enumerate(reversed(lines)):
        panel.text(8, panel.height - _INSET - 18 * k, line, 14)


def spread(heights: Sequence[float], distance: float, top: float, bottom: float) -> list[float]:
    """Move increasing heights as little as needed so that neighbours are `distance` apart.

    They stay between `top` and `bottom` where these have room for all.
    """
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, top, placed[-1] + distance if placed else top))
    limit = bottom
    for k in range(len(placed) - 1, -1, -1):
        placed[k] = min(placed[k], limit)
        limit = placed[k] - distance
    return placed


def centre_of(points: Sequence[Vector] | FloatArray) -> Vector:
    """Return the mean of patient points."""
    return _vector(np.mean(np.asarray(points, dtype=np.float64), axis=0))


def note(panel: Canvas, lines: Sequence[str]) -> None:
    """Write lines in the middle of an empty panel."""
    first = panel.height / 2 - 11.0 * (len(lines) - 1)
    for k, line in enumerate(lines):
        panel.text(panel.width / 2, first + 22.0 * k, line, 15, LIGHT, "middle")
    panel.frame()


def _pixel(shown: DisplayImage, point: Vector) -> Point:
    x, y = shown.to_pixels(point)
    return float(x), float(y)


def _vector(values: FloatArray) -> Vector:
    x, y, z = map(float, values)
    return x, y, z
