"""ONNX Runtime and OpenVINO as a user would call them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stenosis_trt.bench.peers.peer import Loaded, PeerAbsent, Workload
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.support.openvino_library import import_openvino

_CPU = "CPUExecutionProvider"


def load_onnxruntime(workload: Workload) -> Loaded:
    """Load a network with ONNX Runtime's defaults on the CPU."""
    return _session(workload, [_CPU])


def load_onnxruntime_cuda(workload: Workload) -> Loaded:
    """Load a network with ONNX Runtime's CUDA provider."""
    return _session(workload, ["CUDAExecutionProvider"])


def load_onnxruntime_tensorrt(workload: Workload) -> Loaded:
    """Load a network with ONNX Runtime's TensorRT provider; what that does not take runs by CUDA."""
    return _session(workload, ["TensorrtExecutionProvider", "CUDAExecutionProvider"])


def _session(workload: Workload, providers: list[str]) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if workload.threads is not None:
        options.intra_op_num_threads = workload.threads
    session = onnxruntime.InferenceSession(str(workload.model), options, providers=providers)
    if session.get_providers()[0] != providers[0]:
        raise PeerAbsent(f"ONNX Runtime could not open its {providers[0]} and took another provider.")
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    batch = workload.batch.astype(np.float16 if given.type == "tensor(float16)" else np.float32)
    if providers[0] != _CPU:
        # Batch and outputs stay on the GPU.
        binding = session.io_binding()
        on_gpu = onnxruntime.OrtValue.ortvalue_from_numpy(batch, "cuda", 0)
        binding.bind_ortvalue_input(given.name, on_gpu)
        binding.bind_output(output.name, "cuda", 0)
        return Loaded(
            lambda: session.run_with_iobinding(binding), lambda: _floats(binding.copy_outputs_to_cpu()[0])
        )
    found: dict[str, Any] = {}

    def run() -> None:
        (found["outputs"],) = session.run(None, {given.name: batch})

    return Loaded(run, lambda: _floats(found["outputs"]))


def _floats(outputs: Any) -> Float32Array:
    """A copy of outputs as float32."""
    return np.array(outputs, dtype=np.float32)


def _openvino(workload: Workload, precision: str) -> Loaded:
    """Compile a network for its batch; `precision` is OpenVINO's hint for what the file leaves in float32."""
    openvino = import_openvino()

    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise PeerAbsent("This processor has no instructions for bfloat16.")
    network = core.read_model(workload.model)
    network.reshape(list(workload.batch.shape))
    hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if workload.threads is not None:
        hints["INFERENCE_NUM_THREADS"] = workload.threads
    request = core.compile_model(network, "CPU", hints).create_infer_request()
    return Loaded(
        lambda: request.infer({0: workload.batch}, share_inputs=True),
        lambda: _floats(request.get_output_tensor(0).data),
    )


def load_openvino_fp32(workload: Workload) -> Loaded:
    """Load a network with OpenVINO on the CPU in float32."""
    return _openvino(workload, "f32")


def load_openvino_bf16(workload: Workload) -> Loaded:
    """Load a network with OpenVINO on the CPU in bfloat16."""
    return _openvino(workload, "bf16")
