"""One model on the device, from pixels to results.

    descriptors up ─▶ windows ─▶ preprocess ─▶ TensorRT ─▶ decode, measure ─▶ outputs down

The first run of each batch size is captured into a CUDA graph that later runs launch with one call. Nothing
is allocated after the first run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.backends.gpu.inputs import DescribedInputs, planes_per_input
from stenosis_trt.engine.backends.gpu.memory import MemoryBudget
from stenosis_trt.engine.backends.gpu.mirrored_arrays import MirroredArrays
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
    DIRECTION,
    FRAME,
    KEYPOINT,
    PLANE,
    RANK_REQUEST,
    REGION,
    SELECTION,
    WINDOW,
)
from stenosis_trt.kernels.table import PEAKS

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StageResources:
    """Resources that the stages of a backend share. All stages run on one stream.

    Attributes:
        device, module, stream: device, kernels and stream.
        scratch: scratch memory of TensorRT.
        budget: budget of device memory.
        graphs: True to capture launches.
        refused: called with the reason if the driver cannot capture.
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
    """Key of a captured CUDA graph: batch, kernel, source of the windows, base address of the pixels."""

    batch: int
    kernel: str
    windows_given: bool
    pixels: int


class PendingBatch:
    """Result of a submitted batch, without padding."""

    def __init__(self, done: Event, results: Mapping[str, Array], count: int) -> None:
        self._done, self._results, self._count = done, results, count
        self._copied: dict[str, Array] | None = None

    def result(self) -> dict[str, Array]:
        """Wait for the batch and return copies of its arrays.

        Returns:
            "points" (KEYPOINT, (N, K, PEAKS)) and "support" (float32, (N, K, K)); or "points" (KEYPOINT,
            (N, K)) and "cords" (CORD, (N,)); or "probabilities" and "contrast".

        Raises:
            CudaError: an error occurred on the device.
        """
        if self._copied is None:
            with self._done.device.current():
                self._done.synchronize()
            self._copied = {name: values[: self._count].copy() for name, values in self._results.items()}
        return self._copied


class ModelStage:
    """Runs one model. Use it from one thread at a time. A new batch waits for the previous one.

    Attributes:
        model: specification of the model.
        batches: batch sizes, ascending.
        statistics_blocks: blocks per region of the statistics, the same for every study.
    """

    def __init__(
        self,
        resources: StageResources,
        model: ModelSpec,
        plan: LoadedPlan,
        statistics_blocks: int,
        measures_cords: bool,
    ) -> None:
        """Allocate memory for the largest batch.

        Args:
            resources: shared resources.
            model: specification of the model.
            plan: plan of the model; closed by its owner.
            statistics_blocks: see `describe_inputs`.
            measures_cords: True if the keypoints are the four points of a cord, to be measured.

        Raises:
            CudaError: memory is short.
        """
        self.model, self.batches, self.statistics_blocks = model, plan.batches, statistics_blocks
        self._resources, self._plan, self._measures_cords = resources, plan, measures_cords
        spec, largest = model.input, plan.batches[-1]
        self._planes = planes_per_input(spec)
        device, budget = resources.device, resources.budget
        descriptors: dict[str, tuple[npt.DTypeLike, int]] = {
            "regions": (REGION, largest * self._planes),
            "requests": (RANK_REQUEST, largest),
            "planes": (PLANE, largest * self._planes),
            "frames": (FRAME, largest),
            "directions": (DIRECTION, largest),
            "windows": (WINDOW, largest * spec.channels),
            "stds": (np.float32, spec.channels),
        }
        self._descriptors = MirroredArrays(device, descriptors)
        self._descriptors.host["stds"][:] = spec.std
        maps, values = model.output_shape[0], int(np.prod(plan.output_shape))
        heatmaps = model.output.kind == "heatmaps"
        outputs: dict[str, tuple[npt.DTypeLike, int]] = (
            self._keypoint_outputs(largest, maps)
            if heatmaps
            else {"probabilities": (plan.output_dtype, largest * values), "contrast": (np.float32, largest)}
        )
        self._outputs = MirroredArrays(device, outputs)
        name = model.name
        budget.reserve(self._descriptors.nbytes + self._outputs.nbytes, f"descriptors and outputs of {name}")
        inputs = largest * int(np.prod(plan.input_shape)) * plan.input_dtype.itemsize
        self._input = budget.buffer(inputs, f"inputs of {name}")
        self._heatmaps: DeviceBuffer | None = None
        if heatmaps:
            size = largest * values * plan.output_dtype.itemsize
            self._heatmaps = budget.buffer(size, f"heatmaps of {name}")
        self._selections = budget.buffer(largest * SELECTION.itemsize, f"statistics of {name}")
        self._windows = budget.buffer(largest * WINDOW.itemsize, f"windows of {name}")
        with device.current():
            self._selections.fill(0, resources.stream)
        self._done = Event(device, timing=False)
        self._graphs: dict[_GraphKey, Graph | None] = {}
        self._open: PendingBatch | None = None
        self._last: _GraphKey | None = None

    def batch_for(self, count: int) -> int:
        """The smallest batch size for `count` inputs, or the largest one."""
        return next((batch for batch in self.batches if batch >= count), self.batches[-1])

    def submit(self, inputs: DescribedInputs, batch: int, pixels: int, ready: Event | None) -> PendingBatch:
        """Enqueue a batch.

        Args:
            inputs: descriptors padded to `batch`.
            batch: one of `batches`.
            pixels: device address that the layouts of the slices refer to.
            ready: event after the copies of the pixels; None if they are finished.

        Raises:
            TensorRTError, CudaError: a call failed.
        """
        if self._open is not None:
            # The outputs of the previous batch would be overwritten.
            self._open.result()
        self._describe(inputs)
        key = _GraphKey(batch, inputs.kernel, inputs.windows is not None, pixels)
        stream = self._resources.stream
        with self._resources.device.current():
            try:
                if ready is not None:
                    stream.wait_for(ready)
                self._launch_graph(key)
                self._done.record(stream)
            except BaseException:
                # Enqueued work still reads the pixels and descriptors. Do not mask the original error.
                with suppress(CudaError):
                    stream.synchronize()
                raise
        self._last = key
        self._open = PendingBatch(self._done, self._results(), inputs.count)
        return self._open

    def replay_last(self) -> None:
        """Re-run the last batch to keep clocks up, and wait for it. Its outputs may be overwritten.

        Raises:
            CudaError: a call failed.
        """
        if self._last is not None:
            with self._resources.device.current():
                self._launch_graph(self._last)
                self._done.record(self._resources.stream)
                self._done.synchronize()

    def invalidate_graphs(self) -> None:
        """Discard graphs and the last batch because the pixels have moved."""
        self._last = None
        for graph in self._graphs.values():
            if graph is not None:
                graph.close()
        self._graphs.clear()

    @property
    def graph_count(self) -> int:
        """Number of captured graphs."""
        return sum(graph is not None for graph in self._graphs.values())

    def close(self) -> None:
        """Free the memory and the graphs, but not the plan."""
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
        """Raw outputs of the model for the first `count` inputs of the last batch, float32 (count, …)."""
        plan = self._plan
        values = np.empty((count, *plan.output_shape), plan.output_dtype)
        if self._heatmaps is None:
            values[:] = self._outputs.host["probabilities"].reshape(-1, *plan.output_shape)[:count]
            return values.astype(np.float32)
        with self._resources.device.current():
            self._heatmaps.copy_to(values, self._resources.stream)
            self._resources.stream.synchronize()
        return values.astype(np.float32)

    def _launch_graph(self, key: _GraphKey) -> None:
        """Launch the graph of a batch; on the first run, launch without a graph and capture one."""
        graph = self._graphs.get(key)
        if graph is not None:
            graph.launch(self._resources.stream)
            return
        output, scratch = self._output_address(), self._resources.scratch.address
        self._plan.prepare(key.batch, self._input.address, output, scratch, self._resources.stream)
        self._enqueue(key)
        if self._resources.graphs and key not in self._graphs:
            self._graphs[key] = self._capture(key)

    def _keypoint_outputs(self, largest: int, maps: int) -> dict[str, tuple[npt.DTypeLike, int]]:
        """Keypoints and measured cords, or peaks and their support."""
        if self._measures_cords:
            return {"points": (KEYPOINT, largest * maps), "cords": (CORD, largest)}
        return {"points": (KEYPOINT, largest * maps * PEAKS), "support": (np.float32, largest * maps**2)}

    def _describe(self, inputs: DescribedInputs) -> None:
        descriptors = self._descriptors.host
        for name in ("regions", "requests", "windows", "planes", "frames", "directions"):
            values = getattr(inputs, name)
            if values is not None:
                descriptors[name][: len(values)] = values

    def _output_address(self) -> int:
        return self._heatmaps.address if self._heatmaps else self._outputs.address("probabilities")

    def _results(self) -> dict[str, Array]:
        outputs = self._outputs.host
        if self._heatmaps is None:
            return {
                "probabilities": outputs["probabilities"].reshape(-1, *self._plan.output_shape),
                "contrast": outputs["contrast"],
            }
        points, maps = outputs["points"], self.model.output_shape[0]
        if self._measures_cords:
            return {"points": points.reshape(-1, maps), "cords": outputs["cords"]}
        points = points.reshape(-1, maps, PEAKS)
        return {"points": points, "support": outputs["support"].reshape(-1, maps, maps)}

    def _capture(self, key: _GraphKey) -> Graph | None:
        """Capture a batch that was just run; None if the driver cannot."""
        try:
            return Graph(self._resources.stream, lambda: self._enqueue(key))
        except (CudaError, TensorRTError) as error:
            if isinstance(error, CudaError) and error.device_lost:
                raise
            self._resources.refused(error.reason)
            return None

    def _enqueue(self, key: _GraphKey) -> None:
        """Enqueue all work of a batch."""
        stream, descriptors, outputs = self._resources.stream, self._descriptors, self._outputs
        descriptors.upload(stream)
        windows = descriptors.address("windows") if key.windows_given else self._windows.address
        if not key.windows_given:
            launch = statistics_launch(self.statistics_blocks, key.batch * self._planes)
            requested = (descriptors.address("regions"), descriptors.address("requests"))
            for name in ("order_statistics_upper", "order_statistics_lower"):
                self._launch(name, launch, key.pixels, *requested, self._selections, self._windows)
        height, width = self.model.input.size
        size = (np.int32(height), np.int32(width))
        launch = preprocess_launch(key.kernel, key.batch * self._planes, (height, width))
        suffix = _suffix(self._plan.input_dtype)
        planes = descriptors.address("planes")
        self._launch(f"{key.kernel}_{suffix}", launch, key.pixels, planes, windows, self._input, *size)
        self._plan.enqueue(key.batch, stream)
        if self._heatmaps is None:
            channels = np.int32(self.model.input.channels), np.int32(height * width)
            contrast = outputs.address("contrast")
            kernel, launch = f"input_contrast_{suffix}", contrast_launch(key.batch)
            self._launch(kernel, launch, self._input, descriptors.address("stds"), contrast, *channels)
        else:
            self._decode(key.batch, self._heatmaps)
        outputs.download(stream)

    def _decode(self, batch: int, heatmaps: DeviceBuffer) -> None:
        descriptors, outputs = self._descriptors, self._outputs
        maps, height, width = self._plan.output_shape
        size = (np.int32(height), np.int32(width))
        suffix = _suffix(self._plan.output_dtype)
        frames, points = descriptors.address("frames"), outputs.address("points")
        if self._measures_cords:
            kernel, cords = f"cord_geometry_{suffix}", outputs.address("cords")
            directions = descriptors.address("directions")
            self._launch(kernel, cord_launch(batch), heatmaps, frames, directions, points, cords, *size)
        else:
            kernel, support = f"decode_peaks_{suffix}", outputs.address("support")
            self._launch(kernel, decode_launch(batch, maps), heatmaps, frames, points, support, *size)

    def _launch(self, kernel: str, launch: LaunchConfig, *arguments: KernelArgument) -> None:
        self._resources.module.launch(kernel, launch.grid, launch.block, arguments, self._resources.stream)


def _suffix(dtype: np.dtype[Any]) -> str:
    return "f16" if dtype == np.float16 else "f32"
