"""Roofline model: lower bounds of a study's time from its multiply-adds, its bytes, and a GPU's peak rates.

All times are computed, not measured. Each stage of a study has two:

- at least: multiply-adds at the peak rate, or weights, inputs and outputs once at full bandwidth, whichever
  is longer. It is a lower bound of any implementation (Williams et al., CACM 2009;52(4):65).
- unfused: the sum of the same over single operators, each reading its inputs from and writing its outputs to
  device memory. It is no bound: TensorRT fuses operators and moves less, but no operator runs at peak rate.

The stages of a study run sequentially and exchange data through device memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.bench.speed.devices import GPU_SPECS, PRECISIONS, GpuSpec
from stenosis_trt.bench.speed.kernel_workloads import preprocess_workload, study_input_batches
from stenosis_trt.engine.packs.pack import Pack

NOTICE = "Computed, not measured."
_WIDTHS = {"fp32": 4, "fp16": 2, "int8": 1}
_EDGES = {"fp32": 4, "fp16": 2, "int8": 2}
"""Bytes per element of a network's input and output, which the kernels write and read as FP32 or FP16."""


@dataclass(frozen=True)
class LayerWork:
    """Work of one operator for one input of the network.

    Attributes:
        name: of its first output.
        operator: ONNX operator type.
        multiply_adds: of convolutions and matrix products; other operators count as 0.
        weights: elements of constants, read once per batch.
        inputs, outputs: elements of activations read and written.
    """

    name: str
    operator: str
    multiply_adds: int
    weights: int
    inputs: int
    outputs: int


@dataclass(frozen=True)
class ModelWork:
    """Work of a network for one study.

    Attributes:
        name: of the model in the pack.
        batch: number of inputs of one study.
        inputs, outputs: elements of one input and of its output.
        layers: its operators.
        int8_share: share of the multiply-adds that the pack's INT8 variant does in INT8; None without one.
    """

    name: str
    batch: int
    inputs: int
    outputs: int
    layers: tuple[LayerWork, ...]
    int8_share: float | None = None

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one input."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def weights(self) -> int:
        """Elements of all weights."""
        return sum(layer.weights for layer in self.layers)

    @property
    def activations(self) -> int:
        """Elements of all activations written for one input."""
        return sum(layer.outputs for layer in self.layers)


@dataclass(frozen=True)
class StudyWork:
    """Work of one study: its networks, and the bytes of preprocessing and decoding by precision."""

    pack: str
    models: tuple[ModelWork, ...]
    kernel_bytes: dict[str, int]


@dataclass(frozen=True)
class StageTime:
    """Milliseconds of one stage on one device; `limit` is "compute" or "memory"."""

    stage: str
    at_least_ms: float
    unfused_ms: float
    limit: str


def kernel_bytes(pack: Pack, batches: Mapping[str, int]) -> dict[str, int]:
    """Bytes that preprocessing reads and writes, and that decoding reads, by precision.

    Args:
        pack: defines the inputs. They are cut from slices of 384² (sagittal) and 320² (axial) 16-bit pixels.
        batches: number of inputs of one study, by model.
    """
    return {
        precision: preprocessing_bytes(pack, batches, precision) + decoding_bytes(pack, batches, precision)
        for precision in PRECISIONS
    }


def preprocessing_bytes(pack: Pack, batches: Mapping[str, int], precision: str) -> int:
    """Bytes that preprocessing reads and writes for one study; see `kernel_bytes`."""
    dtype = np.float32 if precision == "fp32" else np.float16
    # Only descriptors and sizes are evaluated, so no pixels are needed.
    return sum(
        preprocess_workload(cut, np.zeros(0, np.uint16), dtype).moved_bytes
        * batches[cut.name]
        // len(cut.slices)
        for cut in study_input_batches(pack)
    )


def decoding_bytes(pack: Pack, batches: Mapping[str, int], precision: str) -> int:
    """Bytes of the heatmaps of one study; see `kernel_bytes`."""
    total = 0
    for name, count in batches.items():
        spec, output = pack.models[name].input, pack.models[name].output
        if output.kind == "heatmaps":
            pixels = (spec.height // output.stride) * (spec.width // output.stride)
            total += count * len(output.names) * pixels * _EDGES[precision]
    return total


def stage_times(study: StudyWork, device: GpuSpec, precision: str) -> tuple[StageTime, ...]:
    """Times of the stages of a study on one device: preprocessing with decoding, then each network."""
    seconds = study.kernel_bytes[precision] / (device.gigabytes_a_second * 1e9)
    kernels = StageTime("kernels", seconds * 1e3, seconds * 1e3, "memory")
    return (kernels, *(_model_time(model, device, precision) for model in study.models))


def study_time(stages: Sequence[StageTime]) -> StageTime:
    """Time of one study: the sum of its stages, with the limit of the slowest."""
    slowest = max(stages, key=lambda stage: stage.at_least_ms)
    return StageTime(
        "study",
        sum(stage.at_least_ms for stage in stages),
        sum(stage.unfused_ms for stage in stages),
        slowest.limit,
    )


def _model_time(model: ModelWork, device: GpuSpec, precision: str) -> StageTime:
    width, bandwidth = _WIDTHS[precision], device.gigabytes_a_second * 1e9

    def computing(multiply_adds: int) -> float:
        work = 2 * multiply_adds * model.batch
        if precision != "int8":
            return work / device.peak(precision)
        share = 1.0 if model.int8_share is None else model.int8_share
        return work * (share / device.peak("int8") + (1 - share) / device.peak("fp16"))

    edges = model.batch * (model.inputs + model.outputs) * _EDGES[precision]
    compute = computing(model.multiply_adds)
    memory = (model.weights * width + edges) / bandwidth
    unfused = 0.0
    for layer in model.layers:
        moved = (layer.weights + model.batch * (layer.inputs + layer.outputs)) * width
        unfused += max(computing(layer.multiply_adds), moved / bandwidth)
    limit = "compute" if compute >= memory else "memory"
    # Inputs and outputs may be wider than activations, so a network of few operators may move less unfused.
    least = max(compute, memory)
    return StageTime(model.name, least * 1e3, max(unfused, least) * 1e3, limit)


@dataclass(frozen=True)
class KernelComparison:
    """Measured time of a kernel and the time of its bytes at full bandwidth, in microseconds."""

    name: str
    by: str
    computed_us: float
    measured_us: float


def compare_with_measured(record: dict[str, Any]) -> tuple[GpuSpec, tuple[KernelComparison, ...]]:
    """Compare a record of `bench kernels` with the times computed for its device.

    Raises:
        ValueError: the record is invalid, or its GPU is not in `GPU_SPECS`.
    """
    try:
        gpu = str(record["machine"].get("gpu", ""))
        figures = [item for item in record["figures"] if item["megabytes"] is not None]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it is no record of `stenosis-trt bench kernels`") from error
    known = {device.driver_name: device for device in GPU_SPECS if device.driver_name}
    if gpu not in known:
        shown = f"it was measured on {gpu}" if gpu else "it holds no figures of a GPU"
        raise ValueError(f"{shown}, and what can be compared is {', '.join(sorted(known))}")
    device = known[gpu]
    return device, tuple(
        KernelComparison(
            item["name"],
            item["by"],
            float(item["megabytes"]) / device.gigabytes_a_second * 1e3,
            float(item["median_us"]),
        )
        for item in figures
    )


def work_lines(study: StudyWork) -> list[str]:
    """Table of the work of one study, independent of the device."""
    rows = [f"{'':10} {'inputs':>6} {'GMAC':>8} {'weights, M':>11} {'activations, M':>15}"]
    for model in study.models:
        macs = model.multiply_adds * model.batch / 1e9
        activations = model.activations * model.batch / 1e6
        rows.append(
            f"{model.name:10} {model.batch:>6} {macs:>8.2f} {model.weights / 1e6:>11.2f} {activations:>15.1f}"
        )
    moved = ", ".join(f"{study.kernel_bytes[name] / 1e6:.1f} MB {name.upper()}" for name in PRECISIONS)
    return [*rows, f"preprocessing and decoding move {moved}"]


def time_lines(study: StudyWork, devices: Sequence[GpuSpec] = GPU_SPECS) -> list[str]:
    """Table of the milliseconds of one study, by device and precision."""
    assumed = [model.name for model in study.models if model.int8_share is None]
    star = "*" if assumed else ""
    head = " ".join(f"{name.upper() + (star if name == 'int8' else ''):>18}" for name in PRECISIONS)
    rows = [
        f"milliseconds a study   {'':13}{head}",
        f"{'':36}" + " ".join(f"{'at least':>8} {'unfused':>9}" for _ in PRECISIONS),
    ]
    for device in devices:
        studies = [study_time(stage_times(study, device, precision)) for precision in PRECISIONS]
        numbers = " ".join(f"{time.at_least_ms:>8.3f} {time.unfused_ms:>9.3f}" for time in studies)
        rows.append(f"{device.name:36}{numbers}")
    if assumed:
        rows.append(f"* as if all were INT8: the pack has no INT8 of {', '.join(assumed)}")
    return rows


def stage_lines(study: StudyWork, device: GpuSpec) -> list[str]:
    """Table of the milliseconds of each stage on one device, with what limits it."""
    by_precision = [stage_times(study, device, precision) for precision in PRECISIONS]
    rows = [f"{device.name:36}" + " ".join(f"{name.upper():>18} {'limit':>8}" for name in PRECISIONS)]
    for stages in (*zip(*by_precision, strict=True), tuple(map(study_time, by_precision))):
        numbers = " ".join(f"{t.at_least_ms:>8.3f} {t.unfused_ms:>9.3f} {t.limit:>8}" for t in stages)
        rows.append(f"  {stages[0].stage:34}{numbers}")
    return rows


def source_lines(devices: Sequence[GpuSpec] = GPU_SPECS) -> list[str]:
    """Table of the peak rates of each device, with their sources."""
    head = f"{'SMs':>4} {'GHz':>6} {'FP32':>7} {'FP16':>7} {'INT8':>7} {'GB/s':>7}"
    rows = [f"{'10¹² operations a second, dense':36} {head}"]
    for device in devices:
        peaks = " ".join(f"{device.peak(precision) / 1e12:>7.1f}" for precision in PRECISIONS)
        rows.append(
            f"{device.name:36} {device.multiprocessors:>4} {device.gigahertz:>6.3f} {peaks} "
            f"{device.gigabytes_a_second:>7.1f}"
        )
        rows.append(f"    {device.architecture.name}; {device.source}")
    return rows


def comparison_lines(device: GpuSpec, comparisons: Sequence[KernelComparison]) -> list[str]:
    """Table of computed and measured times."""
    rows = [f"{device.name + ', microseconds':48} {'by':8} {'computed':>9} {'measured':>9} {'reached':>8}"]
    for item in comparisons:
        share = f"{item.computed_us / item.measured_us:.0%}"
        rows.append(
            f"{item.name:48} {item.by:8} {item.computed_us:>9.1f} {item.measured_us:>9.1f} {share:>8}"
        )
    return rows


def roofline_record(
    study: StudyWork, compared: Sequence[tuple[GpuSpec, Sequence[KernelComparison]]]
) -> dict[str, Any]:
    """JSON object of all work, times and comparisons."""
    return {
        "notice": NOTICE,
        "pack": study.pack,
        "kernel_bytes": study.kernel_bytes,
        "models": [
            {
                "name": model.name,
                "batch": model.batch,
                "multiply_adds": model.multiply_adds,
                "weights": model.weights,
                "activations": model.activations,
                "int8_share": model.int8_share,
            }
            for model in study.models
        ],
        "devices": [
            {
                "name": device.name,
                "source": device.source,
                "gigabytes_a_second": device.gigabytes_a_second,
                "peak": {precision: device.peak(precision) for precision in PRECISIONS},
                "stages": {
                    precision: [asdict(time) for time in stage_times(study, device, precision)]
                    for precision in PRECISIONS
                },
            }
            for device in GPU_SPECS
        ],
        "measured": [
            {"device": device.name, "figures": [asdict(item) for item in items]} for device, items in compared
        ],
    }


def read_kernel_record(path: Path) -> dict[str, Any]:
    """Read a record of `bench kernels`.

    Raises:
        ValueError: the file cannot be read, or is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError("it cannot be read as JSON") from error
    if not isinstance(content, dict):
        raise ValueError("it is no record of `stenosis-trt bench kernels`")
    return content
