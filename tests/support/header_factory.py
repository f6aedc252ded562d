"""Headers of series and studies for tests that need no files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import Contrast, FrameHeader, SeriesHeader, StudyHeader

T2 = Contrast(echo_time_ms=100, repetition_time_ms=3500, scanning_sequence=("SE",))


def stack(
    plane: str,
    count: int,
    spacing: float,
    step: float,
    size: int,
    tilt: float = 0.0,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> list[SlicePose]:
    """Poses of `count` parallel slices of `size`² pixels around `centre`; axial ones tilted, in degrees."""
    angle = np.deg2rad(tilt)
    row, column = {
        "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
        "axial": ((1.0, 0.0, 0.0), (0.0, float(np.cos(angle)), float(np.sin(angle)))),
        "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
        "oblique": ((0.7071, 0.7071, 0.0), (0.0, 0.0, -1.0)),
    }[plane]
    normal = np.cross(row, column)
    corner = np.array(centre) - (np.array(row) + np.array(column)) * spacing * (size - 1) / 2
    poses = []
    for number in range(count):
        x, y, z = (float(v) for v in corner + normal * step * (number - (count - 1) / 2))
        poses.append(SlicePose((x, y, z), row, column, spacing, spacing, size, size, step))
    return poses


def with_poses(series: SeriesHeader, poses: list[SlicePose]) -> SeriesHeader:
    """The same series with other slices."""
    uid = series.series_uid
    frames = tuple(
        FrameHeader(Path(f"/study/{uid}/{number}.dcm"), 0, f"{uid}.{number}", pose)
        for number, pose in enumerate(poses)
    )
    return replace(series, frames=frames)


def sagittal(
    uid: str, count: int = 13, spacing: float = 0.7, step: float = 3.3, size: int = 320, **changes: Any
) -> SeriesHeader:
    """A sagittal T2 series that has nothing wrong with it, but for `changes`."""
    series = SeriesHeader(
        study_uid="1.2",
        series_uid=uid,
        modality="MR",
        frames=(),
        frame_of_reference_uid="1.2.99",
        description="t2_tse_sag",
        contrast=T2,
    )
    return replace(with_poses(series, stack("sagittal", count, spacing, step, size)), **changes)


def axial(
    uid: str, centre: tuple[float, float, float] = (0.0, 0.0, 0.0), count: int = 30, **changes: Any
) -> SeriesHeader:
    """An axial T2 series across the middle of `sagittal`'s, but for `changes`."""
    series = with_poses(
        sagittal(uid, description="t2_tse_tra"), stack("axial", count, 0.5, 3.5, 320, 15.0, centre)
    )
    return replace(series, **changes)


def study(*series: SeriesHeader) -> StudyHeader:
    """The study of these series."""
    return StudyHeader("1.2", "/study", series)
