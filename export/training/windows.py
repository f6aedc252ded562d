"""Windows of tall sagittal images that are stored for training: around part of the neck, or without any."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.engine.geometry import FloatArray, SlicePose

LARGEST_PIXELS = 448
"""Images of at most this many rows and columns are stored whole."""

_WINDOW_MM = (300.0, 360.0)
_NECK_SHARE = 2.0 / 3.0
_SHOWN_MM = 30.0
"""Least part of the neck in a window that shows it."""
_BESIDE_MM = 15.0
"""Distance of a window without neck from the outermost points of it."""
_LEAST_MM = 160.0
"""Least height of a window without neck."""
_CANAL_MARGIN_MM = 40.0
"""Least distance of the canal from the front and back edge of a window."""


@dataclass(frozen=True)
class Window:
    """Part of an image in pixels: first row and column, and size."""

    row: int
    column: int
    rows: int
    columns: int

    def pose(self, pose: SlicePose) -> SlicePose:
        """Plane of the part of the image with this plane."""
        x, y, z = pose.to_patient(np.array([self.column, self.row], dtype=np.float64))
        return replace(pose, origin=(float(x), float(y), float(z)), rows=self.rows, columns=self.columns)

    def pixels(self, image: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        """The part of an image."""
        return image[self.row : self.row + self.rows, self.column : self.column + self.columns]


def draw_window(rng: np.random.Generator, pose: SlicePose, anatomy: Anatomy) -> Window:
    """Draw the part of a sagittal image that is stored: all of it, or 300 to 360 mm of a larger one.

    Two of three windows show a part of the neck. The others lie above or below it, and are lower where there
    is less; images without room for them show the neck.

    Args:
        rng: random generator; an image that is stored whole draws nothing.
        pose: plane of the image.
        anatomy: the patient.
    """
    whole = Window(0, 0, pose.rows, pose.columns)
    if max(pose.rows, pose.columns) <= LARGEST_PIXELS:
        return whole
    wanted = rng.uniform(*_WINDOW_MM, 2)
    rows, columns = (
        min(int(length / step), size)
        for length, step, size in zip(
            wanted, (pose.row_spacing, pose.column_spacing), (pose.rows, pose.columns), strict=True
        )
    )
    row_place, column_place, with_neck = rng.random(), rng.random(), rng.random() < _NECK_SHARE
    top, bottom = _neck_rows(pose, anatomy)
    row, rows = _rows_of_window(pose, (top, bottom), rows, float(row_place), with_neck)
    return Window(
        row, _first_column(pose, anatomy, (row, row + rows), columns, float(column_place)), rows, columns
    )


def _neck_rows(pose: SlicePose, anatomy: Anatomy) -> tuple[float, float]:
    """First and last row of the levels and landmarks."""
    points = [*(level.point for level in anatomy.levels), *anatomy.landmarks.values()]
    rows = pose.to_pixels(np.array(points))[:, 1]
    return float(rows.min()), float(rows.max())


def _rows_of_window(
    pose: SlicePose, neck: tuple[float, float], rows: int, place: float, with_neck: bool
) -> tuple[int, int]:
    """First row and number of rows; `place`, 0 to 1, says which of the possible windows."""
    step = pose.row_spacing
    if not with_neck:
        above, below = neck[0] - _BESIDE_MM / step, neck[1] + _BESIDE_MM / step
        # Room above and below the neck, as (first row, number of rows).
        rooms = [(0, int(above)), (int(np.ceil(below)), pose.rows - int(np.ceil(below)))]
        rooms = [room for room in rooms if room[1] * step >= _LEAST_MM]
        if rooms:
            first, room = rooms[min(int(place * len(rooms)), len(rooms) - 1)]
            share = place * len(rooms) % 1.0
            height = min(rows, room)
            return first + int(share * (room - height)), height
    shown = min(_SHOWN_MM / step, neck[1] - neck[0])
    low = max(0, int(neck[0] + shown - rows))
    high = min(pose.rows - rows, int(neck[1] - shown))
    return int(np.clip(low + place * (high - low), 0, pose.rows - rows)), rows


def _first_column(
    pose: SlicePose, anatomy: Anatomy, between: tuple[int, int], columns: int, place: float
) -> int:
    """First column of a window between two rows, such that it shows the canal."""
    line: FloatArray = pose.to_pixels(anatomy.curve.centre[::20])[:, :2]
    shown = line[(line[:, 1] >= between[0]) & (line[:, 1] < between[1]), 0]
    low, high = 0.0, float(pose.columns - columns)
    if len(shown):
        margin = _CANAL_MARGIN_MM / pose.column_spacing
        first, last = float(shown.max()) + margin - columns, float(shown.min()) - margin
        if first <= last:
            low, high = float(np.clip(first, low, high)), float(np.clip(last, low, high))
    return int(low + place * (high - low))
