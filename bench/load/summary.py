"""What LoadGen says of a run: its verdict and figures, read from mlperf_log_summary.txt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stenosis_trt.engine.errors import StenosisError

_RESULT = re.compile(r"^Result is : (VALID|INVALID)$", re.MULTILINE)
_CONDITION = re.compile(r"^  ([A-Z][\w ]+ satisfied)\s*: (Yes|NO)$", re.MULTILINE)
_FIGURE = re.compile(r"^(\S[^:\n]*?)\s*: ([-+.\de]+)$", re.MULTILINE)
_EARLY = re.compile(r"Early stopping \S+ percentile estimate: (\d+)")
_ERRORS = re.compile(r"^(\d+) ERRORS? encountered", re.MULTILINE)


@dataclass(frozen=True)
class LoadGenSummary:
    """LoadGen's verdict on a run.

    Attributes:
        valid: its verdict.
        conditions: each of its rules, and whether it was satisfied.
        figures: numbers by LoadGen's names, such as "90.0th percentile latency (ns)", with the parameters.
        early_stopping_ns: estimate of the percentile that early stopping gives; None without one.
        errors: number of errors in the detailed log.
    """

    valid: bool
    conditions: Mapping[str, bool]
    figures: Mapping[str, float]
    early_stopping_ns: int | None
    errors: int

    def figure(self, name: str) -> float:
        """Return the first figure whose name starts with `name`.

        Raises:
            StenosisError: LoadGen did not give it.
        """
        for key, value in self.figures.items():
            if key.startswith(name):
                return value
        raise StenosisError(f"LoadGen's summary has no {name!r}.", "Use mlcommons-loadgen 5 or 6.")

    def broken_rules(self) -> tuple[str, ...]:
        """Return the rules that were not satisfied."""
        return tuple(name for name, satisfied in self.conditions.items() if not satisfied)


def parse_summary(text: str) -> LoadGenSummary:
    """Read the content of mlperf_log_summary.txt.

    Raises:
        StenosisError: it has no verdict.
    """
    result = _RESULT.search(text)
    if result is None:
        raise StenosisError("LoadGen's summary has no verdict.", "Use mlcommons-loadgen 5 or 6.")
    early = _EARLY.search(text)
    figures: dict[str, float] = {}
    for name, number in _FIGURE.findall(text):
        figures.setdefault(name, float(number))
    errors = _ERRORS.search(text)
    return LoadGenSummary(
        valid=result[1] == "VALID",
        conditions={name: answer == "Yes" for name, answer in _CONDITION.findall(text)},
        figures=figures,
        early_stopping_ns=int(early[1]) if early else None,
        errors=int(errors[1]) if errors else 0,
    )
