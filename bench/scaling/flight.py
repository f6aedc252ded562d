"""Scaling of studies in flight: one by one, read ahead, and in several processes."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from stenosis_trt.bench.scaling.child import ChildRequest
from stenosis_trt.bench.scaling.children import Children, child_request
from stenosis_trt.bench.scaling.rounds import LEAST_ROUNDS, Curve, Point
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.support.hardware import usable_cores

_STUDIES = 4
"""Studies of one measurement."""
_MOST_ROUNDS = 10


def flight_curves(context: BenchContext, product: Product, seconds: float) -> tuple[Curve, Curve]:
    """Time a study takes, files to results, by how the studies of a folder are graded.

    Returns:
        One study after the other and read ahead, in this process; and several processes, each with its
        share of the cores and reading ahead. Times are the wall time over the number of studies.
    """
    folders = [context.studies[k % len(context.studies)] for k in range(min(_STUDIES, len(context.studies)))]
    cores = usable_cores()
    processes = [1]
    while processes[-1] < cores:
        processes.append(min(2 * processes[-1], cores))
    here: dict[Point, list[float]] = {"one by one": [], "read ahead": []}
    apart: dict[Point, list[float]] = {count: [] for count in processes}
    with ExitStack() as stack:
        groups = {
            count: stack.enter_context(Children(_requests(context, folders, count))) for count in processes
        }
        for children in groups.values():
            children.work()
        _one_by_one(product, folders[:1])
        end = time.monotonic() + seconds
        for number in range(_MOST_ROUNDS):
            if number >= LEAST_ROUNDS and time.monotonic() >= end:
                break
            here["one by one"].append(_one_by_one(product, folders))
            here["read ahead"].append(_read_ahead(product, folders))
            for count, children in groups.items():
                slowest = max(result.seconds for result in children.work())
                apart[count].append(slowest / (count * len(folders)) * 1e3)
    return (
        Curve("flight", "a study, files to results,", "this process", _frozen(here)),
        Curve("processes", "a study, files to results, processes:", "processes", _frozen(apart)),
    )


def _frozen(times: dict[Point, list[float]]) -> dict[Point, tuple[float, ...]]:
    return {point: tuple(values) for point, values in times.items()}


def _one_by_one(product: Product, folders: list[Path]) -> float:
    start = time.perf_counter()
    for folder in folders:
        product.grader(folder)
    return (time.perf_counter() - start) / len(folders) * 1e3


def _read_ahead(product: Product, folders: list[Path]) -> float:
    start = time.perf_counter()
    count = sum(1 for _ in product.grader.stream(folders))
    return (time.perf_counter() - start) / count * 1e3


def _requests(context: BenchContext, folders: list[Path], count: int) -> list[ChildRequest]:
    """Processes that each grade all folders, with their share of the cores."""
    threads = max(1, (context.threads or usable_cores()) // count)
    request = child_request(replace(context, threads=threads), "stream")
    return [replace(request, studies=tuple(map(str, folders)))] * count
