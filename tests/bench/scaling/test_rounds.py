"""Points that are measured in turn."""

from __future__ import annotations

import time

import pytest

from stenosis_trt.bench.scaling.rounds import LEAST_ROUNDS, Curve, measure_in_turn


def test_points_take_turns_in_alternating_order() -> None:
    called: list[str] = []
    times = measure_in_turn({name: lambda name=name: called.append(name) for name in "abc"}, 0.0)  # type: ignore[misc]
    assert called == [*"abc", *"abc", *"cba", *"abc"]
    assert {len(values) for values in times.values()} == {LEAST_ROUNDS}


def test_rounds_end_with_the_time_or_with_their_number() -> None:
    start = time.monotonic()
    times = measure_in_turn({1: lambda: time.sleep(0.01)}, 0.2, most=1000)
    assert 0.15 < time.monotonic() - start < 5.0
    assert LEAST_ROUNDS <= len(times[1]) < 1000
    assert all(value >= 10.0 for value in times[1])
    assert len(measure_in_turn({1: lambda: None}, 10.0, most=5)[1]) == 5


def test_a_curve_has_a_figure_and_a_point_of_its_line_for_each_point() -> None:
    curve = Curve("batch.levels", "levels on a batch of", "levels", {1: (2.0, 3.0, 10.0), 4: (8.0, 8.0, 8.0)})
    one, four = curve.figures()
    assert (one.name, one.value, one.unit, one.runs) == ("scaling.batch.levels.1", 3.0, "ms", 3)
    assert one.low is not None
    assert one.high is not None
    assert one.low <= 3.0 <= one.high
    assert (four.low, four.high) == (8.0, 8.0)
    series = curve.series(scale=float)
    assert (series.x, series.y) == ((1, 4), (3.0, 2.0))
    assert series.high[1] == pytest.approx(2.0)


def test_two_repetitions_have_no_interval() -> None:
    (figure,) = Curve("files", "files", "one", {41: (1.0, 3.0)}).figures()
    assert (figure.value, figure.low, figure.high) == (2.0, None, None)
