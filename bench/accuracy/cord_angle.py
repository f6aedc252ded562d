"""Measure how the ratio of the cord depends on the angle between axial slices and the cord.

    python -m stenosis_trt.bench.accuracy.cord_angle [--studies 20] [--network] [--out OUT.json]

The axial slices of phantoms are turned about the left-right axis, each about its centre. For each slice near
a level the direction of the cord is taken from points of the levels as the program finds them: the true ones
with an error of `_POINT_ERROR_MM` a coordinate. The true points of the cord in the slice, measured across
this direction, give the error of the geometry; with `--network`, those that the cord model of a pack finds
give that of the program. The truth is that of truth.csv: the true points, measured across the true direction.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from stenosis_trt.bench.phantom.study import PhantomStudy, sample_study
from stenosis_trt.engine.backends.base import Keypoints, Roi
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.stepwise import patient_keypoints
from stenosis_trt.engine.geometry import FloatArray, SlicePose, Vector
from stenosis_trt.engine.grading.cord import CanalLine, CordSlice, canal_line, crossing_slices
from stenosis_trt.engine.grading.levels import LevelPoint
from stenosis_trt.engine.packs.crop import slice_rois
from stenosis_trt.engine.packs.pack import open_pack
from stenosis_trt.engine.records import FrameHeader, LoadedSlice
from stenosis_trt.kernels.reference import cord_geometry

TILTS_DEGREES = (-40.0, -30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0, 40.0)
BINS_DEGREES = (0, 10, 15, 20, 25, 30, 35, 40, 90)

_SEED = 4242
_POINT_ERROR_MM = 0.4
"""Of each coordinate of a level: 0.6 mm in the plane, as on phantoms."""
_NEAR_MM = 6.0


@dataclass(frozen=True)
class SliceError:
    """One slice near a level. Errors are found − true.

    Attributes:
        study, tilt_degrees, level: which.
        angle_degrees: angle between slice and cord, as found.
        direction_degrees: error of the direction of the cord.
        true_ratio: ratio of the true points across the true direction.
        profile_ratio: ratio of the anatomy where the slice crosses the canal, without tilt or thickness.
        in_slice: error of the true points, measured in the slice.
        across: error of the true points, measured across the direction that was found.
        network: error of the network's points, measured across that direction; None without a network.
        network_in_slice: the same, measured in the slice.
    """

    study: int
    tilt_degrees: float
    level: str
    angle_degrees: float
    direction_degrees: float
    true_ratio: float
    profile_ratio: float
    in_slice: float
    across: float
    network: float | None = None
    network_in_slice: float | None = None


def turned(pose: SlicePose, degrees: float) -> SlicePose:
    """Turn a slice about the left-right axis through its centre; positive moves its back edge to the head."""
    angle = np.deg2rad(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    row, column, away = (
        _vector(turn @ part)
        for part in (pose.row_direction, pose.column_direction, np.asarray(pose.origin) - pose.centre)
    )
    return replace(pose, origin=_vector(pose.centre + away), row_direction=row, column_direction=column)


def slice_errors(
    study: PhantomStudy, degrees: float, rng: np.random.Generator, backend: CpuBackend | None = None
) -> Iterator[SliceError]:
    """Yield the errors of one phantom with its axial slices turned by `degrees`."""
    axial = replace(study.axial, poses=tuple(turned(pose, degrees) for pose in study.axial.poses))
    study = replace(study, axial=axial)
    levels = [
        LevelPoint(item.level, _vector(item.point + rng.normal(0.0, _POINT_ERROR_MM, 3)), 1.0)
        for item in study.anatomy.levels
    ]
    line = canal_line(levels)
    chosen = [
        (item, points)
        for item in crossing_slices(line, _slices(study, ()))
        if (points := study.anatomy.cord_points(axial.poses[item.index])) is not None
        and abs(_nearest_level(line, item.arc_length_mm)[1]) <= _NEAR_MM
    ]
    if not chosen:
        return
    crossed, true_points = [item for item, _ in chosen], np.array([points for _, points in chosen])
    curve = study.anatomy.curve
    rows = curve.index(curve.to_canal(true_points.mean(axis=1))[:, 2])
    true_directions, found = curve.tangent[rows], np.array([item.direction for item in crossed])
    truth = cord_geometry(true_points, true_directions).compression_ratio
    profile = study.anatomy.cord_ap[rows] / study.anatomy.cord_transverse[rows]
    across = cord_geometry(true_points, found).compression_ratio - truth
    shown = cord_geometry(true_points, np.zeros_like(found)).compression_ratio - truth
    off = np.degrees(np.arccos(np.clip((found * true_directions).sum(axis=1), -1.0, 1.0)))
    network: list[tuple[float, float] | tuple[None, None]] = [(None, None)] * len(crossed)
    if backend is not None:
        points = _network_points(study, crossed, backend).points
        by = cord_geometry(points, found).compression_ratio - truth
        flat = cord_geometry(points, np.zeros_like(found)).compression_ratio - truth
        network = [(float(a), float(b)) for a, b in zip(by, flat, strict=True)]
    for k, item in enumerate(crossed):
        yield SliceError(
            study=study.index,
            tilt_degrees=degrees,
            level=_nearest_level(line, item.arc_length_mm)[0],
            angle_degrees=item.angle_degrees,
            direction_degrees=float(off[k]),
            true_ratio=float(truth[k]),
            profile_ratio=float(profile[k]),
            in_slice=float(shown[k]),
            across=float(across[k]),
            network=network[k][0],
            network_in_slice=network[k][1],
        )


def _vector(values: FloatArray) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _nearest_level(line: CanalLine, arc: float) -> tuple[str, float]:
    """Name of the level nearest to an arc length, and the distance."""
    return min(
        ((name, arc - at) for name, at in line.level_arc_length_mm.items()), key=lambda pair: abs(pair[1])
    )


def _slices(study: PhantomStudy, with_pixels: Sequence[int]) -> list[LoadedSlice]:
    """Axial slices of a phantom; pixels only of those in `with_pixels`, the others have one black pixel."""
    black, series = np.zeros((1, 1), np.uint16), study.axial
    return [
        LoadedSlice(
            FrameHeader(Path(), 0, f"{k}", pose),
            pose,
            study.slice_pixels(series, k) if k in with_pixels else black,
        )
        for k, pose in enumerate(series.poses)
    ]


def _network_points(study: PhantomStudy, crossed: Sequence[CordSlice], backend: CpuBackend) -> Keypoints:
    model = backend.pack.models["cord"]
    slices = _slices(study, [item.index for item in crossed])
    affines = slice_rois(
        [slices[item.index].pose for item in crossed], [item.centre for item in crossed], model.input
    )
    rois = [
        Roi((item.index,) * model.input.channels, affine)
        for item, affine in zip(crossed, affines, strict=True)
    ]
    decoded = backend.decode(backend.infer("cord", backend.preprocess(slices, rois, model.input)))
    return patient_keypoints(slices, rois, decoded, model.output.stride)


def _line(name: str, errors: Sequence[float]) -> str:
    values = np.array(errors)
    if not len(values):
        return f"{name} –"
    return (
        f"{name} bias {values.mean():+.4f}, error {np.abs(values).mean():.4f}, p95 "
        f"{np.percentile(np.abs(values), 95):.3f}, max {np.abs(values).max():.3f}, over 0.1: "
        f"{np.mean(np.abs(values) > 0.1):.1%}"
    )


def _print_part(name: str, part: Sequence[SliceError]) -> None:
    print(f"{name}: {len(part)} slices, direction off by {np.mean([x.direction_degrees for x in part]):.2f}°")
    print("  " + _line("true points, in the slice     ", [x.in_slice for x in part]))
    print("  " + _line("true points, across the cord  ", [x.across for x in part]))
    print("  " + _line("truth against the anatomy     ", [x.true_ratio - x.profile_ratio for x in part]))
    if part[0].network is not None:
        flat = [x.network_in_slice for x in part if x.network_in_slice is not None]
        print("  " + _line("network, in the slice         ", flat))
        print(
            "  " + _line("network, across the cord      ", [x.network for x in part if x.network is not None])
        )


def main() -> None:
    """Print the errors by tilt and by angle of the slice; with `--out` write those of each slice."""
    parser = argparse.ArgumentParser(description="Error of the ratio against the angle of the slice.")
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--network", action="store_true", help="also by the cord model, on acquired slices")
    parser.add_argument("--pack", type=Path, help="default: the reference pack")
    parser.add_argument("--out", type=Path, help="write the errors of each slice here as JSON")
    arguments = parser.parse_args()
    rng = np.random.default_rng(_SEED)
    errors: list[SliceError] = []
    with closing(CpuBackend(open_pack(arguments.pack))) as backend:
        for index in range(arguments.studies):
            study = sample_study(_SEED, index)
            for degrees in TILTS_DEGREES:
                errors += slice_errors(study, degrees, rng, backend if arguments.network else None)
    for degrees in TILTS_DEGREES:
        _print_part(f"tilt {degrees:+.0f}°", [x for x in errors if x.tilt_degrees == degrees])
    for low, high in pairwise(BINS_DEGREES):
        part = [x for x in errors if low <= x.angle_degrees < high]
        if part:
            _print_part(f"slices at {low}–{high}°", part)
    if arguments.out:
        rows = [asdict(item) for item in errors]
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
