"""Figures of training logs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stenosis_trt.export.training.curves import plot_curves
from stenosis_trt.export.training.loops import TrainingSchedule, TrainingTask, train

_CURVES = (sys.executable, "-m", "stenosis_trt.export.training.curves")


def _source(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.standard_normal((2, 1, 1)).astype(np.float32)
    return x, x.sum(axis=0)


def _train(folder: Path, name: str) -> None:
    def figures(network: nn.Module) -> dict[str, float]:
        weight = next(network.parameters()).detach()
        return {"distance": float((weight - 1.0).abs().max()), "sum": float(weight.sum())}

    task = TrainingTask(
        name,
        nn.Conv2d(2, 1, 1),
        _source,
        lambda output, target: nn.functional.mse_loss(output[:, 0], target),
        figures,
        TrainingSchedule(steps=6, batch=2, learning_rate=0.1, warm_up=1, validate_every=2),
        selection_metric="distance",
        higher_is_better=False,
    )
    train(task, folder, torch.device("cpu"), loaders=0)


def _pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(path))


def _share_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(pixels[..., :3] * 255 - colour).max(axis=-1) < 3).mean())


def test_every_network_below_the_folder_gets_a_row_with_its_best_step_marked(tmp_path: Path) -> None:
    _train(tmp_path / "work" / "fold-errsm_11", "cord")
    plot_curves(tmp_path / "work", tmp_path / "one.png")
    _train(tmp_path / "work", "levels")
    answer = subprocess.run(
        [*_CURVES, tmp_path / "work", "--out", tmp_path / "two.png"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == f"{tmp_path / 'two.png'}\n"
    one, two = _pixels(tmp_path / "one.png"), _pixels(tmp_path / "two.png")
    assert one.shape[1] == two.shape[1]
    assert two.shape[0] > 1.6 * one.shape[0]
    assert _share_of(one, (0x00, 0x72, 0xB2)) > 1e-4, "curves"
    assert _share_of(one, (0xD5, 0x5E, 0x00)) > 1e-4, "the best step"


def test_logs_of_runs_that_nothing_judged_are_drawn_without_a_best_step(tmp_path: Path) -> None:
    row = {"step": 4, "loss": 0.5, "rate": 1e-3, "seconds_a_step": 1.0, "median_mm": float("nan")}
    (tmp_path / "levels.log.jsonl").write_text(json.dumps(row) + "\n" + '{"step": 8, "lo')
    plot_curves(tmp_path, tmp_path / "curves.png")
    pixels = _pixels(tmp_path / "curves.png")
    assert _share_of(pixels, (0x00, 0x72, 0xB2)) > 0.0
    assert _share_of(pixels, (0xD5, 0x5E, 0x00)) == 0.0


def test_a_folder_without_logs_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no training log .*\.log\.jsonl.*--work folder"):
        plot_curves(tmp_path, tmp_path / "curves.png")
    answer = subprocess.run(
        [*_CURVES, tmp_path, "--out", tmp_path / "curves.png"], capture_output=True, text=True
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"{tmp_path}: there is no training log")
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "curves.png").exists()
    (tmp_path / "levels.log.jsonl").touch()
    with pytest.raises(FileNotFoundError, match="none of its logs has a row yet"):
        plot_curves(tmp_path, tmp_path / "curves.png")


def test_a_log_that_no_training_wrote_is_named(tmp_path: Path) -> None:
    (tmp_path / "levels.log.jsonl").write_text('{"step": 1, "loss": 1}\nhello\n')
    with pytest.raises(ValueError, match=r"Line 2 of .*levels\.log\.jsonl"):
        plot_curves(tmp_path, tmp_path / "curves.png")
