"""`stenosis-trt phantom --condition NAME=STRENGTH`."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from stenosis_trt.engine.cli.app import app


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("lordosis=3", "Condition 'lordosis' is not known: give one of kyphosis, scoliosis,"),
        ("echo=long", "give echo=STRENGTH with a number from -1 to 1."),
        ("field_mm=100", "give field_mm=STRENGTH with a number from 160 to 600."),
    ],
)
def test_a_condition_that_is_not_allowed_ends_with_what_is(condition: str, said: str, tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["phantom", str(tmp_path / "out"), "--condition", condition])
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_conditions_hold_for_every_study_and_are_needed_to_resume(tmp_path: Path) -> None:
    out, runner = tmp_path / "out", CliRunner()
    options = ["phantom", str(out), "--studies", "1", "--seed", "3"]
    conditions = ["--condition", "field_mm=180", "--condition", "spacing=2"]
    assert runner.invoke(app, [*options, *conditions]).exit_code == 0
    first = dcmread(next((out / "study_0001" / "sagittal_t2").iterdir()))
    assert first.Rows * float(first.PixelSpacing[0]) == pytest.approx(180.0, abs=11.0)
    answer = runner.invoke(app, [*options, "--resume"])
    assert answer.exit_code == 2
    assert "is of another seed, grade, anatomy or condition." in answer.stderr
    assert runner.invoke(app, [*options, *conditions, "--resume"]).exit_code == 0
