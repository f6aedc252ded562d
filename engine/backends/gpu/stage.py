"""One network on the device, from pixels to a handful of numbers, in one go.

    descriptors up ─▶ windows ─▶ preprocess ─▶ TensorRT ─▶ decode, measure ─▶ numbers down

For each batch that the plan was built for, this is captured into a CUDA graph after its first run, and one
call launches it from then on. Nothing is allocated once a batch has run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.backends.gpu.block import MirroredArrays
from stenosis_trt.engine.backends.gpu.inputs import DescribedInputs, planes_per_input
from stenosis_trt.engine.backends.gpu.memory import MemoryBudget
from stenosis_trt.engine.cuda.device import Device, Event, Stream
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.cuda.graph import Graph
from stenosis_trt.engine.cuda.memory import DeviceBuffer
from stenosis_trt.engine.cuda.module import KernelArgument, Module
from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.trt.engine import LoadedPlan
from stenosis_trt.kernels.launches import (
    LaunchConfig,
    contrast_launch,
    cord_launch,
    decode_launch,
    preprocess_launch,
    statistics_launch,
)
from stenosis_trt.kernels.layouts import (
    CORD,
    FRAME,
    KEYPOINT,
    PLANE,
    RANK_REQUEST,
    REGION,
    SELECTION,
    WINDOW,
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StageResources:
    """What the stages of a backend share. All of them run on one stream, one after the other.

    Attributes:
        device, module, stream: with the kernels, and where they run.
        scratch: memory that TensorRT works in.
        budget: of the device's memory.
        graphs: whether launches are captured.
        refused: called with the reason when the driver refuses to capture.
    """

    device: Device
    module: Module
    stream: Stream
    scratch: DeviceBuffer
    budget: MemoryBudget
    graphs: bool
    refused: Callable[[str], None]


@dataclass(frozen=True)
class _GraphKey:
    """What a launch depends on, beside what is in memory: each has a graph of its own."""

    batch: int
    kernel: str
    windows_given: bool
    pixels: int


class PendingBatch:
    """What a stage was asked for. Its arrays are copies, and hold only what was asked for."""

    def __init__(self, done: Event, results: Mapping[str, Array], count: int) -> None:
        self._done, self._results, self._count = done, results, count
        self._copied: dict[str, Array] | None = None

    def result(self) -> dict[str, Array]:
        """Wait for it: "points" (KEYPOINT, (N, K)) with "support" (float32, (N, K, K)) or "cords" (CORD), or
        "probabilities" and "contrast".

        Raises:
            CudaError: something went wrong on the device.
        """
        if self._copied is None:
            with self._done.device.current():
                self._done.synchronize()
            self._copied = {name: values[: self._count].copy() for name, values in self._results.items()}
        return self._copied


class ModelStage:
    """See the module. One thread at a time; it is asked again only after the last answer was waited for,
    which it does itself where nobody has.

    Attributes:
        model: what it runs.
        batches: that it can run, rising.
        statistics_blocks: of the statistics' grid, the same for every study.
    """

    def __init__(
        self,
        place: StageResources,
        model: ModelSpec,
        plan: LoadedPlan,
        statistics_blocks: int,
        measures_cords: bool,
    ) -> None:
        """Take what the largest batch needs.

        Args:
            place: where it runs.
            model: what a pack says of the network.
            plan: the network.
            statistics_blocks: see `describe_inputs`.
            measures_cords: whether its four points are a cord's, to be measured.

        Raises:
            CudaError: there is not as much memory.
        """
        self.model, self.batches, self.statistics_blocks = model, plan.batches, statistics_blocks
        self._place, self._plan, self._cords = place, plan, measures_cords
        spec, most = model.input, plan.batches[-1]
        self._planes = planes_per_input(spec)
        device, budget = place.device, place.budget
        told: dict[str, tuple[npt.DTypeLike, int]] = {
            "regions": (REGION, most * self._planes),
            "requests": (RANK_REQUEST, most),
            "planes": (PLANE, most * self._planes),
            "frames": (FRAME, most),
            "windows": (WINDOW, most * spec.channels),
            "stds": (np.float32, spec.channels),
        }
        self._descriptors = MirroredArrays(device, told)
        self._descriptors.host["stds"][:] = spec.std
        maps, outputs = model.output_shape[0], int(np.prod(plan.output_shape))
        heatmaps = model.output.kind == "heatmaps"
        found: dict[str, tuple[npt.DTypeLike, int]] = (
            {"points": (KEYPOINT, most * maps), **self._beside_points(most, maps)}
            if heatmaps
            else {"probabilities": (plan.output_dtype, most * outputs), "contrast": (np.float32, most)}
        )
        self._outputs = MirroredArrays(device, found)
        name = model.name
        budget.reserve(self._descriptors.nbytes + self._outputs.nbytes, f"descriptions and answers of {name}")
        inputs = most * int(np.prod(plan.input_shape)) * plan.input_dtype.itemsize
        self._input = budget.buffer(inputs, f"inputs of {name}")
        self._heatmaps: DeviceBuffer | None = None
        if heatmaps:
            size = most * outputs * plan.output_dtype.itemsize
            self._heatmaps = budget.buffer(size, f"heatmaps of {name}")
        self._selections = budget.buffer(most * SELECTION.itemsize, f"statistics of {name}")
        self._windows = budget.buffer(most * WINDOW.itemsize, f"windows of {name}")
        with device.current():
            self._selections.fill(0, place.stream)
        self._done = Event(device, timing=False)
        self._graphs: dict[_GraphKey, Graph | None] = {}
        self._open: PendingBatch | None = None
        self._last: _GraphKey | None = None

    def batch_for(self, count: int) -> int:
        """The smallest batch that holds `count` inputs, or else the largest."""
        return next((batch for batch in self.batches if batch >= count), self.batches[-1])

    def submit(self, inputs: DescribedInputs, batch: int, pixels: int, ready: Event | None) -> PendingBatch:
        """Give a batch to the device.

        Args:
            inputs: described for this batch.
            batch: one of `batches`.
            pixels: address that the places of the slices count from.
            ready: behind the copies of its pixels; None where they are there.

        Raises:
            TensorRTError, CudaError: it was refused.
        """
        if self._open is not None:
            # Its numbers would be written over.
            self._open.result()
        self._describe(inputs)
        way = _GraphKey(batch, inputs.kernel, inputs.windows is not None, pixels)
        stream = self._place.stream
        with self._place.device.current():
            try:
                if ready is not None:
                    stream.wait_for(ready)
                self._launch_way(way)
                self._done.record(stream)
            except BaseException:
                # What was given until then still reads pixels, and what is described here. The error that is
                # on its way is the one to be told.
                with suppress(CudaError):
                    stream.synchronize()
                raise
        self._last = way
        self._open = PendingBatch(self._done, self._results(), inputs.count)
        return self._open

    def replay_last(self) -> None:
        """Repeat what was asked last, for nothing but the work, and wait for it. Answers may be written over.

        Raises:
            CudaError: it was refused, or went wrong.
        """
        if self._last is not None:
            with self._place.device.current():
                self._launch_way(self._last)
                self._done.record(self._place.stream)
                self._done.synchronize()

    def invalidate_graphs(self) -> None:
        """Pixels are not any more where they were: nothing that was captured or asked is repeated."""
        self._last = None
        for graph in self._graphs.values():
            if graph is not None:
                graph.close()
        self._graphs.clear()

    @property
    def graph_count(self) -> int:
        """How many ways were captured."""
        return sum(graph is not None for graph in self._graphs.values())

    def close(self) -> None:
        """Give back what it took. The plan is not its own."""
        self._open = None
        self.invalidate_graphs()
        self._done.close()
        buffers = (self._input, self._heatmaps, self._selections, self._windows)
        for buffer in buffers:
            if buffer is not None:
                buffer.close()
        self._descriptors.close()
        self._outputs.close()

    def network_outputs(self, count: int) -> Array:
        """All that the network answered for the first `count` inputs of the last batch, (N, …), float32."""
        plan = self._plan
        values = np.empty((count, *plan.output_shape), plan.output_dtype)
        if self._heatmaps is None:
            values[:] = self._outputs.host["probabilities"].reshape(-1, *plan.output_shape)[:count]
            return values.astype(np.float32)
        with self._place.device.current():
            self._heatmaps.copy_to(values, self._place.stream)
            self._place.stream.synchronize()
        return values.astype(np.float32)

    def _launch_way(self, way: _GraphKey) -> None:
        """As it was captured; or as it is, and captured then."""
        graph = self._graphs.get(way)
        if graph is not None:
            graph.launch(self._place.stream)
            return
        output, scratch = self._output_address(), self._place.scratch.address
        self._plan.prepare(way.batch, self._input.address, output, scratch, self._place.stream)
        self._enqueue(way)
        if self._place.graphs and way not in self._graphs:
            self._graphs[way] = self._capture(way)

    def _beside_points(self, most: int, maps: int) -> dict[str, tuple[npt.DTypeLike, int]]:
        """What is found out about points: the cord that they are of, or what all maps say of them."""
        if self._cords:
            return {"cords": (CORD, most)}
        return {"support": (np.float32, most * maps * maps)}

    def _describe(self, inputs: DescribedInputs) -> None:
        told = self._descriptors.host
        for name in ("regions", "requests", "windows", "planes", "frames"):
            values = getattr(inputs, name)
            if values is not None:
                told[name][: len(values)] = values

    def _output_address(self) -> int:
        return self._heatmaps.address if self._heatmaps else self._outputs.address("probabilities")

    def _results(self) -> dict[str, Array]:
        found = self._outputs.host
        if self._heatmaps is None:
            return {
                "probabilities": found["probabilities"].reshape(-1, *self._plan.output_shape),
                "contrast": found["contrast"],
            }
        maps = self.model.output_shape[0]
        points = found["points"].reshape(-1, maps)
        if self._cords:
            return {"points": points, "cords": found["cords"]}
        return {"points": points, "support": found["support"].reshape(-1, maps, maps)}

    def _capture(self, way: _GraphKey) -> Graph | None:
        """A graph of what was just run as it is; None where the driver refuses."""
        try:
            return Graph(self._place.stream, lambda: self._enqueue(way))
        except (CudaError, TensorRTError) as error:
            if isinstance(error, CudaError) and error.device_lost:
                raise
            self._place.refused(error.reason)
            return None

    def _enqueue(self, way: _GraphKey) -> None:
        """All of a batch's work, in order."""
        stream, told, found = self._place.stream, self._descriptors, self._outputs
        told.upload(stream)
        windows = told.address("windows") if way.windows_given else self._windows.address
        if not way.windows_given:
            grids = statistics_launch(self.statistics_blocks, way.batch * self._planes)
            asked = (told.address("regions"), told.address("requests"))
            for name in ("order_statistics_upper", "order_statistics_lower"):
                self._launch(name, grids, way.pixels, *asked, self._selections, self._windows)
        height, width = self.model.input.size
        size = (np.int32(height), np.int32(width))
        grids = preprocess_launch(way.kernel, way.batch * self._planes, (height, width))
        suffix = _suffix(self._plan.input_dtype)
        planes = told.address("planes")
        self._launch(f"{way.kernel}_{suffix}", grids, way.pixels, planes, windows, self._input, *size)
        self._plan.enqueue(way.batch, stream)
        if self._heatmaps is None:
            channels = np.int32(self.model.input.channels), np.int32(height * width)
            contrast = found.address("contrast")
            kernel, grids = f"input_contrast_{suffix}", contrast_launch(way.batch)
            self._launch(kernel, grids, self._input, told.address("stds"), contrast, *channels)
        else:
            self._decode(way.batch, self._heatmaps)
        found.download(stream)

    def _decode(self, batch: int, heatmaps: DeviceBuffer) -> None:
        told, found = self._descriptors, self._outputs
        maps, height, width = self._plan.output_shape
        size = (np.int32(height), np.int32(width))
        suffix = _suffix(self._plan.output_dtype)
        frames, points = told.address("frames"), found.address("points")
        if self._cords:
            kernel, cords = f"cord_geometry_{suffix}", found.address("cords")
            self._launch(kernel, cord_launch(batch), heatmaps, frames, points, cords, *size)
        else:
            kernel, support = f"decode_keypoints_{suffix}", found.address("support")
            self._launch(kernel, decode_launch(batch, maps), heatmaps, frames, points, support, *size)

    def _launch(self, kernel: str, grids: LaunchConfig, *arguments: KernelArgument) -> None:
        self._place.module.launch(kernel, grids.grid, grids.block, arguments, self._place.stream)


def _suffix(dtype: np.dtype[Any]) -> str:
    return "f16" if dtype == np.float16 else "f32"
