"""The table of a CPU: measures how the models run fastest, and lets the gate decide what may be used.

It needs neither PyTorch nor the package onnx.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import OPENVINO, Arithmetic, ModelChoice
from stenosis_trt.engine.backends.cpu.choice import has_openvino
from stenosis_trt.engine.backends.cpu.measure import arithmetics, fastest, measure_model, relative_time, steps
from stenosis_trt.engine.backends.cpu.table import (
    AUTO,
    BF16,
    FP32,
    INT8,
    CpuTable,
    Machine,
    PrecisionChoice,
    Timing,
    new_table,
    this_machine,
)
from stenosis_trt.engine.backends.stepwise import Inference
from stenosis_trt.engine.errors import CannotGrade
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.engine.support.hardware import has_bfloat16
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.export.errors import StudiesError
from stenosis_trt.export.precision.gate import Gate, GateCandidate
from stenosis_trt.export.precision.gate_result import Computation, GateLimits, GateResult
from stenosis_trt.export.precision.studies import (
    VALIDATION_PHANTOMS,
    PhantomSet,
    loaded_studies,
    resolve_studies,
)

_STUDIES_FOR_BATCHES = 3

Choices = Mapping[str, ModelChoice]


@dataclass(frozen=True)
class CpuBuildOptions:
    """Options of `build_cpu_table`.

    Attributes:
        studies: folder of the studies that the gate compares; None for phantoms.
        threads: cores to use; None for all that are available to this process.
        limits: limits of the gate.
        phantoms: the phantoms that are compared if no folder is given.
    """

    studies: Path | None = None
    threads: int | None = None
    limits: GateLimits = field(default_factory=GateLimits)
    phantoms: PhantomSet = VALIDATION_PHANTOMS


@dataclass(frozen=True)
class CpuBuild:
    """Result of `build_cpu_table`.

    Attributes:
        table: what was measured and chosen.
        outcomes: results of the gate by precision.
        alone: results of the gate with one model alone in another arithmetic, by model and name of that.
    """

    table: CpuTable
    outcomes: Mapping[str, GateResult]
    alone: Mapping[str, Mapping[str, GateResult]]


def build_cpu_table(pack: Pack, options: CpuBuildOptions) -> CpuBuild:
    """Measure how each model of a pack runs fastest on this CPU, and compare the grades with those of FP32.

    Raises:
        StudiesError: the studies cannot be used.
        PackError: a model cannot be run.
    """
    here = this_machine(options.threads)
    studies = resolve_studies(options.studies, options.phantoms)
    batches = _study_batches(pack, loaded_studies(studies, ""))
    ways = {
        name: arithmetics(pack, name, has_openvino(), has_bfloat16(here.features)) for name in pack.models
    }
    measured = _measure(pack, batches, ways, here.threads)
    gate = Gate.on(pack, studies, options.limits)
    build = _Build(pack, here, gate, measured, ways)
    return build.run()


class _Build:
    """Chooses the arithmetic of each model by its time, and lets the gate decide."""

    def __init__(
        self,
        pack: Pack,
        here: Machine,
        gate: Gate,
        measured: Mapping[str, tuple[Timing, ...]],
        ways: Mapping[str, Sequence[Arithmetic]],
    ) -> None:
        self._pack, self._here, self._gate = pack, here, gate
        self._measured, self._ways = measured, ways
        self._results: dict[tuple[tuple[str, Arithmetic], ...], GateResult] = {}
        self._alone: dict[str, dict[str, GateResult]] = {}
        self._usual = self._fastest(lambda way: way == Arithmetic())

    def run(self) -> CpuBuild:
        """Choose for every precision."""
        choices: dict[str, Choices] = {FP32: self._fastest_in(FP32)}
        for name in (BF16, INT8):
            if all(any(way.name == name for way in ways) for ways in self._ways.values()):
                choices[name] = self._fastest_in(name)
        outcomes = {name: self._check(name, chosen) for name, chosen in choices.items()}
        if not _passed(outcomes[FP32]):
            # FP32 by ONNX Runtime is what the gate compares with.
            choices[FP32], outcomes[FP32] = self._usual, None
        passed = {name: self._passed_models(chosen, outcomes[name]) for name, chosen in choices.items()}
        choices[AUTO], outcomes[AUTO] = self._choose_auto(passed)
        table = new_table(
            self._pack,
            self._here,
            {name: PrecisionChoice(chosen, _record(outcomes[name])) for name, chosen in choices.items()},
            {
                model: {way: result.to_dict() for way, result in results.items()}
                for model, results in self._alone.items()
            },
            self._measured,
        )
        return CpuBuild(table, {name: found for name, found in outcomes.items() if found}, self._alone)

    def _fastest_in(self, precision: str) -> Choices:
        return self._fastest(lambda way: way.name == precision)

    def _fastest(self, wanted: Callable[[Arithmetic], bool]) -> Choices:
        return {
            name: fastest(self._measured[name], [way for way in ways if wanted(way)])
            for name, ways in self._ways.items()
        }

    def _check(self, precision: str, chosen: Choices) -> GateResult | None:
        """Compare a choice with FP32; None if it is FP32 by ONNX Runtime, which it is compared with."""
        key = tuple((name, choice.arithmetic) for name, choice in chosen.items())
        if all(way == Arithmetic() for _, way in key):
            return None
        if key not in self._results:
            ready = self._pack.in_precisions({name: way.precision for name, way in key})
            candidate = GateCandidate(
                ready, lambda: CpuBackend(ready, choices=chosen), _computation(chosen, self._here)
            )
            what = f"Comparing {precision} with FP32"
            self._results[key] = self._gate.measure({precision: candidate}, what)[precision]
        return self._results[key]

    def _passed_models(self, chosen: Choices, outcome: GateResult | None) -> Choices:
        """Return the choices of the models that passed: all together, or else alone."""
        if _passed(outcome):
            return chosen
        return {name: choice for name, choice in chosen.items() if _passed(self._check_alone(name, choice))}

    def _check_alone(self, model: str, choice: ModelChoice) -> GateResult | None:
        """Compare with FP32 with one model alone in another arithmetic."""
        way = str(choice.arithmetic)
        outcome = self._check(f"{model} by {way}", {**self._usual, model: choice})
        if outcome is not None:
            self._alone.setdefault(model, {})[way] = outcome
        return outcome

    def _choose_auto(self, passed: Mapping[str, Choices]) -> tuple[Choices, GateResult | None]:
        """Return the fastest choice of each model that passes with the others, and its outcome."""
        usable = {
            name: [chosen[name].arithmetic for chosen in passed.values() if name in chosen]
            for name in self._pack.models
        }
        chosen = {
            name: fastest(self._measured[name], [*usable[name], Arithmetic()]) for name in self._pack.models
        }
        outcome = self._check(AUTO, chosen)
        while not _passed(outcome):
            # Models that pass alone may fail together: the one that gains least goes back to FP32.
            changed = [name for name, choice in chosen.items() if choice.arithmetic != Arithmetic()]
            least = max(changed, key=lambda name: relative_time(self._measured[name], chosen[name]))
            chosen[least] = self._usual[least]
            outcome = self._check(AUTO, chosen)
        return chosen, outcome


def _passed(outcome: GateResult | None) -> bool:
    return outcome is None or outcome.passed


def _record(outcome: GateResult | None) -> Mapping[str, Any] | None:
    return None if outcome is None else outcome.to_dict()


def _computation(chosen: Choices, here: Machine) -> Computation:
    arithmetic = "; ".join(f"{name} by {choice.arithmetic}" for name, choice in chosen.items())
    used = sorted({choice.arithmetic.runtime for choice in chosen.values()})
    backend = OPENVINO if OPENVINO in used else used[0]
    return Computation(backend, f"{arithmetic}; on {here.processor}", tuple(used))


def _measure(
    pack: Pack, batches: Mapping[str, int], ways: Mapping[str, Sequence[Arithmetic]], threads: int
) -> dict[str, tuple[Timing, ...]]:
    total, done = steps(ways, threads), 0
    found = {}
    with show_progress("Measuring the models on this CPU", "ways") as progress:

        def advance() -> None:
            nonlocal done
            done += 1
            progress.advance(done, total)

        for name in pack.models:
            found[name] = measure_model(pack, name, batches[name], ways[name], threads, advance)
    return found


def _study_batches(pack: Pack, studies: Iterator[LoadedStudy]) -> dict[str, int]:
    """Return how many inputs each model gets from a study: the median of the first studies.

    Raises:
        StudiesError: a model gets none.
    """
    counts: dict[str, list[int]] = {name: [] for name in pack.models}
    used = 0
    with closing(_CountingBackend(pack, counts)) as backend:
        for study in studies:
            with suppress(CannotGrade):
                grade_study(study, pack, backend)
                used += 1
            if used == _STUDIES_FOR_BATCHES:
                break
    lacking = [name for name, items in counts.items() if not items]
    if lacking:
        raise StudiesError(
            f"The studies contain no input of the model {lacking[0]}.",
            "Give studies with a sagittal T2 and an axial T2 series of the cervical spine.",
        )
    return {name: max(2, round(statistics.median(items))) for name, items in counts.items()}


class _CountingBackend(CpuBackend):
    """Counts the inputs of each request."""

    def __init__(self, pack: Pack, counts: Mapping[str, list[int]]) -> None:
        super().__init__(pack)
        self._counts = counts

    def inference(self, model: str, count: int) -> Inference:
        """See `StepwiseBackend.inference`."""
        self._counts[model].append(count)
        return super().inference(model, count)


def timing_lines(table: CpuTable) -> Iterator[str]:
    """Yield lines on what was measured: for each model, batch and arithmetic the fastest way."""
    for name, timings in table.measured.items():
        for count in sorted({item.batch for item in timings}, reverse=True):
            of_batch = [item for item in timings if item.batch == count]
            yield f"{name}, {count} {'input' if count == 1 else 'inputs'}:"
            for way in dict.fromkeys(item.arithmetic for item in of_batch):
                ways = (item for item in of_batch if item.arithmetic == way)
                best = min(ways, key=lambda item: item.relative)
                spread = f"{best.execution.streams} × {best.execution.threads} threads"
                speed = f"{1 / best.relative:5.2f} × the default's speed"
                yield f"  {way!s:26} {best.milliseconds:8.1f} ms  {speed}  ({spread})"
