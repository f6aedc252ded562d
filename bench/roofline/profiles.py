"""Time of each node that a runtime executes on a CPU: ONNX Runtime's profile, and OpenVINO's counters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

_NODE, _RUN = "Node", "model_run"
_SUFFIX = "_kernel_time"
_SILENT = 4
OPENVINO_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}
"""Precision hint of OpenVINO: what is not quantised in an INT8 file runs in bfloat16."""


@dataclass(frozen=True)
class NodeTime:
    """One executed node.

    Attributes:
        name: the runtime's.
        operator: the runtime's name of what it computes.
        milliseconds: duration.
    """

    name: str
    operator: str
    milliseconds: float


Run = tuple[NodeTime, ...]
"""All nodes of one pass over the parts of a batch, in the order of execution."""


def profile_onnxruntime(
    data: bytes, parts: Sequence[Float32Array], threads: int, runs: int, folder: Path
) -> tuple[Run, ...]:
    """Profile a model that ONNX Runtime runs with the options of the product.

    Args:
        data: the ONNX file.
        parts: inputs (N, C, H, W) that are run one after the other; together they are one run.
        threads: threads per operator.
        runs: number of runs, without the first, which is discarded.
        folder: for the file of the profile, which is removed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for _ in range(runs + 1):
        for part in parts:
            session.run(None, {name: part})
    path = Path(session.end_profiling())
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return onnxruntime_runs(events, len(parts))[1:]


def onnxruntime_runs(events: Sequence[Mapping[str, Any]], parts: int) -> tuple[Run, ...]:
    """Return the runs of a profile of ONNX Runtime.

    Args:
        events: the parsed file: times in µs; an event "model_run" for each call, and one for each node in it.
        parts: calls that make one run.
    """
    calls = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("name") == _RUN)
    nodes = sorted(
        (event for event in events if event.get("cat") == _NODE and event["name"].endswith(_SUFFIX)),
        key=lambda event: event["ts"],
    )
    found: list[list[NodeTime]] = [[] for _ in calls]
    call = 0
    for event in nodes:
        while call < len(calls) and event["ts"] >= calls[call][1]:
            call += 1
        if call < len(calls):
            found[call].append(
                NodeTime(event["name"].removesuffix(_SUFFIX), event["args"]["op_name"], event["dur"] / 1000.0)
            )
    return tuple(
        tuple(node for nodes in found[first : first + parts] for node in nodes)
        for first in range(0, len(found), parts)
    )


def profile_openvino(
    data: bytes, parts: Sequence[Float32Array], threads: int, runs: int, precision: str
) -> tuple[Run, ...]:
    """Profile a model that OpenVINO runs, in a precision of `OPENVINO_HINTS`; see `profile_onnxruntime`."""
    import openvino

    core = openvino.Core()
    requests = {}
    for size in {len(part) for part in parts}:
        model = core.read_model(data)
        model.reshape([size, *parts[0].shape[1:]])
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision],
                "PERF_COUNT": True,
            },
        )
        requests[size] = compiled.create_infer_request()
    found = []
    for _ in range(runs + 1):
        nodes: list[NodeTime] = []
        for part in parts:
            request = requests[len(part)]
            request.infer([part])
            nodes += (
                NodeTime(item.node_name, item.node_type, item.real_time.total_seconds() * 1000.0)
                for item in request.get_profiling_info()
                if item.status == openvino.ProfilingInfo.Status.EXECUTED
            )
        found.append(tuple(nodes))
    return tuple(found[1:])
