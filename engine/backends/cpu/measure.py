"""Times of the ways to run a model on this machine's CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import (
    BFLOAT16,
    FLOAT32,
    ONNX_RUNTIME,
    OPENVINO,
    Arithmetic,
    Execution,
    ModelChoice,
    default_choice,
)
from stenosis_trt.engine.backends.cpu.table import Timing
from stenosis_trt.engine.backends.model_checks import noise_batch
from stenosis_trt.engine.packs.pack import Pack

ROUNDS = 5
_PARTS = (4, 8, 16, 32)
"""Largest numbers of inputs of a call: few large ones are fastest in bfloat16."""

MINIMUM_GAIN = 0.05
"""Share of its time by which another arithmetic must be faster than FP32 by ONNX Runtime to be taken."""

_FP32 = Arithmetic()


def arithmetics(pack: Pack, model: str, openvino: bool, bfloat16: bool) -> list[Arithmetic]:
    """Return what can compute a model here: FP32 by ONNX Runtime first.

    Args:
        pack: the FP32 pack.
        model: name of the model.
        openvino: OpenVINO is installed.
        bfloat16: the processor has instructions for bfloat16.
    """
    variant = pack.models[model].variants.get("int8")
    files = ("fp32", "int8") if variant is not None and variant.passed else ("fp32",)
    floats = (FLOAT32, *((BFLOAT16,) if bfloat16 else ()))
    return [
        *(Arithmetic(ONNX_RUNTIME, file) for file in files),
        *(Arithmetic(OPENVINO, file, kind) for file in files for kind in floats if openvino),
    ]


def executions(threads: int) -> list[Execution]:
    """Return the ways to spread a batch over some cores."""
    streams = {threads, 1, *((threads // 2, 2) if threads >= 4 else ())}
    return [
        Execution(count, threads // count, part)
        for count in sorted(streams, reverse=True)
        for part in _PARTS
        # A single stream runs one part after another: smaller ones only begin earlier.
        if count > 1 or part == max(_PARTS)
    ]


def measure_model(
    pack: Pack,
    model: str,
    batch: int,
    ways: Sequence[Arithmetic],
    threads: int,
    progress: Callable[[], None] = lambda: None,
) -> tuple[Timing, ...]:
    """Measure a model at a batch and at one input.

    Args:
        pack: the FP32 pack.
        model: name of the model.
        batch: number of inputs of a study.
        ways: what computes it.
        threads: cores to use.
        progress: called after each way was measured.

    Raises:
        PackError: a runtime cannot run the model.
    """
    found: list[Timing] = []
    alone = Execution(1, threads, 1)
    default = default_choice("fp32", threads)
    with closing(_backend(pack, model, default)) as reference:
        for arithmetic in ways:
            for execution in (alone, *executions(threads)):
                count = 1 if execution is alone else batch
                choice = ModelChoice(arithmetic, execution, execution)
                with closing(_backend(pack, model, choice)) as candidate:
                    milliseconds, relative = _compare(candidate, reference, model, count)
                found.append(Timing(arithmetic, execution, count, milliseconds, relative))
                progress()
    return tuple(found)


def steps(ways: Mapping[str, Sequence[Arithmetic]], threads: int) -> int:
    """How often `measure_model` calls `progress` for all models together."""
    return sum(len(items) for items in ways.values()) * (1 + len(executions(threads)))


def fastest(timings: Sequence[Timing], ways: Sequence[Arithmetic]) -> ModelChoice:
    """Return the fastest of some ways at a study's batch, with its fastest execution for one input.

    FP32 by ONNX Runtime stays where the others gain less than `MINIMUM_GAIN`.
    """
    best = min(_of(timings, ways), key=lambda item: item.relative)
    if _FP32 in ways:
        usual = min(_of(timings, [_FP32]), key=lambda item: item.relative)
        if best.relative > usual.relative * (1.0 - MINIMUM_GAIN):
            best = usual
    single = min(
        (item for item in timings if item.batch == 1 and item.arithmetic == best.arithmetic),
        key=lambda item: item.relative,
    )
    return ModelChoice(best.arithmetic, single.execution, best.execution)


def relative_time(timings: Sequence[Timing], choice: ModelChoice) -> float:
    """Return the time of a choice at a study's batch, relative to the default."""
    return min(
        item.relative for item in _of(timings, [choice.arithmetic]) if item.execution == choice.several
    )


def _of(timings: Sequence[Timing], ways: Sequence[Arithmetic]) -> Iterator[Timing]:
    """The timings of some ways at the batch of a study."""
    batch = max(item.batch for item in timings)
    return (item for item in timings if item.batch == batch and item.arithmetic in ways)


def _backend(pack: Pack, model: str, choice: ModelChoice) -> CpuBackend:
    ready = pack.in_precisions({model: choice.arithmetic.precision})
    return CpuBackend(replace(ready, models={model: ready.models[model]}), choices={model: choice})


def _compare(candidate: CpuBackend, reference: CpuBackend, model: str, count: int) -> tuple[float, float]:
    """Return the median time of the candidate in ms, and its median ratio to the reference."""
    batch = _inputs(candidate.pack, model, count)
    pairs = [
        [_seconds(backend, model, batch) for backend in (candidate, reference)] for _ in range(ROUNDS + 1)
    ]
    # The first round allocates memory and compiles for the shape.
    del pairs[0]
    return (
        round(1e3 * statistics.median(mine for mine, _ in pairs), 3),
        round(statistics.median(mine / other for mine, other in pairs), 4),
    )


def _inputs(pack: Pack, model: str, count: int) -> Float32Array:
    noise = noise_batch(pack.models[model])
    return np.ascontiguousarray(np.resize(noise, (count, *noise.shape[1:])))


def _seconds(backend: CpuBackend, model: str, batch: Float32Array) -> float:
    start = time.perf_counter()
    backend.infer(model, batch)
    return time.perf_counter() - start
