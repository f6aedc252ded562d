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
"""Queries of a run, in place of those that LoadGen's verdict needs."""


def _slow_down(seconds: float) -> None:
    preprocess = CpuBackend.preprocess

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(seconds)
        return preprocess(*arguments, **named)

    CpuBackend.preprocess = slow  # type: ignore[method-assign]


if __name__ == "__main__":
    if PAUSE in os.environ:
        _slow_down(float(os.environ[PAUSE]))
    section.P90_QUERIES = section.P99_QUERIES = section.SERVER_QUERIES = _QUERIES
    options = section.LoadOptions(min_seconds=1.0, idle=IdlePlan(((0.1, 2),)))
    section.measure = partial(section.measure, options=options)
    main()
