"""Draw the results of one study on its images: `draw_study.py STUDY RESULTS/results.jsonl OUT.png`.

Left: the sagittal slice that most levels were graded on, with the point and Kang grade of each level.
Right: the axial slice of the lowest compression ratio, with the two diameters of the cord. Needs matplotlib.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from pydicom import Dataset, dcmread

COLOURS = ("#3fb37f", "#e3c94a", "#f08a3c", "#e5484d")
"""Of Kang grades 0 to 3."""


def to_pixels(image: Dataset, point: list[float]) -> tuple[float, float]:
    """Column and row of a point in patient coordinates (mm), on a classic single-frame image."""
    offset = np.subtract(point, image.ImagePositionPatient)
    along_row, along_column = np.reshape(image.ImageOrientationPatient, (2, 3)).astype(float)
    row_spacing, column_spacing = map(float, image.PixelSpacing)
    return float(along_row @ offset / column_spacing), float(along_column @ offset / row_spacing)


def show(axes: Axes, image: Dataset, centre: tuple[float, float], half_mm: float) -> None:
    """Show the square of 2 × `half_mm` around a pixel."""
    pixels, half = image.pixel_array, half_mm / float(image.PixelSpacing[0])
    axes.imshow(pixels, cmap="gray", vmin=np.percentile(pixels, 1), vmax=np.percentile(pixels, 99.5))
    axes.set(xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] + half, centre[1] - half))
    axes.set_axis_off()


def label(
    axes: Axes, text: str, place: tuple[float, float], offset: tuple[int, int], colour: str, **options: Any
) -> None:
    """Write text beside a pixel, on a dark ground."""
    ground = {"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.5}
    axes.annotate(
        text, place, offset, textcoords="offset points", color=colour, fontsize=9, bbox=ground, **options
    )


def draw(study: Path, result: dict[str, Any], out: Path) -> None:
    """Draw one study's object of results.jsonl."""
    files = [dcmread(path) for path in sorted(study.rglob("*.dcm"))]
    images = {str(image.SOPInstanceUID): image for image in files}
    levels = [level for level in result["levels"] if level["point"]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.8, 3.9), layout="constrained")

    sagittal = images[Counter(level["sagittal_sop_uid"] for level in levels).most_common(1)[0][0]]
    places = [to_pixels(sagittal, level["point"]) for level in levels]
    show(left, sagittal, tuple(np.mean(places, axis=0)), 62.0)
    for level, place in zip(levels, places, strict=True):
        colour = "white" if level["grade"] is None else COLOURS[level["grade"]]
        left.plot(*place, "o", color=colour, markersize=5)
        text = f"{level['level']}  grade {'–' if level['grade'] is None else level['grade']}"
        label(left, text, place, (-12, 0), colour, ha="right", va="center")
    left.set_title("sagittal T2: Kang grade of each level", fontsize=10)

    measured = [level for level in levels if level["cord"]]
    worst = min(measured, key=lambda level: level["cord"]["compression_ratio"])
    cord = worst["cord"]
    axial = images[cord["sop_instance_uid"]]
    corners = [to_pixels(axial, point) for point in cord["points"]]
    show(right, axial, tuple(np.mean(corners, axis=0)), 22.0)
    for ends, name, offset in ((corners[:2], "ap_mm", (-16, -14)), (corners[2:], "transverse_mm", (7, 5))):
        right.plot(*np.transpose(ends), "-o", color=COLOURS[3], markersize=3)
        label(right, f"{cord[name]:.1f} mm", max(ends, key=sum), offset, "white")
    title = f"axial T2 at {worst['level']}: compression ratio {cord['compression_ratio']:.2f}"
    right.set_title(title, fontsize=10)
    figure.savefig(out, dpi=100, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    study, results, out = map(Path, sys.argv[1:])
    lines = map(json.loads, results.read_text(encoding="utf-8").splitlines())
    draw(study, next(item for item in lines if Path(item["study_path"]) == study.resolve()), out)
