"""Peaks of a levels model with landmarks, as a network would give them for a neck with known points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tiny_pack import input_spec

from stenosis_trt.engine.backends.base import Peaks
from stenosis_trt.engine.geometry import FloatArray, SlicePose
from stenosis_trt.engine.packs.models import ModelSpec, OutputSpec
from stenosis_trt.engine.records import LANDMARKS, LEVELS, FrameHeader, LoadedSlice

DISC_NAMES = (*LEVELS, "T1/2", "T2/3")
MAP_NAMES = (*LEVELS, *LANDMARKS)
MODEL = ModelSpec(
    "levels", "", "", "fp32", input_spec(256, 1.0, 1, "sagittal"), OutputSpec("heatmaps", MAP_NAMES, 4, 0.3)
)

_FADE_MM = 6.0
"""σ of the peaks' heights over the distance from the mid-line, and of a peak in its map."""
_PEAKS = 4

Blob = tuple[FloatArray, float]
"""Point (LPS, mm) and height of a peak of a map."""


@dataclass(frozen=True)
class Neck:
    """Points of a neck, LPS, mm: eight discs from C2/3 to T2/3 (8, 3), and the landmarks by name."""

    discs: FloatArray
    landmarks: Mapping[str, FloatArray] = field(default_factory=dict)

    def maps(self, shift: int = 0, neighbours: float = 0.3, height: float = 0.9) -> dict[str, list[Blob]]:
        """Peaks of each map.

        Args:
            shift: number of discs by which the maps of the discs are off: with 1, each is highest at the
                disc below its own.
            neighbours: height of a map at the discs beside that, as a share of its highest.
            height: highest peak of each map.
        """
        found: dict[str, list[Blob]] = {
            name: [(point, height)] for name, point in self.landmarks.items() if name in ("C2", "dens")
        }
        for number, name in enumerate(DISC_NAMES):
            found[name] = [
                (self.discs[number + away], height * (neighbours if away != shift else 1.0))
                for away in (shift, shift - 1, shift + 1)
                if 0 <= number + away < len(self.discs)
            ]
        return found


def straight_neck(gap_mm: float = 16.5, tilt_degrees: float = 0.0, x: float = 2.0) -> Neck:
    """A neck with equal gaps, leaning forwards by the tilt; C5/6 lies at (x, −30, 0)."""
    angle = np.deg2rad(tilt_degrees)
    up, front = (
        np.array([0.0, -np.sin(angle), np.cos(angle)]),
        np.array([0.0, -np.cos(angle), -np.sin(angle)]),
    )
    discs = np.array([x, -30.0, 0.0]) + np.outer(3.0 - np.arange(8), up) * gap_mm
    return Neck(discs, {"C2": discs[0] + 15.5 * up, "dens": discs[0] + 37.0 * up + 6.0 * front})


def random_neck(rng: np.random.Generator) -> Neck:
    """A neck of random size, tilt, lordosis and gaps."""
    size = rng.normal(1.0, 0.08)
    gaps = size * rng.normal([16.0] * 5 + [19.0, 20.0], 1.0)
    angles = np.deg2rad(rng.uniform(-20.0, 20.0) + np.linspace(rng.uniform(-5.0, 20.0), 0.0, 8))
    ups = np.column_stack([np.zeros(8), -np.sin(angles), np.cos(angles)])
    discs = np.cumsum(np.concatenate([np.zeros((1, 3)), -gaps[:, None] * ups[:7]]), axis=0)
    discs += np.array([2.0, -30.0, 45.0])
    up, front = ups[0], np.array([0.0, -ups[0, 2], ups[0, 1]])
    return Neck(
        discs,
        {
            "C2": discs[0] + up * size * rng.normal(15.5, 1.2),
            "dens": discs[0] + up * size * rng.normal(37.0, 2.5) + front * rng.normal(6.0, 2.0),
        },
    )


def sagittal_stack(
    top_mm: float = 125.0, bottom_mm: float = -125.0, slices: int = 9, x_mm: float = 0.0
) -> list[LoadedSlice]:
    """Sagittal slices around x_mm that reach from one height (LPS, mm) to the other."""
    rows = int((top_mm - bottom_mm) / 0.8)
    stack = []
    for k in range(slices):
        x = x_mm + (k - (slices - 1) / 2) * 3.3
        pose = SlicePose((x, -130.0, top_mm), (0, 1, 0), (0, 0, -1), 0.8, 0.8, rows, 300, 3.0)
        stack.append(
            LoadedSlice(FrameHeader(Path(f"s{k}"), 0, f"s{k}", pose), pose, np.zeros((rows, 300), np.uint16))
        )
    return stack


def level_peaks(
    stack: Sequence[LoadedSlice], maps: Mapping[str, Sequence[Blob]], names: Sequence[str] = MAP_NAMES
) -> Peaks:
    """Peaks of the maps in each slice. What lies above or below a slice's image is not seen."""
    count, size = len(stack), len(names)
    points, heights = np.zeros((count, size, _PEAKS, 3)), np.zeros((count, size, _PEAKS))
    support = np.zeros((count, size, size))
    for n, item in enumerate(stack):
        for k, name in enumerate(names):
            for order, (point, height) in enumerate(_in_slice(item, maps.get(name, ()))[:_PEAKS]):
                points[n, k, order], heights[n, k, order] = point, height
        away = np.linalg.norm(points[n, :, None] - points[n, None, :, :1], axis=-1)
        support[n] = (heights[n, :, None] * np.exp(-0.5 * (away / _FADE_MM) ** 2)).max(axis=-1)
        support[n][:, heights[n, :, 0] == 0.0] = 0.0
    return Peaks(points, heights, support)


def _in_slice(item: LoadedSlice, blobs: Sequence[Blob]) -> list[Blob]:
    """Peaks of a map in one slice, the highest first."""
    pose, seen = item.pose, []
    for point, height in blobs:
        column, row, off = pose.to_pixels(point)
        if 0 <= row <= pose.rows - 1 and 0 <= column <= pose.columns - 1:
            faded = height * float(np.exp(-0.5 * (off / _FADE_MM) ** 2))
            seen.append((pose.to_patient([column, row]), faded))
    return sorted(seen, key=lambda blob: -blob[1])


def moved(neck: Neck, rng: np.random.Generator, sigma_mm: float) -> Neck:
    """The neck with noise on every point in the sagittal plane."""

    def noisy(points: FloatArray) -> FloatArray:
        return points + rng.normal(0.0, sigma_mm, points.shape) * [0.0, 1.0, 1.0]

    return replace(
        neck,
        discs=noisy(neck.discs),
        landmarks={name: noisy(point) for name, point in neck.landmarks.items()},
    )
