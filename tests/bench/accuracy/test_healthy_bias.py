"""How far measurements lie from what the norms of healthy adults would have measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shared_data import shared_data

from stenosis_trt.bench.accuracy import healthy_bias
from stenosis_trt.bench.accuracy.healthy_bias import MASKS, LevelError, summarise, volume_errors
from stenosis_trt.engine.grading import healthy
from stenosis_trt.engine.records import LEVELS

SHIPPED = json.loads((Path(healthy.__file__).parent / "norms" / "measured_bias.json").read_text("utf-8"))


def _error(volume: str, level: str, ratio: float) -> LevelError:
    return LevelError(volume, level, 5, (0.0, 0.0, 0.0), (ratio, 0.0, 0.0), (0.0, 0.0, 0.0))


def test_volumes_count_alike_in_bias_and_absolute_error() -> None:
    errors = [_error(volume, level, x) for level in LEVELS for volume, x in (("a", -0.4), ("b", 0.2))]
    assert summarise(errors)["C4/5"]["compression_ratio"] == {
        "volumes": 2,
        "bias_sd": -0.1,
        "mean_absolute_error_sd": 0.3,
    }


@pytest.mark.shared_data
def test_the_ratio_of_an_upright_healthy_cord_is_within_its_persons_norm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """errsm_11 as acquired: its axial slices are tilted by up to 31° at the foot of the neck."""
    monkeypatch.setattr(healthy_bias, "TURNS_DEGREES", (0.0,))
    errors = volume_errors("errsm_11", shared_data("volumes"))
    assert {item.level for item in errors} >= set(LEVELS[:5])
    ratio = np.array([item.across[0] for item in errors])
    shown = np.array([item.as_shown[0] for item in errors])
    assert np.abs(ratio).max() < 1.0
    assert abs(ratio.mean()) < 0.5
    # In the slices as they are, the lordotic levels look deeper than they are.
    assert shown.max() > ratio.max() + 0.3


def test_the_bias_that_ships_is_that_of_the_errors_that_ship() -> None:
    errors = [
        LevelError(item["volume"], item["level"], 5, (0.0,) * 3, tuple(item["across_sd"]), (0.0,) * 3)
        for item in SHIPPED["errors"]
    ]
    assert list(dict.fromkeys(item.volume for item in errors)) == list(MASKS) == SHIPPED["volumes"]
    again = summarise(errors)
    for level, quantities in SHIPPED["levels"].items():
        for name, item in quantities.items():
            assert again[level][name] == pytest.approx(item, abs=0.011), (level, name)


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_errors_that_ship_are_what_a_volume_gives() -> None:
    """One of the four, since each takes half a minute."""
    shipped = {x["level"]: x["across_sd"] for x in SHIPPED["errors"] if x["volume"] == "PAM50_small"}
    again = {x.level: list(x.across) for x in volume_errors("PAM50_small", shared_data("volumes"))}
    assert again.keys() == shipped.keys()
    for level, values in shipped.items():
        # Other processors round otherwise, and another slice may then be the narrowest.
        assert again[level] == pytest.approx(values, abs=0.3), level
