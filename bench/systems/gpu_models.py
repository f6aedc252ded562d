"""The networks of a pack alone on a GPU: the plans of the product, without preprocessing and decoding.

The inputs of a study are copied to the device once. Each batch is captured into a CUDA graph on its first
run, as the product does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from stenosis_trt.bench.systems.inputs import StudyInputs
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.backends.gpu.options import ChosenPlans
from stenosis_trt.engine.cuda.device import Device, Stream
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.cuda.graph import Graph
from stenosis_trt.engine.cuda.memory import DeviceBuffer
from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.store import read_plan
from stenosis_trt.engine.support.closeable import Closeable
from stenosis_trt.engine.trt.api import TensorRT
from stenosis_trt.engine.trt.engine import LoadedPlan
from stenosis_trt.engine.trt.flavours import FLAVOURS


@dataclass(frozen=True)
class _Batch:
    """One batch of a plan, with its inputs and outputs on the device; `graph` is None if refused."""

    plan: LoadedPlan
    size: int
    count: int
    inputs: DeviceBuffer
    outputs: DeviceBuffer
    graph: Graph | None


class GpuModels(Closeable):
    """Runs the plans of a pack on inputs in device memory. Use it as a context manager.

    Args:
        device: the device of the product; it must stay open.
        pack: the pack in the precision of the plans.
        chosen: the plan of each model.

    Raises:
        TensorRTError, CudaError: a plan cannot be loaded, or memory is short.
    """

    def __init__(self, device: Device, pack: Pack, chosen: ChosenPlans) -> None:
        self._device = device
        self._prepared: dict[StudyInputs, tuple[tuple[str, _Batch], ...]] = {}
        with ExitStack() as stack:
            self._stream = stack.enter_context(Stream(device))
            stack.enter_context(device.current())
            tensorrt = TensorRT(FLAVOURS[chosen.target.flavour])
            self._plans = {
                name: stack.enter_context(
                    LoadedPlan(
                        tensorrt, read_plan(pack, plan), plan.sidecar.batches, plan.sidecar.version_compatible
                    )
                )
                for name, plan in chosen.plans.items()
            }
            scratch = max(1, *(plan.scratch_bytes for plan in self._plans.values()))
            self._scratch = stack.enter_context(DeviceBuffer(device, scratch))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Free plans, inputs and graphs. Further calls do nothing."""
        self._prepared.clear()
        with self._device.current():
            self._stack.close()

    def run(self, inputs: StudyInputs) -> None:
        """Run each network on the inputs of a study, and wait. The first call copies them to the device."""
        with self._device.current():
            for _, batch in self._batches(inputs):
                if batch.graph is not None:
                    batch.graph.launch(self._stream)
                else:
                    self._prepare(batch.plan, batch.size, batch.inputs, batch.outputs)
                    batch.plan.enqueue(batch.size, self._stream)
            self._stream.synchronize()

    def outputs(self, inputs: StudyInputs) -> dict[str, Float32Array]:
        """Return the outputs of the last run on these inputs, float32, by model."""
        found: dict[str, list[Float32Array]] = {}
        with self._device.current():
            for name, batch in self._batches(inputs):
                values = np.empty((batch.size, *batch.plan.output_shape), batch.plan.output_dtype)
                batch.outputs.copy_to(values, self._stream)
                self._stream.synchronize()
                found.setdefault(name, []).append(values[: batch.count].astype(np.float32))
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def _batches(self, inputs: StudyInputs) -> tuple[tuple[str, _Batch], ...]:
        if inputs not in self._prepared:
            self._prepared[inputs] = tuple(
                (name, self._placed(self._plans[name], part))
                for name, values in inputs.batches.items()
                for part in _parts(values, self._plans[name].batches[-1])
            )
        return self._prepared[inputs]

    def _placed(self, plan: LoadedPlan, part: Float32Array) -> _Batch:
        """Copy a batch to the device, run it once, and capture it."""
        size = next(batch for batch in plan.batches if batch >= len(part))
        values = np.zeros((size, *plan.input_shape), plan.input_dtype)
        values[: len(part)] = part
        given = self._buffer(values.nbytes)
        answers = self._buffer(size * math.prod(plan.output_shape) * plan.output_dtype.itemsize)
        given.copy_from(values, self._stream)
        self._prepare(plan, size, given, answers)
        plan.enqueue(size, self._stream)
        self._stream.synchronize()
        graph = None
        try:
            graph = Graph(self._stream, lambda: plan.enqueue(size, self._stream))
            self._stack.push(graph)
        except (CudaError, TensorRTError) as error:
            # The product launches such batches one by one too.
            if isinstance(error, CudaError) and error.device_lost:
                raise
        return _Batch(plan, size, len(part), given, answers, graph)

    def _prepare(self, plan: LoadedPlan, size: int, given: DeviceBuffer, answers: DeviceBuffer) -> None:
        plan.prepare(size, given.address, answers.address, self._scratch.address, self._stream)

    def _buffer(self, nbytes: int) -> DeviceBuffer:
        buffer = DeviceBuffer(self._device, nbytes)
        self._stack.push(buffer)
        return buffer


def _parts(values: Float32Array, largest: int) -> Iterator[Float32Array]:
    for first in range(0, len(values), largest):
        yield values[first : first + largest]
