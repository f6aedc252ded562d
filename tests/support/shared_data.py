"""Where the real images are, for tests that read them in place."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


def shared_data(*parts: str) -> Path:
    """A path below ../shared/data; the test is skipped, with the reason, where it is not there."""
    path = _FOLDER.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs ../shared/data/{'/'.join(parts)}")
    return path


def manifest(prefix: str) -> list[dict[str, str]]:
    """Rows of the manifest whose file begins with `prefix`."""
    with shared_data("MANIFEST.csv").open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row["file"].startswith(prefix)]
