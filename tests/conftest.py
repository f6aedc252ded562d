"""Tests have a cache of their own, and one thread each where several run at once.

`stenosis-trt build --device cpu` leaves a table in the user's cache, by which `grade` takes other arithmetic
than FP32. What a test finds must not depend on it.

Threads of OpenMP, which PyTorch and NumPy compute with, spin while they wait for one another. As many of them
as cores in each of as many processes as cores make tests several times as slow.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TESTS_CACHE = "stenosis-trt-tests"
"""Folder of the tests in the user's cache; `.ci/run` uses the same."""


def pytest_configure(config: pytest.Config) -> None:
    # Before the first test module is imported. Workers and commands inherit the environment.
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if base.name != TESTS_CACHE:
        os.environ.setdefault("PIP_CACHE_DIR", str(base / "pip"))
        os.environ["XDG_CACHE_HOME"] = str(base / TESTS_CACHE)
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
