"""Which blocks to leave out of INT8 so that the gate passes, with as many multiply-adds in INT8 as can be.

Blocks are ranked by what they lose for what they save: the square of the error at the model's output (squares
of independent errors add up) for each multiply-add. Then as many as can be are quantised at once, by halving:
what does not pass as a whole is tried as its better half, then as its worse one. Time on a GPU is not
measured: multiply-adds stand for it.
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
from stenosis_trt.export.precision.gate import SAMPLE_SIZE_CHECKS, Gate, GateLimits, GateResult
from stenosis_trt.export.precision.search_log import PrecisionAssignment, SearchLog
from stenosis_trt.export.precision.search_plot import plot_search_log
from stenosis_trt.export.precision.studies import StudyCollection, content_hash, loaded_studies

DEFAULT_MINUTES = 60.0
_VERSIONS = ("stenosis-trt", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class SearchOptions:
    """Folder of the trail, and the minutes a search may take; what was begun by then is finished."""

    log_folder: Path
    minutes: float = DEFAULT_MINUTES

    def __post_init__(self) -> None:
        if not self.minutes > 0 or not math.isfinite(self.minutes):
            raise ValueError(f"A search cannot take {self.minutes:g} minutes. Give more than 0.")


@dataclass(frozen=True)
class SearchResult:
    """What came of a search. `models` and `outcome` are None where nothing was found that passes.

    Attributes:
        models: all models, those that were to blame with some blocks left unquantised.
        outcome: the gate's, of these.
        record: how it was found, as JSON data for pack.json.
    """

    models: Mapping[str, ConvertedModel] | None
    outcome: GateResult | None
    record: Mapping[str, Any]


def search_mixed_precision(
    task: SearchTask,
    validation: StudyCollection,
    spare: StudyCollection,
    limits: GateLimits,
    options: SearchOptions,
) -> SearchResult:
    """Find the models with most of their multiply-adds in INT8 that pass the gate together.

    Only blocks of models that fail alone are left unquantised; of all models where none does. A trail of the
    same search is gone on with. What was found is held against further studies, since one of many candidates
    may pass by chance; what that shows is recorded and decides nothing.

    Args:
        task: what failed.
        validation, limits: what it failed on.
        spare: studies that are not searched on.
        options: trail and time.

    Raises:
        PrecisionError: the blocks of a model cannot be found or unquantised.
        PackError: a model cannot be run.
        OSError: the trail cannot be written.
    """
    deadline = time.monotonic() + 60.0 * options.minutes
    trail = SearchLog(options.log_folder, _about(task, validation, limits))
    gate = Gate(task.pack, lambda what: loaded_studies(validation, what), validation.source, limits)
    gate.grade_reference(f"Grading {validation.source} in FP32")
    trials = CandidateEvaluator(task, trail, gate, deadline)
    plan, in_time = _best_plan(task, trials)
    result = _result(trials, trail, plan, in_time)
    if result.models is not None:
        elsewhere = _elsewhere(task, result.models, spare, limits)
        result = replace(result, record={**result.record, "elsewhere": elsewhere})
    trail.record_result(result.record)
    plot_search_log(trail.content, trail.path.with_suffix(".png"))
    return result


def largest_passing(
    items: Sequence[BlockId],
    passes: Callable[[frozenset[BlockId]], bool],
    saved: Callable[[frozenset[BlockId]], float],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[frozenset[BlockId], bool]:
    """The items that save the most of those sets that were found to pass; not all items pass together.

    First as many as can be are taken by halving. A gate need not fail more the more is quantised: a level may
    jump on a change that another change takes back. So then the worst items are left out one by one, as long
    as what is left would save more, and where that passes the others are tried anew.

    Args:
        items: the best first.
        passes: whether some pass together; raises OutOfTime once it cannot be asked any more.
        saved: by a set; multiply-adds, or time where it can be measured.
        advance: told how many of how many steps are done.

    Returns:
        The set, empty where nothing passed; and False where the time was over before the end.
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
    """Add as many items as pass, those in front first, to a set that passes and would not with all of them.

    Yields:
        The set that passed last, and of how many items it is settled whether they are taken. To the last one
        none of those left out could be added when it was tried.
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
    """Both halves, the better one last; a single item as it is."""
    middle = (len(items) + 1) // 2
    return [half for half in (items[middle:], items[:middle]) if half]


def _best_plan(task: SearchTask, trials: CandidateEvaluator) -> tuple[PrecisionAssignment | None, bool]:
    """The plan to take, None where none was found; and whether there was time to finish."""
    everything = list(task.models)
    searched = [name for name in everything if not task.by_model[name].passed] or everything
    try:
        if len(searched) < len(everything) and not trials.passes(trials.assignment(searched, ())):
            # The others pass each alone, and not together.
            searched = everything
        items = trials.ranked(searched)
    except OutOfTime:
        return None, False
    with show_progress(f"Searching {task.precision} of {', '.join(searched)}", "steps") as progress:
        progress.advance(0, 2 * len(items))
        best, in_time = largest_passing(
            items,
            lambda some: trials.passes(trials.assignment(searched, some)),
            trials.multiply_adds,
            progress.advance,
        )
    plan = trials.assignment(searched, best)
    # A model without anything in INT8 is none in INT8.
    return (None if any(left is None for left in plan.values()) else plan), in_time


def _result(
    trials: CandidateEvaluator, trail: SearchLog, plan: PrecisionAssignment | None, in_time: bool
) -> SearchResult:
    models = outcome = None
    left: dict[str, list[str]] = {}
    shares: dict[str, float] = {}
    if plan is not None:
        outcome = trials.outcome(plan)
        models = trials.converted(plan)
        left = {name: sorted(blocks) for name, blocks in plan.items() if blocks}
        shares = {name: model.metrics["quantised_share"] for name, model in models.items()}
    record = {
        "found": outcome is not None and outcome.passed,
        "in_time": in_time,
        "left_out": left,
        "quantised_share": shares,
        "candidates_on_validation": len(trail.trials),
        "cost": trail.content["cost"],
        "trail": trail.key,
    }
    return SearchResult(models, outcome, record) if record["found"] else SearchResult(None, None, record)


def _elsewhere(
    task: SearchTask, models: Mapping[str, ConvertedModel], spare: StudyCollection, limits: GateLimits
) -> dict[str, Any]:
    """How models do on studies that they were not chosen by: what of the gate fails there, by how much.

    How many levels the studies have does not count, nor what they cannot show.
    """
    gate = Gate(task.pack, lambda what: loaded_studies(spare, what), spare.source, limits)
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


def _about(task: SearchTask, validation: StudyCollection, limits: GateLimits) -> dict[str, Any]:
    """Everything that decides what a search finds."""
    return {
        "precision": task.precision,
        "models": {name: model.sha256 for name, model in task.pack.models.items()},
        "inputs": {name: repr(model.input) for name, model in task.pack.models.items()},
        "quantised": {name: hashlib.sha256(model.data).hexdigest() for name, model in task.models.items()},
        "calibration": task.calibration.key,
        "validation": content_hash(validation.folder),
        "limits": asdict(limits),
        "versions": {name: package_version(name) for name in _VERSIONS},
    }
