"""Peak memory of a process by batch, input size, number of studies and number of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from stenosis_trt.bench.record.record import Absence, Figure, Series
from stenosis_trt.bench.scaling.child import ChildRequest
from stenosis_trt.bench.scaling.children import ChildFailed, Children, child_request
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.engine.backends.cpu.candidates import Arithmetic
from stenosis_trt.engine.support.hardware import usable_cores

_BATCHES, _SIZES = (1, 16, 32), (128, 224, 456)
_MIB = 1 << 20


@dataclass(frozen=True)
class MemoryCurve:
    """Peak memory by point.

    Attributes:
        name: of the figures, such as "batch.levels".
        text: what was measured, to be followed by the point.
        peaks: bytes by point.
    """

    name: str
    text: str
    peaks: Mapping[int, int]

    def figures(self) -> Iterator[Figure]:
        """One figure for each point, in MiB."""
        for point, value in self.peaks.items():
            yield Figure(
                f"scaling.memory.{self.name}.{point}",
                f"peak memory, {self.text} {point}",
                value / _MIB,
                "MiB",
                "lower",
            )

    def series(self) -> Series:
        """The peaks over the points, in MiB."""
        return Series(self.text, tuple(self.peaks), tuple(value / _MIB for value in self.peaks.values()))


def memory_curves(context: BenchContext, grader: Arithmetic | None) -> Iterator[MemoryCurve | Absence]:
    """Measure every curve in processes of their own; what cannot be measured is absent.

    Args:
        context: of the run.
        grader: what computes the grader in the product; None on a GPU, where it has one size.
    """
    folders = tuple(map(str, context.studies))
    counts = sorted({1, min(4, len(folders)), len(folders)})
    batch, size = child_request(context, "batch"), child_request(context, "size")
    stream, scan = child_request(context, "stream"), child_request(context, "scan")
    plans: list[tuple[str, str, dict[int, ChildRequest]]] = [
        ("open", "models opened and nothing graded, processes", {1: child_request(context, "open")}),
        (
            "batch.levels",
            "levels on a batch of",
            {count: replace(batch, model="levels", count=count) for count in _BATCHES},
        ),
        (
            "studies",
            "studies graded in a stream",
            {count: replace(stream, studies=folders[:count]) for count in counts},
        ),
        (
            "scan",
            "studies whose headers were scanned",
            {count: replace(scan, studies=folders[:count]) for count in counts},
        ),
    ]
    if grader is not None:
        fields = (grader.runtime, grader.precision, grader.floats)
        sizes = {edge: replace(size, count=edge, arithmetic=fields) for edge in _SIZES}
        plans.append(("size.grader", "grader alone on one input, edge in pixels", sizes))
    for name, text, requests in plans:
        yield _curve(name, text, requests)


def _curve(name: str, text: str, requests: Mapping[int, ChildRequest]) -> MemoryCurve | Absence:
    try:
        return MemoryCurve(name, text, _peaks(requests))
    except ChildFailed as error:
        return Absence(f"scaling.memory.{name}", error.reason)


def _peaks(requests: Mapping[int, ChildRequest]) -> dict[int, int]:
    found: dict[int, int] = {}
    points: Sequence[int] = tuple(requests)
    step = usable_cores()
    for first in range(0, len(points), step):
        group = points[first : first + step]
        with Children([requests[point] for point in group]) as children:
            results = children.work()
        found |= {point: result.peak_bytes for point, result in zip(group, results, strict=True)}
    return found
