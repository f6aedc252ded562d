"""What no device can beat: a study's multiply-adds and bytes against what hardware does at most.

Everything here is computed. Two times stand for each stage of a study:

- at least: multiply-adds at the highest rate, or the bytes that must move once (weights, what goes in, what
  comes out) at full bandwidth, whichever is longer. Whatever runs the network takes longer.
- unfused: the same for each operator alone, which reads its inputs and writes its outputs in device memory,
  and summed. TensorRT joins operators and so moves less; but nothing runs at full speed: it bounds no time.

Stages of one study run one after another, and hand over through device memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.bench.speed.devices import GPU_SPECS, PRECISIONS, GpuSpec
from stenosis_trt.bench.speed.kernel_work import preprocess_workload, study_input_batches
from stenosis_trt.engine.packs.pack import Pack

NOTICE = "Computed, not measured."
_WIDTHS = {"fp32": 4, "fp16": 2, "int8": 1}
_EDGES = {"fp32": 4, "fp16": 2, "int8": 2}
"""Bytes an element of a network's input and output: the kernels write and read FP32 and FP16."""


@dataclass(frozen=True)
class LayerWork:
    """One operator of a network, for one input; elements, whose width is the precision's.

    Attributes:
        name: its first output.
        operator: as ONNX calls it.
        multiply_adds: of convolutions and matrix products; what others compute is left out.
        weights: elements of constants, read once a batch.
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
    """A network at the batch that one study brings.

    Attributes:
        name: as the pack calls it.
        batch: inputs of one study.
        inputs, outputs: elements of one input and of what comes out for it.
        layers: all that it computes.
        int8_share: of the multiply-adds, what the pack's INT8 variant computes in INT8; None without one.
    """

    name: str
    batch: int
    inputs: int
    outputs: int
    layers: tuple[LayerWork, ...]
    int8_share: float | None = None

    @property
    def multiply_adds(self) -> int:
        """Of one input."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def weights(self) -> int:
        """Elements of all constants."""
        return sum(layer.weights for layer in self.layers)

    @property
    def activations(self) -> int:
        """Elements that all operators write for one input."""
        return sum(layer.outputs for layer in self.layers)


@dataclass(frozen=True)
class StudyWork:
    """One study: its networks, and the bytes of preprocessing and decoding by precision."""

    pack: str
    models: tuple[ModelWork, ...]
    kernel_bytes: dict[str, int]


@dataclass(frozen=True)
class StageTime:
    """Milliseconds of one stage on one device; `limit` is what the least comes from: compute or memory."""

    stage: str
    at_least_ms: float
    unfused_ms: float
    limit: str


def kernel_bytes(pack: Pack, batches: dict[str, int]) -> dict[str, int]:
    """Bytes that preprocessing reads and writes, and that decoding reads, by precision.

    Args:
        pack: whose inputs are cut, from slices of 384² (sagittal) and 320² (axial) pixels of 16 bits.
        batches: inputs of one study by the model's name.
    """
    moved = {}
    for precision in PRECISIONS:
        dtype = np.float32 if precision == "fp32" else np.float16
        total = 0
        for cut in study_input_batches(pack):
            # Descriptors and sizes alone are looked at: no pixel is needed.
            whole = preprocess_workload(cut, np.zeros(0, np.uint16), dtype).bytes
            total += whole * batches[cut.name] // len(cut.sets)
            spec, output = pack.models[cut.name].input, pack.models[cut.name].output
            if output.kind == "heatmaps":
                pixels = (spec.height // output.stride) * (spec.width // output.stride)
                total += batches[cut.name] * len(output.names) * pixels * _EDGES[precision]
        moved[precision] = total
    return moved


def stage_times(study: StudyWork, device: GpuSpec, precision: str) -> tuple[StageTime, ...]:
    """Every stage of a study on one device, preprocessing and decoding first, together."""
    seconds = study.kernel_bytes[precision] / (device.gigabytes_a_second * 1e9)
    kernels = StageTime("kernels", seconds * 1e3, seconds * 1e3, "memory")
    return (kernels, *(_model_time(model, device, precision) for model in study.models))


def study_time(stages: Sequence[StageTime]) -> StageTime:
    """One study: its stages one after another."""
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
    # A network of few operators may move less in them than its edges, at their width, would.
    least = max(compute, memory)
    return StageTime(model.name, least * 1e3, max(unfused, least) * 1e3, limit)


@dataclass(frozen=True)
class KernelComparison:
    """A measured time beside what the bytes it moved take at full bandwidth, in microseconds."""

    name: str
    by: str
    computed_us: float
    measured_us: float


def compare_with_measured(record: dict[str, Any]) -> tuple[GpuSpec, tuple[KernelComparison, ...]]:
    """Set a record of `bench kernels` beside what is computed for its device.

    Raises:
        ValueError: it is no such record, or of a GPU that is not among `GPU_SPECS`.
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
    """What one study costs, whatever it runs on."""
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
    """Milliseconds of one study by device and precision, as a table of text."""
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
    """Milliseconds of each stage on one device, and what the least of them comes from."""
    by_precision = [stage_times(study, device, precision) for precision in PRECISIONS]
    rows = [f"{device.name:36}" + " ".join(f"{name.upper():>18} {'limit':>8}" for name in PRECISIONS)]
    for stages in (*zip(*by_precision, strict=True), tuple(map(study_time, by_precision))):
        numbers = " ".join(f"{t.at_least_ms:>8.3f} {t.unfused_ms:>9.3f} {t.limit:>8}" for t in stages)
        rows.append(f"  {stages[0].stage:34}{numbers}")
    return rows


def source_lines(devices: Sequence[GpuSpec] = GPU_SPECS) -> list[str]:
    """What each device does at most, and where its figures are from."""
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
    """Computed beside measured, as a table of text."""
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
    """Everything as data for a JSON file."""
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
    """A record of measurements.

    Raises:
        ValueError: it cannot be read, or is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError("it cannot be read as JSON") from error
    if not isinstance(content, dict):
        raise ValueError("it is no record of `stenosis-trt bench kernels`")
    return content
