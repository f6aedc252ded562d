"""MSCC: which slices stand for the normal cord, and what comes of them, by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from stenosis_trt.engine.grading.compression import CordCompression, cord_compression
from stenosis_trt.engine.grading.cord import CanalLine, CordSlice
from stenosis_trt.engine.grading.match import match_levels
from stenosis_trt.engine.records import LEVELS, CordMeasurement

ARCS = dict(zip(LEVELS, (0.0, 16.0, 32.0, 48.0, 64.0, 80.0), strict=True))
"""Discs 16 mm apart; C4/5 at 32 mm."""


def _cord(ap: float, at: float, warnings: tuple[str, ...] = ()) -> CordMeasurement:
    """A cord on a slice across the line, which runs down from z = 0."""
    points = ((0.0, -ap / 2, -at), (0.0, ap / 2, -at), (6.5, 0.0, -at), (-6.5, 0.0, -at))
    return CordMeasurement(f"{at}", points, ap, 13.0, ap / 13.0, 0.9, warnings)


def _compression(
    diameters: dict[float, float],
    levels: Sequence[str] = LEVELS,
    uncompressed: Sequence[str] = LEVELS,
    doubtful: Sequence[float] = (),
) -> dict[str, CordCompression]:
    """MSCC from AP diameters in mm by arc length in mm."""
    line = CanalLine(
        np.array([[0.0, 0.0, 12.0], [0.0, 0.0, -92.0]]),
        np.array([-12.0, 92.0]),
        {level: ARCS[level] for level in levels},
        np.array([[0.0, 0.0, -1.0]] * 2),
    )
    across = [CordSlice(k, np.zeros(3), arc, line.directions[0]) for k, arc in enumerate(diameters)]
    cords = [
        _cord(ap, arc, ("cord_low_confidence",) if arc in doubtful else ()) for arc, ap in diameters.items()
    ]
    return cord_compression(line, across, cords, match_levels(line, across, cords), uncompressed)


def test_a_compressed_level_is_compared_with_the_means_above_and_below() -> None:
    """Above, 2 to 22 mm: (7.6 + 7.4) / 2 = 7.5. Below, 42 to 62 mm: (6.8 + 6.6 + 6.4) / 3 = 6.6."""
    found = _compression(
        {1.9: 5.0, 2.0: 7.6, 22.0: 7.4, 22.1: 5.0, 32.0: 4.23, 41.9: 5.0, 42.0: 6.8, 50.0: 6.6, 62.0: 6.4},
        levels=["C4/5"],
        uncompressed=[],
    )
    # 1 − 4.23 / ((7.5 + 6.6) / 2) = 1 − 4.23 / 7.05
    assert found["C4/5"].mscc == pytest.approx(0.4)
    assert found["C4/5"].reference == "above and below"


def test_the_mean_of_both_sides_is_of_the_sides_and_not_of_the_slices() -> None:
    found = _compression({12.0: 8.0, 32.0: 6.0, 44.0: 6.0, 48.0: 6.0, 52.0: 6.0}, ["C4/5"], [])
    assert found["C4/5"].mscc == pytest.approx(1 - 6.0 / 7.0)


def test_where_one_side_is_not_seen_the_other_stands_for_both() -> None:
    above = _compression({16.0: 8.0, 32.0: 6.0, 36.0: 7.0}, ["C4/5"], [])
    below = _compression({32.0: 6.0, 48.0: 7.5}, ["C4/5"], [])
    assert above["C4/5"] == CordCompression(pytest.approx(0.25), "above")
    assert below["C4/5"] == CordCompression(pytest.approx(0.2), "below")


def test_without_normal_cord_on_either_side_there_is_no_value_and_the_reference_says_so() -> None:
    found = _compression({28.0: 7.0, 32.0: 6.0, 36.0: 7.0}, ["C4/5"], [])
    assert found == {"C4/5": CordCompression(None, "none")}


def test_all_compressions_share_the_cord_above_the_highest_and_below_the_lowest() -> None:
    """C4/5 and C5/6 are compressed: above 2 to 22 mm, below 58 to 78 mm. Between them nothing is normal."""
    diameters = {16.0: 8.0, 32.0: 5.6, 40.0: 1.0, 48.0: 4.2, 64.0: 6.0}
    normal = [level for level in LEVELS if level not in ("C4/5", "C5/6")]
    found = _compression(diameters, uncompressed=normal)
    assert found["C4/5"] == CordCompression(pytest.approx(1 - 5.6 / 7.0), "above and below")
    assert found["C5/6"] == CordCompression(pytest.approx(1 - 4.2 / 7.0), "above and below")


def test_a_level_that_is_not_compressed_is_compared_beyond_itself_and_all_compressions() -> None:
    """C3/4 is normal and C5/6 is not: above 10 mm over C3/4, below 10 mm under C5/6."""
    diameters = {0.0: 8.0, 16.0: 7.6, 32.0: 7.0, 48.0: 4.0, 64.0: 7.2}
    found = _compression(diameters, uncompressed=[level for level in LEVELS if level != "C5/6"])
    assert found["C3/4"] == CordCompression(pytest.approx(1 - 7.6 / 7.6), "above and below")


def test_a_level_without_a_grade_is_not_taken_for_normal() -> None:
    """A compressed C3/4 without a grade has no slice: its disc is the site."""
    diameters = {0.0: 8.0, 32.0: 4.0, 48.0: 7.0}
    unknown = _compression(diameters, ["C2/3", "C3/4", "C4/5", "C5/6"], ["C2/3", "C5/6"])
    # From C3/4 at 16 mm: −14 to 6 mm above; with C3/4 normal it would be 2 to 22 mm, where nothing is.
    assert unknown["C4/5"] == CordCompression(pytest.approx(1 - 4.0 / 7.5), "above and below")
    known = _compression(diameters, ["C2/3", "C3/4", "C4/5", "C5/6"], ["C2/3", "C3/4", "C5/6"])
    assert known["C4/5"] == CordCompression(pytest.approx(1 - 4.0 / 7.0), "below")


def test_slices_with_a_warning_do_not_count() -> None:
    diameters = {12.0: 1.0, 16.0: 8.0, 32.0: 6.0, 48.0: 8.0}
    assert _compression(diameters, ["C4/5"], [], doubtful=[12.0])["C4/5"].mscc == pytest.approx(0.25)


def test_a_level_without_a_measurement_has_no_entry() -> None:
    found = _compression({16.0: 8.0, 48.0: 8.0}, ["C3/4", "C4/5", "C5/6"])
    assert set(found) == {"C3/4", "C5/6"}


def test_the_narrower_the_level_the_higher_the_value() -> None:
    values = [
        _compression({16.0: 8.0, 32.0: float(ap), 48.0: 7.0}, ["C4/5"], [])["C4/5"].mscc
        for ap in np.linspace(8.0, 1.5, 20)
    ]
    assert all(value is not None and math.isfinite(value) for value in values)
    assert values == sorted(values)  # type: ignore[type-var]
    assert values[0] == pytest.approx(1 - 8.0 / 7.5), "a cord that is deeper at the level is negative"


def test_without_slices_nothing_is_computed() -> None:
    assert _compression({}) == {}
