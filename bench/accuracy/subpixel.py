"""Compare methods to locate a heatmap's peak with sub-pixel accuracy, on phantoms and the reference pack.

    python -m stenosis_trt.bench.accuracy.subpixel --studies 4 --out subpixel.json

Each method refines the same peaks of the cord model's heatmaps:

none            the pixel of the peak
quadratic       vertex of the parabola through the peak and its two neighbours along each axis
log-quadratic   the same through their logarithms, exact for a Gaussian (DARK: Zhang et al., CVPR 2020)
soft-argmax     centre of mass of the 5 × 5 pixels around the peak (Nibali et al., arXiv 1801.07372)

Errors are distances to the true point in the image plane, in mm and in heatmap pixels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.study import sample_study
from stenosis_trt.engine.backends.base import Roi
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.packs.crop import crop_to_patient, heatmap_to_input, slice_roi
from stenosis_trt.engine.packs.pack import Pack, open_pack
from stenosis_trt.engine.records import FrameHeader, LoadedSlice

_SEED = 717
_SLICES_A_STUDY = 12
_JITTER_MM = 3.0
"""Random offset of the region's centre from the cord's, so that true points lie between pixels."""
_RADIUS = 2
_FLOOR = 1e-6

Patch = npt.NDArray[np.float64]


def _none(patch: Patch) -> FloatArray:
    return np.zeros(2)


def _vertex(patch: Patch) -> FloatArray:
    """Shift (x, y) of the parabola's vertex from the patch's middle, at most half a pixel."""
    middle = patch[_RADIUS, _RADIUS]
    shifts = []
    for before, after in (
        (patch[_RADIUS, _RADIUS - 1], patch[_RADIUS, _RADIUS + 1]),
        (patch[_RADIUS - 1, _RADIUS], patch[_RADIUS + 1, _RADIUS]),
    ):
        curvature = 2.0 * middle - before - after
        shifts.append(float(np.clip(0.5 * (after - before) / curvature, -0.5, 0.5)) if curvature > 0 else 0.0)
    return np.array(shifts)


def _log_vertex(patch: Patch) -> FloatArray:
    return _vertex(np.log(np.maximum(patch, _FLOOR)))


def _centre_of_mass(patch: Patch) -> FloatArray:
    steps = np.arange(-_RADIUS, _RADIUS + 1)
    total = patch.sum()
    return np.array([(patch.sum(axis=0) @ steps) / total, (patch.sum(axis=1) @ steps) / total])


METHODS: dict[str, Callable[[Patch], FloatArray]] = {
    "none": _none,
    "quadratic": _vertex,
    "log-quadratic": _log_vertex,
    "soft-argmax": _centre_of_mass,
}


def _heatmaps(
    studies: int, pack: Pack
) -> list[tuple[npt.NDArray[np.float32], FloatArray, LoadedSlice, FloatArray]]:
    """For each slice: heatmaps (4, h, w), true points (4, 3), the slice, and its region's affine."""
    spec = pack.models["cord"].input
    found = []
    with closing(CpuBackend(pack)) as backend:
        for number in range(studies):
            study = sample_study(_SEED, number)
            rng = np.random.default_rng([_SEED, number])
            crossed = [(k, study.anatomy.cord_points(pose)) for k, pose in enumerate(study.axial.poses)]
            usable = [(k, points) for k, points in crossed if points is not None][:_SLICES_A_STUDY]
            for index, points in usable:
                pose = study.axial.poses[index]
                pixels = study.slice_pixels(study.axial, index)
                item = LoadedSlice(FrameHeader(Path(), 0, "", pose), pose, pixels)
                centre = points.mean(axis=0) + rng.uniform(-_JITTER_MM, _JITTER_MM, 3)
                affine = slice_roi(pose, centre, spec)
                batch = backend.preprocess([item], [Roi((0,) * spec.channels, affine)], spec)
                found.append((backend.infer("cord", batch)[0], points, item, affine))
    return found


def measure(studies: int) -> dict[str, dict[str, float]]:
    """Median and 95th percentile of each method's error, over four points per slice."""
    pack = open_pack()
    model = pack.models["cord"]
    pixel_mm = model.input.spacing_mm * model.output.stride
    errors: dict[str, list[float]] = {name: [] for name in METHODS}
    for maps, points, item, affine in _heatmaps(studies, pack):
        for heatmap, truth in zip(maps, points, strict=True):
            row, column = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
            patch = np.pad(heatmap.astype(np.float64), _RADIUS)[
                row : row + 2 * _RADIUS + 1, column : column + 2 * _RADIUS + 1
            ]
            for name, method in METHODS.items():
                xy = heatmap_to_input(np.array([column, row]) + method(patch), model.output.stride)
                errors[name].append(float(np.linalg.norm(crop_to_patient(item.pose, affine, xy) - truth)))
    return {
        name: {
            "median_mm": round(float(np.median(values)), 4),
            "p95_mm": round(float(np.percentile(values, 95)), 4),
            "median_heatmap_pixels": round(float(np.median(values)) / pixel_mm, 4),
            "points": len(values),
        }
        for name, values in errors.items()
    }


def main() -> None:
    """Print the table; with `--out` write it as JSON too."""
    parser = argparse.ArgumentParser(
        description="Compare methods to locate a heatmap's peak with sub-pixel accuracy."
    )
    parser.add_argument("--studies", type=int, default=4)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    figures = measure(arguments.studies)
    for name, row in figures.items():
        print(f"{name:14} median {row['median_mm']:.4f} mm, 95th percentile {row['p95_mm']:.4f} mm")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
