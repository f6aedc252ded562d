"""Tests keep what they download and make in a cache of their own.

`stenosis-trt build --device cpu` leaves a table in the user's cache, by which `grade` takes other arithmetic
than FP32. What a test finds must not depend on it.
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
