"""What TensorRT-RTX's builder ends with, in its own words: no GPU is needed for that."""

from __future__ import annotations

import re
from typing import Any

_LAYER = re.compile(r"^Name: (\S+), LayerType: (\w+)", re.MULTILINE)


def fused_layers(data: bytes, shape: tuple[int, int, int]) -> list[str]:
    """Names of the layers of the engine that is built of an ONNX model for one image of (C, H, W).

    What is fused shows in a name, such as "__myl_CorrSilu": a convolution with its SiLU.
    """
    import tensorrt_rtx_libs  # noqa: F401  (loads what the bindings need)

    import tensorrt_rtx_bindings as trt  # isort: skip

    said: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, level: Any, text: str) -> None:
            said.append(text)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse(data)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *((1, *shape),) * 3)
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
    return [name for text in said for name, _ in _LAYER.findall(text)]
