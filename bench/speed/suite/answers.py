"""Scenario: compare the GPU's results with the CPU's."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from stenosis_trt.bench.speed.suite.measurements import Limit, Measurement, ScenarioReport
from stenosis_trt.bench.speed.suite.system import SystemUnderTest
from stenosis_trt.bench.statistics.signed_errors import error_statistics
from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.errors import CannotGrade
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.grading.read_ahead import read_ahead
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LEVELS, LevelResult, StudyHeader, StudyResult
from stenosis_trt.engine.support.hardware import usable_cores

_JUDGED = ("fp32", "fp16")
"""Precisions with limits. INT8 differs more, and has its own gate in the pack."""

Graded = StudyResult | None
"""Result of a study; None if it cannot be graded."""


@dataclass
class BackendAgreement:
    """Level-by-level differences between two gradings of the same studies."""

    studies: int = 0
    levels: int = 0
    same_grades: int = 0
    points_in_one: int = 0
    ratios_in_one: int = 0
    shifts_mm: list[float] = field(default_factory=list)
    ratio_differences: list[float] = field(default_factory=list)

    def add(self, found: Graded, expected: Graded) -> None:
        """Compare one study, level by level. If only one of the two was graded, no level agrees."""
        self.studies += 1
        self.levels += len(LEVELS)
        if found is None or expected is None:
            self.same_grades += len(LEVELS) if found is expected else 0
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
            self.ratio_differences.append(one.cord.compression_ratio - other.cord.compression_ratio)
        else:
            self.ratios_in_one += one.cord is not other.cord

    def figures(self, precision: str) -> list[Measurement]:
        """Measurements of grades, ratios and points, and of levels where only one of the two has a value."""
        judged = precision in _JUDGED

        def figure(name: str, value: float, unit: str, runs: int, limit: Limit) -> Measurement:
            held = limit if judged else None
            return Measurement(f"{precision}, {name}", value, unit, runs=runs, limit=held, about_results=True)

        few = Limit(at_most=0.5)
        found = [
            figure(name, 100 * count / self.levels, "%", self.levels, limit)
            for name, count, limit in (
                ("identical grades", self.same_grades, Limit(at_least=99.5)),
                ("points in one of them alone", self.points_in_one, few),
                ("ratios in one of them alone", self.ratios_in_one, few),
            )
        ]
        for name, unit, differences, limit in (
            ("ratio difference", "", self.ratio_differences, Limit(at_most=0.003)),
            ("level shift", "mm", self.shifts_mm, Limit(at_most=0.3)),
        ):
            runs, mean = len(differences), error_statistics(differences).mean_absolute_error
            if mean is not None:
                found.append(figure(f"largest {name}", max(map(abs, differences)), unit, runs, limit))
                found.append(Measurement(f"{precision}, mean {name}", mean, unit, runs=runs))
        return found


def result_agreement(system: SystemUnderTest, report: ScenarioReport) -> None:
    """Grade the phantoms on the CPU in the pack's own precision, and on the GPU in each precision."""
    folder = system.phantoms
    with DicomReader(workers=min(8, usable_cores())) as reader:
        scan = reader.scan([folder])
        headers = list(scan.studies)
        with closing(CpuBackend(system.pack)) as cpu:
            report.say(f"{len(headers)} studies by the CPU")
            expected = _grade_all(reader, headers, system.pack, cpu)
        for precision in system.precisions:
            with system.backend(precision) as gpu:
                found = _grade_all(reader, headers, gpu.pack, gpu)
            agreement = BackendAgreement()
            for uid, result in expected.items():
                agreement.add(found[uid], result)
            for figure in agreement.figures(precision):
                report.add(figure)
    report.details |= {"studies": len(expected), "compared_with": "ONNX Runtime, the pack's own precision"}
    if not any(expected.values()):
        raise RuntimeError("The CPU graded none of the phantoms: nothing was compared.")


def _grade_all(
    reader: DicomReader, headers: Sequence[StudyHeader], pack: Pack, backend: Backend
) -> dict[str, Graded]:
    """Result of each study, by Study Instance UID."""
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
