"""Time of each node that a runtime executes on a CPU: ONNX Runtime's profile, and OpenVINO's counters.

A network is run as the CPU backend runs it: its inputs in parts, as many at the same time as there are
streams. The time of a node is divided by the number of streams, so that the nodes of a run add up to its wall
time while all streams are busy.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.backends.cpu.candidates import Execution
from stenosis_trt.engine.support.openvino_library import import_openvino

Float32Array = npt.NDArray[np.float32]

_NODE, _RUN = "Node", "model_run"
_SUFFIX = "_kernel_time"
_SILENT = 4
_FEWEST = 2
"""Runs of a profile, the first among them."""


@dataclass(frozen=True)
class NodeTime:
    """One executed node.

    Attributes:
        name: the runtime's.
        operator: the runtime's name of what it computes.
        milliseconds: duration, divided by the number of streams.
    """

    name: str
    operator: str
    milliseconds: float


Run = tuple[NodeTime, ...]
"""All nodes of one pass over the parts of a batch; within a part in the order of execution."""


@dataclass(frozen=True)
class ProfiledInputs:
    """What is run.

    Attributes:
        parts: inputs (N, C, H, W) of each call; together they are one run.
        execution: calls that run at the same time, and threads of each.
        runs: largest number of runs, without the first, which is discarded.
        seconds: no further run is started after this time, once there is one to keep.
    """

    parts: tuple[Float32Array, ...]
    execution: Execution
    runs: int
    seconds: float

    def call_each(self, call: Callable[[Float32Array], Any]) -> list[list[Any]]:
        """Call with each part, in as many threads as there are streams; return the answers of each run."""
        with ThreadPoolExecutor(self.execution.streams) as pool:
            found: list[list[Any]] = []
            end = time.monotonic() + self.seconds
            while len(found) <= self.runs and (len(found) < _FEWEST or time.monotonic() < end):
                found.append(list(pool.map(call, self.parts)))
            return found


def profile_onnxruntime(data: bytes, inputs: ProfiledInputs, folder: Path) -> tuple[Run, ...]:
    """Profile a model that ONNX Runtime runs with the options of the product.

    Args:
        data: the ONNX file.
        inputs: what is run.
        folder: for the file of the profile, which is removed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = inputs.execution.threads, 1
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    inputs.call_each(lambda part: session.run(None, {name: part}))
    path = Path(session.end_profiling())
    events = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return onnxruntime_runs(events, len(inputs.parts), inputs.execution.streams)[1:]


def onnxruntime_runs(events: Sequence[Mapping[str, Any]], parts: int, streams: int) -> tuple[Run, ...]:
    """Return the runs of a profile of ONNX Runtime.

    Args:
        events: the parsed file: times in µs; an event "model_run" for each call, and one for each node in it,
            by the same thread.
        parts: calls that make one run.
        streams: calls that run at the same time.
    """
    calls = sorted(
        (event["ts"], event["ts"] + event["dur"], event["tid"])
        for event in events
        if event.get("name") == _RUN
    )
    found: list[list[NodeTime]] = [[] for _ in calls]
    by_thread: dict[int, list[int]] = {}
    for number, (_, _, thread) in enumerate(calls):
        by_thread.setdefault(thread, []).append(number)
    for event in sorted(events, key=lambda event: float(event.get("ts", 0.0))):
        if event.get("cat") != _NODE or not event["name"].endswith(_SUFFIX):
            continue
        for number in by_thread.get(event["tid"], ()):
            if calls[number][0] <= event["ts"] < calls[number][1]:
                name, operator = event["name"].removesuffix(_SUFFIX), event["args"]["op_name"]
                found[number].append(NodeTime(name, operator, event["dur"] / 1000.0 / streams))
                break
    return tuple(
        tuple(node for nodes in found[first : first + parts] for node in nodes)
        for first in range(0, len(found), parts)
    )


def profile_openvino(data: bytes, inputs: ProfiledInputs, floats: str) -> tuple[Run, ...]:
    """Profile a model that OpenVINO runs with the settings of the product, in floats of "f32" or "bf16"."""
    openvino = import_openvino()

    execution = inputs.execution
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(data),
        "CPU",
        {
            "NUM_STREAMS": execution.streams,
            "INFERENCE_NUM_THREADS": execution.streams * execution.threads,
            "INFERENCE_PRECISION_HINT": floats,
            "ENABLE_CPU_PINNING": False,
            "PERF_COUNT": True,
        },
    )
    requests = threading.local()

    def call(part: Float32Array) -> Run:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        requests.own.infer([part])
        return tuple(
            NodeTime(item.node_name, item.node_type, item.real_time.total_seconds() * 1000.0)
            for item in requests.own.get_profiling_info()
            if item.status == openvino.ProfilingInfo.Status.EXECUTED
        )

    return tuple(
        tuple(
            replace(node, milliseconds=node.milliseconds / execution.streams)
            for nodes in answers
            for node in nodes
        )
        for answers in inputs.call_each(call)[1:]
    )
