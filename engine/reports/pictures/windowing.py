"""Stored values as a radiologist looks at them: hung in the usual way, windowed, with square pixels.

    shown = display_image(image, Crop(level.point, 90.0, 110.0), spacing_mm=0.25)
    shown.grey                     # uint8 (height, width)
    shown.to_pixels(cord.points)   # (4, 2) as (x, y)
    shown.letters.left             # "A"

**Hanging.** Rows and columns are swapped or reversed, never rotated by another angle: a sagittal image has
the head at the top and the front at the left, an axial one the front at the top and the patient's right at
the left, however it was stored. The letters follow from the pose; those of an oblique image have two.

**Window.** It is taken from percentiles of the values around what is shown. The window in a file is not used:
it is often absent, meant for the whole series, or set by the brightest fat beside the coil, in which case the
spinal canal is grey in grey. Percentiles need nothing but pixels and look alike for every scanner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import FloatArray, SlicePose, Vector
from stenosis_trt.engine.reports.study_report import ReportImage

if TYPE_CHECKING:
    from PIL import Image

Stored = npt.NDArray[np.uint16] | npt.NDArray[np.int16]

_DARK_PERCENTILE, _BRIGHT_PERCENTILE = 1.0, 99.0
"""Percentiles of the values of a region that become black and white."""

_MAX_SAMPLE = 16_000
"""Pixels from which the percentiles are taken, evenly spread."""

_LETTER_MIN_SHARE = 0.26
"""Component of a unit vector from which a direction is named by a second letter: sin 15°."""

_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))
"""Names of the negative and positive direction of each axis of LPS (PS3.3, C.7.6.1.1.1)."""

_HANGING: tuple[tuple[Vector, Vector], ...] = (
    ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
)
"""Directions to the right and down the picture, LPS, of sagittal, coronal and axial images."""


@dataclass(frozen=True)
class Crop:
    """Part of an image, a rectangle with sides along the picture's.

    Attributes:
        centre: LPS, mm; a point off the plane is projected onto it.
        width_mm, height_mm: size on the picture.
        inside: move the rectangle into the image as far as it fits. What still lies outside is black.
    """

    centre: Vector
    width_mm: float
    height_mm: float
    inside: bool = True


@dataclass(frozen=True)
class Letters:
    """Orientation letters of the sides of a picture, such as "A" or, for an oblique image, "AH"."""

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True)
class DisplayImage:
    """A grey picture of an image, and where its pixels lie in the patient.

    Attributes:
        grey: uint8 (height, width).
        pose: pose of the picture's own pixels. Both spacings are equal.
        window: real-world values that are shown black and white.
    """

    grey: npt.NDArray[np.uint8]
    pose: SlicePose
    window: tuple[float, float]

    @property
    def spacing_mm(self) -> float:
        """Width and height of a pixel in mm."""
        return self.pose.column_spacing

    @property
    def letters(self) -> Letters:
        """Orientation letters of the four sides."""
        right, down = np.asarray(self.pose.row_direction), np.asarray(self.pose.column_direction)
        return Letters(
            left=direction_letters(-right),
            right=direction_letters(right),
            top=direction_letters(-down),
            bottom=direction_letters(down),
        )

    def to_pixels(self, points: npt.ArrayLike) -> FloatArray:
        """Patient points `(..., 3)`, LPS, mm → `(..., 2)` as (x, y); centre of the first pixel at (0, 0)."""
        return self.pose.to_pixels(points)[..., :2]


def direction_letters(direction: npt.ArrayLike) -> str:
    """Return the letters of a direction, LPS, as PatientOrientation writes them: the largest component first.

    A component of less than sin 15° is left out.
    """
    vector = np.asarray(direction, dtype=np.float64)
    vector = vector / np.linalg.norm(vector)
    axes = sorted(range(3), key=lambda axis: -abs(vector[axis]))
    shown = [axis for axis in axes if abs(vector[axis]) >= _LETTER_MIN_SHARE]
    return "".join(_LETTERS[axis][int(vector[axis] > 0)] for axis in shown)


def hang(stored: Stored, pose: SlicePose) -> tuple[Stored, SlicePose]:
    """Swap and reverse rows and columns so that the image hangs in the usual way.

    Args:
        stored: (rows, columns).
        pose: its pose. The nearest plane of the patient decides how an oblique image hangs.

    Returns:
        A view of the array, and the pose of that view.
    """
    right, down = _HANGING[int(np.argmax(np.abs(pose.normal)))]
    across, along = pose.row_direction, pose.column_direction
    swap = abs(_dot(across, down)) + abs(_dot(along, right)) > abs(_dot(across, right)) + abs(
        _dot(along, down)
    )
    if swap:
        stored, across, along = stored.T, along, across
    flip_columns, flip_rows = _dot(across, right) < 0, _dot(along, down) < 0
    rows, columns = stored.shape
    row_spacing, column_spacing = (
        (pose.column_spacing, pose.row_spacing) if swap else (pose.row_spacing, pose.column_spacing)
    )
    origin = np.asarray(pose.origin)
    if flip_columns:
        stored, origin = stored[:, ::-1], origin + (columns - 1) * column_spacing * np.asarray(across)
        across = _negative(across)
    if flip_rows:
        stored, origin = stored[::-1], origin + (rows - 1) * row_spacing * np.asarray(along)
        along = _negative(along)
    x, y, z = map(float, origin)
    return stored, SlicePose(
        (x, y, z), across, along, row_spacing, column_spacing, rows, columns, pose.thickness
    )


def display_image(
    image: ReportImage, crop: Crop | None = None, spacing_mm: float | None = None
) -> DisplayImage:
    """Make a grey picture of an image or of a part of it.

    Args:
        image: the image.
        crop: the part to show; None for the whole image.
        spacing_mm: size of a pixel of the picture; None for the smaller one of the image's two spacings.

    Returns:
        The picture, interpolated with a bicubic filter that also averages where it gets smaller.
    """
    from PIL import Image

    stored, pose = hang(image.stored, image.pose)
    spacing = spacing_mm or min(pose.row_spacing, pose.column_spacing)
    left, top, width, height = _box(pose, crop)
    size = (max(1, round(width / spacing)), max(1, round(height / spacing)))
    # Sides are whole pixels of the picture; the rectangle's upper left corner is kept.
    scale_x, scale_y = spacing / pose.column_spacing, spacing / pose.row_spacing
    right, bottom = left + size[0] * scale_x, top + size[1] * scale_y
    # Whole pixels of the image around it, and two more for the filter.
    x0, y0 = int(np.floor(left)) - 2, int(np.floor(top)) - 2
    x1, y1 = int(np.ceil(right)) + 2, int(np.ceil(bottom)) + 2
    inside = stored[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    window = _window(inside, image.frame.slope)
    region = np.zeros((y1 - y0, x1 - x0), np.uint8)
    rows, columns = inside.shape
    at_y, at_x = max(-y0, 0), max(-x0, 0)
    region[at_y : at_y + rows, at_x : at_x + columns] = _to_grey(inside, window)
    box = (left - x0, top - y0, right - x0, bottom - y0)
    picture: Image.Image = Image.fromarray(region).resize(size, Image.Resampling.BICUBIC, box)
    # The edge of a pixel, at -0.5, is 0 in `box`.
    first = pose.to_patient((left + scale_x / 2 - 0.5, top + scale_y / 2 - 0.5))
    x, y, z = map(float, first)
    shown = SlicePose(
        (x, y, z),
        pose.row_direction,
        pose.column_direction,
        spacing,
        spacing,
        size[1],
        size[0],
        pose.thickness,
    )
    slope, intercept = image.frame.slope, image.frame.intercept
    low, high = sorted((slope * window[0] + intercept, slope * window[1] + intercept))
    return DisplayImage(np.asarray(picture), shown, (low, high))


def _box(pose: SlicePose, crop: Crop | None) -> tuple[float, float, float, float]:
    """Return left and top edge in pixels, from the outer edge of the first one, and width, height in mm."""
    whole_width, whole_height = pose.columns * pose.column_spacing, pose.rows * pose.row_spacing
    if crop is None:
        return 0.0, 0.0, whole_width, whole_height
    x, y, _ = pose.to_pixels(crop.centre)
    left = float(x + 0.5) * pose.column_spacing - crop.width_mm / 2
    top = float(y + 0.5) * pose.row_spacing - crop.height_mm / 2
    if crop.inside:
        left = _moved_inside(left, crop.width_mm, whole_width)
        top = _moved_inside(top, crop.height_mm, whole_height)
    return left / pose.column_spacing, top / pose.row_spacing, crop.width_mm, crop.height_mm


def _moved_inside(start: float, length: float, whole: float) -> float:
    if length >= whole:
        return (whole - length) / 2
    return min(max(start, 0.0), whole - length)


def _window(stored: Stored, slope: float) -> tuple[float, float]:
    """Return the stored values that are shown black and white; the first is the higher one if slope < 0."""
    if stored.size == 0:
        return 0.0, 1.0
    step = max(1, math.ceil(math.sqrt(stored.size / _MAX_SAMPLE)))
    percentiles = (_DARK_PERCENTILE, _BRIGHT_PERCENTILE)
    if slope < 0:
        percentiles = (100 - _DARK_PERCENTILE, 100 - _BRIGHT_PERCENTILE)
    black, white = map(float, np.percentile(stored[::step, ::step], percentiles))
    return black, white if white != black else black + (1.0 if slope >= 0 else -1.0)


def _to_grey(stored: Stored, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    low, high = window
    scale = np.float32(255.0 / (high - low))
    grey = stored.astype(np.float32)
    grey -= np.float32(low)
    grey *= scale
    np.clip(grey, 0.0, 255.0, out=grey)
    grey += np.float32(0.5)
    return grey.astype(np.uint8)


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _negative(a: Vector) -> Vector:
    return (-a[0], -a[1], -a[2])
