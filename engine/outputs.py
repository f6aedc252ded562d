"""What a run leaves behind: results.csv, results.jsonl, errors.csv.

Each graded study is first one file of its own below `studies/`, written whole; the tables are put together
from those. So a run that is killed loses at most the study it was on, and one that is resumed skips what
is there. Files are named by the hash of the study's UID, never by anything that identifies a patient.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stenosis_trt.engine.records import Problem, StudyResult

RESULT_COLUMNS = (
    "study_uid",
    "patient_id",
    "level",
    "kang_grade",
    "p0",
    "p1",
    "p2",
    "p3",
    "compression_ratio",
    "ap_mm",
    "transverse_mm",
    "sagittal_sop_uid",
    "axial_sop_uid",
    "x_mm",
    "y_mm",
    "z_mm",
    "confidence",
    "flags",
)
ERROR_COLUMNS = ("path", "stage", "reason", "what_to_do", "study_uid")

_STUDIES = "studies"
_MADE_WITH = "made_with.json"
_PART = ".part"


class OutputError(Exception):
    """The output folder cannot be used. `advice` says what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason} {advice}")
        self.reason, self.advice = reason, advice


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops."""
    part = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    with part.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class ResultStore:
    """The output folder of a run.

    Args:
        out: made where absent.
        made_with: everything that decides results (pack, versions, backend); a folder holds results of
            one kind only.
        resume: go on with what an earlier run of the same kind left there.

    Raises:
        OutputError: the folder holds results and `resume` is not given, or they were made with something
            else, or it cannot be written.
    """

    def __init__(self, out: Path, made_with: Mapping[str, Any], resume: bool) -> None:
        self.out = out
        self._studies = out / _STUDIES
        try:
            self._studies.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The output folder {out} cannot be made ({error.strerror}).", "Give another with --out."
            ) from error
        marker = self._studies / _MADE_WITH
        if marker.exists():
            self._check(json.loads(marker.read_text(encoding="utf-8")), made_with, resume)
        for part in [*out.glob(f".*{_PART}"), *self._studies.glob(f".*{_PART}")]:
            part.unlink()
        write_whole(marker, json.dumps(made_with, indent=2, sort_keys=True) + "\n")

    def _check(self, before: Mapping[str, Any], now: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            raise OutputError(
                f"{self.out} already holds results.", "Give --resume to go on with them, or another --out."
            )
        differs = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if differs:
            raise OutputError(
                f"The results in {self.out} were made with another {', '.join(differs)}.",
                "Give another --out, or the same pack, version and device as before.",
            )

    def _path(self, study_uid: str) -> Path:
        return self._studies / f"{hashlib.sha256(study_uid.encode()).hexdigest()}.json"

    def is_done(self, study_uid: str) -> bool:
        """Whether this study was graded, now or by the run that is resumed."""
        return self._path(study_uid).exists()

    def add(self, result: StudyResult, problems: Sequence[Problem]) -> None:
        """Keep a graded study, with the problems its files had."""
        content = {"result": asdict(result), "problems": [asdict(problem) for problem in problems]}
        write_whole(self._path(result.study_uid), json.dumps(content) + "\n")

    def write_tables(self, order: Sequence[str], problems: Iterable[Problem]) -> None:
        """Put the three tables together.

        Args:
            order: study UIDs in the order of the rows; studies of an earlier run follow.
            problems: those that belong to no graded study.
        """
        rows, lines, errors = io.StringIO(), io.StringIO(), io.StringIO()
        table = csv.DictWriter(rows, RESULT_COLUMNS, lineterminator="\n")
        table.writeheader()
        failures = csv.DictWriter(errors, ERROR_COLUMNS, lineterminator="\n")
        failures.writeheader()
        for problem in problems:
            failures.writerow(_error_row(asdict(problem)))
        for content in self._contents(order):
            table.writerows(_result_rows(content["result"]))
            lines.write(json.dumps(content["result"]) + "\n")
            failures.writerows(_error_row(problem) for problem in content["problems"])
        write_whole(self.out / "results.csv", rows.getvalue())
        write_whole(self.out / "results.jsonl", lines.getvalue())
        write_whole(self.out / "errors.csv", errors.getvalue())

    def _contents(self, order: Sequence[str]) -> Iterator[dict[str, Any]]:
        wanted = [self._path(uid) for uid in order]
        others = sorted(set(self._studies.glob("*.json")) - {*wanted, self._studies / _MADE_WITH})
        for path in [*wanted, *others]:
            if path.exists():
                yield json.loads(path.read_text(encoding="utf-8"))


def _rounded(value: float | None, digits: int) -> float | str:
    return "" if value is None else round(value, digits)


def _result_rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for level in result["levels"]:
        cord, point = level["cord"] or {}, level["point"] or (None, None, None)
        probabilities = level["probabilities"] or (None,) * 4
        yield {
            "study_uid": result["study_uid"],
            "patient_id": result["patient_id"],
            "level": level["level"],
            "kang_grade": "" if level["grade"] is None else level["grade"],
            **{f"p{grade}": _rounded(value, 4) for grade, value in enumerate(probabilities)},
            "compression_ratio": _rounded(cord.get("compression_ratio"), 4),
            "ap_mm": _rounded(cord.get("ap_mm"), 2),
            "transverse_mm": _rounded(cord.get("transverse_mm"), 2),
            "sagittal_sop_uid": level["sagittal_sop_uid"],
            "axial_sop_uid": cord.get("sop_instance_uid", ""),
            **{f"{axis}_mm": _rounded(value, 2) for axis, value in zip("xyz", point, strict=True)},
            "confidence": _rounded(level["confidence"], 4),
            "flags": ";".join(dict.fromkeys([*level["flags"], *result["flags"]])),
        }


def _error_row(problem: Mapping[str, Any]) -> dict[str, str]:
    return {
        "path": problem["path"],
        "stage": getattr(problem["stage"], "value", problem["stage"]),
        "reason": problem["reason"],
        "what_to_do": problem["advice"],
        "study_uid": problem["study_uid"],
    }
