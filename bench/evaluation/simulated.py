"""Simulate readers of a truth table, with clinical scores and folds, to try `evaluate` without patients.

    python -m stenosis_trt.bench.evaluation.simulated P/truth.csv S [--readers 2] [--seed 0]

writes S/reader_1.csv, S/reader_2.csv, S/scores.csv (mJOA, VAS, NDI) and S/folds.csv. Everything in them is
made up: readers err at given rates, independently of one another and of the images, and scores depend on
the highest true grade plus noise. The default rates give readers a kappa with one another as published ones
have (0.665 to 0.799; Kang et al., AJR 2011, and later readers of that system).
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stenosis_trt.bench.evaluation.raters import MEASURES, LevelKey, LevelReading, Rater, read_truth
from stenosis_trt.engine.errors import StenosisError
from stenosis_trt.engine.support.atomic_files import write_bytes_atomically

_MEASURE_ERROR = (0.02, 0.3, 0.4)
"""Standard deviations of a reader's measurements, of the ratio, and of the diameters in mm."""
_FOLDS = 5
_SCORES = {
    "mJOA": (17.0, -1.5, 1.8, 0.0, 18.0),
    "VAS": (2.5, 1.0, 1.8, 0.0, 10.0),
    "NDI": (15.0, 6.0, 10.0, 0.0, 100.0),
}
"""Score at grade 0, change a grade, standard deviation, lowest and highest value."""


@dataclass(frozen=True)
class ErrorRates:
    """How a simulated reader errs.

    Attributes:
        near: probability of a neighbouring grade. far: of a grade two away. missing: of no grade.
    """

    near: float = 0.10
    far: float = 0.01
    missing: float = 0.01

    def __post_init__(self) -> None:
        if min(self.near, self.far, self.missing) < 0.0 or self.near + self.far + self.missing > 1.0:
            raise ValueError("Error rates must be from 0 to 1, and add up to 1 at most.")


def simulated_reader(truth: Rater, rates: ErrorRates, rng: np.random.Generator, name: str) -> Rater:
    """Return a reader that sees the truth with errors. Ratios keep their diameters' error apart."""
    levels = {
        key: LevelReading(_wrong(reading.grade, rates, rng), _measured(reading, rng))
        for key, reading in truth.levels.items()
    }
    return Rater(name, levels, {}, {})


def simulated_files(truth: Rater, readers: int, rates: ErrorRates, seed: int) -> dict[str, bytes]:
    """Return the content of each file by its name; equal arguments give equal files.

    Args:
        truth: the table of the truth. readers: number of readers, at least 1. rates: of their errors.
        seed: of all randomness.
    """
    files = {}
    for number in range(1, readers + 1):
        name = f"reader_{number}"
        reader = simulated_reader(truth, rates, np.random.default_rng([seed, number]), name)
        rows = [
            [*key, reading.grade, *(None if value is None else round(value, 4) for value in reading.measures)]
            for key, reading in reader.levels.items()
        ]
        files[f"{name}.csv"] = _csv(["study_uid", "level", "kang_grade", *MEASURES], rows)
    rng = np.random.default_rng([seed, 0])
    worst = _worst_grades(truth)
    files["scores.csv"] = _csv(
        ["study_uid", *_SCORES], [[study, *_scores(grade, rng)] for study, grade in worst.items()]
    )
    patients = list(dict.fromkeys(truth.patients.get(study, study) for study in worst))
    fold = {patient: place % _FOLDS + 1 for place, patient in enumerate(rng.permutation(patients).tolist())}
    files["folds.csv"] = _csv(
        ["study_uid", "fold"], [[study, fold[truth.patients.get(study, study)]] for study in worst]
    )
    return files


def _wrong(grade: int | None, rates: ErrorRates, rng: np.random.Generator) -> int | None:
    if grade is None:
        return None
    drawn, sign = rng.random(), rng.choice([-1, 1])
    if drawn < rates.missing:
        return None
    step = 1 if drawn < rates.missing + rates.near else 2
    if drawn >= rates.missing + rates.near + rates.far:
        return grade
    # At an end of the scale there is only one direction.
    moved = grade + step * int(sign)
    return moved if 0 <= moved <= 3 else min(3, max(0, grade - step * int(sign)))


def _measured(
    reading: LevelReading, rng: np.random.Generator
) -> tuple[float | None, float | None, float | None]:
    ratio, ap, transverse = (
        None if value is None else max(0.0, value + float(rng.normal(0.0, error)))
        for value, error in zip(reading.measures, _MEASURE_ERROR, strict=True)
    )
    return ratio, ap, transverse


def _worst_grades(truth: Rater) -> dict[str, int]:
    worst: dict[str, int] = {}
    key: LevelKey
    for key, reading in truth.levels.items():
        worst[key[0]] = max(worst.get(key[0], 0), reading.grade or 0)
    return worst


def _scores(grade: int, rng: np.random.Generator) -> list[float]:
    return [
        round(float(np.clip(start + slope * grade + rng.normal(0.0, spread), low, high)), 1)
        for start, slope, spread, low, high in _SCORES.values()
    ]


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    stream = io.StringIO(newline="")
    table = csv.writer(stream, lineterminator="\n")
    table.writerows([columns, *rows])
    return stream.getvalue().encode()


def main() -> None:
    """Write the files. Exit code 2: the truth cannot be read, a rate is none, or the folder cannot be
    written."""
    parser = argparse.ArgumentParser(description="Simulate readers, scores and folds for a truth table.")
    parser.add_argument("truth", type=Path)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--readers", type=int, default=2, help="number of readers")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal files")
    parser.add_argument("--near", type=float, default=ErrorRates.near, help="rate of neighbouring grades")
    parser.add_argument("--far", type=float, default=ErrorRates.far, help="rate of grades two away")
    parser.add_argument("--missing", type=float, default=ErrorRates.missing, help="rate of no grade")
    arguments = parser.parse_args()
    try:
        rates = ErrorRates(arguments.near, arguments.far, arguments.missing)
        files = simulated_files(read_truth(arguments.truth), arguments.readers, rates, arguments.seed)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_bytes_atomically(arguments.out / name, data)
    except OSError as error:
        sys.exit(_print_error(f"{error.filename}: {error.strerror}. Give a truth table and a folder."))
    except (StenosisError, ValueError) as error:
        sys.exit(_print_error(str(error)))


def _print_error(message: str) -> int:
    print(f"simulated: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
