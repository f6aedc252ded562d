"""Sagittal fields of view other than the usual ones: size, matrix, and place of the neck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stenosis_trt.bench.phantom.conditions import Conditions
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.scan.acquisition import Scanner, SeriesProtocol
from stenosis_trt.engine.geometry import SlicePose, Vector

_ORDINARY_MM = 260.0
"""Largest field of an ordinary protocol."""
_SPACINGS = (0.6, 1.1)
_MATRIX = (320, 640)
_RECTANGULAR_FROM_MM = 300.0
_WIDTHS = (250.0, 300.0)
_MARGINS = (20.0, 45.0)
"""Distance in mm of C2 or C7/T1 from the edge of the field at which the neck lies."""
_TIGHT_MARGINS = (-12.0, 45.0)
_TIGHT_MM = 215.0
"""Fields below this may cut C2 or C7/T1."""
_LEAST_WIDTH_MM = 45.0
"""Least distance of a level from the front or back edge."""
_CONTINUED_FROM_MM = 200.0


def needs_long_spine(conditions: Conditions) -> bool:
    """Return True if the field may reach beyond the spine of an ordinary anatomy."""
    return conditions.field_mm > _CONTINUED_FROM_MM


def field_protocol(
    protocol: SeriesProtocol, conditions: Conditions, own: np.random.Generator
) -> SeriesProtocol:
    """Sagittal protocol with the field of view of `conditions`.

    Fields beyond 260 mm have 0.6 to 1.1 mm pixels and 320 to 640 rows; from 300 mm on, half of them are
    rectangular, 250 to 300 mm wide.
    """
    side, share, rectangular, width = (
        conditions.field_mm,
        own.random(),
        own.random() < 0.5,
        own.uniform(*_WIDTHS),
    )
    if not side:
        return protocol
    spacing = protocol.pixel_spacing
    if side > _ORDINARY_MM:
        low, high = max(_SPACINGS[0], side / _MATRIX[1]), min(_SPACINGS[1], side / _MATRIX[0])
        spacing = round(low + share * (high - low), 3)
    rows = columns = round(side / spacing / 16.0) * 16
    if rectangular and side >= _RECTANGULAR_FROM_MM:
        columns = round(width / spacing / 16.0) * 16
    return replace(protocol, rows=rows, columns=columns, pixel_spacing=spacing)


def field_scanner(scanner: Scanner, conditions: Conditions) -> Scanner:
    """Scanner whose coil covers the field: several elements are combined for tall ones."""
    if conditions.field_mm <= _ORDINARY_MM:
        return scanner
    return replace(scanner, coil_length=scanner.coil_length * 1.4 * conditions.field_mm / _ORDINARY_MM)


def placed(
    poses: list[SlicePose], anatomy: Anatomy, conditions: Conditions, own: np.random.Generator
) -> list[SlicePose]:
    """Shift sagittal slices in their plane so that the neck lies where `field_place` says.

    Args:
        poses: with the field's matrix, anywhere.
        anatomy: the patient as positioned, continued if the field needs it.
        conditions: `field_mm` and `field_place`.
        own: draws the distance from the edges.
    """
    margins = own.uniform(*(_TIGHT_MARGINS if conditions.field_mm < _TIGHT_MM else _MARGINS), 2)
    if not conditions.field_mm:
        return poses
    pose = poses[len(poses) // 2]
    across, down = np.asarray(pose.row_direction), np.asarray(pose.column_direction)
    height, width = pose.rows * pose.row_spacing, pose.columns * pose.column_spacing
    curve, discs = anatomy.curve, anatomy.discs
    upper, lower = (
        (curve.to_patient(0.0, 0.0, s) - pose.centre) for s in (discs[0] - 12.0 * anatomy.scale, discs[5])
    )
    # Shift of the image along `down` that brings C2 to its place at the top, or C7/T1 to its at the bottom.
    at_top = float(upper @ down) + height / 2 - margins[0]
    at_bottom = float(lower @ down) - height / 2 + margins[1]
    share = (conditions.field_place + 1.0) / 2.0
    lift = at_top + share * (at_bottom - at_top)
    shown = curve.centre[::20] - pose.centre
    along = shown @ down - lift
    visible = shown[(np.abs(along) < height / 2) & (curve.s[::20] > discs[0] - 60.0)]
    wanted = float(np.mean(visible @ across)) - 8.0 if conditions.field_mm > _ORDINARY_MM else 0.0
    levels = (curve.to_patient(0.0, 0.0, discs[:6]) - pose.centre) @ across
    low, high = levels.max() + _LEAST_WIDTH_MM - width / 2, levels.min() - _LEAST_WIDTH_MM + width / 2
    aside = float(np.clip(wanted, low, high)) if low <= high else float(low + high) / 2
    by = down * lift + across * aside
    return [replace(item, origin=_vector(np.asarray(item.origin) + by)) for item in poses]


def _vector(values: np.ndarray) -> Vector:
    return (float(values[0]), float(values[1]), float(values[2]))
