"""Compare results of `grade` with the truth of `phantom`, or with a reader's grades.

    python -m stenosis_trt.bench.accuracy.compare R/results.csv P/truth.csv [--out figures.json]

Levels that must not be graded, as there is metal, are counted apart: how many were refused, how many graded.
The statistics are in `bench/statistics`; `stenosis-trt evaluate` has more of them. Kappa has quadratic
weights. Errors are signed: measured − true.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from stenosis_trt.bench.statistics.bland_altman import bland_altman
from stenosis_trt.bench.statistics.calibration import expected_calibration_error
from stenosis_trt.bench.statistics.confusion import GRADE_COUNT, confusion_by_patient
from stenosis_trt.bench.statistics.kappa import kappa_interval, quadratic_kappa
from stenosis_trt.bench.statistics.signed_errors import ErrorStatistics, error_statistics
from stenosis_trt.engine.geometry import FloatArray

_COLUMNS = ("study_uid", "level", "kang_grade")
"""Required columns of both tables. A reader's table may lack all others."""
_PROBABILITIES = tuple(f"p{grade}" for grade in range(GRADE_COUNT))
_NUMERIC_COLUMNS = ("compression_ratio", "narrowest_ratio", "x_mm", "y_mm", "z_mm", *_PROBABILITIES)
_FOUND_WITHIN_MM = 4.0
_REFUSALS = frozenset({"out_of_distribution", "signal_void"})
"""Warnings of a region that must not be graded."""


@dataclass(frozen=True)
class LevelPair:
    """One level of the truth and its result; None for values that are not known or were not measured.

    Attributes:
        true_ratio: best ratio that acquired slices can show.
        narrowest_ratio: ratio at the narrowest position of the anatomy.
        distance_mm: between the level's point and the true one.
        has_true_point: the truth has the level's point.
        probabilities: of the grades 0 to 3.
    """

    study_uid: str
    level: str
    true_grade: int
    grade: int | None
    true_ratio: float | None
    narrowest_ratio: float | None
    ratio: float | None
    distance_mm: float | None
    has_true_point: bool = True
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True)
class OperatedLevels:
    """Results at the levels that must not be graded; `levels` − `refused` − `graded` have no result.

    Attributes:
        levels: their number.
        refused: levels without a grade that were refused: out of distribution, or in a signal void.
        graded: levels that were graded all the same.
    """

    levels: int
    refused: int
    graded: int


@dataclass(frozen=True)
class TruthComparison:
    """Statistics over all levels of the truth; None where the truth has no ratios or points.

    Shares refer to all levels of the truth, so a level without a grade counts as a miss. `ratio_*` compares
    with what the acquired axial slices show. `narrowest_ratio_bias` compares with the narrowest position of
    the anatomy and thus includes the partial volume of thick slices. `ratio_error_by_true_grade` has one
    entry per grade, since errors at the few compressed levels would vanish in the total. `operated` is None
    where the levels that must not be graded were not counted. `calibration_error` is the expected calibration
    error of the graded levels, with 15 bins; None where the results have no probabilities.
    """

    studies: int
    levels: int
    graded: int
    accuracy: float
    kappa: float
    kappa_low: float
    kappa_high: float
    ratio_measured: int
    ratio_mean_absolute_error: float | None
    ratio_bias: float | None
    ratio_limits_of_agreement: tuple[float, float] | None
    narrowest_ratio_bias: float | None
    ratio_error_by_true_grade: tuple[ErrorStatistics, ...]
    found_within_4_mm: float | None
    median_distance_mm: float | None
    confusion: list[list[int]]
    operated: OperatedLevels | None = None
    calibration_error: float | None = None


_Table = dict[tuple[str, str], dict[str, str]]


def _rows(path: Path) -> _Table:
    # Spreadsheets add a byte order mark, and write semicolons together with decimal commas.
    with path.open(newline="", encoding="utf-8-sig") as stream:
        heading = stream.readline()
        stream.seek(0)
        semicolons = ";" in heading
        table = csv.DictReader(stream, delimiter=";" if semicolons else ",")
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]}. Give a results.csv and a truth.csv.")
        found: _Table = {}
        for row in table:
            if semicolons:
                row.update({name: row[name].replace(",", ".") for name in _NUMERIC_COLUMNS if row.get(name)})
            if found.setdefault((row["study_uid"], row["level"]), row) is not row:
                raise ValueError(
                    f"{path} has two rows of study {row['study_uid']} and level {row['level']}: patients "
                    "share the Study Instance UID. Grade and compare them separately."
                )
        return found


def _point(row: dict[str, str]) -> FloatArray | None:
    values = [row.get(axis) for axis in ("x_mm", "y_mm", "z_mm")]
    return np.array([float(value) for value in values if value]) if all(values) else None


def _number(row: Mapping[str, str], column: str) -> float | None:
    return float(row[column]) if row.get(column) else None


def _probabilities(row: Mapping[str, str]) -> tuple[float, ...] | None:
    values = [row.get(name) for name in _PROBABILITIES]
    return tuple(float(value) for value in values if value) if all(values) else None


def _tables(results: Path, truth: Path) -> tuple[_Table, _Table]:
    measured, known = _rows(results), _rows(truth)
    if not {key[0] for key in measured} & {key[0] for key in known}:
        raise ValueError(
            f"{results} and {truth} have no study in common. Compare results of the same studies."
        )
    return measured, known


def operated_levels(results: Path, truth: Path) -> OperatedLevels:
    """Count the results at levels that must not be graded: without a grade, with a `narrowest_ratio`.

    Raises:
        OSError, ValueError: as `pair_levels`.
    """
    measured, known = _tables(results, truth)
    # A level that a reader left open has neither.
    concerned = [key for key, row in known.items() if not row["kang_grade"] and row.get("narrowest_ratio")]
    found = [measured.get(key, {}) for key in concerned]
    graded = sum(bool(row.get("kang_grade")) for row in found)
    refused = sum(
        not row.get("kang_grade") and not _REFUSALS.isdisjoint((row.get("warnings") or "").split(";"))
        for row in found
    )
    return OperatedLevels(len(concerned), refused, graded)


def pair_levels(results: Path, truth: Path) -> list[LevelPair]:
    """Join results.csv and truth.csv on study and level; each row of the truth with a grade yields one pair.

    The truth may be a reader's table without ratios and points, saved by a spreadsheet.

    Raises:
        OSError: a file cannot be read.
        ValueError: a table lacks a column or repeats a level, or the two have no study in common.
    """
    measured, known = _tables(results, truth)
    pairs = []
    for key, row in known.items():
        if not row["kang_grade"]:
            continue
        found = measured.get(key, {})
        point = _point(found) if found else None
        true_point = _point(row)
        both = point is not None and true_point is not None
        pairs.append(
            LevelPair(
                study_uid=key[0],
                level=key[1],
                true_grade=int(row["kang_grade"]),
                grade=int(found["kang_grade"]) if found.get("kang_grade") else None,
                true_ratio=_number(row, "compression_ratio"),
                narrowest_ratio=_number(row, "narrowest_ratio"),
                ratio=_number(found, "compression_ratio"),
                distance_mm=float(np.linalg.norm(point - true_point)) if both else None,  # type: ignore[operator]
                has_true_point=true_point is not None,
                probabilities=_probabilities(found),
            )
        )
    return pairs


def _errors(pairs: Iterable[LevelPair], narrowest: bool = False) -> list[float]:
    """Measured − true ratio of the levels where both are known."""
    both = ((pair.ratio, pair.narrowest_ratio if narrowest else pair.true_ratio) for pair in pairs)
    return [ratio - true for ratio, true in both if ratio is not None and true is not None]


def _calibration_error(pairs: Iterable[LevelPair]) -> float | None:
    known = [
        (pair.probabilities, pair.true_grade)
        for pair in pairs
        if pair.probabilities is not None and pair.grade is not None
    ]
    if not known:
        return None
    probabilities, grades = zip(*known, strict=True)
    return expected_calibration_error(probabilities, grades)


def _lines(figures: TruthComparison) -> Iterator[str]:
    """Format one statistic per line, the errors of each grade, and the levels that must not be graded."""
    for name, value in asdict(figures).items():
        if name not in ("ratio_error_by_true_grade", "operated"):
            yield f"{name:28} {round(value, 4) if isinstance(value, float) else value}"
    for grade, error in enumerate(figures.ratio_error_by_true_grade):
        found = f"{error.measured} measured"
        if error.measured:
            found += f", bias {error.bias:+.4f}, mean absolute error {error.mean_absolute_error:.4f}"
        yield f"{f'ratio_error_at_grade_{grade}':28} {found}"
    if figures.operated is not None and figures.operated.levels:
        counts = figures.operated
        found = f"{counts.levels} levels, {counts.refused} refused, {counts.graded} graded"
        yield f"{'must_not_be_graded':28} {found}"


def compare_with_truth(pairs: Sequence[LevelPair]) -> TruthComparison:
    """Compute all statistics of `TruthComparison` from joined levels.

    Raises:
        ValueError: there are no levels.
    """
    if not pairs:
        raise ValueError("The truth has no level with a grade. Compare with a table that has grades.")
    by_study = sorted(pairs, key=lambda pair: pair.study_uid)
    tables = confusion_by_patient((pair.study_uid, pair.true_grade, pair.grade) for pair in by_study)
    table = tables.sum(axis=0)
    low, high = kappa_interval(tables)
    errors = _errors(pairs)
    ratio, limits = error_statistics(errors), bland_altman(errors)
    distances = np.array([pair.distance_mm for pair in pairs if pair.distance_mm is not None])
    found = float(np.count_nonzero(distances <= _FOUND_WITHIN_MM)) / len(pairs)
    return TruthComparison(
        studies=len(tables),
        levels=len(pairs),
        graded=int(table.sum()),
        accuracy=float(np.trace(table)) / len(pairs),
        kappa=quadratic_kappa(table),
        kappa_low=low,
        kappa_high=high,
        ratio_measured=ratio.measured,
        ratio_mean_absolute_error=ratio.mean_absolute_error,
        ratio_bias=ratio.bias,
        ratio_limits_of_agreement=(
            None if limits.low is None or limits.high is None else (limits.low, limits.high)
        ),
        narrowest_ratio_bias=error_statistics(_errors(pairs, narrowest=True)).bias,
        ratio_error_by_true_grade=tuple(
            error_statistics(_errors(pair for pair in pairs if pair.true_grade == grade))
            for grade in range(GRADE_COUNT)
        ),
        found_within_4_mm=found if any(pair.has_true_point for pair in pairs) else None,
        median_distance_mm=float(np.median(distances)) if len(distances) else None,
        confusion=table.tolist(),
        calibration_error=_calibration_error(pairs),
    )


def main() -> None:
    """Print the comparison, one statistic per line; with `--out` also write it as JSON.

    Exit code 2: the files cannot be compared.
    """
    parser = argparse.ArgumentParser(description="Compare results.csv with truth.csv.")
    parser.add_argument("results", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    try:
        tables = arguments.results, arguments.truth
        figures = replace(compare_with_truth(pair_levels(*tables)), operated=operated_levels(*tables))
        if arguments.out:
            arguments.out.write_text(json.dumps(asdict(figures), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        sys.exit(_print_error(f"{error.filename}: {error.strerror}. Give results.csv and truth.csv."))
    except (ValueError, csv.Error) as error:
        sys.exit(_print_error(str(error)))
    for line in _lines(figures):
        print(line)


def _print_error(message: str) -> int:
    print(f"compare: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
