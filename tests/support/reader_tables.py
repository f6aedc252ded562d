"""Tables of results, truth and readers with known content, as files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.runs.tables import RESULT_COLUMNS

Rows = list[dict[str, object]]


def write_table(path: Path, rows: Sequence[Mapping[str, object]], separator: str = ",") -> Path:
    """Write rows, whose keys are the columns, as CSV; with semicolons also decimal commas and a byte order
    mark."""
    with path.open("w", newline="", encoding="utf-8" if separator == "," else "utf-8-sig") as stream:
        table = csv.DictWriter(stream, rows[0].keys(), delimiter=separator)
        table.writeheader()
        for row in rows:
            cells = {
                name: str(value).replace(".", ",") if separator == ";" and isinstance(value, float) else value
                for name, value in row.items()
            }
            table.writerow(cells)
    return path


def study_uid(patient: int) -> str:
    """Study Instance UID of the only study of a patient."""
    return f"1.2.{patient}"


def truth_rows(patients: int, seed: int = 0) -> Rows:
    """A truth with all levels of so many patients, grades 0 to 3 and measurements."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for patient in range(patients):
        for level in LEVELS:
            grade = int(rng.integers(4))
            transverse = 12.0 + float(rng.normal())
            ratio = round(0.65 - 0.08 * grade + 0.02 * float(rng.normal()), 4)
            rows.append(
                {
                    "study_uid": study_uid(patient),
                    "patient_id": f"P{patient}",
                    "level": level,
                    "kang_grade": grade,
                    "compression_ratio": ratio,
                    "ap_mm": round(ratio * transverse, 2),
                    "transverse_mm": round(transverse, 2),
                }
            )
    return rows


def result_rows(truth: Rows, seed: int = 1, wrong: float = 0.1) -> Rows:
    """What a model that errs at a rate would have written to results.csv, all columns."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for row in truth:
        grade = int(str(row["kang_grade"]))
        if rng.random() < wrong:
            grade = grade - 1 if grade else 1
        probabilities = np.full(4, 0.05)
        probabilities[grade] = 0.85
        known: dict[str, object] = {
            "study_uid": row["study_uid"],
            "level": row["level"],
            "kang_grade": grade,
            **{f"p{place}": round(float(p), 4) for place, p in enumerate(probabilities)},
            **{
                name: round(float(str(row[name])) + spread * float(rng.normal()), 4)
                for name, spread in (("compression_ratio", 0.02), ("ap_mm", 0.2), ("transverse_mm", 0.3))
            },
        }
        rows.append({name: known.get(name, "") for name in RESULT_COLUMNS})
    return rows


def reader_rows(truth: Rows, seed: int = 2, wrong: float = 0.2) -> Rows:
    """A reader with the three required columns alone."""
    columns = ("study_uid", "level", "kang_grade")
    return [{name: row[name] for name in columns} for row in result_rows(truth, seed, wrong)]


def score_rows(truth: Rows, seed: int = 3) -> Rows:
    """Two scores a study that depend on its highest grade."""
    rng = np.random.default_rng(seed)
    worst: dict[str, int] = {}
    for row in truth:
        study = str(row["study_uid"])
        worst[study] = max(worst.get(study, 0), int(str(row["kang_grade"])))
    return [
        {
            "study_uid": study,
            "mJOA": round(17.0 - 1.5 * grade + float(rng.normal()), 1),
            "VAS": round(2.0 + grade + float(rng.normal()), 1),
        }
        for study, grade in worst.items()
    ]


def fold_rows(truth: Rows) -> Rows:
    """Five folds, by patient in turn."""
    studies = dict.fromkeys(str(row["study_uid"]) for row in truth)
    return [{"study_uid": study, "fold": place % 5 + 1} for place, study in enumerate(studies)]


def write_case(
    folder: Path, patients: int = 12, change: Callable[[Rows, Rows], None] | None = None
) -> tuple[Path, Path]:
    """Write a results folder and a truth; `change` may alter the rows of the results and the truth first."""
    truth = truth_rows(patients)
    results = result_rows(truth)
    if change is not None:
        change(results, truth)
    (folder / "R").mkdir()
    return write_table(folder / "R" / "results.csv", results).parent, write_table(folder / "truth.csv", truth)
