"""Position of the patient in the scanner, and of the axial slices against the cord."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import numpy as np

from stenosis_trt.bench.phantom.conditions import Conditions
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.patient.spine import CanalCurve, rotation_matrix
from stenosis_trt.engine.geometry import FloatArray, SlicePose, Vector

_MOST_AXIAL = 48
_MOST_SAGITTAL = 21
_MARGIN_MM = 4.0
"""Distance by which a stack extends beyond the outermost levels."""
_EDGE_MM = 15.0
"""Least distance of the cord's centre, at the levels, from the edge of an axial image."""


def is_turned(conditions: Conditions) -> bool:
    """Return True if the patient is turned against the stacks."""
    return bool(conditions.yaw or conditions.roll or conditions.pitch)


def turned(anatomy: Anatomy, conditions: Conditions) -> Anatomy:
    """Turn a patient about the middle of the neck (disc C4/5) by `yaw`, `roll` and `pitch`.

    A positive pitch moves the head to the front, a positive roll to the left, and a positive yaw turns the
    face to the left. Points of the truth turn along.
    """
    if not is_turned(conditions):
        return anatomy
    turn = rotation_matrix(conditions.roll, conditions.pitch, conditions.yaw)
    about = anatomy.curve.to_patient(0.0, 0.0, 0.0)
    levels = tuple(
        replace(level, point=_vector(about + turn @ (np.asarray(level.point) - about)))
        for level in anatomy.levels
    )
    return replace(anatomy, curve=_turned_curve(anatomy.curve, turn, about), levels=levels)


def _turned_curve(curve: CanalCurve, turn: FloatArray, about: FloatArray) -> CanalCurve:
    return CanalCurve(
        s=curve.s,
        centre=(curve.centre - about) @ turn.T + about,
        tangent=curve.tangent @ turn.T,
        lateral=curve.lateral @ turn.T,
        posterior=curve.posterior @ turn.T,
    )


def _vector(values: FloatArray) -> Vector:
    return (float(values[0]), float(values[1]), float(values[2]))


def _level_centres(anatomy: Anatomy) -> FloatArray:
    """Centre of the canal at the six levels, LPS, mm, float64 (6, 3)."""
    return anatomy.curve.to_patient(0.0, 0.0, np.array([level.s for level in anatomy.levels]))


def place_sagittal(poses: list[SlicePose], anatomy: Anatomy, distance: float) -> list[SlicePose]:
    """Add slices on both sides until the stack shows every level of a turned patient, 21 at most.

    Args:
        poses: of the stack, equidistant along its normal.
        anatomy: the patient as turned.
        distance: of neighbouring slices, mm.
    """
    normal, middle = poses[0].normal, np.mean([pose.centre for pose in poses], axis=0)
    step = float(np.sign((poses[-1].centre - poses[0].centre) @ normal)) * distance
    away = float(np.abs((_level_centres(anatomy) - middle) @ normal).max())
    added = int(np.ceil((away + 0.5 * distance) / distance - (len(poses) - 1) / 2))
    added = int(np.clip(added, 0, (_MOST_SAGITTAL - len(poses)) // 2))
    before = [_moved(poses[0], -normal * step * k) for k in range(added, 0, -1)]
    after = [_moved(poses[-1], normal * step * k) for k in range(1, added + 1)]
    return before + poses + after


def place_axial(
    poses: list[SlicePose], anatomy: Anatomy, conditions: Conditions, distance: float
) -> list[SlicePose]:
    """Turn axial slices by `axial_tilt` about their left-right axis, and see to it that they show the cord.

    Blocks turn about their middle each. A single stack turns as a whole; it is centred on the levels again,
    and has as many slices as show all of them, 48 at most. A positive tilt moves the front edge of a slice
    towards the feet.

    Args:
        poses: one stack or several blocks, equidistant along the normal.
        anatomy: the patient as turned.
        conditions: see `axial_tilt`.
        distance: of neighbouring slices, mm.
    """
    blocks = [list(block) for _, block in groupby(poses, lambda pose: pose.column_direction)]
    if len(blocks) == 1:
        return _whole_stack(_tilted(poses[0], conditions.axial_tilt), anatomy, distance, poses)
    placed = []
    for block in blocks:
        middle = np.mean([pose.centre for pose in block], axis=0)
        pose = _tilted(block[0], conditions.axial_tilt)
        first = -(len(block) - 1) / 2
        placed += [_centred(pose, middle + pose.normal * (first + k) * distance) for k in range(len(block))]
    return placed


def _whole_stack(
    pose: SlicePose, anatomy: Anatomy, distance: float, before: list[SlicePose]
) -> list[SlicePose]:
    """Slices parallel to `pose` that show all levels, around the levels' middle in the plane."""
    across, back = np.asarray(pose.row_direction), np.asarray(pose.column_direction)
    centres = _level_centres(anatomy)
    along = centres @ pose.normal
    length = float(np.ptp(along)) + 2 * _MARGIN_MM
    count = int(np.clip(np.ceil(length / distance) + 1, min(len(before), _MOST_AXIAL), _MOST_AXIAL))
    middle = np.mean([item.centre for item in before], axis=0)
    centre = pose.normal * float(along.max() + along.min()) / 2
    for axis, size in ((across, pose.columns * pose.column_spacing), (back, pose.rows * pose.row_spacing)):
        seen = centres @ axis
        # The place where the radiographer has put the stack, unless the cord would leave the image.
        low, high = seen.max() + _EDGE_MM - size / 2, seen.min() - _EDGE_MM + size / 2
        wanted = float(middle @ axis)
        centre = centre + axis * (float(np.clip(wanted, low, high)) if low <= high else (low + high) / 2)
    first = -(count - 1) / 2
    return [_centred(pose, centre - pose.normal * (first + k) * distance) for k in range(count)]


def _tilted(pose: SlicePose, degrees: float) -> SlicePose:
    """Turn a plane about its row direction; the origin is not moved."""
    angle = np.deg2rad(degrees)
    back = np.asarray(pose.column_direction) * np.cos(angle) + pose.normal * np.sin(angle)
    return replace(pose, column_direction=_vector(back / np.linalg.norm(back)))


def _moved(pose: SlicePose, by: FloatArray) -> SlicePose:
    return replace(pose, origin=_vector(np.asarray(pose.origin) + by))


def _centred(pose: SlicePose, centre: FloatArray) -> SlicePose:
    return _moved(pose, centre - pose.centre)
