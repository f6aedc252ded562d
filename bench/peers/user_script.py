"""The script that a user would write: a study's folder in, one row a level out.

It reads with pydicom, resamples with SciPy, and runs the models of a pack with ONNX Runtime's defaults, one
slice at a time. It measures every sagittal slice and every axial slice that crosses the neck, as the product
does, and shares no code with it: of the pack it reads pack.json and the ONNX files. Series are chosen by
description and orientation, images are taken to be in standard orientation, nothing is refused.

    python -m stenosis_trt.bench.peers.user_script FOLDER [--pack DIR]
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pydicom
from scipy.ndimage import map_coordinates

Array = npt.NDArray[Any]

PACK = Path(__file__).resolve().parents[2] / "engine" / "packs" / "reference"
LEVELS = 6
CANAL_BEHIND_WALL_MM = 7.0
BEYOND_LEVELS_MM = 12.0
NEAR_LEVEL_MM = 6.0


class Slice:
    """One image: pixels, and where they lie in the patient (LPS, mm)."""

    def __init__(self, dataset: pydicom.Dataset) -> None:
        slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
        self.pixels = dataset.pixel_array.astype(np.float32) * float(slope) + float(intercept)
        self.origin = np.array(dataset.ImagePositionPatient, float)
        orientation = np.array(dataset.ImageOrientationPatient, float)
        self.right, self.down = orientation[:3], orientation[3:]
        self.normal = np.cross(self.right, self.down)
        self.row_mm, self.column_mm = (float(mm) for mm in dataset.PixelSpacing)
        self.series = dataset.SeriesInstanceUID
        self.description = str(dataset.get("SeriesDescription", "")).lower()

    def to_pixel(self, point: Array) -> tuple[float, float]:
        """Row and column of a patient point."""
        offset = point - self.origin
        return offset @ self.down / self.row_mm, offset @ self.right / self.column_mm

    def to_patient(self, row: float, column: float) -> Array:
        """The patient point of a pixel."""
        return self.origin + self.down * row * self.row_mm + self.right * column * self.column_mm


class Models:
    """The networks of a pack, their specifications, and how many images they were run on."""

    def __init__(self, pack: Path) -> None:
        self.spec = json.loads((pack / "pack.json").read_text(encoding="utf-8"))["models"]
        self.images = 0
        self.sessions = {
            name: onnxruntime.InferenceSession(str(pack / spec["file"])) for name, spec in self.spec.items()
        }

    def run(self, name: str, stack: list[Slice], index: int, centre: Array) -> tuple[Array, Array, Array]:
        """Run a network around a point of a slice: its output, and the rows and columns of its input."""
        spec, image = self.spec[name]["input"], stack[index]
        mm, (across, along) = spec["spacing_mm"], spec["centre_offset_mm"]
        row, column = image.to_pixel(centre + across * image.right + along * image.down)
        rows = row + (np.arange(spec["height"]) - (spec["height"] - 1) / 2) * mm / image.row_mm
        columns = column + (np.arange(spec["width"]) - (spec["width"] - 1) / 2) * mm / image.column_mm
        top, left = max(0, int(rows[0])), max(0, int(columns[0]))
        half = spec["channels"] // 2 if spec["channel_source"] == "neighbours" else 0
        chosen = np.clip(np.arange(index - half, index + half + 1), 0, len(stack) - 1)
        regions = [stack[k].pixels[top : int(rows[-1]) + 2, left : int(columns[-1]) + 2] for k in chosen]
        low, high = np.percentile(regions, spec["window_percentiles"])
        grid = np.meshgrid(rows - top, columns - left, indexing="ij")
        crops = [
            map_coordinates(np.clip((region - low) / max(high - low, 1e-6), 0, 1), grid, order=1)
            for region in regions
        ]
        mean, std = (np.array(spec[key])[:, None, None] for key in ("mean", "std"))
        batch = ((np.stack(crops if half else crops * spec["channels"]) - mean) / std)[None]
        session = self.sessions[name]
        self.images += 1
        output = session.run(None, {session.get_inputs()[0].name: batch.astype(np.float32)})[0][0]
        return output, rows, columns

    def keypoints(self, name: str, stack: list[Slice], index: int, centre: Array) -> tuple[Array, Array]:
        """Patient points (K, 3) of the highest pixel of each heatmap, and their heights (K,)."""
        heatmaps, rows, columns = self.run(name, stack, index, centre)
        stride = self.spec[name]["output"]["stride"]
        peaks = [np.unravel_index(heatmap.argmax(), heatmap.shape) for heatmap in heatmaps]
        points = []
        for peak in peaks:
            y, x = ((k + 0.5) * stride - 0.5 for k in peak)
            row, column = rows[0] + y * (rows[1] - rows[0]), columns[0] + x * (columns[1] - columns[0])
            points.append(stack[index].to_patient(row, column))
        return np.array(points), np.array([m[peak] for m, peak in zip(heatmaps, peaks, strict=True)])


def read_stacks(folder: Path) -> tuple[list[Slice], list[Slice]]:
    """The sagittal and the axial T2 series of a folder, each sorted by position."""
    slices = [Slice(pydicom.dcmread(path)) for path in sorted(folder.rglob("*.dcm"))]
    stacks = []
    for axis in (0, 2):  # normals of sagittal slices lie along x, those of axial ones along z
        series: dict[str, list[Slice]] = {}
        for item in slices:
            if "t2" in item.description and abs(item.normal).argmax() == axis:
                series.setdefault(item.series, []).append(item)
        stack = max(series.values(), key=len)
        stacks.append(sorted(stack, key=lambda item: item.origin @ stack[0].normal))
    return stacks[0], stacks[1]


def crossing(line: Array, image: Slice) -> Array | None:
    """Where a line (M, 3) from head to foot crosses a slice; None if it does not."""
    heights = (line - image.origin) @ image.normal
    order = heights.argsort()
    if not heights.min() <= 0 <= heights.max():
        return None
    return np.array([np.interp(0.0, heights[order], line[order, k]) for k in range(3)])


def grade_folder(folder: Path, models: Models) -> list[dict[str, Any]]:
    """Grade one study: a row for each level."""
    sagittal, axial = read_stacks(folder)
    names = models.spec["levels"]["output"]["names"][:LEVELS]  # maps of landmarks may follow
    found = []
    for index, image in enumerate(sagittal):
        rows, columns = image.pixels.shape
        middle = image.to_patient((rows - 1) / 2, (columns - 1) / 2)
        found.append(models.keypoints("levels", sagittal, index, middle))
    heights = np.array([item[1] for item in found])
    best = heights.argmax(axis=0)
    points = np.array([found[index][0][level] for level, index in enumerate(best[:LEVELS])])
    graded = [models.run("grader", sagittal, best[k], points[k])[0] for k in range(len(names))]

    canal = points + np.array([0.0, CANAL_BEHIND_WALL_MM, 0.0])
    step = np.diff(canal, axis=0)
    unit = step / np.linalg.norm(step, axis=1, keepdims=True)
    line = np.array([canal[0] - BEYOND_LEVELS_MM * unit[0], *canal, canal[-1] + BEYOND_LEVELS_MM * unit[-1]])
    cords = []
    for index, image in enumerate(axial):
        centre = crossing(line, image)
        if centre is not None:
            (anterior, posterior, left, right), _ = models.keypoints("cord", axial, index, centre)
            cords.append(
                (image, float(np.linalg.norm(anterior - posterior)), float(np.linalg.norm(left - right)))
            )

    result = []
    for k, name in enumerate(names):
        near = [
            (ap / across, ap, across)
            for image, ap, across in cords
            if abs((canal[k] - image.origin) @ image.normal) <= NEAR_LEVEL_MM and across > 0
        ]
        ratio, ap, across = min(near, default=(float("nan"),) * 3)
        grades = graded[k][:4] / graded[k][:4].sum()
        x, y, z = points[k].round(2)
        result.append(
            {
                "level": name,
                "kang_grade": int(grades.argmax()),
                **{f"p{grade}": round(float(p), 4) for grade, p in enumerate(grades)},
                "compression_ratio": round(ratio, 4),
                "ap_mm": round(ap, 2),
                "transverse_mm": round(across, 2),
                "x_mm": float(x),
                "y_mm": float(y),
                "z_mm": float(z),
            }
        )
    return result


def main() -> None:
    """Print the rows of one study as CSV."""
    parser = argparse.ArgumentParser(description="Grade one study, the plain way.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pack", type=Path, default=PACK)
    arguments = parser.parse_args()
    rows = grade_folder(arguments.folder, Models(arguments.pack))
    writer = csv.DictWriter(sys.stdout, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
