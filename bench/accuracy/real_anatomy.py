"""Evaluate a pack on acquired volumes: positions of levels, and compression ratios against manual cord masks.

    python -m stenosis_trt.bench.accuracy.real_anatomy ../shared/data/volumes --pack PACK --out figures.json
    python -m stenosis_trt.bench.accuracy.real_anatomy VOLUMES --pack PACK --subject errsm_20

Each volume is resliced to the two clinical protocols and graded like any study. Levels are compared with the
marks of `semisynthetic.subjects`. A slice's compression ratio is compared with that of the manual cord mask,
if there is one, averaged over the same slice and measured across the cord by second moments as in the Spinal
Cord Toolbox. The mask's direction is that of the canal as traced in the volume, not that of the program.
The images are then cropped at the foot or at the head; levels outside the field of view must not be found.

The figures describe unseen anatomy only for subjects that the pack was not trained on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from stenosis_trt.bench.phantom.dicom_files import sop_instance_uid, write_study
from stenosis_trt.bench.semisynthetic.acquired import AcquiredStudy, acquire_volume, average_through_slice
from stenosis_trt.bench.semisynthetic.canal import NiftiVolume, trace_canal
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS, Subject
from stenosis_trt.bench.statistics.signed_errors import error_statistics
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.runs.batch import grade_paths
from stenosis_trt.engine.runs.options import GradeOptions

EVALUATED_LEVELS = LEVELS[:5]
"""C2/3 to C6/7. C7/T1 is not in the field of view of every volume."""

CROPPED_FIELDS = ((0, 4), (1, 5), (2, 5))
"""First and last level in the cropped images. A field of view below 100 mm is rejected as a sagittal series,
so images are cropped at one end only."""

_MATCH_MM = 6.0
_GRID_MM = 0.25
_HALF_WIDTH_MM = 12.0
_MIN_AREA_MM2 = 25.0
"""Minimum area of a mask; smaller areas are the end of the mask."""


@dataclass(frozen=True)
class LevelAccuracy:
    """Result of one level; `distance_mm` from its mark is None if the level was not found."""

    level: str
    distance_mm: float | None
    grade: int | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SubjectAccuracy:
    """Results of one volume. Errors of the ratio are signed, measured − mask; None without a mask."""

    subject: str
    reason: str
    levels: tuple[LevelAccuracy, ...]
    cord_slices: int
    ratio_mean_absolute_error: float | None
    ratio_bias: float | None

    @property
    def distances(self) -> list[float]:
        """Distances in mm of the evaluated levels that were found."""
        return [
            x.distance_mm for x in self.levels if x.level in EVALUATED_LEVELS and x.distance_mm is not None
        ]


@dataclass(frozen=True)
class CroppedField:
    """Result of one volume with a cropped field of view.

    Attributes:
        subject, shown: name of the subject, and levels in the field of view.
        graded: the study was graded; the counts are 0 otherwise.
        right: levels in view, found within 6 mm of the mark.
        wrong: levels in view, found elsewhere.
        invented: levels out of view that were found.
        doubted: the results have the warning `level_number_uncertain`.
    """

    subject: str
    shown: tuple[str, ...]
    graded: bool
    right: int
    wrong: int
    invented: int
    doubted: bool


def evaluate_subject(subject: Subject, volumes: Path, pack: Path | None, work: Path) -> SubjectAccuracy:
    """Grade one volume as acquired, and compare with marks and mask.

    Args:
        subject: marks and file names.
        volumes: folder with one folder per subject.
        pack: None for the reference pack.
        work: empty folder for DICOM files and results.

    Raises:
        OSError: the volume is missing.
        PackError: the pack cannot be used.
    """
    study = acquire_volume(subject.name, NiftiVolume(subject.path(volumes)))
    result = grade_acquired(study, pack, work)
    if result is None:
        return SubjectAccuracy(subject.name, "not graded: see errors.csv", (), 0, None, None)
    levels = tuple(
        _level(found, mark) for found, mark in zip(result["levels"], subject.disc_points, strict=False)
    )
    errors = _ratio_errors(subject, volumes, study, result["cord_slices"]) if subject.mask else []
    ratio = error_statistics(errors)
    return SubjectAccuracy(
        subject=subject.name,
        reason="",
        levels=levels,
        cord_slices=ratio.measured,
        ratio_mean_absolute_error=ratio.mean_absolute_error,
        ratio_bias=ratio.bias,
    )


def evaluate_cropped_fields(subject: Subject, volumes: Path, pack: Path | None) -> list[CroppedField]:
    """Grade a cropped volume for each of `CROPPED_FIELDS`; arguments and errors as in `evaluate_subject`."""
    volume, marks = NiftiVolume(subject.path(volumes)), subject.disc_points
    heights = marks[:, 2]
    fields = []
    for first, last in CROPPED_FIELDS:
        # Crop half-way to the next disc.
        top = (heights[first - 1] + heights[first]) / 2 if first else np.inf
        foot = (heights[last] + heights[last + 1]) / 2 if last + 1 < len(LEVELS) else -np.inf
        study = acquire_volume(subject.name, volume, (foot, top))
        with TemporaryDirectory() as work:
            result = grade_acquired(study, pack, Path(work))
        levels = [] if result is None else result["levels"]
        found = {
            LEVELS.index(level["level"]): level["point"] for level in levels if level["point"] is not None
        }
        away = {k: float(np.linalg.norm(np.array(found[k]) - marks[k])) for k in found}
        shown = range(first, last + 1)
        right = sum(away[k] <= _MATCH_MM for k in found if k in shown)
        fields.append(
            CroppedField(
                subject=subject.name,
                shown=LEVELS[first : last + 1],
                graded=result is not None,
                right=right,
                wrong=sum(k in shown for k in found) - right,
                invented=sum(k not in shown for k in found),
                doubted=any("level_number_uncertain" in level["warnings"] for level in levels),
            )
        )
    return fields


def grade_acquired(study: AcquiredStudy, pack: Path | None, work: Path) -> dict[str, Any] | None:
    """Write a study as DICOM files and grade it; arguments and errors as in `evaluate_subject`.

    Returns:
        Its object in results.jsonl, or None if it was not graded.
    """
    write_study(study, work / "study", "explicit")
    out = work / "results"
    grade_paths([work / "study"], out, GradeOptions(pack=pack, device="cpu"))
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads(lines[0]) if lines else None


def _level(found: Mapping[str, Any], mark: np.ndarray) -> LevelAccuracy:
    point = found["point"]
    distance = None if point is None else float(np.linalg.norm(np.array(point) - mark))
    return LevelAccuracy(found["level"], distance, found["grade"], tuple(found["warnings"]))


def _ratio_errors(
    subject: Subject, volumes: Path, study: AcquiredStudy, slices: Sequence[Mapping[str, Any]]
) -> list[float]:
    """Measured − mask ratio of every slice that has no warning and shows the whole cord in the mask."""
    mask = NiftiVolume(volumes / subject.name / subject.mask)
    curve = trace_canal(study.volume, subject, subject.origin).curve
    poses = {sop_instance_uid(study, study.axial, k): pose for k, pose in enumerate(study.axial.poses)}
    errors = []
    for item in slices:
        if not item["warnings"]:
            near = np.mean(item["points"], axis=0)
            along = curve.tangent[curve.index(curve.to_canal(near)[2])]
            ratio = mask_compression_ratio(mask, poses[item["sop_instance_uid"]], near, along)
            if ratio is not None:
                errors.append(item["compression_ratio"] - ratio)
    return errors


def mask_compression_ratio(
    mask: NiftiVolume, pose: SlicePose, near: np.ndarray, along: np.ndarray
) -> float | None:
    """Compression ratio of a cord mask across the cord, from second moments in a slice.

    Args:
        mask: 1 in the cord, 0 outside.
        pose: the slice. The mask is averaged over its thickness and thresholded at one half.
        near: approximate centre of the cord, LPS, mm, (3,).
        along: direction of the cord, unit vector, LPS, (3,). A slice that it meets at an angle θ shows the
            cord 1/cos θ too long in the direction of its tilt.

    Returns:
        AP ÷ transverse diameter, or None if the slice does not show the whole cord.
    """
    x, y, _ = pose.to_pixels(near)
    steps = np.arange(-_HALF_WIDTH_MM, _HALF_WIDTH_MM + _GRID_MM / 2, _GRID_MM)
    across, down = np.meshgrid(steps, steps)
    points = pose.to_patient(
        np.stack([x + across / pose.column_spacing, y + down / pose.row_spacing], axis=-1)
    )
    inside = average_through_slice(mask, pose, points) > 0.5
    if inside.sum() * _GRID_MM**2 < _MIN_AREA_MM2:
        return None
    # The axes of these axial slices are those of the patient.
    depth, width = (
        axis[inside].std() * np.sqrt(1.0 - np.dot(along, direction) ** 2)
        for axis, direction in ((down, pose.column_direction), (across, pose.row_direction))
    )
    return float(depth / width)


def summarise(figures: Sequence[SubjectAccuracy], short: Sequence[CroppedField]) -> dict[str, Any]:
    """Statistics over all subjects, with the results of each subject and each cropped field of view."""
    distances = [x for item in figures for x in item.distances]
    grades = [x.grade for item in figures for x in item.levels if x.grade is not None]
    return {
        "levels_found": len(distances),
        "levels_judged": len(EVALUATED_LEVELS) * len(figures),
        "median_mm": float(np.median(distances)) if distances else None,
        "largest_mm": max(distances, default=None),
        "highest_grade": max(grades, default=None),
        "subjects": [asdict(item) for item in figures],
        "short_fields": [asdict(item) for item in short],
    }


def _print(figures: Sequence[SubjectAccuracy], short: Sequence[CroppedField]) -> None:
    for item in figures:
        found = f"{len(item.distances)} of {len(EVALUATED_LEVELS)} levels found"
        print(f"{item.subject}: {item.reason or found}")
        for level in item.levels:
            place = "not found" if level.distance_mm is None else f"{level.distance_mm:4.1f} mm off"
            print(f"  {level.level:6} {place}, grade {level.grade}  {' '.join(level.warnings)}")
        if item.ratio_mean_absolute_error is not None:
            errors = f"mean absolute error {item.ratio_mean_absolute_error:.3f}, bias {item.ratio_bias:+.3f}"
            print(f"  ratio on {item.cord_slices} slices: {errors}")
    for field in short:
        told = "not graded"
        if field.graded:
            told = f"{field.right} of {len(field.shown)} found, {field.wrong} elsewhere, "
            told += f"{field.invented} invented" + ("; level numbers uncertain" if field.doubted else "")
        print(f"{field.subject}, only {field.shown[0]} to {field.shown[-1]} in view: {told}")


def main() -> None:
    """Evaluate the chosen subjects, print the results, and with `--out` write them as JSON."""
    parser = argparse.ArgumentParser(description="Evaluate a pack on acquired volumes.")
    parser.add_argument("volumes", type=Path, help="folder with one folder a subject")
    parser.add_argument("--pack", type=Path, help="default: the reference pack")
    parser.add_argument("--subject", action="append", help="this one alone; repeatable")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    chosen = arguments.subject or [name for name in SUBJECTS if name.startswith("errsm")]
    figures: list[SubjectAccuracy] = []
    short: list[CroppedField] = []
    for name in chosen:
        with TemporaryDirectory() as work:
            figures.append(evaluate_subject(SUBJECTS[name], arguments.volumes, arguments.pack, Path(work)))
        short += evaluate_cropped_fields(SUBJECTS[name], arguments.volumes, arguments.pack)
    _print(figures, short)
    whole = summarise(figures, short)
    print({name: value for name, value in whole.items() if not isinstance(value, list)})
    if arguments.out:
        arguments.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
