"""Measure where axial images show the edges of the cord, against its truth.

    python -m stenosis_trt.bench.accuracy.cord_edges [--studies 12] [--volumes VOLUMES]

Along the two diameters between the true points, an edge is shown where the signal has risen half-way from
the core of the cord to the brightest CSF within `_FLUID_MM` beyond the edge. Roots and ligaments leave the
cord at its sides as dark as it is, so images show it wider than it is. Phantoms have to agree with real
anatomy in that (`phantom.painting.canal_contents`), since a network cannot tell them apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from stenosis_trt.bench.phantom.study import PhantomSource, PhantomStudy, StudySource
from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.engine.geometry import FloatArray, SlicePose

_SEED = 4242
_STEP_MM = 0.02
_CORE_MM = 1.5
_FLUID_MM = 4.0
_LEAST_CONTRAST = 1.3
"""Signal of the fluid, as a multiple of the core's, below which an image shows no edge."""
_EVERY = 3


def shown_excess(image: npt.ArrayLike, pose: SlicePose, points: FloatArray) -> tuple[float, float] | None:
    """Anteroposterior and transverse diameter that an image shows, minus the true ones, in mm.

    Args:
        image: stored values (rows, columns).
        pose: of the slice.
        points: true points anterior, posterior, left, right, LPS, mm, (4, 3).

    Returns:
        None if an edge is not shown: there is no fluid beside the cord.
    """
    pixels, excess = np.asarray(image, dtype=np.float64), []
    for one, other in ((points[0], points[1]), (points[2], points[3])):
        middle, half = (one + other) / 2, float(np.linalg.norm(other - one)) / 2
        outward = (other - one) / (2 * half)
        radii = np.arange(0.0, half + _FLUID_MM, _STEP_MM)
        edges = [_edge(pixels, pose, middle + sign * outward * radii[:, None], half) for sign in (-1.0, 1.0)]
        if None in edges:
            return None
        excess.append(sum(edge for edge in edges if edge is not None) - 2 * half)
    return excess[0], excess[1]


def _edge(image: FloatArray, pose: SlicePose, ray: FloatArray, true_radius: float) -> float | None:
    """Distance from the start of a ray of points (N, 3) to the edge of the cord, mm."""
    column, row = pose.to_pixels(ray)[:, :2].T
    signal = ndimage.map_coordinates(image, [row, column], order=1, mode="nearest")
    core = float(np.median(signal[: int(_CORE_MM / _STEP_MM)]))
    inner = int(true_radius / 2 / _STEP_MM)
    peak = inner + int(signal[inner:].argmax())
    if signal[peak] < _LEAST_CONTRAST * core:
        return None
    below = np.flatnonzero(signal[:peak] <= (core + signal[peak]) / 2)
    return float(below[-1] * _STEP_MM) if len(below) else None


def study_excess(study: PhantomStudy) -> Iterator[tuple[float, float]]:
    """Excess of every third axial slice of a study that shows an edge on all sides."""
    for number in range(0, len(study.axial.poses), _EVERY):
        pose = study.axial.poses[number]
        points = study.anatomy.cord_points(pose)
        if points is not None:
            found = shown_excess(study.slice_pixels(study.axial, number), pose, points)
            if found is not None:
                yield found


def main() -> None:
    """Print the excess in the median for phantoms and each subject."""
    parser = argparse.ArgumentParser(description="Edges of the cord in axial images, against the truth.")
    parser.add_argument("--studies", type=int, default=12, help="of each source")
    parser.add_argument("--seed", type=int, default=_SEED)
    parser.add_argument("--volumes", type=Path, help="folder with one folder a subject")
    arguments = parser.parse_args()
    sources: dict[str, StudySource] = {"phantoms": PhantomSource()}
    if arguments.volumes is not None:
        sources |= {name: SemisyntheticSource((name,), arguments.volumes) for name in SUBJECTS}
    for name, source in sources.items():
        studies = (source.sample(arguments.seed, k, 0) for k in range(arguments.studies))
        found = np.array([pair for study in studies for pair in study_excess(study)])
        depth, width = np.median(found, axis=0)
        sides = f"anteroposterior {depth:+.2f} mm, transverse {width:+.2f} mm"
        print(f"{name}: shown − true diameter on {len(found)} slices, median: {sides}")


if __name__ == "__main__":
    main()
