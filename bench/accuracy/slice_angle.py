"""Error of the compression ratio against the angle of the axial slices, with the whole program.

    python -m stenosis_trt.bench.accuracy.slice_angle --out FOLDER [--volumes VOLUMES] [--pack PACK]

Phantoms, and with volumes semi-synthetic studies, are made with axial slices that are turned about their
left-right axis by −30° to 30° against the cord, and graded. Errors are sorted by the true angle between the
slice on which the ratio of a level was measured and the plane across the cord there. Warnings count if they
speak of the ratio. FOLDER gets `slice_angle.json`, and may be that of `bench.robustness`: studies with
`axial_tilt` that were graded there are not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from stenosis_trt.bench.accuracy.command_line import (
    chosen_subjects,
    grader_setting,
    run_command,
    study_parser,
)
from stenosis_trt.bench.accuracy.graded_studies import GradedLevel, GradedStudy
from stenosis_trt.bench.accuracy.study_records import check_setting, grade_requests
from stenosis_trt.bench.accuracy.study_requests import StudyRequest
from stenosis_trt.bench.phantom.conditions import ORDINARY
from stenosis_trt.bench.statistics.signed_errors import error_statistics
from stenosis_trt.engine.support.atomic_files import write_text_atomically

TILTS_DEGREES = (-30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0)
BINS_DEGREES = (0, 5, 10, 15, 20, 25, 30, 35, 40, 90)
LARGE_ERROR = 0.10
"""An error of the ratio beyond this must have a warning."""

_PHANTOMS, _SEMISYNTHETIC = 6, 4


@dataclass(frozen=True)
class AngleFigures:
    """Errors of the ratio, measured − true, of the slices within some angles; None where there are none.

    Attributes:
        low, high: range of the true angle in degrees.
        measured: ratios that were compared. flagged: those of them with a warning that speaks of the ratio.
        mean_absolute_error, bias: of all of them.
        largest: largest absolute error. largest_unflagged: the same of the ratios without such a warning.
        large_unflagged: number of errors beyond 0.10 without such a warning.
    """

    low: float
    high: float
    measured: int
    flagged: int
    mean_absolute_error: float | None
    bias: float | None
    largest: float | None
    largest_unflagged: float | None
    large_unflagged: int


@dataclass(frozen=True)
class SliceAngleResult:
    """Errors by angle.

    Attributes:
        whole: at all angles.
        up_to_30: at angles of 30° at most.
        bins: at the angles between neighbouring values of `BINS_DEGREES`.
        withheld: levels that were found and have a true ratio, but none was measured.
    """

    whole: AngleFigures
    up_to_30: AngleFigures
    bins: tuple[AngleFigures, ...]
    withheld: int


def angle_figures(levels: Iterable[GradedLevel], low: float, high: float) -> AngleFigures:
    """Errors of the levels whose ratio was measured at an angle from `low` to below `high` degrees."""
    chosen = [
        (level.ratio - level.true_ratio, bool(level.ratio_warnings))
        for level in levels
        if level.ratio is not None
        and level.true_ratio is not None
        and level.slice_angle_degrees is not None
        and low <= level.slice_angle_degrees < high
    ]
    statistics = error_statistics([error for error, _ in chosen])
    unflagged = [abs(error) for error, flagged in chosen if not flagged]
    return AngleFigures(
        low=low,
        high=high,
        measured=len(chosen),
        flagged=sum(flagged for _, flagged in chosen),
        mean_absolute_error=statistics.mean_absolute_error,
        bias=statistics.bias,
        largest=max((abs(error) for error, _ in chosen), default=None),
        largest_unflagged=max(unflagged, default=None),
        large_unflagged=sum(error > LARGE_ERROR for error in unflagged),
    )


def evaluate_angles(studies: Sequence[GradedStudy]) -> SliceAngleResult:
    """Errors of the ratio by angle. Levels found at another disc and operated levels are left out."""
    levels = [
        level
        for study in studies
        for level in study.levels
        if level.true_grade is not None and level not in study.misnumbered()
    ]
    return SliceAngleResult(
        whole=angle_figures(levels, 0.0, 90.0),
        up_to_30=angle_figures(levels, 0.0, 30.0),
        bins=tuple(angle_figures(levels, low, high) for low, high in pairwise(BINS_DEGREES)),
        withheld=sum(
            level.ratio is None and level.true_ratio is not None and level.point is not None
            for level in levels
        ),
    )


def _line(name: str, item: AngleFigures) -> str:
    if item.mean_absolute_error is None:
        return f"{name:10} {0:6}"
    unflagged = "–" if item.largest_unflagged is None else f"{item.largest_unflagged:.3f}"
    return (
        f"{name:10} {item.measured:6} {item.mean_absolute_error:8.4f} {item.bias:+8.4f} {item.largest:8.3f}"
        f" {item.flagged:8} {unflagged:>18} {item.large_unflagged:16}"
    )


def _print(result: SliceAngleResult) -> None:
    print(
        f"{'angle':10} {'ratios':>6} {'error':>8} {'bias':>8} {'largest':>8} {'flagged':>8} "
        f"{'largest unflagged':>18} {'unflagged > 0.1':>16}"
    )
    for item in result.bins:
        print(_line(f"{item.low:g}–{item.high:g}°", item))
    print(_line("to 30°", result.up_to_30))
    print(_line("all", result.whole))
    print(f"{result.withheld} levels were found and have no ratio.")


def main() -> int:
    """Print the errors by angle, write them to `slice_angle.json`, and return the exit code."""
    parser = study_parser(
        "accuracy.slice_angle", "Error of the ratio against the angle of axial slices.", _PHANTOMS
    )
    parser.add_argument(
        "--semisynthetic",
        type=int,
        default=_SEMISYNTHETIC,
        help=f"semi-synthetic studies, where volumes are given ({_SEMISYNTHETIC})",
    )
    arguments = parser.parse_args()
    return run_command("slice_angle", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    subjects, setting = chosen_subjects(arguments), grader_setting(arguments)
    phantoms = _PHANTOMS if arguments.studies is None else arguments.studies
    plain = [StudyRequest(arguments.seed, index) for index in range(phantoms)]
    if subjects:
        plain += [
            StudyRequest(arguments.seed, index, subjects=subjects, volumes=arguments.volumes)
            for index in range(arguments.semisynthetic)
        ]
    requests = [
        replace(request, conditions=replace(ORDINARY, axial_tilt=degrees))
        for degrees in TILTS_DEGREES
        for request in plain
    ]
    if not requests:
        raise ValueError("No studies were asked for. Give --studies of at least 1.")
    result = evaluate_angles(grade_requests(requests, arguments.out, setting, arguments.workers))
    content = {**check_setting(arguments.out, setting), **asdict(result)}
    write_text_atomically(arguments.out / "slice_angle.json", json.dumps(content, indent=1) + "\n")
    _print(result)


if __name__ == "__main__":
    sys.exit(main())
