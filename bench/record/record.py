"""Record of a benchmark run: the machine, and one section for each part that was measured.

A section holds figures, what was absent, and charts as numbers. Tables, pages and comparisons of runs are
made from the record alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["lower", "higher", "neither"]
"""Which values of a figure are better."""

Source = Literal["measured", "computed"]

ChartKind = Literal["cdf", "lines", "bars", "roofline", "waterfall"]


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes:
        name: dotted name, unique within the record and the same in every run, such as
            "load.single_stream.whole.p90".
        text: what was measured, in words.
        value: the number.
        unit: "ms", "studies/s", "J", "W", "MB", ...; "" for a ratio or a count.
        better: which values are better.
        source: whether the number was measured in this run, or computed.
        low, high: 95 % interval of the value from the repetitions of this run; None without repetitions.
        runs: number of repetitions behind the value.
        target: the value that the project aims at; None without one.
        note: what the reader has to know; "" if nothing.
    """

    name: str
    text: str
    value: float
    unit: str
    better: Direction = "neither"
    source: Source = "measured"
    low: float | None = None
    high: float | None = None
    runs: int = 1
    target: float | None = None
    note: str = ""

    @property
    def target_met(self) -> bool | None:
        """Whether the value reaches the target; None without a target."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target


@dataclass(frozen=True)
class Absence:
    """Something that was not measured, such as a peer that is not installed; `reason` is one sentence."""

    name: str
    reason: str


@dataclass(frozen=True)
class Series:
    """One line, or one set of bars, of a chart.

    Attributes:
        name: for the legend.
        x: numbers, or names of categories.
        y: one number for each x.
        low, high: interval of each y; empty if there is none.
        labels: text of each point; empty if there is none.
    """

    name: str
    x: tuple[float | str, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A chart as numbers.

    Attributes:
        kind: "cdf": y is the share of runs at most x. "lines": y over x. "bars": one group of bars for each
            x. "roofline": points of operations per second (y) over operations per byte (x); series whose name
            starts with "ceiling" are drawn as lines. "waterfall": one bar for each x that starts where the
            one before ended.
        title, x_label, y_label: texts, with units.
        series: the data.
        log_x, log_y: logarithmic axes.
        note: text below the chart.
    """

    kind: ChartKind
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One part of a benchmark run.

    Attributes:
        name: "load", "peers", "energy", "roofline" or "scaling".
        title: heading.
        figures: in the order of the table.
        absences: what was not measured, with the reason.
        notes: sentences for the reader.
        charts: for the page.
        details: everything else that is needed to repeat the section or to understand it; JSON values.
        valid: verdict on the rules of the section, as LoadGen's on its scenarios; None without rules.
        seconds: duration.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    absences: tuple[Absence, ...] = ()
    notes: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    valid: bool | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class BenchRecord:
    """A benchmark run.

    Attributes:
        command: the command line.
        started: date and time with its offset from UTC, ISO 8601.
        machine: processor, cores, memory, GPU, operating system, power mode, clocks.
        versions: of every package that the figures depend on.
        product: pack with its hash, device, backend of each model, precision, threads.
        studies: number of studies, where they come from, the seed of phantoms, their files and bytes.
        settings: how the run was made: sections, their seconds, quick or official.
        busy: what else ran: load before and during the run, and one sentence if it disturbed the figures.
        sections: in the order in which they ran.
        failures: sections that could not be measured.
    """

    command: str
    started: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    product: Mapping[str, Any]
    studies: Mapping[str, Any]
    busy: Mapping[str, Any]
    sections: tuple[Section, ...]
    failures: tuple[Absence, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def figures(self) -> dict[str, Figure]:
        """Return all figures by name."""
        return {figure.name: figure for section in self.sections for figure in section.figures}
