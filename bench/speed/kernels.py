"""Kernel benchmark: bandwidth of the device kernels, compared with a copy and with other libraries.

Times are medians over many runs, taken with CUDA events. Buffers rotate, so that the input of the large batch
is never in the cache. The NumPy reference does the same work on the CPU, timed by the wall clock.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.bench.speed import kernel_peers
from stenosis_trt.bench.speed.kernel_workloads import (
    InputBatch,
    KernelWorkload,
    contrast_workload,
    decode_workloads,
    large_batch,
    preprocess_workload,
    study_input_batches,
    study_pixels,
)
from stenosis_trt.engine.cuda.device import Device, Event, Stream
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.cuda.graph import Graph
from stenosis_trt.engine.cuda.memory import DeviceBuffer
from stenosis_trt.engine.cuda.module import Module
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.hardware import processor_name, usable_cores
from stenosis_trt.kernels.binaries import load_kernel_image
from stenosis_trt.kernels.reference import RegionSource, preprocess_region, region_window
from stenosis_trt.kernels.table import KERNELS

_ROTATED_BYTES = 256 << 20
"""Total size of the rotating buffers, at least two sets: more than a GPU's cache."""
_MAX_COPIES = 8
_WARM_UP, _RUNS = 20, 200
_COPY_BYTES = 1 << 30
_CPU_RUNS = 5


@dataclass(frozen=True)
class KernelTiming:
    """One line of the results. Times in microseconds; `share_of_copy` is relative to the copy bandwidth."""

    name: str
    by: str
    median_us: float
    p99_us: float
    megabytes: float | None = None
    gigabytes_a_second: float | None = None
    share_of_copy: float | None = None


def _figure(
    name: str, by: str, times_ms: Sequence[float], moved: int | None, copy: float | None
) -> KernelTiming:
    median = statistics.median(times_ms) * 1e3
    rate = None if moved is None else moved / median / 1e3
    return KernelTiming(
        name=name,
        by=by,
        median_us=round(median, 2),
        p99_us=round(float(np.percentile(times_ms, 99)) * 1e3, 2),
        megabytes=None if moved is None else round(moved / 1e6, 2),
        gigabytes_a_second=None if rate is None else round(rate, 1),
        share_of_copy=None if rate is None or copy is None else round(rate / copy, 3),
    )


class _Gpu:
    """One device with the kernels loaded."""

    def __init__(self, device: Device, stack: ExitStack) -> None:
        self.device, self._stack = device, stack
        self.image = load_kernel_image(device.compute_capability, device.driver_version)
        self.stream = stack.enter_context(Stream(device))
        self.module = stack.enter_context(Module(device, self.image.data))
        self._begin, self._end = (stack.enter_context(Event(device)) for _ in range(2))

    def copy_bandwidth(self) -> float:
        """GB/s of a copy within device memory, counting bytes read and bytes written."""
        source, target = (self._stack.enter_context(DeviceBuffer(self.device, _COPY_BYTES)) for _ in range(2))

        def copy() -> None:
            self.device.pycuda.memcpy_dtod_async(
                target.address, source.address, _COPY_BYTES, self.stream.native
            )

        times = self.times_ms([copy], runs=20)
        source.close()
        target.close()
        return 2 * _COPY_BYTES / statistics.median(times) / 1e6

    def times_ms(self, variants: Sequence[Callable[[], None]], runs: int = _RUNS) -> list[float]:
        """Milliseconds of each run; the variants take turns."""
        times = []
        for run in range(_WARM_UP + runs):
            enqueue = variants[run % len(variants)]
            self._begin.record(self.stream)
            enqueue()
            self._end.record(self.stream)
            self._end.synchronize()
            if run >= _WARM_UP:
                times.append(self._end.elapsed_ms(self._begin))
        return times

    def graphs(self, works: Sequence[KernelWorkload], only: str = "") -> list[Callable[[], None]]:
        """Graphs of the same work on several sets of buffers; `only` is a prefix of the kernels to launch."""
        taken = sum(array.nbytes for work in works for array in work.arrays.values())
        copies = int(np.clip(_ROTATED_BYTES // taken + 1, 2, _MAX_COPIES))
        variants: list[Callable[[], None]] = []
        for _ in range(copies):
            buffers = [self._upload(work) for work in works]
            pairs = list(zip(works, buffers, strict=True))
            # One full run, so that kernels that are timed alone find valid windows.
            self._enqueue(pairs, "")
            self.stream.synchronize()
            graph = self._stack.enter_context(Graph(self.stream, partial(self._enqueue, pairs, only)))
            variants.append(partial(graph.launch, self.stream))
        return variants

    def _upload(self, work: KernelWorkload) -> dict[str, DeviceBuffer]:
        buffers = {}
        for name, array in work.arrays.items():
            buffers[name] = self._stack.enter_context(DeviceBuffer(self.device, array.nbytes))
            buffers[name].copy_from(np.ascontiguousarray(array), self.stream)
        return buffers

    def _enqueue(self, pairs: Sequence[tuple[KernelWorkload, dict[str, DeviceBuffer]]], only: str) -> None:
        for work, buffers in pairs:
            for launch in work.launches:
                if not launch.kernel.startswith(only):
                    continue
                arguments = tuple(
                    buffers[item] if isinstance(item, str) else parameter.dtype.type(item)
                    for item, parameter in zip(
                        launch.arguments, KERNELS[launch.kernel].parameters, strict=True
                    )
                )
                self.module.launch(
                    launch.kernel, launch.grids.grid, launch.grids.block, arguments, self.stream
                )


def _on_gpu(
    device: Device, batches: Sequence[InputBatch], rng: np.random.Generator, peers: bool
) -> tuple[dict[str, Any], list[KernelTiming]]:
    figures: list[KernelTiming] = []
    with device.current():
        with ExitStack() as stack:
            gpu = _Gpu(device, stack)
            copy = gpu.copy_bandwidth()
            for dtype in (np.float16, np.float32):
                suffix = np.dtype(dtype).name
                work = large_batch(rng, dtype)
                times = gpu.times_ms(gpu.graphs([work], "preprocess"))
                figures.append(
                    _figure(f"preprocess, {work.name}, {suffix}", "kernel", times, work.moved_bytes, copy)
                )
            read = work.arrays["arena"].nbytes
            times = gpu.times_ms(gpu.graphs([work], "order_statistics"))
            figures.append(_figure(f"order_statistics, {work.name}", "kernels", times, read, copy))
            pixels = study_pixels(rng)
            inputs = [preprocess_workload(batch, pixels, np.float16) for batch in batches]
            moved = sum(work.moved_bytes for work in inputs)
            times = gpu.times_ms(gpu.graphs(inputs))
            figures.append(_figure("one study, all preprocessing, float16", "graph", times, moved, copy))
            work = contrast_workload(rng, batches[1].spec, np.float16)
            times = gpu.times_ms(gpu.graphs([work]))
            figures.append(_figure("one study, contrast, float16", "graph", times, work.moved_bytes, copy))
            works = decode_workloads(rng, np.float32)
            moved = sum(work.moved_bytes for work in works)
            times = gpu.times_ms(gpu.graphs(works))
            figures.append(_figure("one study, decode and geometry", "graph", times, moved, copy))
            machine = {
                "gpu": device.name,
                "compute_capability": ".".join(map(str, device.compute_capability)),
                "driver_cuda": device.driver_version,
                "multiprocessors": device.multiprocessors,
                "copy_gigabytes_a_second": round(copy, 1),
                "kernels": gpu.image.origin,
            }
        if peers:
            for name, milliseconds in kernel_peers.measure(_WARM_UP, _RUNS):
                figures.append(
                    _figure("preprocess, 64 slices of 512² to 456², float16", name, milliseconds, None, None)
                )
    return machine, figures


def measure_copy_bandwidth(device: Device) -> float:
    """GB/s of a copy within device memory, counting bytes read and bytes written."""
    with device.current(), ExitStack() as stack:
        return _Gpu(device, stack).copy_bandwidth()


def _on_cpu(batches: Sequence[InputBatch], rng: np.random.Generator) -> KernelTiming:
    """Time the NumPy reference on one study: windows and inputs of all its regions."""
    pixels = study_pixels(rng)
    regions = [(batch, *pair) for batch in batches for pair in zip(batch.slices, batch.affines, strict=True)]

    def once() -> None:
        for batch, slices, affine in regions:
            _reference(batch, [_source(pixels, item) for item in slices], affine)

    times = []
    for _ in range(_CPU_RUNS + 1):
        start = time.perf_counter()
        once()
        times.append((time.perf_counter() - start) * 1e3)
    return _figure("one study, all preprocessing", "NumPy", times[1:], None, None)


def _source(pixels: np.ndarray, item: Any) -> RegionSource:
    rows, columns = item.shape
    return RegionSource(pixels[item.offset : item.offset + rows * columns].reshape(rows, columns))


def _reference(batch: InputBatch, sources: Sequence[RegionSource], affine: np.ndarray) -> None:
    spec = batch.spec
    window = region_window(sources, affine, spec.size, spec.window_percentiles)
    preprocess_region(sources, affine, spec.size, window, (spec.mean, spec.std))


def run_kernel_benchmark(out: Path, pack: Pack, peers: bool) -> tuple[list[KernelTiming], str]:
    """Run the benchmark and write kernels-NAME.json to `out`; NAME is that of the GPU, or "cpu".

    Args:
        out: output folder, created if missing.
        pack: defines the inputs of a study.
        peers: also time other installed libraries.

    Returns:
        The timings, and why the GPU was not measured ("" if it was).
    """
    rng = np.random.default_rng(0)
    batches = study_input_batches(pack)
    figures = [_on_cpu(batches, rng)]
    machine: dict[str, Any] = {"processor": processor_name(), "cores": usable_cores()}
    without = ""
    try:
        device = Device()
    except CudaError as error:
        without = str(error)
    else:
        with device:
            gpu, more = _on_gpu(device, batches, rng, peers)
        machine |= gpu
        figures += more
    out.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in str(machine.get("gpu", "cpu"))).lower()
    record = {
        "machine": machine,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, **kernel_peers.versions()},
        "figures": [asdict(figure) for figure in figures],
    }
    (out / f"kernels-{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return figures, without


def table_lines(figures: Sequence[KernelTiming]) -> list[str]:
    """Table of the timings."""
    rows = [f"{'':48} {'by':24} {'median':>11} {'99 %':>11} {'MB':>8} {'GB/s':>8} {'of copy':>8}"]
    for figure in figures:
        numbers = (figure.megabytes, figure.gigabytes_a_second, figure.share_of_copy)
        rest = " ".join(f"{'' if value is None else value:>8}" for value in numbers)
        rows.append(
            f"{figure.name:48} {figure.by:24} {figure.median_us:>8.1f} µs {figure.p99_us:>8.1f} µs {rest}"
        )
    return rows
