"""The gate: does a pack in another precision grade as it does in FP32? Measured through the whole pipe.

Both grade the same studies on the CPU through ONNX Runtime, and what they say is compared level by level.
What is FP16 is rounded as on a GPU. A figure that cannot be measured on the studies given fails: what was not
seen is not vouched for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.model_checks import ModelOutputError, model_error
from stenosis_trt.engine.backends.onnxruntime import OnnxRuntimeBackend
from stenosis_trt.engine.errors import CannotGrade
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LEVELS, LoadedStudy, StudyResult
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.export.precision.agreement import (
    GradingAgreement,
    StudyPair,
    grading_agreement,
    level_pairs,
    level_shifts,
)
from stenosis_trt.export.precision.cached_inference import CachedInference

LEVELS_COMPARED, PATIENTS_COMPARED = "levels compared", "patients compared"
SAMPLE_SIZE_CHECKS = (LEVELS_COMPARED, PATIENTS_COMPARED)
"""The checks that say nothing of a precision: whether there were studies enough."""

_STUDIES_KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class GateLimits:
    """What a precision may cost. Shares are of 1; ratios are the compression ratio's own unit.

    Attributes:
        minimum_levels: levels compared; with fewer, one changed grade would weigh more than the limit.
        minimum_patients: that the levels are of: an interval over a single one has no width, and many studies
            under one PatientID, as anonymised sets have them, are one patient.
        minimum_identical: share of levels with the grade of FP32, of those that either grades.
        minimum_kappa_low: lower end of the 95 % interval of the quadratic kappa.
        minimum_ratios_kept: share of ratios measured by both, of those measured by either.
        maximum_ratio_bias: absolute mean change of the compression ratio.
        maximum_ratio_limit: the farther of its two limits of agreement.
        maximum_level_shift_mm: the farthest that a level's point moves.
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
class GateResult:
    """What the gate found of one precision.

    Attributes:
        precision: "fp16", "int8" or what the candidate is called.
        validated_on: the studies, in words.
        figures: agreement with FP32.
        checks: each figure that has a limit.
    """

    precision: str
    validated_on: str
    figures: GradingAgreement
    checks: tuple[LimitCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every figure keeps its limit."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[LimitCheck, ...]:
        """The figures that do not."""
        return tuple(check for check in self.checks if not check.passed)

    def to_dict(self) -> dict[str, Any]:
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


class Gate:
    """Holds candidates against one pack on the same studies, as often as it is asked.

    What FP32 says is found once. Studies are kept in memory where they are few, and so is what models answer
    that are met again: a candidate that differs from one before in one model costs little more than that one.

    Args:
        pack: the reference, in FP32.
        studies: gives them one at a time and each time in the same order; is told what is done with them.
        validated_on: what the studies are, for the record.
        limits: what a precision may cost; None for the defaults.
    """

    def __init__(
        self,
        pack: Pack,
        studies: Callable[[str], Iterable[LoadedStudy]],
        validated_on: str,
        limits: GateLimits | None = None,
    ) -> None:
        self._pack, self._studies = pack, studies
        self._validated_on, self._limits = validated_on, limits or GateLimits()
        self._kept: list[LoadedStudy] | None = None
        self._count: int | None = None
        self._expected: dict[int, StudyResult | None] = {}
        self._failed_at: dict[int, int] = {}
        self._models = CachedInference()

    def grade_reference(self, what: str) -> None:
        """Read all studies, and find what FP32 says of them.

        Args:
            what: as for `measure`.
        """
        with ExitStack() as stack:
            expected = self._expecting(stack)
            for place, study in enumerate(self._each_study(what)):
                expected(place, study)

    def measure(self, candidates: Mapping[str, Pack], what: str = "") -> dict[str, GateResult]:
        """Compare candidates with the pack through the whole pipe, on the CPU.

        Args:
            candidates: the same pack with other models in their place, by the name of the precision.
            what: is done, for the progress that is shown; "" shows none.

        Raises:
            PackError: a model cannot be run, or answers what no model may.
        """
        pairs: dict[str, list[StudyPair]] = {name: [] for name in candidates}
        with ExitStack() as stack:
            graded = {name: self._grading(candidate, stack) for name, candidate in candidates.items()}
            expected = self._expecting(stack)
            for place, study in enumerate(self._each_study(what)):
                for name, found in graded.items():
                    pairs[name].append(StudyPair(expected(place, study), found(study)))
        return {name: self._outcome(name, pairs[name], self._validated_on) for name in candidates}

    def measure_until_failure(self, precision: str, candidate: Pack, what: str = "") -> GateResult:
        """Compare one candidate, and leave off once it cannot pass any more; all studies were read once.

        Studies that others failed on come first where all are in memory. Where not all of them were graded,
        `validated_on` of the outcome says how many, and its figures are of these alone.

        Raises:
            PackError: as for `measure`.
        """
        pairs: dict[int, StudyPair] = {}
        left_off = False
        with ExitStack() as stack:
            found, expected = self._grading(candidate, stack), self._expecting(stack)
            studies: Iterable[tuple[int, LoadedStudy]] = enumerate(self._each_study(what))
            if self._kept is not None:
                studies = sorted(studies, key=lambda item: -self._failed_at.get(item[0], 0))
            for place, study in studies:
                pairs[place] = StudyPair(expected(place, study), found(study))
                left_off = self._count is not None and self._lost(pairs.values(), self._count)
                if left_off:
                    self._failed_at[place] = max(self._failed_at.values(), default=0) + 1
                    break
        graded = [pairs[place] for place in sorted(pairs)]
        on = self._validated_on
        if left_off and len(graded) != self._count:
            on = f"{len(graded)} of {self._count} studies ({on}), then left off"
        return self._outcome(precision, graded, on)

    def _grading(self, candidate: Pack, stack: ExitStack) -> Callable[[LoadedStudy], StudyResult | None]:
        backend = stack.enter_context(closing(self._models.backend(candidate)))
        return lambda study: _graded(study, candidate, backend)

    def _expecting(self, stack: ExitStack) -> Callable[[int, LoadedStudy], StudyResult | None]:
        """What FP32 says of the study at a place; its models are opened when the first is not known yet."""
        opened: list[OnnxRuntimeBackend] = []

        def expected(place: int, study: LoadedStudy) -> StudyResult | None:
            if place not in self._expected:
                if not opened:
                    opened.append(stack.enter_context(closing(OnnxRuntimeBackend(self._pack))))
                self._expected[place] = _graded(study, self._pack, opened[0])
            return self._expected[place]

        return expected

    def _outcome(self, precision: str, pairs: Sequence[StudyPair], validated_on: str) -> GateResult:
        figures = grading_agreement(pairs)
        return GateResult(precision, validated_on, figures, check_limits(figures, self._limits))

    def _lost(self, pairs: Iterable[StudyPair], studies: int) -> bool:
        """Whether a figure misses its limit whatever the rest of so many studies shows."""
        levels = [both for pair in pairs for both in level_pairs(pair)]
        if max(level_shifts(levels), default=0.0) > self._limits.maximum_level_shift_mm:
            return True
        changed = sum((a.grade if a else None) != (b.grade if b else None) for a, b in levels)
        return changed > (1.0 - self._limits.minimum_identical) * len(LEVELS) * studies

    def _each_study(self, what: str) -> Iterator[LoadedStudy]:
        if self._kept is not None:
            with show_progress(what, "studies") if what else nullcontext() as progress:
                for done, study in enumerate(self._kept, start=1):
                    yield study
                    if progress is not None:
                        progress.advance(done, len(self._kept))
            return
        kept: list[LoadedStudy] = []
        size = count = 0
        for study in self._studies(what):
            count += 1
            size += sum(item.stored.nbytes for item in (*study.sagittal, *study.axial))
            if size <= _STUDIES_KEPT_BYTES:
                kept.append(study)
            yield study
        self._count = count
        if size <= _STUDIES_KEPT_BYTES:
            self._kept = kept


def run_gate(
    pack: Pack,
    candidates: Mapping[str, Pack],
    studies: Iterable[LoadedStudy],
    validated_on: str,
    limits: GateLimits | None = None,
) -> dict[str, GateResult]:
    """Compare candidates with a pack once; see `Gate`.

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
    return Gate(pack, lambda _: studies, validated_on, limits).measure(candidates)


def check_limits(figures: GradingAgreement, limits: GateLimits) -> tuple[LimitCheck, ...]:
    """Every figure that has a limit, held against it."""
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
        LimitCheck(
            "largest level shift in mm",
            figures.level_shift_mm_largest,
            limits.maximum_level_shift_mm,
            False,
        ),
    )


def gate_report_lines(outcome: GateResult) -> list[str]:
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


def _graded(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult | None:
    try:
        return grade_study(study, pack, backend)
    except CannotGrade:
        return None
    except ModelOutputError as error:
        # A precision whose models answer one study of a few so is not to be used.
        raise model_error(error.model, error.fault) from error


def _shown(value: float | None) -> str:
    return "    none" if value is None else f"{value:8.4f}"
