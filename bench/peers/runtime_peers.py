"""ONNX Runtime and OpenVINO as a user would call them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stenosis_trt.bench.peers.peer import PeerAbsent, Run, Workload


def load_onnxruntime(workload: Workload) -> Run:
    """Load a network with ONNX Runtime's defaults on the CPU."""
    return _session(workload, ["CPUExecutionProvider"])


def load_onnxruntime_cuda(workload: Workload) -> Run:
    """Load a network with ONNX Runtime's CUDA provider."""
    return _session(workload, ["CUDAExecutionProvider"])


def load_onnxruntime_tensorrt(workload: Workload) -> Run:
    """Load a network with ONNX Runtime's TensorRT provider; what that does not take runs by CUDA."""
    return _session(workload, ["TensorrtExecutionProvider", "CUDAExecutionProvider"])


def _session(workload: Workload, providers: list[str]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if workload.threads is not None:
        options.intra_op_num_threads = workload.threads
    session = onnxruntime.InferenceSession(str(workload.model), options, providers=providers)
    if session.get_providers()[0] != providers[0]:
        raise PeerAbsent(f"ONNX Runtime could not open its {providers[0]} and took another provider.")
    name, batch = session.get_inputs()[0].name, workload.batch

    def run() -> Any:
        return session.run(None, {name: batch})[0]

    return run


def _openvino(workload: Workload, precision: str) -> Run:
    """Compile a network for its batch; `precision` is the hint to OpenVINO, for what the file leaves in float32."""
    import openvino

    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise PeerAbsent("This processor has no instructions for bfloat16.")
    network = core.read_model(workload.model)
    network.reshape(list(workload.batch.shape))
    hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if workload.threads is not None:
        hints["INFERENCE_NUM_THREADS"] = workload.threads
    request = core.compile_model(network, "CPU", hints).create_infer_request()
    batch = workload.batch

    def run() -> Any:
        request.infer({0: batch}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    return run


def load_openvino_fp32(workload: Workload) -> Run:
    """Load a network with OpenVINO on the CPU in float32."""
    return _openvino(workload, "f32")


def load_openvino_bf16(workload: Workload) -> Run:
    """Load a network with OpenVINO on the CPU in bfloat16."""
    return _openvino(workload, "bf16")
