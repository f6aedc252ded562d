"""Results of the accuracy gate: its limits, what was measured against them, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stenosis_trt.engine.backends.cpu.candidates import ONNX_RUNTIME
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.export.precision.agreement import ComparedStudies, GradingAgreement

LEVELS_COMPARED, PATIENTS_COMPARED = "levels compared", "patients compared"
SAMPLE_SIZE_CHECKS = (LEVELS_COMPARED, PATIENTS_COMPARED)
"""Checks of the number of studies; they fail whatever the precision when too few are given."""

_LEVEL_SHIFT = "largest level shift in mm"


@dataclass(frozen=True)
class GateLimits:
    """Limits of the gate. Shares are fractions of 1, ratios are AP ÷ transverse diameter of the cord.

    Attributes:
        minimum_levels: levels compared. With fewer, one changed grade exceeds the limit on its own.
        minimum_patients: distinct PatientIDs. A bootstrap interval over one patient has no width.
        minimum_identical: share of levels graded by either that have the same grade in both.
        minimum_kappa_low: lower end of the 95 % interval of quadratic kappa.
        minimum_ratios_kept: share of ratios measured by either that both measured.
        maximum_ratio_bias: absolute mean difference of the compression ratio.
        maximum_ratio_limit: larger absolute limit of agreement of the compression ratio.
        maximum_level_shift_mm: largest distance between the two points of one level.
    """

    minimum_levels: int = 100
    minimum_patients: int = 10
    minimum_identical: float = 0.99
    minimum_kappa_low: float = 0.98
    minimum_ratios_kept: float = 0.99
    maximum_ratio_bias: float = 0.002
    maximum_ratio_limit: float = 0.01
    maximum_level_shift_mm: float = 0.5


@dataclass(frozen=True)
class LimitCheck:
    """A figure and its limit. `value` is None if the figure could not be measured."""

    figure: str
    value: float | None
    limit: float
    at_least: bool

    @property
    def passed(self) -> bool:
        """True if the figure was measured and is within its limit."""
        if self.value is None:
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def excess(self) -> float | None:
        """Distance beyond the limit; 0 within it, None if the figure was not measured."""
        if self.value is None:
            return None
        return 0.0 if self.passed else abs(self.value - self.limit)


@dataclass(frozen=True)
class Computation:
    """What computed a candidate, for the record of the gate.

    Attributes:
        backend: name of the backend.
        arithmetic: in words.
        packages: packages whose versions are recorded.
    """

    backend: str = ONNX_RUNTIME
    arithmetic: str = "FP32 on the CPU, FP16 tensors rounded to FP16, Q/DQ as written"
    packages: tuple[str, ...] = ("onnxruntime",)


@dataclass(frozen=True)
class GateResult:
    """Result of the gate for one precision.

    Attributes:
        precision: name of the candidate, such as "fp16" or "int8".
        validated_on: description of the studies.
        figures: agreement with FP32.
        checks: one entry per limit.
        computed: what computed the candidate.
        compared: the collections that the studies are from.
        int8_share: share of each model's multiply-adds whose two factors are INT8; empty if not known.
    """

    precision: str
    validated_on: str
    figures: GradingAgreement
    checks: tuple[LimitCheck, ...]
    computed: Computation = Computation()
    compared: tuple[ComparedStudies, ...] = ()
    int8_share: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True if every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[LimitCheck, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    def to_dict(self) -> dict[str, Any]:
        """JSON data of the result, as stored in pack.json."""
        return {
            "passed": self.passed,
            "validated_on": self.validated_on,
            "compared": [asdict(item) for item in self.compared],
            **({"int8_share": dict(self.int8_share)} if self.int8_share else {}),
            "backend": self.computed.backend,
            "arithmetic": self.computed.arithmetic,
            **{name: package_version(name) for name in self.computed.packages},
            "figures": asdict(self.figures),
            "checks": [
                {**asdict(check), "passed": check.passed, "excess": check.excess} for check in self.checks
            ],
        }


def check_limits(figures: GradingAgreement, limits: GateLimits) -> tuple[LimitCheck, ...]:
    """Compare each limited figure with its limit."""
    bias, ends = figures.ratio.bias, (figures.ratio.low, figures.ratio.high)
    farthest = max(abs(end) for end in ends if end is not None) if None not in ends else None
    return (
        LimitCheck(LEVELS_COMPARED, figures.levels, limits.minimum_levels, True),
        LimitCheck(PATIENTS_COMPARED, figures.patients, limits.minimum_patients, True),
        LimitCheck("share of identical grades", figures.identical_grades, limits.minimum_identical, True),
        LimitCheck("lower bound of kappa", figures.kappa_low, limits.minimum_kappa_low, True),
        LimitCheck("share of ratios kept", figures.ratios_kept, limits.minimum_ratios_kept, True),
        LimitCheck("ratio bias", None if bias is None else abs(bias), limits.maximum_ratio_bias, False),
        LimitCheck("ratio limits of agreement", farthest, limits.maximum_ratio_limit, False),
        LimitCheck(_LEVEL_SHIFT, figures.level_shift_mm_largest, limits.maximum_level_shift_mm, False),
    )


def gate_report_lines(outcome: GateResult) -> list[str]:
    """Report of a gate result for the terminal, one figure per line."""
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
        lines.append(f"  {check.figure:26} {_format(check.value)}  ({sign} {check.limit:g})  {verdict}")
    lines.append(f"  {'kappa':26} {_format(figures.kappa)}  to {_format(figures.kappa_high)}")
    lines.append(f"  {'largest probability change':26} {_format(figures.largest_probability_change)}")
    for name in ("ratio", "ap_mm", "transverse_mm"):
        change = getattr(figures, name)
        lines.append(
            f"  {f'change of {name}':26} {_format(change.bias)}  "
            f"[{_format(change.low)}, {_format(change.high)}] in {change.count} levels"
        )
    lines.append(f"  {'median level shift in mm':26} {_format(figures.level_shift_mm_median)}")
    if len(outcome.compared) > 1:
        lines += [f"  {item.levels} levels of {item.source}" for item in outcome.compared]
    if outcome.int8_share:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in outcome.int8_share.items())
        lines.append(f"  multiply-adds in INT8: {shares}")
    return lines


def _format(value: float | None) -> str:
    return "    none" if value is None else f"{value:8.4f}"
