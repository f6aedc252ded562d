"""Compare what `grade` wrote with the truth that `phantom` wrote.

    python -m stenosis_trt.bench.accuracy.compare R/results.csv P/truth.csv [--out figures.json]

Agreement of grades is Cohen's kappa with quadratic weights (Cohen, Psychological Bulletin 1968;70:213),
its 95 % interval a bootstrap over patients. Errors of diameters and ratios are signed: measured − true.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

GRADE_COUNT = 4
_COLUMNS = ("study_uid", "level", "kang_grade")
"""What both tables must have. Readers grade and measure nothing, so the truth may have no more."""
_NUMBERS = ("compression_ratio", "narrowest_ratio", "x_mm", "y_mm", "z_mm")
_FOUND_WITHIN_MM = 4.0
_BOOTSTRAP_ROUNDS = 1000


@dataclass(frozen=True)
class LevelPair:
    """One level in the truth, beside what was measured there; None where nothing was, or is known.

    `has_true_point` says whether the truth has the level's point. `true_ratio` is what the acquired slices
    show at best, `narrowest_ratio` that of the anatomy.
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


@dataclass(frozen=True)
class RatioError:
    """Error of the compression ratio over some levels; None where it was measured at none of them."""

    measured: int
    bias: float | None
    mean_absolute_error: float | None


@dataclass(frozen=True)
class TruthComparison:
    """Figures over all levels of the truth; None for those of ratios and distances that the truth lacks.

    Shares are of all levels in the truth, so a level that was not graded counts as a miss.
    `ratio_*` compares with what the acquired axial slices show; `narrowest_ratio_bias` with the narrowest
    place of the anatomy, and so holds what slices of some thickness miss.
    `ratio_error_by_true_grade` has one entry a grade: an error at compressed levels alone is lost among the
    many others.
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
    ratio_error_by_true_grade: tuple[RatioError, ...]
    found_within_4_mm: float | None
    median_distance_mm: float | None
    confusion: list[list[int]]


def quadratic_kappa(confusion: npt.ArrayLike) -> float:
    """Cohen's kappa with quadratic weights of a square table of counts (rows: truth).

    Returns NaN where it is not defined: an empty table, or both raters in one category throughout.
    """
    table = np.asarray(confusion, dtype=np.float64)
    if table.sum() == 0.0:
        return float("nan")
    categories = np.arange(len(table))
    weights = (categories[:, None] - categories[None, :]) ** 2
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    disagreement = float((weights * expected).sum())
    return float("nan") if disagreement == 0.0 else 1.0 - float((weights * table).sum()) / disagreement


def confusion_table(pairs: Iterable[LevelPair]) -> npt.NDArray[np.int64]:
    """Counts of (true grade, grade), int64 (4, 4), over the levels that were graded."""
    table = np.zeros((GRADE_COUNT, GRADE_COUNT), dtype=np.int64)
    for pair in pairs:
        if pair.grade is not None:
            table[pair.true_grade, pair.grade] += 1
    return table


def _rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    # As spreadsheets save tables too: with a byte order mark, and with semicolons beside decimal commas.
    with path.open(newline="", encoding="utf-8-sig") as stream:
        heading = stream.readline()
        stream.seek(0)
        semicolons = ";" in heading
        table = csv.DictReader(stream, delimiter=";" if semicolons else ",")
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]}. Give a results.csv and a truth.csv.")
        found: dict[tuple[str, str], dict[str, str]] = {}
        for row in table:
            if semicolons:
                row.update({name: row[name].replace(",", ".") for name in _NUMBERS if row.get(name)})
            if found.setdefault((row["study_uid"], row["level"]), row) is not row:
                raise ValueError(
                    f"{path} has two rows of study {row['study_uid']} and level {row['level']}: patients "
                    "share the Study Instance UID. Grade one of them at a time, and compare that."
                )
        return found


def _point(row: dict[str, str]) -> FloatArray | None:
    values = [row.get(axis) for axis in ("x_mm", "y_mm", "z_mm")]
    return np.array([float(value) for value in values if value]) if all(values) else None


def _number(row: Mapping[str, str], column: str) -> float | None:
    return float(row[column]) if row.get(column) else None


def pair_levels(results: Path, truth: Path) -> list[LevelPair]:
    """Join results.csv and truth.csv on study and level; every row of the truth with a grade yields one pair.

    The truth may be a reader's, without ratios and points, and saved by a spreadsheet.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no such table, or the two have no study in common.
    """
    measured, known = _rows(results), _rows(truth)
    if not {key[0] for key in measured} & {key[0] for key in known}:
        raise ValueError(
            f"{results} and {truth} have no study in common. Compare results of the same studies."
        )
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
            )
        )
    return pairs


def kappa_interval(tables: npt.NDArray[np.int64]) -> tuple[float, float]:
    """95 % percentile bootstrap of the quadratic kappa over patients, whose levels stay together.

    Args:
        tables: counts of each patient, int64 (patients, categories, categories).

    Returns:
        Both ends; NaN where kappa is defined in no draw.
    """
    rng = np.random.default_rng(0)
    draws = rng.integers(len(tables), size=(_BOOTSTRAP_ROUNDS, len(tables)))
    kappas = np.array([quadratic_kappa(tables[draw].sum(axis=0)) for draw in draws])
    known = kappas[np.isfinite(kappas)]
    if len(known) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _kappa_interval(pairs: Sequence[LevelPair]) -> tuple[float, float]:
    studies = sorted({pair.study_uid for pair in pairs})
    return kappa_interval(
        np.stack([confusion_table(p for p in pairs if p.study_uid == study) for study in studies])
    )


def _errors(pairs: Iterable[LevelPair], narrowest: bool = False) -> FloatArray:
    """Measured − true ratio of the levels where both are known."""
    both = ((pair.ratio, pair.narrowest_ratio if narrowest else pair.true_ratio) for pair in pairs)
    return np.array([ratio - true for ratio, true in both if ratio is not None and true is not None])


def _ratio_error(pairs: Iterable[LevelPair], grade: int) -> RatioError:
    errors = _errors(p for p in pairs if p.true_grade == grade)
    if len(errors) == 0:
        return RatioError(0, None, None)
    return RatioError(len(errors), float(np.mean(errors)), float(np.abs(errors).mean()))


def _lines(figures: TruthComparison) -> Iterator[str]:
    """One figure a line; the errors by grade one line a grade."""
    for name, value in asdict(figures).items():
        if name != "ratio_error_by_true_grade":
            yield f"{name:28} {round(value, 4) if isinstance(value, float) else value}"
    for grade, error in enumerate(figures.ratio_error_by_true_grade):
        found = f"{error.measured} measured"
        if error.measured:
            found += f", bias {error.bias:+.4f}, mean absolute error {error.mean_absolute_error:.4f}"
        yield f"{f'ratio_error_at_grade_{grade}':28} {found}"


def compare_with_truth(pairs: Sequence[LevelPair]) -> TruthComparison:
    """All figures of `TruthComparison` from joined levels."""
    table = confusion_table(pairs)
    errors = _errors(pairs)
    narrowest = _errors(pairs, narrowest=True)
    distances = np.array([pair.distance_mm for pair in pairs if pair.distance_mm is not None])
    low, high = _kappa_interval(pairs)
    bias = float(errors.mean()) if len(errors) else None
    spread = 1.96 * float(errors.std(ddof=1)) if len(errors) > 1 else None
    return TruthComparison(
        studies=len({pair.study_uid for pair in pairs}),
        levels=len(pairs),
        graded=int(table.sum()),
        accuracy=float(np.trace(table)) / len(pairs),
        kappa=quadratic_kappa(table),
        kappa_low=low,
        kappa_high=high,
        ratio_measured=len(errors),
        ratio_mean_absolute_error=float(np.abs(errors).mean()) if len(errors) else None,
        ratio_bias=bias,
        ratio_limits_of_agreement=None if bias is None or spread is None else (bias - spread, bias + spread),
        narrowest_ratio_bias=float(narrowest.mean()) if len(narrowest) else None,
        ratio_error_by_true_grade=tuple(_ratio_error(pairs, grade) for grade in range(GRADE_COUNT)),
        found_within_4_mm=float(np.count_nonzero(distances <= _FOUND_WITHIN_MM)) / len(pairs)
        if any(pair.has_true_point for pair in pairs)
        else None,
        median_distance_mm=float(np.median(distances)) if len(distances) else None,
        confusion=table.tolist(),
    )


def main() -> None:
    """Print the comparison, one figure a line; with `--out` write it as JSON too.

    Exit code 2: what was given cannot be compared.
    """
    parser = argparse.ArgumentParser(description="Compare results.csv with truth.csv.")
    parser.add_argument("results", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    try:
        figures = compare_with_truth(pair_levels(arguments.results, arguments.truth))
        if arguments.out:
            arguments.out.write_text(json.dumps(asdict(figures), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        sys.exit(_refused(f"{error.filename}: {error.strerror}. Give results.csv and truth.csv."))
    except (ValueError, csv.Error) as error:
        sys.exit(_refused(str(error)))
    for line in _lines(figures):
        print(line)


def _refused(message: str) -> int:
    print(f"compare: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
