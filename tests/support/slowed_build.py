"""The program with short load scenarios, and a pause in preprocessing where the environment asks for one.

    SLOWED_PREPROCESSING_SECONDS=0.1 python slowed_build.py bench all --only load ...

It stands for a slower build: the product itself has no such variable.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

from stenosis_trt.bench.load import section
from stenosis_trt.bench.load.idle import IdlePlan
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.cli.app import main

PAUSE = "SLOWED_PREPROCESSING_SECONDS"
"""Environment variable: seconds of the pause in each call of `preprocess`."""
_QUERIES = 12
"""Queries of a run of SingleStream, in place of those that LoadGen's verdict needs."""
_TOO_MANY = 10**6
"""The same of MultiStream, which then does not fit into the section's time."""
_NO_BOUND_SECONDS = 0.001
"""Bound of Server that no study keeps. It is left out, since each run finds a rate of arrivals of its own."""


def _slow_down(seconds: float) -> None:
    preprocess = CpuBackend.preprocess

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(seconds)
        return preprocess(*arguments, **named)

    CpuBackend.preprocess = slow  # type: ignore[method-assign]


if __name__ == "__main__":
    if PAUSE in os.environ:
        _slow_down(float(os.environ[PAUSE]))
    section.P90_QUERIES, section.P99_QUERIES = _QUERIES, _TOO_MANY
    options = section.LoadOptions(
        min_seconds=1.0, server_bound_seconds=_NO_BOUND_SECONDS, idle=IdlePlan(((0.1, 2),))
    )
    section.measure = partial(section.measure, options=options)
    main()
