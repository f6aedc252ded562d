"""Compare ways to choose the axial slice of a level, on results of phantoms.

    python -m stenosis_trt.bench.accuracy.slice_choice R/results.jsonl --seed 4242 [--anatomy VOLUMES]

`grade` takes the smallest of the ratios near a level. The smallest of several noisy measurements is too low,
so others are tried: of the slices whose ratio is within a tolerance of the smallest, the one nearest to the
disc. The truth is that of truth.csv. With `--anatomy` the studies are semi-synthetic ones of all volumes in
that folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.bench.phantom.dicom_files import phantom_uid, sop_instance_uid
from stenosis_trt.bench.phantom.study import PhantomSource, PhantomStudy, StudySource
from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.grading.cord import canal_line, crossing_slices
from stenosis_trt.engine.grading.levels import LevelPoint
from stenosis_trt.engine.grading.match import search_radius_mm
from stenosis_trt.engine.records import FrameHeader, LoadedSlice
from stenosis_trt.kernels.reference import cord_geometry

TOLERANCES = (0.0, 0.01, 0.015, 0.02, 0.03)


@dataclass(frozen=True)
class LevelCandidates:
    """The slices near one level that were measured without warnings.

    Attributes:
        grade: true Kang grade.
        true_ratio: of truth.csv.
        distances_mm: of each slice from the disc, float64 (N,).
        ratios, true_ratios: measured and true ratio of each slice, float64 (N,).
    """

    grade: int
    true_ratio: float
    distances_mm: FloatArray
    ratios: FloatArray
    true_ratios: FloatArray

    def error(self, tolerance: float) -> float:
        """Error if the nearest slice within a tolerance of the smallest ratio stands for the level."""
        distances = np.where(self.ratios <= self.ratios.min() + tolerance, self.distances_mm, np.inf)
        return float(self.ratios[int(np.argmin(distances))] - self.true_ratio)


def candidates(study: PhantomStudy, result: dict[str, Any]) -> Iterator[LevelCandidates]:
    """Yield the levels of a phantom of which slices were measured.

    Args:
        study: the phantom.
        result: its line of results.jsonl.
    """
    found = [LevelPoint(item["level"], item["point"], item["confidence"]) for item in result["levels"]]
    line = canal_line(found)
    ratios = {
        item["sop_instance_uid"]: item["compression_ratio"]
        for item in result["cord_slices"]
        if not item["warnings"]
    }
    black = np.zeros((1, 1), np.uint16)
    slices = [LoadedSlice(FrameHeader(Path(), 0, "", pose), pose, black) for pose in study.axial.poses]
    rows = []
    for item in crossing_slices(line, slices):
        points = study.anatomy.cord_points(study.axial.poses[item.index])
        ratio = ratios.get(sop_instance_uid(study, study.axial, item.index))
        if points is None or ratio is None:
            continue
        curve = study.anatomy.curve
        tangent = curve.tangent[curve.index(curve.to_canal(points.mean(axis=0))[2])]
        true_ratio = cord_geometry(points[None], tangent[None]).compression_ratio[0]
        rows.append((item.arc_length_mm, ratio, true_ratio))
    table = np.array(rows).reshape(-1, 3)
    for level, truth in zip(study.anatomy.levels, study.slice_compressions(), strict=True):
        arc = line.level_arc_length_mm.get(level.level)
        if arc is None or truth is None:
            continue
        distances = np.abs(table[:, 0] - arc)
        near = distances <= search_radius_mm(line, level.level)
        if near.any():
            yield LevelCandidates(level.grade, truth.compression_ratio, distances[near], *table[near, 1:].T)


def summary(levels: Sequence[LevelCandidates]) -> Iterator[str]:
    """Yield one line for each tolerance: bias and mean absolute error, all and by true grade.

    The second figures are without the bias of the network on all slices near levels of that grade: what is
    left is what the choice adds.
    """
    grades = np.array([item.grade for item in levels])
    bias = {
        grade: float(np.mean(np.concatenate([x.ratios - x.true_ratios for x in levels if x.grade == grade])))
        for grade in sorted(set(grades.tolist()))
    }
    yield "bias of single slices: " + ", ".join(f"grade {k} {value:+.4f}" for k, value in bias.items())
    for tolerance in TOLERANCES:
        errors = np.array([item.error(tolerance) for item in levels])
        left = errors - [bias[item.grade] for item in levels]
        parts = [f"all {_figures(errors)}, {_figures(left)}"]
        parts += [f"grade {k} {_figures(errors[grades == k])}, {_figures(left[grades == k])}" for k in bias]
        yield f"tolerance {tolerance:.3f}: " + "; ".join(parts)


def _figures(errors: FloatArray) -> str:
    return f"{errors.mean():+.4f} ({np.abs(errors).mean():.4f})"


def main() -> None:
    """Print bias and, in brackets, mean absolute error of the ratio for each tolerance."""
    parser = argparse.ArgumentParser(description="Compare ways to choose the axial slice of a level.")
    parser.add_argument("results", type=Path, help="results.jsonl of `grade` on phantoms")
    parser.add_argument("--seed", type=int, required=True, help="seed of the phantoms")
    parser.add_argument("--anatomy", type=Path, help="folder of volumes, for semi-synthetic studies")
    arguments = parser.parse_args()
    source: StudySource = PhantomSource()
    if arguments.anatomy:
        source = SemisyntheticSource(tuple(SUBJECTS), arguments.anatomy)
    lines = arguments.results.read_text(encoding="utf-8").splitlines()
    by_study = {line["study_uid"]: line for line in map(json.loads, lines)}
    levels: list[LevelCandidates] = []
    index = 0
    while by_study:
        study = source.sample(arguments.seed, index)
        result = by_study.pop(phantom_uid(study, "study"), None)
        index += 1
        if result is not None:
            levels += candidates(study, result)
        elif index > 10 * len(lines):
            parser.error("the results are of other phantoms: give their seed, and their anatomy")
    print(f"{len(levels)} levels")
    for text in summary(levels):
        print(text)


if __name__ == "__main__":
    main()
