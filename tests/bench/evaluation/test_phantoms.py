"""The commands of docs/evaluate.md, as they stand but for the number of studies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from documented import commands_in, read


@pytest.mark.slow
def test_phantoms_with_two_simulated_readers_give_every_figure(tmp_path: Path) -> None:
    commands = [
        line.replace("--studies 100", "--studies 10") for line in commands_in(read("docs/evaluate.md"))
    ]
    assert len(commands) == 4
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        answer = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
    figures = json.loads((tmp_path / "E/evaluation.json").read_text(encoding="utf-8"))
    assert figures["patients"] == 10
    assert figures["raters"][0]["kappas"]["quadratic"]["value"] > 0.8
    for part in ("pairs", "differences", "measures", "correlations", "correlation_differences", "decisions"):
        assert figures[part], part
    assert len(figures["folds"]["folds"]) == 5
    assert figures["area"]["area"]["value"] > 0.9
