"""Candidates of a search: made of plans, held against the studies, and written down."""

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
from stenosis_trt.export.precision.gate import Gate, GateResult
from stenosis_trt.export.precision.search_log import PrecisionAssignment, SearchLog, assignment_key
from stenosis_trt.export.precision.sensitivity import block_errors
from stenosis_trt.export.precision.unquantise import unquantise_nodes

BlockId = tuple[str, str]
"""A block of a model, by both names."""


class OutOfTime(Exception):
    """The time for trials is over."""


@dataclass(frozen=True)
class SearchTask:
    """A precision that failed, and everything to try it anew with.

    Attributes:
        precision: what candidates are called.
        pack: in FP32.
        models: all of its models, quantised.
        failed: the gate's outcome for all of them together.
        by_model: and for each alone.
        calibration: inputs to measure errors on.
    """

    precision: str
    pack: Pack
    models: Mapping[str, ConvertedModel]
    failed: GateResult
    by_model: Mapping[str, GateResult]
    calibration: CalibrationSet


class CandidateEvaluator:
    """Says of plans whether they pass, from the trail where it is known.

    Args:
        task: what is searched.
        trail: where everything is written down; outcomes of `task` are its first entries.
        gate: measures candidates.
        deadline: of `time.monotonic`; no trial begins after it.
    """

    def __init__(self, task: SearchTask, trail: SearchLog, gate: Gate, deadline: float) -> None:
        self._task, self._trail, self._gate, self._deadline = task, trail, gate, deadline
        self._blocks: dict[str, dict[str, QuantisedBlock]] = {}
        self._outcomes: dict[str, GateResult] = {}
        self._note(self.assignment((), ()), task.failed)
        for name, outcome in task.by_model.items():
            self._note({model: frozenset() if model == name else None for model in task.models}, outcome)

    def assignment(self, searched: Collection[str], quantised: Collection[BlockId]) -> PrecisionAssignment:
        """The plan with these blocks of the models searched in INT8, and all of the other models."""
        left: dict[str, frozenset[str] | None] = {}
        for model in self._task.models:
            blocks = frozenset(self._blocks_of(model)) if model in searched else frozenset()
            kept = {block for name, block in quantised if name == model}
            left[model] = blocks - kept if kept or model not in searched else None
        return left

    def ranked(self, models: Collection[str]) -> list[BlockId]:
        """The blocks of some models, first those that lose the least for the multiply-adds that they save.

        Raises:
            OutOfTime: there is no time to measure their errors.
        """
        found = []
        for model in models:
            blocks = tuple(self._blocks_of(model).values())
            errors = self._trail.errors(model, blocks)
            if errors is None:
                self._check_time()
                with show_progress(f"Errors of the blocks of {model}", "blocks") as progress:
                    inputs = self._task.calibration.inputs[model]
                    errors = block_errors(self._task.models[model], blocks, inputs, progress.advance)
                self._trail.record_errors(model, blocks, errors)
            for block, error in zip(blocks, errors, strict=True):
                found.append((error.relative_rms**2 / block.multiply_adds, (model, block.name)))
        return [item for _, item in sorted(found)]

    def multiply_adds(self, items: Collection[BlockId]) -> float:
        """Of some blocks together, for one input of each model: what quantising them saves."""
        return float(sum(self._blocks_of(model)[block].multiply_adds for model, block in items))

    def passes(self, plan: PrecisionAssignment) -> bool:
        """Whether a plan passes the gate.

        Raises:
            OutOfTime: it is not known, and there is no time to try.
            PrecisionError, PackError: its models cannot be made or run.
        """
        known = self._trail.passed(plan)
        if known is not None:
            return known
        self._check_time()
        return self._measure(plan).passed

    def outcome(self, plan: PrecisionAssignment) -> GateResult:
        """The gate's outcome for a plan on all studies, measured now where it was not in this run."""
        return self._outcomes.get(assignment_key(plan)) or self._measure(plan)

    def converted(self, plan: PrecisionAssignment) -> dict[str, ConvertedModel]:
        """The models of a plan, all of which are quantised to some extent, with figures of their errors."""
        made = {}
        for name, left in plan.items():
            full = self._task.models[name]
            if not left:
                made[name] = full
                continue
            model = self._mixed(name, left)
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

    def _measure(self, plan: PrecisionAssignment) -> GateResult:
        begun = time.monotonic()
        files: dict[str, bytes] = {}
        shares = {}
        for name, left in plan.items():
            full = self._task.models[name]
            shares[name] = 0.0 if left is None else full.metrics["quantised_share"]
            if left:
                model = self._mixed(name, left)
                shares[name] = quantised_share(model)
                files[name] = bytes(model.SerializeToString())
            elif left is not None:
                files[name] = full.data
        with TemporaryDirectory(prefix="stenosis-trial-") as work:
            candidate = write_candidate(self._task.pack, Path(work) / "pack", self._task.precision, files)
            outcome = self._gate.measure_until_failure(self._task.precision, candidate)
        self._outcomes[assignment_key(plan)] = outcome
        if self._trail.passed(plan) is None:
            self._trail.record_trial(plan, shares, outcome, time.monotonic() - begun)
        return outcome

    def _note(self, plan: PrecisionAssignment, outcome: GateResult) -> None:
        if self._trail.passed(plan) is None:
            shares = {
                name: 0.0 if left is None else self._task.models[name].metrics["quantised_share"]
                for name, left in plan.items()
            }
            self._trail.record_trial(plan, shares, outcome, None)

    def _mixed(self, model: str, left: Collection[str]) -> onnx.ModelProto:
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
