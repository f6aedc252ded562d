"""The gate: does a pack in another precision grade as it does in FP32? Measured through the whole pipe.

Both grade the same studies on the CPU through ONNX Runtime, and what they say is compared level by level.
What is FP16 is rounded as on a GPU. A figure that cannot be measured on the studies given fails: what was not
seen is not vouched for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stenosis_trt.engine.backends.onnxruntime import OnnxRuntimeBackend
from stenosis_trt.engine.pack import Pack
from stenosis_trt.engine.pipeline import CannotGrade, grade_study
from stenosis_trt.engine.records import LoadedStudy, StudyResult
from stenosis_trt.engine.run_record import package_version
from stenosis_trt.export.agreement import Agreement, StudyPair, agreement
from stenosis_trt.export.candidates import write_candidate
from stenosis_trt.export.half_arithmetic import rounded_as_half


@dataclass(frozen=True)
class Limits:
    """What a precision may cost. Shares are of 1; ratios are the compression ratio's own unit.

    Attributes:
        minimum_levels: levels compared; with fewer, one changed grade would weigh more than the limit.
        minimum_identical: share of levels with the grade of FP32, of those that either grades.
        minimum_kappa_low: lower end of the 95 % interval of the quadratic kappa.
        minimum_ratios_kept: share of ratios measured by both, of those measured by either.
        maximum_ratio_bias: absolute mean change of the compression ratio.
        maximum_ratio_limit: the farther of its two limits of agreement.
        maximum_level_shift_mm: the farthest that a level's point moves.
    """

    minimum_levels: int = 100
    minimum_identical: float = 0.99
    minimum_kappa_low: float = 0.98
    minimum_ratios_kept: float = 0.99
    maximum_ratio_bias: float = 0.002
    maximum_ratio_limit: float = 0.01
    maximum_level_shift_mm: float = 0.5


@dataclass(frozen=True)
class Check:
    """One figure held against its limit. `value` is None where it could not be measured."""

    figure: str
    value: float | None
    limit: float
    at_least: bool

    @property
    def passed(self) -> bool:
        """Whether the figure was measured and keeps its limit."""
        if self.value is None:
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def excess(self) -> float | None:
        """By how much it misses its limit; 0 where it keeps it, None where it was not measured."""
        if self.value is None:
            return None
        return 0.0 if self.passed else abs(self.value - self.limit)


@dataclass(frozen=True)
class Outcome:
    """What the gate found of one precision.

    Attributes:
        precision: "fp16", "int8" or what the candidate is called.
        validated_on: the studies, in words.
        figures: agreement with FP32.
        checks: each figure that has a limit.
    """

    precision: str
    validated_on: str
    figures: Agreement
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every figure keeps its limit."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The figures that do not."""
        return tuple(check for check in self.checks if not check.passed)

    def as_data(self) -> dict[str, Any]:
        """What pack.json keeps of it."""
        return {
            "passed": self.passed,
            "validated_on": self.validated_on,
            "backend": OnnxRuntimeBackend.name,
            "arithmetic": "FP32 on the CPU, FP16 tensors rounded to FP16, Q/DQ as written",
            "onnxruntime": package_version("onnxruntime"),
            "figures": asdict(self.figures),
            "checks": [
                {**asdict(check), "passed": check.passed, "excess": check.excess} for check in self.checks
            ],
        }


def run_gate(
    pack: Pack,
    candidates: Mapping[str, Pack],
    studies: Iterable[LoadedStudy],
    validated_on: str,
    limits: Limits | None = None,
) -> dict[str, Outcome]:
    """Compare candidates with a pack through the whole pipe, on the CPU.

    Args:
        pack: the reference, in FP32.
        candidates: the same pack with other models in their place, by the name of the precision.
        studies: read one at a time; each is graded by all.
        validated_on: what the studies are, for the record.
        limits: what a precision may cost; None for the defaults.

    Returns:
        An outcome for each candidate.

    Raises:
        PackError: a model cannot be run, or answers what no model may.
    """
    pairs: dict[str, list[StudyPair]] = {name: [] for name in candidates}
    with ExitStack() as stack:
        reference = OnnxRuntimeBackend(pack)
        stack.callback(reference.close)
        work = Path(stack.enter_context(TemporaryDirectory(prefix="stenosis-rounded-")))
        backends = {}
        for name, candidate in candidates.items():
            models = {key: rounded_as_half(candidate.read_model(key)) for key in candidate.models}
            rounded = write_candidate(candidate, work / name, "rounded", models)
            backends[name] = OnnxRuntimeBackend(rounded)
            stack.callback(backends[name].close)
        for study in studies:
            expected = _graded(study, pack, reference)
            for name, candidate in candidates.items():
                pairs[name].append(StudyPair(expected, _graded(study, candidate, backends[name])))
    outcomes = {}
    for name in candidates:
        figures = agreement(pairs[name])
        outcomes[name] = Outcome(name, validated_on, figures, checks(figures, limits or Limits()))
    return outcomes


def checks(figures: Agreement, limits: Limits) -> tuple[Check, ...]:
    """Every figure that has a limit, held against it."""
    bias, ends = figures.ratio.bias, (figures.ratio.low, figures.ratio.high)
    farthest = max(abs(end) for end in ends if end is not None) if None not in ends else None
    return (
        Check("levels compared", figures.levels, limits.minimum_levels, True),
        Check("share of identical grades", figures.identical_grades, limits.minimum_identical, True),
        Check("lower bound of kappa", figures.kappa_low, limits.minimum_kappa_low, True),
        Check("share of ratios kept", figures.ratios_kept, limits.minimum_ratios_kept, True),
        Check("ratio bias", None if bias is None else abs(bias), limits.maximum_ratio_bias, False),
        Check("ratio limits of agreement", farthest, limits.maximum_ratio_limit, False),
        Check(
            "largest level shift in mm",
            figures.level_shift_mm_largest,
            limits.maximum_level_shift_mm,
            False,
        ),
    )


def report(outcome: Outcome) -> list[str]:
    """What a person reads of an outcome, one figure a line; what failed says by how much."""
    figures = outcome.figures
    verdict = "passes the gate" if outcome.passed else "FAILS the gate and is not to be used"
    lines = [
        f"{outcome.precision} {verdict}: compared with FP32 on {outcome.validated_on}, "
        f"{figures.levels} levels of {figures.patients} patients."
    ]
    for check in outcome.checks:
        sign = "≥" if check.at_least else "≤"
        if check.value is None:
            verdict = "NOT MEASURED; give studies that show it"
        else:
            verdict = "ok" if check.passed else f"FAILS by {check.excess:.4g}"
        lines.append(f"  {check.figure:26} {_shown(check.value)}  ({sign} {check.limit:g})  {verdict}")
    lines.append(f"  {'kappa':26} {_shown(figures.kappa)}  to {_shown(figures.kappa_high)}")
    lines.append(f"  {'largest probability change':26} {_shown(figures.largest_probability_change)}")
    for name in ("ratio", "ap_mm", "transverse_mm"):
        change = getattr(figures, name)
        lines.append(
            f"  {f'change of {name}':26} {_shown(change.bias)}  "
            f"[{_shown(change.low)}, {_shown(change.high)}] in {change.count} levels"
        )
    lines.append(f"  {'median level shift in mm':26} {_shown(figures.level_shift_mm_median)}")
    return lines


def _graded(study: LoadedStudy, pack: Pack, backend: OnnxRuntimeBackend) -> StudyResult | None:
    try:
        return grade_study(study, pack, backend)
    except CannotGrade:
        return None


def _shown(value: float | None) -> str:
    return "    none" if value is None else f"{value:8.4f}"
