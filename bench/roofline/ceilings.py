"""Ceilings of this processor, measured: multiply-adds a second by precision, and bandwidths.

Peaks come from matrix products and convolutions that ONNX Runtime and OpenVINO run; the fastest counts, by
wall time or by processor time.
Bandwidths come from STREAM's kernels Copy and Add (McCalpin, 1995), which NumPy runs in one pass where
Triad would take two, and from a maximum, which only reads. Bytes are counted as STREAM does: each element
read once and written once.
"""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.roofline.probes import Probe, probes
from stenosis_trt.engine.support.openvino_library import import_openvino

PRECISIONS = ("fp32", "bf16", "int8")

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_MEMORY_BYTES = 192 << 20
"""Bytes of the arrays that do not fit into a cache, of all threads together."""
_CACHE_SHARE = 0.5
"""Share of a cache that its arrays fill, so that they stay in it."""
_FEWEST, _MOST_ROUNDS = 2, 8
"""Rounds."""
_PASS_BYTES = 24 << 20
"""Bytes that a thread moves before it meets the others."""
_PROBE_SECONDS = 0.06
"""Least duration of one measurement."""


@dataclass(frozen=True)
class Rate:
    """A ceiling.

    Attributes:
        by: what reached it.
        rounds: best of each round, in multiply-adds or bytes a second.
    """

    by: str
    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The ceiling: the best of all rounds."""
        return max(self.rounds)


@dataclass(frozen=True)
class MemoryLevel:
    """A cache, or main memory.

    Attributes:
        name: "L2", "L3" or "memory".
        capacity: bytes of all usable cores' together; None for main memory.
        all_cores, one_core: bytes a second.
    """

    name: str
    capacity: int | None
    all_cores: Rate
    one_core: Rate


@dataclass(frozen=True)
class Ceilings:
    """Ceilings of the processor.

    Attributes:
        threads: that "all cores" means.
        peaks: multiply-adds a second of all cores, by precision; a precision that no runtime has is missing.
        one_core_peaks: of one core.
        memory: from the smallest cache to main memory.
    """

    threads: int
    peaks: Mapping[str, Rate]
    one_core_peaks: Mapping[str, Rate]
    memory: tuple[MemoryLevel, ...]

    def bandwidth(self, moved: float) -> float:
        """Bytes a second at which so many bytes can be moved: of the smallest level that holds them.

        A larger level is never taken for faster than a smaller one.
        """
        fitting = [
            number
            for number, item in enumerate(self.memory)
            if item.capacity is None or moved <= item.capacity
        ]
        return max(item.all_cores.best for item in self.memory[fitting[0] :])


def measure_ceilings(threads: int, seconds: float) -> Ceilings:
    """Measure the ceilings in rounds, each of which measures all of them once; there are at least two.

    Args:
        threads: of "all cores".
        seconds: no further round is started after this time; opening the probes takes some more.
    """
    start = time.monotonic()
    found = {precision: _calls(precision, threads) for precision in PRECISIONS}
    best: dict[str, dict[str, list[float]]] = {
        precision: {name: [] for name in calls} for precision, calls in found.items()
    }
    # Bandwidths and single cores take about as long as the peaks of all.
    rounds = 0
    while rounds < _FEWEST or (rounds < _MOST_ROUNDS and time.monotonic() - start < seconds / 2):
        rounds += 1
        for precision, calls in found.items():
            for name, (call, work) in calls.items():
                best[precision][name].append(_rate_of(call, work, threads))
    winners = {
        precision: max(rates, key=lambda name: max(rates[name])) for precision, rates in best.items() if rates
    }
    peaks = {
        precision: Rate(
            winners[precision],
            tuple(max(values[k] for values in best[precision].values()) for k in range(rounds)),
        )
        for precision in winners
    }
    single = {}
    for precision, winner in winners.items():
        call, work = _calls(precision, 1, winner)[winner]
        single[precision] = Rate(winner, tuple(_rate_of(call, work, 1) for _ in range(rounds)))
    for precision, alone in single.items():
        if alone.best > peaks[precision].best:
            # On a busy machine a thread may be faster alone than with others that wait for a core.
            peaks[precision] = alone
    return Ceilings(threads, peaks, single, measure_memory(threads, rounds))


def _rate_of(call: Callable[[], object], work: int, threads: int) -> float:
    """Work per second of the fastest of several calls, or by the processor time of all of them.

    On a quiet machine both are the same. On a busy one, processor time leaves out the waiting for a core.
    """
    best, calls = float("inf"), 0
    begin, computed = time.perf_counter(), time.process_time()
    # Once at least: a busy machine may take the core away for longer than the probe lasts.
    while calls == 0 or time.perf_counter() - begin < _PROBE_SECONDS:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        calls += 1
    computing = (time.process_time() - computed) / calls / threads
    return work / min(best, computing) if computing > 0.0 else work / best


def _shortest(call: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    best, begin = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - begin < _PROBE_SECONDS:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


_Call = tuple[Callable[[], object], int]


def _calls(precision: str, threads: int, only: str = "") -> dict[str, _Call]:
    """Everything that multiplies in a precision, or `only` one: a call and its multiply-adds, by name.

    Each has run once.
    """
    found: dict[str, _Call] = {}
    openers = {
        name: opened
        for name, opened, usable in (
            ("ONNX Runtime", _onnxruntime, precision != "bf16"),
            ("OpenVINO", _openvino, importlib.util.find_spec("openvino") is not None),
        )
        if usable
    }
    for probe in probes(int8=precision == "int8"):
        batch = np.random.default_rng(1).standard_normal(probe.shape).astype(np.float32)
        for runtime, opened in openers.items():
            name = f"{runtime}, {probe.name}"
            if only in ("", name):
                found[name] = (opened(probe, batch, threads, precision), probe.multiply_adds)
    return found


def _onnxruntime(
    probe: Probe, batch: npt.NDArray[np.float32], threads: int, precision: str
) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    # Threads that spin would count as computing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(probe.data, options, providers=["CPUExecutionProvider"])
    call = partial(session.run, None, {"x": batch})
    call()
    return call


def _openvino(
    probe: Probe, batch: npt.NDArray[np.float32], threads: int, precision: str
) -> Callable[[], object]:
    openvino = import_openvino()

    core = openvino.Core()
    hints: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
    }
    request = core.compile_model(core.read_model(probe.data), "CPU", hints).create_infer_request()
    call = partial(request.infer, [batch])
    call()
    return call


def cache_sizes(folder: Path = _CACHES) -> dict[str, int]:
    """Sizes in bytes of the data caches of the first core that are larger than L1, by name, ascending."""
    found: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            kind = (index / "type").read_text(encoding="ascii").strip()
            level = int((index / "level").read_text(encoding="ascii"))
            size = re.fullmatch(r"(\d+)([KM])\s*", (index / "size").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and level > 1 and size:
            found[f"L{level}"] = int(size[1]) << (10 if size[2] == "K" else 20)
    return dict(sorted(found.items()))


def measure_memory(
    threads: int, rounds: int, caches: Mapping[str, int] | None = None
) -> tuple[MemoryLevel, ...]:
    """Measure the bandwidth of each cache beyond L1 and of main memory.

    Args:
        threads: of "all cores".
        rounds: repetitions; the levels take turns.
        caches: see `cache_sizes`; None to read them. The largest is taken for shared by all cores, the
            others for each core's own.
    """
    sizes = cache_sizes() if caches is None else caches
    last = max(sizes, key=lambda name: sizes[name], default="")
    capacities: dict[str, int | None] = {
        name: size if name == last else size * threads for name, size in sizes.items()
    }
    capacities["memory"] = None
    rates: dict[tuple[str, int], list[tuple[float, str]]] = {}
    for _ in range(rounds):
        for name, capacity in capacities.items():
            for count in dict.fromkeys((threads, 1)):
                whole = _MEMORY_BYTES if capacity is None else int(capacity * _CACHE_SHARE)
                share = whole // threads if name != last else whole // count
                rates.setdefault((name, count), []).append(_bandwidth(share, count))
    return tuple(
        MemoryLevel(name, capacity, _rate(rates[name, threads]), _rate(rates[name, 1]))
        for name, capacity in capacities.items()
    )


def _rate(found: Sequence[tuple[float, str]]) -> Rate:
    return Rate(max(found)[1], tuple(value for value, _ in found))


def _bandwidth(bytes_a_thread: int, threads: int) -> tuple[float, str]:
    """Bytes a second of the fastest kernel, and its name, on arrays of so many bytes for each thread."""
    length = max(1024, bytes_a_thread // 12)
    sets = [tuple(np.full(length, value, np.float32) for value in (0.0, 1.0, 2.0)) for _ in range(threads)]
    kernels: dict[str, tuple[Callable[..., object], int]] = {
        "copy": (lambda a, b, c: np.copyto(a, b), 2),
        "add": (lambda a, b, c: np.add(b, c, out=a), 3),
        "read": (lambda a, b, c: b.max(), 1),
    }
    best = (0.0, "")
    with ThreadPoolExecutor(threads) as pool:
        for name, (kernel, words) in kernels.items():
            passes = max(1, _PASS_BYTES // (length * 4 * words))

            once = partial(_repeat, kernel, passes)
            seconds = _shortest(lambda once=once: list(pool.map(once, sets)))  # type: ignore[misc]
            best = max(best, (threads * passes * words * length * 4 / seconds, name))
    return best


def _repeat(kernel: Callable[..., object], passes: int, arrays: tuple[Any, ...]) -> None:
    for _ in range(passes):
        kernel(*arrays)
