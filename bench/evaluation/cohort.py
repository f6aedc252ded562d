"""All raters on the levels of the truth, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.evaluation.raters import MEASURES, LevelKey, Rater
from stenosis_trt.bench.statistics.bootstrap import FloatArray
from stenosis_trt.bench.statistics.confusion import GRADE_COUNT, IntArray
from stenosis_trt.engine.errors import InputError

FEWEST_PATIENTS = 10
"""Below this a bootstrap over patients has too few different samples for an interval."""
_NO_GRADE = -1


@dataclass(frozen=True)
class Ratings:
    """What one rater says of each level of a cohort.

    Attributes:
        name: of the rater. grades: int64 (N,), −1 where there is none.
        measures: float64 (3, N), rows as in `MEASURES`; NaN where there is none.
        p_grade_2_or_3: float64 (N,), NaN where there is none.
    """

    name: str
    grades: IntArray
    measures: FloatArray
    p_grade_2_or_3: FloatArray

    @property
    def graded(self) -> npt.NDArray[np.bool_]:
        """True where there is a grade, (N,)."""
        return np.asarray(self.grades != _NO_GRADE)


@dataclass(frozen=True)
class Cohort:
    """The levels of the truth, with all raters.

    Attributes:
        keys: study and level of each of N levels. studies: studies of the truth, in their order.
        patients: index of the patient of each level, int64 (N,). patient_of_study: the same by study.
        patient_names: PatientIDs by index; the Study Instance UID where there is none.
        model, truth, readers: the raters.
        folds: fold by study, from the truth's table.
        notes: sentences on what was left out.
    """

    keys: tuple[LevelKey, ...]
    studies: tuple[str, ...]
    patients: IntArray
    patient_of_study: dict[str, int]
    patient_names: tuple[str, ...]
    model: Ratings
    truth: Ratings
    readers: tuple[Ratings, ...]
    folds: dict[str, str]
    notes: tuple[str, ...]

    @property
    def patient_count(self) -> int:
        """Number of patients."""
        return len(self.patient_names)


def make_cohort(model: Rater, truth: Rater, readers: Sequence[Rater], few_patients: bool) -> Cohort:
    """Join the tables on study and level. Levels are those of the truth.

    Args:
        model, truth, readers: the tables.
        few_patients: accept fewer than ten patients.

    Raises:
        InputError: the tables have no study in common, the truth lacks a level that the model graded or has
            no grade at all, or there are too few patients.
    """
    common = model.studies & truth.studies
    if not common:
        raise InputError(
            "The results and the truth have no study in common.", "Give the truth of the studies graded."
        )
    _check_levels(model, truth, common)
    keys = tuple(sorted(truth.levels))
    studies = tuple(dict.fromkeys(study for study, _ in keys))
    names = {study: truth.patients.get(study) or model.patients.get(study) or study for study in studies}
    order = {name: index for index, name in enumerate(dict.fromkeys(names[study] for study in studies))}
    patients = {study: order[names[study]] for study in studies}
    cohort = Cohort(
        keys=keys,
        studies=studies,
        patients=np.array([patients[study] for study, _ in keys], dtype=np.int64),
        patient_of_study=patients,
        patient_names=tuple(order),
        model=_ratings(model, keys),
        truth=_ratings(truth, keys),
        readers=tuple(_ratings(reader, keys) for reader in readers),
        folds=truth.folds,
        notes=tuple(_notes(model, truth, readers, keys)),
    )
    _check_patients(cohort, few_patients)
    return cohort


def _check_levels(model: Rater, truth: Rater, common: set[str]) -> None:
    missing = sorted(
        key
        for key, level in model.levels.items()
        if key[0] in common and level.grade is not None and key not in truth.levels
    )
    if missing:
        study, level = missing[0]
        more = f" and {len(missing) - 1} other levels" if len(missing) > 1 else ""
        raise InputError(
            f"The truth has no row for {level} of study {study}{more} that the results have a grade for.",
            "Add the rows; leave kang_grade empty where there is no true grade.",
        )
    if all(level.grade is None for level in truth.levels.values()):
        raise InputError("The truth has no grade at all.", "Fill the column kang_grade.")


def _check_patients(cohort: Cohort, few_patients: bool) -> None:
    """Refuse too few patients: in all, and of the model and each reader with the truth."""
    for rater in (cohort.model, *cohort.readers):
        both = rater.graded & cohort.truth.graded
        count = len(np.unique(cohort.patients[both]))
        if count == 0:
            raise InputError(
                f"The table of {rater.name} has no graded level in common with the truth.",
                "Give tables of the same studies.",
            )
        if count < FEWEST_PATIENTS and not few_patients:
            raise InputError(
                f"The truth and {rater.name} have graded levels of {count} "
                f"{'patient' if count == 1 else 'patients'} in common, fewer than {FEWEST_PATIENTS}: "
                "intervals and tests would mean nothing.",
                "Give more patients, or --few-patients for figures without intervals and tests.",
            )


def _ratings(rater: Rater, keys: Sequence[LevelKey]) -> Ratings:
    found = [rater.levels.get(key) for key in keys]
    grades = [_NO_GRADE if item is None or item.grade is None else item.grade for item in found]
    measures = np.full((len(MEASURES), len(keys)), np.nan)
    probability = np.full(len(keys), np.nan)
    for place, item in enumerate(found):
        if item is None:
            continue
        measures[:, place] = [np.nan if value is None else value for value in item.measures]
        if item.p_grade_2_or_3 is not None:
            probability[place] = item.p_grade_2_or_3
    return Ratings(rater.name, np.array(grades, dtype=np.int64), measures, probability)


def _notes(model: Rater, truth: Rater, readers: Sequence[Rater], keys: Sequence[LevelKey]) -> list[str]:
    notes = []
    unknown = model.studies - truth.studies
    if unknown:
        notes.append(f"{_count(unknown, 'study', 'studies')} of the results not in the truth: left out.")
    ungraded = truth.studies - model.studies
    if ungraded:
        notes.append(
            f"{_count(ungraded, 'study', 'studies')} of the truth not in the results: the levels count as "
            "not graded."
        )
    for reader in readers:
        if reader.unblinded:
            notes.append(
                f"{reader.name} saw the model's grade of {reader.unblinded} levels before grading them: "
                "agreement with the model is biased upwards."
            )
        extra = set(reader.levels) - set(keys)
        if extra:
            notes.append(f"{_count(extra, 'level', 'levels')} of {reader.name} not in the truth: left out.")
    if not truth.patients and not model.patients:
        notes.append("No table has patient_id: each study counts as a patient.")
    return notes


def _count(items: set[str] | set[LevelKey], one: str, many: str) -> str:
    return f"{len(items)} {one if len(items) == 1 else many}"


def confusion_tables(
    cohort: Cohort, rows: IntArray, columns: IntArray, where: npt.NDArray[np.bool_]
) -> IntArray:
    """Confusion matrix of each patient with levels in `where`, int64 (patients, 4, 4)."""
    used, index = np.unique(cohort.patients[where], return_inverse=True)
    tables = np.zeros((len(used), GRADE_COUNT, GRADE_COUNT), np.int64)
    np.add.at(tables, (index, rows[where], columns[where]), 1)
    return tables
