"""Training loop: resuming, early stopping, initial weights, freezing, and error messages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stenosis_trt.export.checkpoints.files import CheckpointError, write_checkpoint
from stenosis_trt.export.training.loops import TrainingSchedule, TrainingTask, train

_CPU = torch.device("cpu")
_BATCH = 4


class _Stopped(Exception):
    pass


class _Source:
    """Random maps and the sums of their channels; stops the run at sample number `fatal`."""

    def __init__(self, fatal: int | None = None) -> None:
        self.fatal, self.drawn = fatal, 0

    def __call__(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        self.drawn += 1
        if self.drawn == self.fatal:
            raise _Stopped
        x = rng.standard_normal((16, 2, 2)).astype(np.float32)
        return x, x.sum(axis=0)


def _loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(output.flatten(), target.flatten())


def _error(network: nn.Module) -> dict[str, float]:
    """Mean squared error on maps that are always the same."""
    x = torch.randn(64, 16, 2, 2, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        return {
            "error": float(_loss(network(x), x.sum(dim=1))),
            "first": float(next(network.parameters())[0, 0]),
        }


def _network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(16, 1, 1)
    )


def _task(source: Callable[[np.random.Generator], Any] | None = None, **changes: Any) -> TrainingTask:
    schedule = TrainingSchedule(
        steps=12,
        batch=_BATCH,
        learning_rate=0.05,
        warm_up=2,
        checkpoint_every=4,
        validate_every=6,
        average_decay=0.5,
    )
    of_schedule = {key: changes.pop(key) for key in list(changes) if hasattr(schedule, key)}
    schedule = replace(schedule, **of_schedule)
    return TrainingTask("toy", _network(), source or _Source(), _loss, _error, schedule, **changes)


def _stopping(source: _Source | None = None, **changes: Any) -> TrainingTask:
    """Learns so fast that it soon gets worse, and stops after three validations that were no better."""
    options = {"steps": 60, "learning_rate": 0.2, "validate_every": 2, "checkpoint_every": 3, "patience": 3}
    return _task(source, selection_metric="error", higher_is_better=False, **options, **changes)


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The log without times, which differ from run to run."""
    rows = [json.loads(line) for line in (folder / "toy.log.jsonl").read_text().splitlines()]
    for row in rows:
        assert row.pop("seconds_a_step") > 0.0
    return rows


def _same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_that_is_stopped_and_started_again_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = train(_task(), tmp_path / "whole", _CPU, loaders=0)
    with pytest.raises(_Stopped):
        train(_task(_Source(fatal=_BATCH * 6 + 2)), tmp_path / "parts", _CPU, loaders=0)
    finished = train(_task(), tmp_path / "parts", _CPU, loaders=0)
    assert _same(whole, finished)
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "parts")


def test_bfloat16_learns_about_the_same_and_leaves_weights_in_float32(tmp_path: Path) -> None:
    single = train(_task(), tmp_path / "single", _CPU, loaders=0)
    half = train(_task(bfloat16=True), tmp_path / "half", _CPU, loaders=0)
    assert not _same(single, half)
    assert {value.dtype for value in half.parameters()} == {torch.float32}
    untrained = _error(_network().eval())["error"]
    assert abs(_error(half)["error"] - _error(single)["error"]) < 0.2 * untrained


def test_a_run_stops_where_it_gets_no_better_and_gives_its_best_network(tmp_path: Path) -> None:
    best = train(_stopping(), tmp_path, _CPU, loaders=0)
    rows = _rows(tmp_path)
    errors = {row["step"]: row["error"] for row in rows}
    assert 2 < rows[-1]["best_step"] < rows[-1]["step"] < 60
    assert rows[-1]["best_step"] == min(errors, key=lambda step: errors[step])
    assert [row["step"] for row in rows][-4] == rows[-1]["best_step"], "the three after it were no better"
    assert _error(best)["error"] == min(errors.values()) == rows[-1]["best_figure"]


def test_a_run_that_stopped_by_itself_is_not_gone_on_with(tmp_path: Path) -> None:
    best = train(_stopping(), tmp_path, _CPU, loaders=0)
    before = (tmp_path / "toy.log.jsonl").read_bytes()
    source = _Source()
    assert _same(best, train(_stopping(source), tmp_path, _CPU, loaders=0))
    assert source.drawn == 0
    assert (tmp_path / "toy.log.jsonl").read_bytes() == before


@pytest.mark.parametrize("steps", [1, 5, 6, 9, 13, 17])
def test_early_stopping_is_the_same_wherever_a_run_was_interrupted(tmp_path: Path, steps: int) -> None:
    whole = train(_stopping(), tmp_path / "whole", _CPU, loaders=0)
    with pytest.raises(_Stopped):
        train(_stopping(_Source(fatal=_BATCH * steps + 1)), tmp_path / "parts", _CPU, loaders=0)
    finished = train(_stopping(), tmp_path / "parts", _CPU, loaders=0)
    assert _same(whole, finished)
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "parts")


def test_a_run_that_ends_between_its_best_network_and_its_checkpoint_is_repeated_from_there(
    tmp_path: Path,
) -> None:
    whole = train(_stopping(), tmp_path / "whole", _CPU, loaders=0)
    parts = tmp_path / "parts"
    with pytest.raises(_Stopped):
        train(_stopping(_Source(fatal=_BATCH * 3 + 1)), parts, _CPU, loaders=0)
    shutil.copy(parts / "toy.checkpoint.pt", tmp_path / "early")
    train(_stopping(), parts, _CPU, loaders=0)
    shutil.copy(tmp_path / "early", parts / "toy.checkpoint.pt")
    assert _same(whole, train(_stopping(), parts, _CPU, loaders=0))
    assert _rows(tmp_path / "whole") == _rows(parts)


def test_without_a_figure_to_judge_by_the_last_network_is_given(tmp_path: Path) -> None:
    last = train(_task(steps=18, learning_rate=0.2, validate_every=2), tmp_path, _CPU, loaders=0)
    assert _error(last)["error"] == _rows(tmp_path)[-1]["error"]
    assert not (tmp_path / "toy.best.pt").exists()


def test_a_figure_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    figures = iter([0.5, float("nan"), 0.7, float("inf"), 0.6, float("nan")])
    task = replace(
        _task(steps=12, validate_every=2, selection_metric="x"), validate=lambda _: {"x": next(figures)}
    )
    train(task, tmp_path, _CPU, loaders=0)
    assert [row["best_step"] for row in _rows(tmp_path)] == [2, 2, 6, 6, 6, 6]


def test_a_best_network_that_was_removed_is_missed(tmp_path: Path) -> None:
    train(_stopping(), tmp_path, _CPU, loaders=0)
    (tmp_path / "toy.best.pt").unlink()
    with pytest.raises(RuntimeError, match=r"is missing.*Remove .*checkpoint"):
        train(_stopping(), tmp_path, _CPU, loaders=0)


def test_a_figure_that_the_validation_does_not_give_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="judged by 'kappa', and its validation gives error, first"):
        train(_task(selection_metric="kappa"), tmp_path, _CPU, loaders=0)


def test_patience_without_a_figure_is_refused() -> None:
    with pytest.raises(ValueError, match="Set selection_metric"):
        _task(patience=2)


def test_a_run_begins_with_the_weights_it_is_given(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    other = _network()
    with torch.no_grad():
        other[0].weight += 1.0
    write_checkpoint(start, other)
    given = train(
        _task(initial_weights=start, steps=1, learning_rate=0.0), tmp_path / "given", _CPU, loaders=0
    )
    assert torch.equal(given[0].weight, other[0].weight)


def test_a_run_goes_on_without_the_file_it_began_with_but_not_with_another(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    write_checkpoint(start, _network())
    whole = train(_task(initial_weights=start), tmp_path / "whole", _CPU, loaders=0)
    with pytest.raises(_Stopped):
        train(
            _task(_Source(fatal=_BATCH * 6 + 2), initial_weights=start), tmp_path / "parts", _CPU, loaders=0
        )
    start.unlink()
    with pytest.raises(ValueError, match=r"began with start.safetensors, and no file is named"):
        train(_task(), tmp_path / "parts", _CPU, loaders=0)
    assert _same(whole, train(_task(initial_weights=start), tmp_path / "parts", _CPU, loaders=0))
    other = _network()
    nn.init.ones_(other[0].weight)
    write_checkpoint(start, other)
    with pytest.raises(ValueError, match="holds other weights"):
        train(_task(initial_weights=start), tmp_path / "parts", _CPU, loaders=0)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    write_checkpoint(start, nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1)))
    with pytest.raises(CheckpointError) as error:
        train(_task(initial_weights=start), tmp_path, _CPU, loaders=0)
    for part in (
        "it lacks 1.weight",
        "of another shape are 0.weight",
        "nothing called 2.bias, 2.weight",
        "same network",
    ):
        assert part in str(error.value)
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        train(_task(initial_weights=tmp_path / "none.safetensors"), tmp_path, _CPU, loaders=0)
    with pytest.raises(CheckpointError, match=r"is not \.safetensors"):
        train(_task(initial_weights=tmp_path / "weights.pt"), tmp_path, _CPU, loaders=0)


def test_what_is_frozen_stays_as_it_was_and_the_rest_learns(tmp_path: Path) -> None:
    before = _network()
    after = train(_task(frozen=("0", "1")), tmp_path, _CPU, loaders=0)
    assert _same(before[0], after[0])
    assert _same(before[1], after[1]), "statistics of batch normalisation are frozen with their layer"
    assert not torch.equal(before[4].weight, after[4].weight)


def test_a_prefix_that_nothing_begins_with_is_refused(tmp_path: Path) -> None:
    for wrong in ("9", "0.wei", "2"):
        with pytest.raises(ValueError, match="no parameters below"):
            train(_task(frozen=(wrong,)), tmp_path, _CPU, loaders=0)
    with pytest.raises(ValueError, match="left to train"):
        train(_task(frozen=("0", "1", "4")), tmp_path, _CPU, loaders=0)


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step_and_says_what_to_do(tmp_path: Path) -> None:
    def exploding(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return _loss(output, target) * (float("inf") if calls == 6 else 1.0)

    calls = 0
    with pytest.raises(RuntimeError, match=r"is inf in step 5, on samples 20 to 23 of seed 0.*learning rate"):
        train(replace(_task(), loss=exploding), tmp_path, _CPU, loaders=0)
    assert torch.load(tmp_path / "toy.checkpoint.pt", weights_only=True)["progress"]["step"] == 4


def test_samples_that_are_not_finite_are_told_from_a_network_that_fails(tmp_path: Path) -> None:
    def broken(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return np.full((16, 2, 2), np.nan, np.float32), np.zeros((2, 2), np.float32)

    with pytest.raises(RuntimeError, match=r"samples 0 to 3 of seed 0 hold values that are not finite"):
        train(_task(broken), tmp_path, _CPU, loaders=0)


def test_a_checkpoint_of_an_older_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    torch.save({"network": {}, "step": 3}, tmp_path / "toy.checkpoint.pt")
    with pytest.raises(RuntimeError, match=r"older version of this recipe\. Remove it"):
        train(_task(), tmp_path, _CPU, loaders=0)


def test_int8_is_simulated_from_its_step_on_and_judged_only_then(tmp_path: Path) -> None:
    options = {"selection_metric": "first", "quantise_from_step": 4, "observed": 2, "validate_every": 2}
    plain = train(_task(validate_every=2), tmp_path / "plain", _CPU, loaders=0)
    whole = train(_task(**options), tmp_path / "whole", _CPU, loaders=0)
    rows = _rows(tmp_path / "whole")
    assert [row["int8"] for row in rows] == [False, False, True, True, True, True]
    assert ["best_step" in row for row in rows] == [row["int8"] for row in rows]
    assert [row["error"] for row in rows[:2]] == [row["error"] for row in _rows(tmp_path / "plain")[:2]]
    assert not _same(plain, whole)
    assert whole.state_dict().keys() == plain.state_dict().keys()
    for steps in (5, 9):
        parts = tmp_path / f"parts-{steps}"
        with pytest.raises(_Stopped):
            train(_task(_Source(fatal=_BATCH * steps + 1), **options), parts, _CPU, loaders=0)
        assert _same(whole, train(_task(**options), parts, _CPU, loaders=0))
        assert _rows(parts) == rows


def test_a_run_too_short_to_be_quantised_is_refused() -> None:
    with pytest.raises(ValueError, match="below 10"):
        _task(quantise_from_step=10, observed=2)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    schedule = TrainingSchedule(steps=100, batch=1, learning_rate=1.0, warm_up=10)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01
