"""Measurement of several points in turn, so that drift of the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stenosis_trt.bench.record.record import Chart, Figure, Series
from stenosis_trt.bench.statistics.medians import median_interval

LEAST_ROUNDS = 3

Point = int | str
"""What differs between the points of a curve: a number, or a name."""


@dataclass(frozen=True)
class Curve:
    """Measured times by point.

    Attributes:
        name: last part of the figures' names, such as "batch.levels".
        text: what was measured, to be followed by the point.
        legend: for charts.
        times: ms of each run by point, in order.
        note: of each figure.
    """

    name: str
    text: str
    legend: str
    times: Mapping[Point, tuple[float, ...]]
    note: str = ""

    def figures(self) -> Iterator[Figure]:
        """One figure for each point: the median and its interval, in ms."""
        for point, values in self.times.items():
            median, low, high = median_interval(values)
            yield Figure(
                f"scaling.{self.name}.{point}",
                f"{self.text} {point}",
                median,
                "ms",
                "lower",
                "measured",
                low,
                high,
                len(values),
                note=self.note,
            )

    def series(self, scale: Callable[[Point], float] | None = None) -> Series:
        """The medians as a line. `scale` gives what a point's times are divided by."""
        found = [median_interval(values) for values in self.times.values()]
        by = [1.0 if scale is None else scale(point) for point in self.times]
        return Series(
            self.legend,
            tuple(self.times),
            tuple(median / unit for (median, _, _), unit in zip(found, by, strict=True)),
            tuple(
                (median if low is None else low) / unit
                for (median, low, _), unit in zip(found, by, strict=True)
            ),
            tuple(
                (median if high is None else high) / unit
                for (median, _, high), unit in zip(found, by, strict=True)
            ),
        )


def measure_in_turn(
    timers: Mapping[Point, Callable[[], object]], seconds: float, most: int = 30, warm_up: int = 1
) -> dict[Point, tuple[float, ...]]:
    """Time each call once a round, in alternating order.

    Args:
        timers: calls by point.
        seconds: no round starts later, but there are at least three.
        most: largest number of rounds.
        warm_up: calls of each point that are discarded.

    Returns:
        Wall time of each round in ms, by point.
    """
    found: dict[Point, list[float]] = {point: [] for point in timers}
    for call in timers.values():
        for _ in range(warm_up):
            call()
    end = time.monotonic() + seconds
    points: Sequence[Point] = tuple(timers)
    for number in range(most):
        if number >= LEAST_ROUNDS and time.monotonic() >= end:
            break
        for point in points if number % 2 == 0 else points[::-1]:
            start = time.perf_counter()
            timers[point]()
            found[point].append((time.perf_counter() - start) * 1e3)
    return {point: tuple(values) for point, values in found.items()}


def line_chart(title: str, x_label: str, y_label: str, series: Sequence[Series], log: bool = False) -> Chart:
    """A chart of lines; `log` for logarithmic axes."""
    return Chart("lines", title, x_label, y_label, tuple(series), log_x=log, log_y=log)
