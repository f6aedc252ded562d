"""Reslice an acquired volume to the two clinical protocols, without changing or adding tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.scan.acquisition import SeriesProtocol, plane_points
from stenosis_trt.bench.phantom.slice_profile import through_thickness
from stenosis_trt.bench.phantom.study import SeriesPlan
from stenosis_trt.bench.semisynthetic.canal import NiftiVolume
from stenosis_trt.engine.geometry import FloatArray, SlicePose

_BRIGHTEST = 2000.0

_AXES = {"sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)), "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))}


@dataclass(frozen=True)
class AcquiredStudy:
    """A volume resliced to a sagittal and an axial series; a `WritableStudy`."""

    name: str
    volume: NiftiVolume
    sagittal: SeriesPlan
    axial: SeriesPlan
    seed: int = 0
    index: int = 0

    @property
    def uid_source(self) -> tuple[object, ...]:
        """Values that the study's UIDs are derived from."""
        return ("stenosis-trt acquired", self.name)

    @property
    def patient_id(self) -> str:
        """DICOM PatientID."""
        return f"ACQUIRED-{self.name}"

    def slice_pixels(self, series: SeriesPlan, number: int) -> npt.NDArray[np.uint16]:
        """Slice `number` of a series, averaged over its profile, uint16 (rows, columns)."""
        pose = series.poses[number]
        image = average_through_slice(self.volume, pose, plane_points(pose))
        scale = _BRIGHTEST / float(np.percentile(self.volume.data, 99.9))
        return np.clip(image * scale, 0, 4095).astype(np.uint16)


def average_through_slice(volume: NiftiVolume, pose: SlicePose, points: FloatArray) -> FloatArray:
    """Sample a volume at points (..., 3) of a slice's plane, averaged with the slice profile."""
    parts = [
        weight * volume.sample(points + depth * pose.normal) for depth, weight in through_thickness(pose)
    ]
    return np.asarray(np.sum(parts, axis=0))


def acquire_volume(
    name: str, volume: NiftiVolume, between: tuple[float, float] = (-np.inf, np.inf)
) -> AcquiredStudy:
    """Reslice a volume to 0.6 × 0.6 × 3.3 mm sagittal and 0.5 × 0.5 × 3.5 mm axial slices.

    Args:
        name: enters the PatientID and the UIDs.
        volume: the volume.
        between: lowest and highest z (LPS, mm) of the images; the whole volume by default.
    """
    protocols = {
        plane: SeriesProtocol(
            plane=plane,
            rows=0,
            columns=0,
            pixel_spacing=spacing,
            thickness=distance,
            slice_distance=distance,
            slices=0,
            echo_time_ms=100.0,
            repetition_time_ms=3500.0,
            echo_train_length=16,
        )
        for plane, spacing, distance in (("sagittal", 0.6, 3.3), ("axial", 0.5, 3.5))
    }
    low, high = volume.bounds
    low[2], high[2] = max(low[2], between[0]), min(high[2], between[1])
    plans = {
        plane: SeriesPlan(protocol, _poses(low, high, protocol)) for plane, protocol in protocols.items()
    }
    return AcquiredStudy(name, volume, plans["sagittal"], plans["axial"])


def _poses(low: FloatArray, high: FloatArray, protocol: SeriesProtocol) -> tuple[SlicePose, ...]:
    """Contiguous slices that fill the box between two LPS corners."""
    across, down = (np.array(axis) for axis in _AXES[protocol.plane])
    normal = np.cross(across, down)
    extent = high - low
    columns, rows, slices = (
        int(abs(extent @ axis) / step) + 1
        for axis, step in (
            (across, protocol.pixel_spacing),
            (down, protocol.pixel_spacing),
            (normal, protocol.slice_distance),
        )
    )
    corner = (low + high) / 2 - (across * (columns - 1) / 2 + down * (rows - 1) / 2) * protocol.pixel_spacing
    poses = []
    for number in range(slices):
        x, y, z = corner + normal * (number - (slices - 1) / 2) * protocol.slice_distance
        poses.append(
            SlicePose(
                origin=(float(x), float(y), float(z)),
                row_direction=_AXES[protocol.plane][0],
                column_direction=_AXES[protocol.plane][1],
                row_spacing=protocol.pixel_spacing,
                column_spacing=protocol.pixel_spacing,
                rows=rows,
                columns=columns,
                thickness=protocol.thickness,
            )
        )
    return tuple(poses)
