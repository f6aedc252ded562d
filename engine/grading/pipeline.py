"""The pipeline: grades one loaded study.

sagittal slices ─▶ levels ─▶ regions ─▶ grades
                      └────▶ canal line ─▶ axial slices ─▶ cords ─▶ matched to levels ─▶ compared
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from stenosis_trt.engine.backends.base import Backend, BackendStudy, Float32Array, Grades, Peaks, Roi
from stenosis_trt.engine.errors import CannotGrade
from stenosis_trt.engine.grading.compression import CordCompression, cord_compression
from stenosis_trt.engine.grading.cord import CanalLine, CordSlice, canal_line, crossing_slices, measure_cord
from stenosis_trt.engine.grading.healthy import compare_with_healthy, was_measured
from stenosis_trt.engine.grading.level_search import level_fields
from stenosis_trt.engine.grading.level_slices import locate_in_range
from stenosis_trt.engine.grading.levels import LevelPoint, LocatedLevels
from stenosis_trt.engine.grading.match import LevelMatch, match_levels
from stenosis_trt.engine.grading.numbering import MINIMUM_LEVELS, locate_levels
from stenosis_trt.engine.grading.sagittal_angle import MAXIMUM_SAGITTAL_ANGLE_DEGREES, sagittal_angle_degrees
from stenosis_trt.engine.grading.signal_void import levels_in_voids
from stenosis_trt.engine.packs.crop import channel_slices, slice_rois
from stenosis_trt.engine.packs.models import InputSpec, OutputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import (
    LEVELS,
    CordMeasurement,
    FrameHeader,
    LevelResult,
    LoadedSlice,
    LoadedStudy,
    Stage,
    StudyResult,
)

_LOW_CONTRAST = 0.05
"""Standard deviation of a windowed region (0 to 1) below which it shows almost no structure."""

_DEFORMED = 2
"""Lowest Kang grade with a deformed cord."""


class _Clock:
    """Measures the seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def grade_study(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
    """Locate the levels, grade each, measure the cord, and match both.

    Args:
        study: decoded slices of the selected series.
        pack: specifications of the models that `backend` runs.
        backend: the backend that computes.

    Returns:
        A result with every level of LEVELS: graded, or with the reason in its warnings.

    Raises:
        CannotGrade: no cervical spine was recognised, or all levels are out of distribution for the grader or
            in a signal void.
    """
    clock = _Clock()
    with clock.stage("load"):
        on_backend = backend.load(study)
    with closing(on_backend):
        with clock.stage("levels"):
            located = _find_levels(study.sagittal, pack, on_backend, backend.locates_in_parts)
            levels = located.levels
        # Both are requested before either is waited for, so that they run at the same time on a GPU.
        with clock.stage("grade"):
            regions = _grading_regions(study.sagittal, levels, pack)
            grades = on_backend.grade([region.roi for region in regions])
        with clock.stage("cord"):
            line = canal_line(levels, located.wall_points)
            across, refused = _slices_to_measure(study, line)
            rois = _cord_rois(study.axial, across, pack.models["cord"].input)
            pending = on_backend.measure(rois)
        with clock.stage("grade"):
            voids = levels_in_voids(study.sagittal, levels, line)
        with clock.stage("cord"):
            cords = measure_cord(study.axial, across, pending.result(), pack.models["cord"])
        with clock.stage("grade"):
            graded = _graded(study.sagittal, regions, grades.result(), voids, pack)
    if refused:
        matches = {item.level: LevelMatch(None, (refused,)) for item in levels}
    else:
        matches = match_levels(line, across, cords)
    compression = cord_compression(line, across, cords, matches, _uncompressed(graded))
    results = tuple(
        _level_result(item, graded.get(item.level), matches.get(item.level), pack) for item in levels
    )
    trusted = was_measured(pack.models["cord"].fp32_sha256)
    results = tuple(_compared(item, matches.get(item.level), compression, trusted) for item in results)
    return StudyResult(
        study_uid=study.header.study_uid,
        patient_id=study.sagittal_series.patient_id,
        sagittal_series_uid=study.sagittal_series.series_uid,
        axial_series_uid=";".join(_axial_uids(study)),
        levels=results,
        # If left and right are the same point, there is no ratio.
        cord_slices=tuple(item for item in cords if item.transverse_mm > 0),
        warnings=(*study.warnings, *_oblique(study.sagittal, across, cords)),
        seconds=clock.seconds,
    )


def _axial_uids(study: LoadedStudy) -> list[str]:
    """Return the UIDs of the axial series, each once: several volumes of one series share its UID."""
    series = () if study.axial_series is None else (study.axial_series, *study.axial_packs)
    return list(dict.fromkeys(item.series_uid for item in series))


def _find_levels(
    slices: Sequence[LoadedSlice], pack: Pack, on_backend: BackendStudy, in_parts: bool
) -> LocatedLevels:
    model = pack.models["levels"]
    poses = [item.pose for item in slices]

    def locate(rois: Sequence[Roi]) -> Peaks:
        return on_backend.locate(rois).result()

    affines = level_fields(slices, model, locate)
    rois = [Roi((index,) * model.input.channels, affine) for index, affine in enumerate(affines)]
    peaks = locate_in_range(locate, rois, poses) if in_parts else locate(rois)
    located = locate_levels(slices, peaks, model)
    found = sum(item.point is not None for item in located.levels)
    least = model.output.minimum_mean_confidence or 0.0
    if found < MINIMUM_LEVELS or located.mean_confidence < least:
        seen = f"{found} of {len(LEVELS)} discs"
        if found >= MINIMUM_LEVELS:
            seen += f"; their mean confidence is {located.mean_confidence:.2f}, not {least:g} or more"
        raise CannotGrade(
            Stage.LEVELS,
            f"No cervical spine was recognised in the sagittal series ({seen}).",
            "Check that the series shows the cervical spine in T2 contrast; grade it by eye otherwise.",
        )
    if not located.c2_shown:
        raise CannotGrade(
            Stage.LEVELS,
            "C2 is not shown in the sagittal series, so that its discs cannot be counted.",
            "Choose a series that reaches 20 mm or more above C2/3, or count the discs and grade by eye.",
        )
    return located


@dataclass(frozen=True)
class _Grade:
    """Probabilities of one level and the frame that was graded; see `LevelResult`."""

    probabilities: tuple[float, float, float, float] | None
    p_ood: float | None
    frame: FrameHeader
    warnings: tuple[str, ...]

    @property
    def grade(self) -> int | None:
        """The most probable grade; None without probabilities."""
        return None if self.probabilities is None else int(np.argmax(self.probabilities))


@dataclass(frozen=True)
class _Region:
    """The grader's input for a level. `repeated`: a neighbouring slice is missing and the nearest one
    repeated."""

    level: str
    roi: Roi
    nearest: int
    repeated: bool


def _grading_regions(
    slices: Sequence[LoadedSlice], levels: Sequence[LevelPoint], pack: Pack
) -> list[_Region]:
    spec = pack.models["grader"].input
    found = [item for item in levels if item.point is not None]
    points = np.array([item.point for item in found])
    # The third row of the matrix gives the distance from the slice's plane.
    planes = np.array([item.pose.patient_to_pixel[2] for item in slices])
    nearest = np.abs(points @ planes[:, :3].T + planes[:, 3]).argmin(axis=1).tolist()
    affines = slice_rois([slices[k].pose for k in nearest], points, spec)
    regions = []
    for item, k, affine in zip(found, nearest, affines, strict=True):
        chosen = channel_slices(k, len(slices), spec)
        repeated = spec.channel_source == "neighbours" and len(set(chosen)) < spec.channels
        regions.append(_Region(item.level, Roi(chosen, affine), k, repeated))
    return regions


def _graded(
    slices: Sequence[LoadedSlice], regions: Sequence[_Region], grades: Grades, voids: set[str], pack: Pack
) -> dict[str, _Grade]:
    output = pack.models["grader"].output
    graded = {}
    for k, region in enumerate(regions):
        probabilities, p_ood = grade_probabilities(grades.probabilities[k], output)
        doubts = (
            (region.repeated, "edge_of_stack"),
            (grades.contrast[k] < _LOW_CONTRAST, "low_contrast"),
            (probabilities is None, "out_of_distribution"),
            (region.level in voids, "signal_void"),
        )
        if region.level in voids:
            probabilities = None
        warnings = tuple(name for doubtful, name in doubts if doubtful)
        graded[region.level] = _Grade(probabilities, p_ood, slices[region.nearest].frame, warnings)
    if all(item.probabilities is None for item in graded.values()):
        raise CannotGrade(
            Stage.GRADE,
            f"All {len(graded)} levels that were found are {_in_words(graded.values())}.",
            "Check that the series shows the cervical spine in T2 contrast, free of metal and motion; grade "
            "it by eye otherwise.",
        )
    return graded


def _in_words(grades: Iterable[_Grade]) -> str:
    """Return why levels have no grade."""
    given = {name for item in grades for name in item.warnings}
    reasons = (
        ("out_of_distribution", "out of distribution for the grader"),
        ("signal_void", "in a signal void"),
    )
    return " or ".join(words for name, words in reasons if name in given)


def grade_probabilities(
    classes: Float32Array, output: OutputSpec
) -> tuple[tuple[float, float, float, float] | None, float | None]:
    """Return the probabilities of the four grades and of being out of distribution.

    Args:
        classes: output of the grader, float32 (4,), or (5,) with the probability p_ood last.
        output: output specification of the grader.

    Returns:
        (p_k / (1 − p_ood), p_ood); the first is None if p_ood reaches its limit. For a grader of four
        classes, the probabilities unchanged and None.
    """
    p0, p1, p2, p3, *rest = (float(value) for value in classes)
    if output.maximum_other is None:
        return (p0, p1, p2, p3), None
    (p_ood,) = rest
    # The sum of the four is 1 − p_ood. FP16 rounds each, so only division by the sum itself gives
    # probabilities that add up to 1.
    total = p0 + p1 + p2 + p3
    if p_ood >= output.maximum_other or total <= 0.0:
        return None, p_ood
    return (p0 / total, p1 / total, p2 / total, p3 / total), p_ood


def _slices_to_measure(study: LoadedStudy, line: CanalLine) -> tuple[list[CordSlice], str]:
    """Return the axial slices that cross the canal, or the warning that says why there are none."""
    if not study.axial:
        return [], "no_axial_series"
    if not study.same_frame_of_reference:
        return [], "axial_unmatched"
    across = crossing_slices(line, study.axial, study.axial_series_index)
    return across, "" if across else "no_axial_slice"


def _oblique(
    sagittal: Sequence[LoadedSlice], across: Sequence[CordSlice], cords: Sequence[CordMeasurement]
) -> tuple[str, ...]:
    angle = sagittal_angle_degrees(sagittal, across, cords)
    return ("oblique_sagittal",) if angle is not None and angle > MAXIMUM_SAGITTAL_ANGLE_DEGREES else ()


def _cord_rois(slices: Sequence[LoadedSlice], across: Sequence[CordSlice], spec: InputSpec) -> list[Roi]:
    if not across:
        return []
    poses = [slices[item.index].pose for item in across]
    affines = slice_rois(poses, [item.centre for item in across], spec)
    return [
        Roi((item.index,) * spec.channels, affine, item.direction)
        for item, affine in zip(across, affines, strict=True)
    ]


def _uncompressed(graded: Mapping[str, _Grade]) -> set[str]:
    """Return the levels whose grade says that the cord is not deformed. Without a grade, nobody knows."""
    return {level for level, item in graded.items() if item.grade is not None and item.grade < _DEFORMED}


def _level_result(
    item: LevelPoint, graded: _Grade | None, match: LevelMatch | None, pack: Pack
) -> LevelResult:
    if graded is None:
        return LevelResult(item.level, None, None, None, None, "", item.confidence, item.warnings)
    grade = graded.grade
    confidence, unsure = item.confidence, False
    if grade is not None and graded.probabilities is not None:
        probability = graded.probabilities[grade]
        confidence = min(confidence, probability)
        unsure = probability < pack.models["grader"].output.minimum_confidence
    return LevelResult(
        level=item.level,
        point=item.point,
        grade=grade,
        probabilities=graded.probabilities,
        cord=match.cord if match else None,
        sagittal_sop_uid=graded.frame.sop_instance_uid,
        confidence=confidence,
        warnings=(
            *item.warnings,
            *graded.warnings,
            *(("grade_low_confidence",) if unsure else ()),
            *(match.warnings if match else ()),
        ),
        p_ood=graded.p_ood,
        sagittal_frame_number=graded.frame.frame_number,
    )


def _compared(
    level: LevelResult, match: LevelMatch | None, compression: Mapping[str, CordCompression], trusted: bool
) -> LevelResult:
    """Return a level with its MSCC and its comparison with healthy adults, where the cord was measured.

    It is not compared unless `trusted`: the bias of the cord model is known.
    """
    if level.cord is None or match is None:
        return level
    found = compression[level.level]
    # With a slice missing, the narrowest place may not be what was measured, and the norms are of that.
    unknown = "axial_slice_gap" in match.warnings or not trusted
    healthy = None if unknown else compare_with_healthy(level.level, level.cord)
    return replace(level, mscc=found.mscc, mscc_reference=found.reference, healthy=healthy)
