"""The trail of a search: a JSON file that grows with every step, so that a search that was killed goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stenosis_trt.engine.support.atomic_files import write_text_atomically
from stenosis_trt.export.precision.blocks import QuantisedBlock
from stenosis_trt.export.precision.gate import GateResult
from stenosis_trt.export.precision.sensitivity import BlockError

SEARCH_LOG_FILE = "sensitivity.json"
_SCHEMA = 1

PrecisionAssignment = Mapping[str, "frozenset[str] | None"]
"""By model: the blocks that are left unquantised; None where the model stays FP32 as a whole."""


class SearchLog:
    """What a search found so far, in `folder`/sensitivity.json. Every change is on the disk when it returns.

    Args:
        folder: made where absent. A trail of another search that lies there is kept under another name.
        about: everything that the search depends on, as JSON data. Only a trail of the same is gone on with.

    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        self.path = folder / SEARCH_LOG_FILE
        folder.mkdir(parents=True, exist_ok=True)
        known = _read(self.path)
        if known is not None and known.get("key") == self.key and known.get("schema") == _SCHEMA:
            self._content = known
        else:
            if known is not None:
                self.path.rename(folder / f"sensitivity.{str(known.get('key'))[:12]}.json")
            self._content = {
                "schema": _SCHEMA,
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
        """All of it, as JSON data."""
        return self._content

    @property
    def trials(self) -> Sequence[Mapping[str, Any]]:
        """Candidates held against the studies, oldest first."""
        trials: list[Mapping[str, Any]] = self._content["trials"]
        return trials

    def errors(self, model: str, blocks: Sequence[QuantisedBlock]) -> tuple[BlockError, ...] | None:
        """The errors of a model's blocks, where they are known."""
        entries = self._content["sensitivity"].get(model)
        if entries is None or [entry["block"] for entry in entries] != [block.name for block in blocks]:
            return None
        return tuple(BlockError(entry["relative_rms"], entry["largest"]) for entry in entries)

    def record_errors(
        self, model: str, blocks: Sequence[QuantisedBlock], errors: Sequence[BlockError]
    ) -> None:
        """Write down the errors of a model's blocks."""
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

    def passed(self, plan: PrecisionAssignment) -> bool | None:
        """Whether a candidate passed; None where it was not tried."""
        return self._passed.get(assignment_key(plan))

    def record_trial(
        self,
        plan: PrecisionAssignment,
        shares: Mapping[str, float],
        outcome: GateResult,
        seconds: float | None,
    ) -> None:
        """Write down what the gate found of a candidate.

        Args:
            plan: what it is.
            shares: of the multiply-adds in INT8, by model.
            outcome: `validated_on` says so where not all studies were graded.
            seconds: that it took; None where it was measured before the search.
        """
        trial = {
            "trial": len(self.trials) + 1,
            "unquantised": _as_data(plan),
            "quantised_share": dict(shares),
            "passed": outcome.passed,
            "validated_on": outcome.validated_on,
            "figures": {check.figure: check.value for check in outcome.checks},
            "failed": {check.figure: check.excess for check in outcome.failures},
            "seconds": None if seconds is None else round(seconds, 1),
        }
        self._content["trials"].append(trial)
        self._passed[assignment_key(plan)] = outcome.passed
        self._write()

    def record_result(self, result: Mapping[str, Any]) -> None:
        """Write down what came of the search."""
        self._content["result"] = dict(result)
        self._write()

    def _write(self) -> None:
        write_text_atomically(self.path, json.dumps(self._content, indent=1, allow_nan=False) + "\n")


def assignment_key(plan: PrecisionAssignment) -> str:
    """A plan as text, equal for equal plans."""
    return json.dumps(_as_data(plan))


def _as_data(plan: PrecisionAssignment) -> dict[str, list[str] | None]:
    return {model: None if left is None else sorted(left) for model, left in sorted(plan.items())}


def _read(path: Path) -> dict[str, Any] | None:
    """A trail's content; of what is no trail (a damaged file) there is only that it is there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {"key": "damaged"}
    return content if isinstance(content, dict) else {"key": "damaged"}
