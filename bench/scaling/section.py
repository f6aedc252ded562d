"""Section "scaling" of a benchmark run: time and memory against what a site can choose or is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from stenosis_trt.bench.record.record import Absence, Chart, Figure, Section
from stenosis_trt.bench.scaling.children import ChildFailed
from stenosis_trt.bench.scaling.files import copy_curve, file_curve, syntax_curve, worker_curve
from stenosis_trt.bench.scaling.flight import flight_curves
from stenosis_trt.bench.scaling.memory import MemoryCurve, memory_curves
from stenosis_trt.bench.scaling.networks import SizeIsFixed, batch_curves, size_curve, thread_curve
from stenosis_trt.bench.scaling.rounds import Curve, line_chart
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import Arithmetic

_SHARES: Mapping[str, float] = {
    "batch": 0.12,
    "size": 0.06,
    "flight": 0.14,
    "threads": 0.06,
    "workers": 0.08,
    "files": 0.06,
    "copies": 0.03,
    "compression": 0.08,
}
"""Share of the section's time that each part is measured in; starting processes takes the rest."""


class _Parts:
    """What has been measured so far."""

    def __init__(self, context: BenchContext) -> None:
        self._context = context
        self.figures: list[Figure] = []
        self.absences: list[Absence] = []
        self.charts: list[Chart] = []
        self.details: dict[str, object] = {}
        self.end = time.monotonic() + context.seconds

    def add(self, *curves: Curve) -> None:
        for curve in curves:
            self.figures += curve.figures()
            self.details[curve.name] = {str(point): list(values) for point, values in curve.times.items()}

    def fits(self, name: str) -> bool:
        """Return whether time is left for a part; if not, it is listed as absent."""
        if time.monotonic() + self._context.seconds * _SHARES.get(name, 0.05) / 2 < self.end:
            self._context.say(f"scaling: {name}")
            return True
        self.absences.append(Absence(f"scaling.{name}", "The time for this section was used up before it."))
        return False

    def seconds(self, name: str) -> float:
        return self._context.seconds * _SHARES[name]


def measure(context: BenchContext) -> Section:
    """Measure every curve; what does not fit into the time is listed as absent.

    Raises:
        StenosisError: the product cannot be opened, or a study cannot be read or graded.
    """
    start = time.perf_counter()
    parts = _Parts(context)
    with Product(context) as product:
        backend = product.grader.opened_backend
        grader = backend.choices["grader"].arithmetic if isinstance(backend, CpuBackend) else None
        _reading(context, parts)
        _networks(context, product, parts)
        if parts.fits("flight"):
            _flight(context, product, parts)
    if grader is None:
        parts.absences.append(Absence("scaling.threads", "The models run on a GPU."))
    elif parts.fits("threads"):
        curve = thread_curve(context, parts.seconds("threads"))
        parts.add(curve)
        parts.charts.append(line_chart("Threads", "threads", "ms a study", [curve.series()]))
    if parts.fits("memory"):
        _memory(context, parts, grader)
    return Section(
        "scaling",
        "Scaling: time and memory against batch, size, studies, processes and files",
        tuple(parts.figures),
        tuple(parts.absences),
        ("The points of a curve are measured in turn, so that other load affects all alike.",),
        tuple(parts.charts),
        parts.details,
        seconds=time.perf_counter() - start,
    )


def _flight(context: BenchContext, product: Product, parts: _Parts) -> None:
    try:
        here, apart = flight_curves(context, product, parts.seconds("flight"))
    except ChildFailed as error:
        parts.absences.append(Absence("scaling.flight", error.reason))
        return
    parts.add(here, apart)
    parts.charts += (
        Chart("bars", "Time a study by how a folder is graded", "", "ms a study", (here.series(),)),
        line_chart("Time a study by processes", "processes", "ms a study", [apart.series()]),
    )


def _networks(context: BenchContext, product: Product, parts: _Parts) -> None:
    if parts.fits("batch"):
        curves = tuple(batch_curves(context, product, parts.seconds("batch")))
        parts.add(*curves)
        series = [curve.series(scale=float) for curve in curves]
        parts.charts.append(
            line_chart("Time of an input by batch", "inputs in a batch", "ms an input", series, log=True)
        )
    backend = product.grader.opened_backend
    if not isinstance(backend, CpuBackend):
        parts.absences.append(Absence("scaling.size.grader", "A plan of TensorRT has one input size."))
    elif parts.fits("size"):
        try:
            curve = size_curve(backend, parts.seconds("size"))
        except SizeIsFixed as error:
            parts.absences.append(Absence("scaling.size.grader", str(error)))
        else:
            parts.add(curve)
            parts.charts.append(
                line_chart(
                    "Grader by input size", "edge of the input, pixels", "ms", [curve.series()], log=True
                )
            )


def _reading(context: BenchContext, parts: _Parts) -> None:
    plans: Iterator[tuple[str, str, str, Callable[[BenchContext, float], Curve]]] = iter(
        (
            ("workers", "Reading a study by reading processes", "reading processes", worker_curve),
            ("files", "Scan of headers by number of files", "files", file_curve),
            ("copies", "Scan of a study by copies of each file", "copies", copy_curve),
        )
    )
    for name, title, label, measured in plans:
        if parts.fits(name):
            curve = measured(context, parts.seconds(name))
            parts.add(curve)
            parts.charts.append(line_chart(title, label, "ms", [curve.series()]))
    if parts.fits("compression"):
        curve, sizes = syntax_curve(context, parts.seconds("compression"))
        parts.add(curve)
        parts.details["compression.bytes"] = sizes
        parts.charts.append(
            Chart(
                "bars",
                "Reading a study by transfer syntax",
                "transfer syntax",
                "ms",
                (curve.series(),),
                note=", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items()),
            )
        )


def _memory(context: BenchContext, parts: _Parts, grader: Arithmetic | None) -> None:
    for found in memory_curves(context, grader):
        if isinstance(found, MemoryCurve):
            parts.figures += found.figures()
            if len(found.peaks) > 1:
                title = f"Peak memory: {found.text}"
                parts.charts.append(line_chart(title, found.text, "MiB", [found.series()]))
        else:
            parts.absences.append(found)
