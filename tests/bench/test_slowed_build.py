"""`bench compare` flags a slower build, and not a second run of the same one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from constant_pack import write_constant_pack
from shared_phantoms import small_phantoms
from typer.testing import CliRunner

from stenosis_trt.bench.record.compare import compare_records
from stenosis_trt.bench.record.files import read_record
from stenosis_trt.engine.cli.app import app

pytestmark = pytest.mark.timing

SUPPORT = Path(__file__).parents[1] / "support"
PAUSE_SECONDS = 0.3
"""Of each call of `preprocess`: a study takes about forty times as long, more than any load explains."""
_SECONDS = 600


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Records of `bench all --only load` of one build, of the same again, and of a slowed one."""
    folder = tmp_path_factory.mktemp("builds")
    pack = write_constant_pack(folder / "pack").path
    found = {}
    for name, pause in (("first", None), ("second", None), ("slowed", PAUSE_SECONDS)):
        out = folder / name
        command = [sys.executable, str(SUPPORT / "slowed_build.py"), "bench", "all", "--only", "load"]
        options = ["--out", out, "--pack", pack, "--device", "cpu", "--studies", small_phantoms(2, 71, 4)]
        environment = {
            **os.environ,
            **({} if pause is None else {"SLOWED_PREPROCESSING_SECONDS": str(pause)}),
        }
        done = subprocess.run(
            [*command, *map(str, options)], env=environment, capture_output=True, text=True, timeout=_SECONDS
        )
        assert done.returncode == 0, done.stderr
        (found[name],) = out.glob("*.json")
    return found


def _worse(before: Path, after: Path) -> set[str]:
    found = compare_records(read_record(before), read_record(after))
    return {change.after.name for change in found.having("worse")}


def test_a_slowed_build_is_flagged_where_it_preprocesses_and_nowhere_else(records: dict[str, Path]) -> None:
    worse = _worse(records["first"], records["slowed"])
    assert {f"load.single_stream.{cut}.p50" for cut in ("device", "whole")} <= worse
    assert not [name for name in worse if ".models." in name or ".image." in name]
    assert not _worse(records["slowed"], records["first"])


def test_a_second_run_of_one_build_is_not_flagged(records: dict[str, Path]) -> None:
    assert _worse(records["first"], records["second"]) == set()
    assert _worse(records["second"], records["first"]) == set()


def test_the_exit_code_says_so(records: dict[str, Path]) -> None:
    for after, code in (("slowed", 1), ("second", 0)):
        done = CliRunner().invoke(app, ["bench", "compare", str(records["first"]), str(records[after])])
        assert done.exit_code == code, done.stdout
    assert "Nothing moved beyond the noise" in done.stdout
