"""Evaluation of candidates during a mixed-precision search: builds, measures and logs them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.export.onnx.graphs import quantised_share
from stenosis_trt.export.precision.blocks import QuantisedBlock, quantised_blocks
from stenosis_trt.export.precision.calibration import CalibrationSet
from stenosis_trt.export.precision.candidates import write_candidate
from stenosis_trt.export.precision.convert import ConvertedModel, with_error_metrics
from stenosis_trt.export.precision.gate import Gate
from stenosis_trt.export.precision.gate_result import GateResult
from stenosis_trt.export.precision.search_log import PrecisionAssignment, SearchLog, assignment_key
from stenosis_trt.export.precision.sensitivity import block_errors
from stenosis_trt.export.precision.unquantise import unquantise_nodes

BlockId = tuple[str, str]
"""(model, block) by name."""


class OutOfTime(Exception):
    """The time limit of the search has passed."""


@dataclass(frozen=True)
class SearchTask:
    """A precision that failed the gate, with the models and measurements a search starts from.

    Attributes:
        precision: name of the candidates.
        pack: the FP32 pack.
        models: all of its models, quantised.
        failed: gate result of all quantised models together.
        by_model: gate result of each quantised model alone.
        calibration: inputs on which errors are measured.
    """

    precision: str
    pack: Pack
    models: Mapping[str, ConvertedModel]
    failed: GateResult
    by_model: Mapping[str, GateResult]
    calibration: CalibrationSet


class CandidateEvaluator:
    """Tells whether assignments pass the gate, from the log where they were measured before.

    Args:
        task: the precision to search.
        log: receives all results; those of `task` are its first entries.
        gate: measures candidates.
        deadline: in `time.monotonic()` seconds; no measurement starts after it.
    """

    def __init__(self, task: SearchTask, log: SearchLog, gate: Gate, deadline: float) -> None:
        self._task, self._log, self._gate, self._deadline = task, log, gate, deadline
        self._blocks: dict[str, dict[str, QuantisedBlock]] = {}
        self._outcomes: dict[str, GateResult] = {}
        self._record(self.assignment((), ()), task.failed)
        for name, outcome in task.by_model.items():
            self._record({model: frozenset() if model == name else None for model in task.models}, outcome)

    def assignment(self, searched: Collection[str], quantised: Collection[BlockId]) -> PrecisionAssignment:
        """Assignment with only the blocks `quantised` of the searched models in INT8; other models are all
        INT8."""
        left: dict[str, frozenset[str] | None] = {}
        for model in self._task.models:
            blocks = frozenset(self._blocks_of(model)) if model in searched else frozenset()
            kept = {block for name, block in quantised if name == model}
            left[model] = blocks - kept if kept or model not in searched else None
        return left

    def ranked(self, models: Collection[str]) -> list[BlockId]:
        """Blocks of some models, ordered by squared error per multiply-add, lowest first.

        Raises:
            OutOfTime: errors are not in the log and the deadline has passed.
        """
        found = []
        for model in models:
            blocks = tuple(self._blocks_of(model).values())
            errors = self._log.errors(model, blocks)
            if errors is None:
                self._check_time()
                with show_progress(f"Errors of the blocks of {model}", "blocks") as progress:
                    inputs = self._task.calibration.inputs[model]
                    errors = block_errors(self._task.models[model], blocks, inputs, progress.advance)
                self._log.record_errors(model, blocks, errors)
            for block, error in zip(blocks, errors, strict=True):
                found.append((error.relative_rms**2 / block.multiply_adds, (model, block.name)))
        return [item for _, item in sorted(found)]

    def multiply_adds(self, items: Collection[BlockId]) -> float:
        """Multiply-adds of some blocks for one input of each model."""
        return float(sum(self._blocks_of(model)[block].multiply_adds for model, block in items))

    def passes(self, assignment: PrecisionAssignment) -> bool:
        """Whether an assignment passes the gate.

        Raises:
            OutOfTime: it was not measured before and the deadline has passed.
            PrecisionError, PackError: its models cannot be built or run.
        """
        known = self._log.passed(assignment)
        if known is not None:
            return known
        self._check_time()
        return self._measure(assignment).passed

    def outcome(self, assignment: PrecisionAssignment) -> GateResult:
        """Gate result of an assignment; measured unless it was measured in this run."""
        return self._outcomes.get(assignment_key(assignment)) or self._measure(assignment)

    def converted(self, assignment: PrecisionAssignment) -> dict[str, ConvertedModel]:
        """Models of an assignment, each at least partly quantised, with their error metrics."""
        made = {}
        for name, left in assignment.items():
            full = self._task.models[name]
            if not left:
                made[name] = full
                continue
            model = self._mixed_model(name, left)
            metrics = {
                **full.metrics,
                "quantised_share": quantised_share(model),
                "blocks_left_out": float(len(left)),
            }
            inputs = self._task.calibration.inputs[name]
            found = with_error_metrics(self._task.pack.read_model(name), model, inputs, {})
            made[name] = replace(
                found, metrics={**metrics, **found.metrics}, original_weights=full.original_weights
            )
        return made

    def _measure(self, assignment: PrecisionAssignment) -> GateResult:
        begun = time.monotonic()
        files: dict[str, bytes] = {}
        shares = {}
        for name, left in assignment.items():
            full = self._task.models[name]
            shares[name] = 0.0 if left is None else full.metrics["quantised_share"]
            if left:
                model = self._mixed_model(name, left)
                shares[name] = quantised_share(model)
                files[name] = bytes(model.SerializeToString())
            elif left is not None:
                files[name] = full.data
        with TemporaryDirectory(prefix="stenosis-trial-") as work:
            candidate = write_candidate(self._task.pack, Path(work) / "pack", self._task.precision, files)
            outcome = self._gate.measure_until_failure(self._task.precision, candidate)
        self._outcomes[assignment_key(assignment)] = outcome
        if self._log.passed(assignment) is None:
            self._log.record_trial(assignment, shares, outcome, time.monotonic() - begun)
        return outcome

    def _record(self, assignment: PrecisionAssignment, outcome: GateResult) -> None:
        if self._log.passed(assignment) is None:
            shares = {
                name: 0.0 if left is None else self._task.models[name].metrics["quantised_share"]
                for name, left in assignment.items()
            }
            self._log.record_trial(assignment, shares, outcome, None)

    def _mixed_model(self, model: str, left: Collection[str]) -> onnx.ModelProto:
        blocks = self._blocks_of(model)
        return unquantise_nodes(
            self._task.models[model], {node for name in left for node in blocks[name].nodes}
        )

    def _blocks_of(self, model: str) -> dict[str, QuantisedBlock]:
        if model not in self._blocks:
            found = quantised_blocks(onnx.load_model_from_string(self._task.models[model].data))
            self._blocks[model] = {block.name: block for block in found}
        return self._blocks[model]

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise OutOfTime
