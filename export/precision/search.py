"""Mixed-precision search: finds blocks to leave out of INT8 so that the gate passes.

Blocks are ranked by squared output error per multiply-add saved (squares of independent errors add up). The
search quantises as many blocks as possible at once by halving: a group that fails is tried as its better
half, then as its worse half. Multiply-adds stand for GPU time, which is not measured.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.export.precision.candidates import write_candidate
from stenosis_trt.export.precision.convert import ConvertedModel
from stenosis_trt.export.precision.evaluation import BlockId, CandidateEvaluator, OutOfTime, SearchTask
from stenosis_trt.export.precision.gate import Gate
from stenosis_trt.export.precision.gate_result import SAMPLE_SIZE_CHECKS, GateLimits, GateResult
from stenosis_trt.export.precision.search_log import PrecisionAssignment, SearchLog
from stenosis_trt.export.precision.search_plot import plot_search_log
from stenosis_trt.export.precision.studies import Studies, content_hash

DEFAULT_MINUTES = 60.0
_VERSIONS = ("stenosis-trt", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class SearchOptions:
    """Folder of the log, and time limit in minutes; measurements started before the limit are finished."""

    log_folder: Path
    minutes: float = DEFAULT_MINUTES

    def __post_init__(self) -> None:
        if not self.minutes > 0 or not math.isfinite(self.minutes):
            raise ValueError(f"A search cannot take {self.minutes:g} minutes. Give a number above 0.")


@dataclass(frozen=True)
class SearchResult:
    """Result of a search. `models` and `outcome` are None if no passing assignment was found.

    Attributes:
        models: all models; failing ones have some blocks left unquantised.
        outcome: gate result of these models.
        record: JSON data for pack.json.
    """

    models: Mapping[str, ConvertedModel] | None
    outcome: GateResult | None
    record: Mapping[str, Any]


def search_mixed_precision(
    task: SearchTask, validation: Studies, spare: Studies, limits: GateLimits, options: SearchOptions
) -> SearchResult:
    """Find models that pass the gate together with as many multiply-adds in INT8 as possible.

    Only blocks of models that fail alone are left unquantised; blocks of all models if none does. An existing
    log of the same search is resumed. The result is measured on further studies too, because one of many
    candidates may pass by chance; that measurement is recorded and decides nothing.

    Args:
        task: the precision that failed.
        validation, limits: studies and limits it failed on.
        spare: studies that the search does not use.
        options: log folder and time limit.

    Raises:
        PrecisionError: the blocks of a model cannot be found or unquantised.
        PackError: a model cannot be run.
        OSError: the log cannot be written.
    """
    deadline = time.monotonic() + 60.0 * options.minutes
    log = SearchLog(options.log_folder, _dependencies(task, validation, limits))
    gate = Gate.on(task.pack, validation, limits)
    gate.grade_reference(f"Grading {validation.source} in FP32")
    evaluator = CandidateEvaluator(task, log, gate, deadline)
    assignment, in_time = _search_blocks(task, evaluator)
    result = _result(evaluator, log, assignment, in_time)
    if result.models is not None:
        elsewhere = _confirm(task, result.models, spare, limits)
        result = replace(result, record={**result.record, "elsewhere": elsewhere})
    log.record_result(result.record)
    plot_search_log(log.content, log.path.with_suffix(".png"))
    return result


def largest_passing(
    items: Sequence[BlockId],
    passes: Callable[[frozenset[BlockId]], bool],
    saved: Callable[[frozenset[BlockId]], float],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[frozenset[BlockId], bool]:
    """Find the passing set of items that saves most, given that all items together do not pass.

    Items are first added by halving. Passing is not monotonic: the change of one block may cancel that of
    another. So the worst items are then removed one by one while the rest would save more than the best set;
    if such a rest passes, the removed items are tried again.

    Args:
        items: best first.
        passes: whether a set passes; raises OutOfTime after the deadline.
        saved: value of a set, such as its multiply-adds.
        advance: called with (steps done, total).

    Returns:
        The set, empty if nothing passed; and False if time ran out before the end.
    """
    best: frozenset[BlockId] = frozenset()
    total = 2 * len(items)
    try:
        for found, settled in grow_passing(best, items, passes):
            best = found
            advance(settled, total)
        for out in range(1, len(items)):
            advance(len(items) + out, total)
            front = frozenset(items[:-out])
            if saved(front) <= saved(best):
                break
            if passes(front):
                for found, _ in grow_passing(front, items[-out:], passes):
                    best = found
                break
    except OutOfTime:
        return best, False
    advance(total, total)
    return best, True


def grow_passing(
    start: frozenset[BlockId], items: Sequence[BlockId], passes: Callable[[frozenset[BlockId]], bool]
) -> Iterator[tuple[frozenset[BlockId], int]]:
    """Add items to a passing set as long as it passes, first items first; all of them together must not pass.

    Yields:
        The current passing set, and the number of items decided so far. None of the items left out could be
        added to the set that was current when they were tried.
    """
    best, settled = start, 0
    yield best, settled
    waiting = _halves(items) if len(items) > 1 else []
    while waiting:
        group = waiting.pop()
        if passes(best | set(group)):
            best |= set(group)
        elif len(group) > 1:
            waiting += _halves(group)
            continue
        settled += len(group)
        yield best, settled


def _halves(items: Sequence[BlockId]) -> list[Sequence[BlockId]]:
    """Both halves, better one last; a single item as it is."""
    middle = (len(items) + 1) // 2
    return [half for half in (items[middle:], items[:middle]) if half]


def _search_blocks(
    task: SearchTask, evaluator: CandidateEvaluator
) -> tuple[PrecisionAssignment | None, bool]:
    """Best assignment or None, and whether the search finished within its time limit."""
    everything = list(task.models)
    searched = [name for name in everything if not task.by_model[name].passed] or everything
    try:
        if len(searched) < len(everything) and not evaluator.passes(evaluator.assignment(searched, ())):
            # The other models pass alone but not together.
            searched = everything
        items = evaluator.ranked(searched)
    except OutOfTime:
        return None, False
    with show_progress(f"Searching {task.precision} of {', '.join(searched)}", "steps") as progress:
        progress.advance(0, 2 * len(items))
        best, in_time = largest_passing(
            items,
            lambda some: evaluator.passes(evaluator.assignment(searched, some)),
            evaluator.multiply_adds,
            progress.advance,
        )
    assignment = evaluator.assignment(searched, best)
    # A model without any INT8 block is not an INT8 model.
    return (None if any(left is None for left in assignment.values()) else assignment), in_time


def _result(
    evaluator: CandidateEvaluator, log: SearchLog, assignment: PrecisionAssignment | None, in_time: bool
) -> SearchResult:
    models = outcome = None
    left: dict[str, list[str]] = {}
    shares: dict[str, float] = {}
    if assignment is not None:
        outcome = evaluator.outcome(assignment)
        models = evaluator.converted(assignment)
        left = {name: sorted(blocks) for name, blocks in assignment.items() if blocks}
        shares = {name: model.metrics["quantised_share"] for name, model in models.items()}
    record = {
        "found": outcome is not None and outcome.passed,
        "in_time": in_time,
        "left_out": left,
        "quantised_share": shares,
        "candidates_on_validation": len(log.trials),
        "cost": log.content["cost"],
        "trail": log.key,
    }
    return SearchResult(models, outcome, record) if record["found"] else SearchResult(None, None, record)


def _confirm(
    task: SearchTask, models: Mapping[str, ConvertedModel], spare: Studies, limits: GateLimits
) -> dict[str, Any]:
    """Failed checks of the chosen models on studies that the search did not use, with the excess of each.

    Checks of the sample size, and figures that these studies cannot show, are left out.
    """
    gate = Gate.on(task.pack, spare, limits)
    with TemporaryDirectory(prefix="stenosis-elsewhere-") as work:
        files = {name: model.data for name, model in models.items()}
        candidate = write_candidate(task.pack, Path(work) / "pack", task.precision, files)
        what = f"Confirming {task.precision} on {spare.source}"
        outcome = gate.measure({task.precision: candidate}, what)[task.precision]
    failed = {
        check.figure: check.excess
        for check in outcome.failures
        if check.excess is not None and check.figure not in SAMPLE_SIZE_CHECKS
    }
    return {"on": spare.source, "levels": outcome.figures.levels, "failed": failed}


def _dependencies(task: SearchTask, validation: Studies, limits: GateLimits) -> dict[str, Any]:
    """Everything the result of a search depends on, as JSON data."""
    return {
        "precision": task.precision,
        "models": {name: model.sha256 for name, model in task.pack.models.items()},
        "inputs": {name: repr(model.input) for name, model in task.pack.models.items()},
        "quantised": {name: hashlib.sha256(model.data).hexdigest() for name, model in task.models.items()},
        "calibration": task.calibration.key,
        "validation": " ".join(content_hash(part.folder) for part in validation.parts),
        "limits": asdict(limits),
        "versions": {name: package_version(name) for name in _VERSIONS},
    }
