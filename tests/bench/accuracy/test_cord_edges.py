"""Axial images show the cord wider than its truth, by as much in phantoms as in real anatomy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from shared_data import shared_data

from stenosis_trt.bench.accuracy import cord_edges
from stenosis_trt.bench.accuracy.cord_edges import shown_excess
from stenosis_trt.engine.geometry import SlicePose

POSE = SlicePose((-20.0, -20.0, 0.0), (1, 0, 0), (0, 1, 0), 0.2, 0.2, 200, 200, 3.0)
POINTS = np.array([[0.0, -4.0, 0.0], [0.0, 4.0, 0.0], [6.5, 0.0, 0.0], [-6.5, 0.0, 0.0]])


def _ellipse(depth: float, width: float, fluid: float = 3.0) -> np.ndarray:
    """A cord of these diameters in mm: 1 within, `fluid` without."""
    y, x = (np.mgrid[0:200, 0:200] - 100) * 0.2
    return np.where((2 * x / width) ** 2 + (2 * y / depth) ** 2 < 1, 1.0, fluid)


def test_the_excess_is_what_the_image_shows_beyond_the_true_points() -> None:
    assert shown_excess(_ellipse(8.0, 13.0), POSE, POINTS) == pytest.approx((0.0, 0.0), abs=0.25)
    assert shown_excess(_ellipse(8.0, 14.0), POSE, POINTS) == pytest.approx((0.0, 1.0), abs=0.25)


def test_an_image_without_fluid_beside_the_cord_shows_no_edge() -> None:
    assert shown_excess(_ellipse(8.0, 13.0, fluid=1.1), POSE, POINTS) is None


def _medians(text: str) -> dict[str, tuple[float, float]]:
    found = {}
    for line in text.splitlines():
        name, figures = line.split(": shown")
        depth, width = (
            float(part.split(" mm")[0].split()[-1]) for part in figures.split("anterop")[1].split(", ")
        )
        found[name] = (depth, width)
    return found


@pytest.mark.slow
def test_phantoms_and_real_anatomy_show_the_same_excess(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["cord_edges", "--studies", "4", "--volumes", str(Path(shared_data("volumes")))]
    )
    cord_edges.main()
    found = _medians(capsys.readouterr().out)
    phantoms = found.pop("phantoms")
    subjects = np.mean(list(found.values()), axis=0)
    assert phantoms == pytest.approx(subjects, abs=0.3)
