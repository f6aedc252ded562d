"""Folds of a cross-validation: from a file, or from the truth's column `fold`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stenosis_trt.bench.evaluation.cohort import Cohort, confusion_tables
from stenosis_trt.bench.evaluation.csv_tables import read_csv
from stenosis_trt.bench.evaluation.symptoms import key_column, rows_by_subject
from stenosis_trt.bench.statistics.folds import FoldTable, fold_table
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.support.safe_text import escape_controls


def read_folds(path: Path) -> tuple[str, dict[str, str]]:
    """Read a file with `patient_id` or `study_uid`, and `fold`.

    Returns:
        (column that names subjects, fold by subject)

    Raises:
        InputError: a column is missing, a fold is empty, or a subject has two rows.
        OSError: the file cannot be read.
    """
    table = read_csv(path)
    key = key_column(table)
    table.require(("fold",), "Give the fold in which each patient was tested.")
    folds = {}
    for subject, row in rows_by_subject(table, key).items():
        if not row.cells.get("fold"):
            raise InputError(f"{table.name}, line {row.line}: fold is empty.", "Fill it in.")
        folds[subject] = row.cells["fold"]
    return key, folds


def model_by_fold(cohort: Cohort, given: tuple[str, dict[str, str]] | None) -> FoldTable | None:
    """Return the model's figures of each fold; None where neither a file nor the truth has folds.

    Args:
        cohort: all raters.
        given: what `read_folds` returned, or None for the truth's column.

    Raises:
        InputError: a patient has no fold, or lies in two, or both a file and the truth have folds.
    """
    if given is not None and cohort.folds:
        raise InputError("Both the truth and --folds name folds.", "Give one of the two.")
    key, folds = given if given is not None else ("study_uid", cohort.folds)
    if not folds:
        return None
    both = cohort.truth.graded & cohort.model.graded
    of_patient: dict[int, str] = {}
    for place in np.flatnonzero(both):
        patient = int(cohort.patients[place])
        name = cohort.keys[place][0] if key == "study_uid" else cohort.patient_names[patient]
        if name not in folds:
            raise InputError(
                f"A graded {'study' if key == 'study_uid' else 'patient'} has no fold.",
                "Give the fold of each one.",
            )
        if of_patient.setdefault(patient, folds[name]) != folds[name]:
            raise InputError(
                "The studies of a patient lie in different folds, so the folds are not independent.",
                "Keep all studies of a patient in one fold.",
            )
    tables = confusion_tables(cohort, cohort.truth.grades, cohort.model.grades, both)
    return fold_table(tables, [escape_controls(of_patient[patient]) for patient in sorted(of_patient)])
