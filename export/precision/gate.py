"""Accuracy gate: compares the grades of models in another precision with those of the FP32 models.

Both grade the same studies on the CPU through the whole pipeline, the FP32 models by ONNX Runtime. Converted
models are run by ONNX Runtime too, with FP16 tensors rounded to FP16 as on a GPU; a candidate with a backend
of its own is graded by that. A figure that cannot be measured on the given studies counts as failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import ONNX_RUNTIME
from stenosis_trt.engine.backends.model_checks import ModelOutputError, model_error
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

if TYPE_CHECKING:
    from stenosis_trt.export.precision.cached_inference import CachedInference

LEVELS_COMPARED, PATIENTS_COMPARED = "levels compared", "patients compared"
SAMPLE_SIZE_CHECKS = (LEVELS_COMPARED, PATIENTS_COMPARED)
"""Checks of the number of studies; they fail whatever the precision when too few are given."""

_LEVEL_SHIFT = "largest level shift in mm"
_MAX_STUDIES_BYTES = 1 << 30


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
class GateCandidate:
    """A candidate that its own backend runs.

    Attributes:
        pack: its models.
        open: opens the backend; raises PackError where it cannot run them.
        computed: what it computes with.
    """

    pack: Pack
    open: Callable[[], Backend]
    computed: Computation


@dataclass(frozen=True)
class GateResult:
    """Result of the gate for one precision.

    Attributes:
        precision: name of the candidate, such as "fp16" or "int8".
        validated_on: description of the studies.
        figures: agreement with FP32.
        checks: one entry per limit.
        computed: what computed the candidate.
    """

    precision: str
    validated_on: str
    figures: GradingAgreement
    checks: tuple[LimitCheck, ...]
    computed: Computation = Computation()

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
            "backend": self.computed.backend,
            "arithmetic": self.computed.arithmetic,
            **{name: package_version(name) for name in self.computed.packages},
            "figures": asdict(self.figures),
            "checks": [
                {**asdict(check), "passed": check.passed, "excess": check.excess} for check in self.checks
            ],
        }


class Gate:
    """Compares candidate packs with an FP32 reference on one study set; caches the reference's results.

    The studies stay in memory if all of them fit into 1 GiB. Outputs of models that occur in several
    candidates are cached, so a candidate in which one model changed costs little more than that model.

    Args:
        pack: the FP32 reference.
        studies: called with a description for the progress bar; yields the studies in the same order every
            time.
        validated_on: description of the studies, for the result.
        limits: None for the defaults.
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
        self._studies_in_memory: list[LoadedStudy] | None = None
        self._count: int | None = None
        self._expected: dict[int, StudyResult | None] = {}
        self._failed_at: dict[int, int] = {}
        self._models: CachedInference | None = None

    def grade_reference(self, what: str) -> None:
        """Read all studies and grade them with the reference. `what` is the text of the progress bar."""
        with ExitStack() as stack:
            expected = self._reference_grader(stack)
            for place, study in enumerate(self._replay(what)):
                expected(place, study)

    def measure(
        self, candidates: Mapping[str, Pack | GateCandidate], what: str = ""
    ) -> dict[str, GateResult]:
        """Grade all studies with each candidate and compare with the reference, on the CPU.

        Args:
            candidates: by the name of their precision: packs, which differ from the reference in their models
                alone, or packs with a backend.
            what: text of the progress bar; "" shows none.

        Raises:
            PackError: a model cannot be run or returns invalid values.
        """
        pairs: dict[str, list[StudyPair]] = {name: [] for name in candidates}
        with ExitStack() as stack:
            graded = {name: self._grader(candidate, stack) for name, candidate in candidates.items()}
            expected = self._reference_grader(stack)
            for place, study in enumerate(self._replay(what)):
                for name, found in graded.items():
                    pairs[name].append(StudyPair(expected(place, study), found(study)))
        return {
            name: self._result(name, pairs[name], self._validated_on, _computation(candidate))
            for name, candidate in candidates.items()
        }

    def measure_until_failure(self, precision: str, candidate: Pack, what: str = "") -> GateResult:
        """Compare one candidate and stop as soon as it cannot pass any more. Needs one complete pass before.

        Studies on which earlier candidates failed come first if all studies are in memory. If it stopped
        early, `validated_on` of the result says so, and its figures cover the graded studies alone.

        Raises:
            PackError: see `measure`.
        """
        pairs: dict[int, StudyPair] = {}
        left_off = False
        with ExitStack() as stack:
            found, expected = self._grader(candidate, stack), self._reference_grader(stack)
            studies: Iterable[tuple[int, LoadedStudy]] = enumerate(self._replay(what))
            if self._studies_in_memory is not None:
                studies = sorted(studies, key=lambda item: -self._failed_at.get(item[0], 0))
            for place, study in studies:
                pairs[place] = StudyPair(expected(place, study), found(study))
                left_off = self._count is not None and self._cannot_pass(pairs.values(), self._count)
                if left_off:
                    self._failed_at[place] = max(self._failed_at.values(), default=0) + 1
                    break
        graded = [pairs[place] for place in sorted(pairs)]
        on = self._validated_on
        if left_off and len(graded) != self._count:
            on = f"{len(graded)} of {self._count} studies ({on}), then left off"
        return self._result(precision, graded, on)

    def _grader(
        self, candidate: Pack | GateCandidate, stack: ExitStack
    ) -> Callable[[LoadedStudy], StudyResult | None]:
        if isinstance(candidate, GateCandidate):
            pack, backend = candidate.pack, candidate.open()
        else:
            pack, backend = candidate, self._cached_models().backend(candidate)
        stack.enter_context(closing(backend))
        return lambda study: _grade(study, pack, backend)

    def _cached_models(self) -> CachedInference:
        if self._models is None:
            # Needs the package onnx, which candidates with a backend of their own do without.
            from stenosis_trt.export.precision.cached_inference import CachedInference

            self._models = CachedInference()
        return self._models

    def _reference_grader(self, stack: ExitStack) -> Callable[[int, LoadedStudy], StudyResult | None]:
        """Function from (index, study) to the reference's result; opens the FP32 models on first use."""
        opened: list[CpuBackend] = []

        def expected(place: int, study: LoadedStudy) -> StudyResult | None:
            if place not in self._expected:
                if not opened:
                    opened.append(stack.enter_context(closing(CpuBackend(self._pack))))
                self._expected[place] = _grade(study, self._pack, opened[0])
            return self._expected[place]

        return expected

    def _result(
        self,
        precision: str,
        pairs: Sequence[StudyPair],
        validated_on: str,
        computed: Computation = Computation(),
    ) -> GateResult:
        figures = grading_agreement(pairs)
        return GateResult(precision, validated_on, figures, check_limits(figures, self._limits), computed)

    def _cannot_pass(self, pairs: Iterable[StudyPair], studies: int) -> bool:
        """True if a limit is exceeded whatever the rest of the `studies` (total number) show."""
        levels = [both for pair in pairs for both in level_pairs(pair)]
        if max(level_shifts(levels), default=0.0) > self._limits.maximum_level_shift_mm:
            return True
        changed = sum((a.grade if a else None) != (b.grade if b else None) for a, b in levels)
        return changed > (1.0 - self._limits.minimum_identical) * len(LEVELS) * studies

    def _replay(self, what: str) -> Iterator[LoadedStudy]:
        if self._studies_in_memory is not None:
            with show_progress(what, "studies") if what else nullcontext() as progress:
                for done, study in enumerate(self._studies_in_memory, start=1):
                    yield study
                    if progress is not None:
                        progress.advance(done, len(self._studies_in_memory))
            return
        kept: list[LoadedStudy] = []
        size = count = 0
        for study in self._studies(what):
            count += 1
            size += sum(item.stored.nbytes for item in (*study.sagittal, *study.axial))
            if size <= _MAX_STUDIES_BYTES:
                kept.append(study)
            yield study
        self._count = count
        if size <= _MAX_STUDIES_BYTES:
            self._studies_in_memory = kept


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
    return lines


def _computation(candidate: Pack | GateCandidate) -> Computation:
    return candidate.computed if isinstance(candidate, GateCandidate) else Computation()


def _grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult | None:
    try:
        return grade_study(study, pack, backend)
    except CannotGrade:
        return None
    except ModelOutputError as error:
        # Invalid values on any study disqualify the candidate.
        raise model_error(error.model, error.fault) from error


def _format(value: float | None) -> str:
    return "    none" if value is None else f"{value:8.4f}"
