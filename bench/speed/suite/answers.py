"""Scenario: the GPU answers as the CPU does."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from stenosis_trt.bench.speed.suite.figures import Limit, Measurement
from stenosis_trt.bench.speed.suite.sheet import ScenarioReport
from stenosis_trt.bench.speed.suite.system import SystemUnderTest
from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.onnxruntime import OnnxRuntimeBackend
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.errors import CannotGrade
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.grading.read_ahead import read_ahead
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LevelResult, StudyHeader, StudyResult
from stenosis_trt.engine.support.hardware import usable_cores

_JUDGED = ("fp32", "fp16")
"""INT8 differs by more, and is behind a gate of its own, in the pack."""

Graded = StudyResult | None
"""None: it was refused."""


@dataclass
class BackendAgreement:
    """How two gradings of the same studies compare, level by level."""

    studies: int = 0
    levels: int = 0
    same_grades: int = 0
    points_in_one: int = 0
    ratios_in_one: int = 0
    shifts_mm: list[float] = field(default_factory=list)
    ratio_differences: list[float] = field(default_factory=list)

    def add(self, found: Graded, expected: Graded, levels: int) -> None:
        """Compare one study, of so many levels. Where only one of them was graded, no level is the same."""
        self.studies += 1
        self.levels += levels
        if found is None or expected is None:
            self.same_grades += levels if found is expected else 0
            return
        for one, other in zip(found.levels, expected.levels, strict=True):
            self._level(one, other)

    def _level(self, one: LevelResult, other: LevelResult) -> None:
        self.same_grades += one.grade == other.grade
        if one.point is not None and other.point is not None:
            self.shifts_mm.append(float(np.linalg.norm(np.subtract(one.point, other.point))))
        else:
            self.points_in_one += one.point is not other.point
        if one.cord is not None and other.cord is not None:
            difference = one.cord.compression_ratio - other.cord.compression_ratio
            self.ratio_differences.append(abs(difference))
        else:
            self.ratios_in_one += one.cord is not other.cord

    def figures(self, precision: str) -> list[Measurement]:
        """Grades, ratios and points; and where there is nothing to compare, since one of the two has none."""
        judged = precision in _JUDGED

        def figure(name: str, value: float, unit: str, runs: int, limit: Limit) -> Measurement:
            held = limit if judged else None
            return Measurement(f"{precision}, {name}", value, unit, runs=runs, limit=held, about_results=True)

        shifts, ratios = self.shifts_mm, self.ratio_differences
        few = Limit(at_most=0.5)
        found = [
            figure(name, 100 * count / self.levels, "%", self.levels, limit)
            for name, count, limit in (
                ("identical grades", self.same_grades, Limit(at_least=99.5)),
                ("points in one of them alone", self.points_in_one, few),
                ("ratios in one of them alone", self.ratios_in_one, few),
            )
        ]
        if ratios:
            found.append(figure("largest ratio difference", max(ratios), "", len(ratios), Limit(0.003)))
            found.append(
                Measurement(
                    f"{precision}, mean ratio difference", float(np.mean(ratios)), "", runs=len(ratios)
                )
            )
        if shifts:
            found.append(figure("largest level shift", max(shifts), "mm", len(shifts), Limit(0.3)))
            found.append(
                Measurement(f"{precision}, mean level shift", float(np.mean(shifts)), "mm", runs=len(shifts))
            )
        return found


def result_agreement(system: SystemUnderTest, sheet: ScenarioReport) -> None:
    """Grade the phantoms by the CPU, in the pack's own precision, and by the GPU in each."""
    folder = system.phantoms
    with DicomReader(workers=min(8, usable_cores())) as reader:
        scan = reader.scan([folder])
        headers = list(scan.studies)
        with closing(OnnxRuntimeBackend(system.pack)) as cpu:
            sheet.say(f"{len(headers)} studies by the CPU")
            expected = _grade_all(reader, headers, system.pack, cpu)
        for precision in system.precisions:
            with system.backend(precision) as gpu:
                found = _grade_all(reader, headers, gpu.pack, gpu)
            agreement = BackendAgreement()
            for uid, result in expected.items():
                agreement.add(found[uid], result, len(system.pack.models["levels"].output.names))
            for figure in agreement.figures(precision):
                sheet.add(figure)
    sheet.details |= {"studies": len(expected), "compared_with": "ONNX Runtime, the pack's own precision"}
    if not any(expected.values()):
        raise RuntimeError("The CPU graded none of the phantoms: nothing was compared.")


def _grade_all(
    reader: DicomReader, headers: Sequence[StudyHeader], pack: Pack, backend: Backend
) -> dict[str, Graded]:
    """Each study's result, by its UID."""
    graded: dict[str, Graded] = {}
    with closing(read_ahead(reader, deque(headers))) as studies:
        for read in studies:
            if read.study is None:
                raise RuntimeError(f"A phantom cannot be read: {read.problems[0].reason}")
            try:
                graded[read.header.study_uid] = grade_study(read.study, pack, backend)
            except CannotGrade:
                graded[read.header.study_uid] = None
    return graded
