"""Log of a mixed-precision search: a JSON file rewritten after every step, so that the search can resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stenosis_trt.engine.support.atomic_files import write_text_atomically
from stenosis_trt.export.precision.blocks import QuantisedBlock
from stenosis_trt.export.precision.gate_result import GateResult
from stenosis_trt.export.precision.sensitivity import BlockError

SEARCH_LOG_FILE = "sensitivity.json"
_SCHEMA_VERSION = 1

PrecisionAssignment = Mapping[str, "frozenset[str] | None"]
"""Blocks that stay unquantised, by model; None if the whole model stays FP32."""


class SearchLog:
    """Results of a search in `folder`/sensitivity.json. Each change is on disk when the method returns.

    Args:
        folder: created if absent. The log of a different search found there is renamed.
        about: JSON data of everything the search depends on. A log is resumed only if its data are the same.

    Raises:
        OSError: the folder cannot be created or written to.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        self.path = folder / SEARCH_LOG_FILE
        folder.mkdir(parents=True, exist_ok=True)
        known = _read(self.path)
        if known is not None and known.get("key") == self.key and known.get("schema") == _SCHEMA_VERSION:
            self._content = known
        else:
            if known is not None:
                self.path.rename(folder / f"sensitivity.{str(known.get('key'))[:12]}.json")
            self._content = {
                "schema": _SCHEMA_VERSION,
                "key": self.key,
                "about": dict(about),
                "cost": "multiply-adds that are not INT8; time on a GPU was not measured",
                "sensitivity": {},
                "trials": [],
                "result": None,
            }
        self._passed = {json.dumps(trial["unquantised"]): trial["passed"] for trial in self.trials}

    @property
    def content(self) -> Mapping[str, Any]:
        """The whole log as JSON data."""
        return self._content

    @property
    def trials(self) -> Sequence[Mapping[str, Any]]:
        """The candidates measured so far, oldest first."""
        trials: list[Mapping[str, Any]] = self._content["trials"]
        return trials

    def errors(self, model: str, blocks: Sequence[QuantisedBlock]) -> tuple[BlockError, ...] | None:
        """Recorded errors of a model's blocks; None if they were not measured yet."""
        entries = self._content["sensitivity"].get(model)
        if entries is None or [entry["block"] for entry in entries] != [block.name for block in blocks]:
            return None
        return tuple(BlockError(entry["relative_rms"], entry["largest"]) for entry in entries)

    def record_errors(
        self, model: str, blocks: Sequence[QuantisedBlock], errors: Sequence[BlockError]
    ) -> None:
        """Record the errors of a model's blocks."""
        whole = sum(block.multiply_adds for block in blocks)
        self._content["sensitivity"][model] = [
            {
                "block": block.name,
                "nodes": list(block.nodes),
                "multiply_adds": block.multiply_adds,
                "share": block.multiply_adds / whole,
                **asdict(error),
            }
            for block, error in zip(blocks, errors, strict=True)
        ]
        self._write()

    def passed(self, assignment: PrecisionAssignment) -> bool | None:
        """Whether an assignment passed the gate; None if it was not tried."""
        return self._passed.get(assignment_key(assignment))

    def record_trial(
        self,
        assignment: PrecisionAssignment,
        shares: Mapping[str, float],
        outcome: GateResult,
        seconds: float | None,
    ) -> None:
        """Record the gate's result for a candidate.

        Args:
            assignment: the candidate.
            shares: share of each model's multiply-adds in INT8.
            outcome: result of the gate; `validated_on` says whether all studies were graded.
            seconds: duration; None if it was measured before the search.
        """
        trial = {
            "trial": len(self.trials) + 1,
            "unquantised": _to_json(assignment),
            "quantised_share": dict(shares),
            "passed": outcome.passed,
            "validated_on": outcome.validated_on,
            "figures": {check.figure: check.value for check in outcome.checks},
            "failed": {check.figure: check.excess for check in outcome.failures},
            "seconds": None if seconds is None else round(seconds, 1),
        }
        self._content["trials"].append(trial)
        self._passed[assignment_key(assignment)] = outcome.passed
        self._write()

    def record_result(self, result: Mapping[str, Any]) -> None:
        """Record the result of the search."""
        self._content["result"] = dict(result)
        self._write()

    def _write(self) -> None:
        write_text_atomically(self.path, json.dumps(self._content, indent=1, allow_nan=False) + "\n")


def assignment_key(assignment: PrecisionAssignment) -> str:
    """Text that is equal for equal assignments."""
    return json.dumps(_to_json(assignment))


def _to_json(assignment: PrecisionAssignment) -> dict[str, list[str] | None]:
    return {model: None if left is None else sorted(left) for model, left in sorted(assignment.items())}


def _read(path: Path) -> dict[str, Any] | None:
    """Content of the log; None if there is none, and {"key": "damaged"} for a damaged file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {"key": "damaged"}
    return content if isinstance(content, dict) else {"key": "damaged"}
