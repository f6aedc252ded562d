"""Graded studies that are made up, and a request of one that a process of its own can import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stenosis_trt.bench.accuracy.graded_studies import GradedLevel, GradedStudy
from stenosis_trt.engine.api import Grader
from stenosis_trt.engine.geometry import Vector
from stenosis_trt.engine.records import LEVELS

PITCH_MM = 16.0


def disc(place: float) -> Vector:
    """Point of a disc; 0 at C2/3."""
    return 0.0, 0.0, -PITCH_MM * place


def made_level(place: int, true: int | None = 0, grade: int | None = 0, *warnings: str) -> GradedLevel:
    """A level that was found where it is, with a ratio that is right."""
    return GradedLevel(
        level=LEVELS[place],
        true_grade=true,
        true_ratio=0.5,
        true_point=disc(place),
        shown=True,
        grade=grade,
        ratio=0.5,
        point=disc(place),
        warnings=warnings,
        slice_angle_degrees=10.0,
    )


def made_record(levels: Sequence[GradedLevel] = (), source: str = "phantom", index: int = 0) -> GradedStudy:
    """A study of six levels of grade 0; those given are put in the place of their names."""
    by_name = {level.level: level for level in levels}
    return GradedStudy(
        source=source,
        index=index,
        levels=tuple(by_name.get(name, made_level(place)) for place, name in enumerate(LEVELS)),
        landmarks={"T1/2": disc(6), "T2/3": disc(7), "C2": disc(-0.8)},
    )


def shifted(study: GradedStudy, by: float) -> GradedStudy:
    """The study with every level found `by` discs below its own."""
    levels = tuple(replace(level, point=disc(k + by)) for k, level in enumerate(study.levels))
    return replace(study, levels=levels)


@dataclass(frozen=True)
class MadeRequest:
    """A request whose study costs nothing."""

    number: int

    @property
    def key(self) -> str:
        return f"made/{self.number}"

    def run(self, grader: Grader) -> GradedStudy:
        assert grader.backend == "onnxruntime"
        return made_record(index=self.number)
