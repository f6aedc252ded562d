"""From an ONNX file to a plan: builder, network, parser, config and profiles."""

from __future__ import annotations

import hashlib
import sys

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, ValueInfoProto, shape_inference

from tensorrt import _driver
from tensorrt._plan import Plan, Tensor
from tensorrt._words import (
    BuilderFlag,
    DataType,
    DeviceType,
    HardwareCompatibilityLevel,
    ILogger,
    IProgressMonitor,
    LayerType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParserFlag,
    ProfilingVerbosity,
    asked_to_fail,
    refuse,
)

_LAYERS = {
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "MatMul": "MATRIX_MULTIPLY",
    "Gemm": "MATRIX_MULTIPLY",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Cast": "CAST",
    "Constant": "CONSTANT",
}
"""Layers by operator; all others are ELEMENTWISE here."""
_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}
_LARGEST_SHAPE_BYTES = 1024
"""Larger constants are weights, and tell nothing of shapes."""
_UNKNOWN_OPERATORS = {"Det"}
"""Of those that TensorRT does not have, what the tests use."""


class ITensor:
    """A tensor of a network, of the shape that it declares."""

    def __init__(self, name: str, dtype: DataType | None, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape


class ILayer:
    """A node of the ONNX file. Constant weights of a convolution are the layer's own, and no input."""

    def __init__(self, node: onnx.NodeProto, tensors: dict[str, ITensor], weights: set[str]) -> None:
        self.name, self.type = node.name, LayerType[_LAYERS.get(node.op_type, "ELEMENTWISE")]
        own = weights.intersection(node.input) | set(node.input[2:])
        convolves = self.type in (LayerType.CONVOLUTION, LayerType.DECONVOLUTION)
        self._inputs = [tensors[name] for name in node.input if name and not (convolves and name in own)]
        self._outputs = [tensors[name] for name in node.output if name]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class INetworkDefinition:
    """Empty, until a parser fills it."""

    def __init__(self) -> None:
        self._onnx = b""
        self._shapes_only = onnx.ModelProto()
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []
        self._layers: list[ILayer] = []

    def _fill(self, data: bytes) -> None:
        """Raises ValueError, or one of ONNX's errors: it is no model."""
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) > _LARGEST_SHAPE_BYTES:
                tensor.ClearField("raw_data")
        self._shapes_only = model
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
        weights = {
            tensor.name: ITensor(tensor.name, _dtype(tensor.data_type), tuple(tensor.dims))
            for tensor in graph.initializer
        }
        found = {info.name: _tensor(info) for info in (*graph.input, *graph.value_info, *graph.output)}
        named = {name for node in graph.node for name in (*node.input, *node.output)}
        tensors = {name: ITensor(name, None, ()) for name in named} | weights | found
        self._onnx = data
        self._inputs = [tensors[info.name] for info in graph.input if info.name not in weights]
        self._outputs = [tensors[info.name] for info in graph.output]
        self._layers = [ILayer(node, tensors, set(weights)) for node in graph.node]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]

    def get_layer(self, index: int) -> ILayer:
        return self._layers[index]


class ParserError:
    """What the parser has against a node, or against the file (-1)."""

    def __init__(self, code: str, text: str, index: int = -1, name: str = "", operator: str = "") -> None:
        self._code, self._text, self._index, self._name, self._operator = code, text, index, name, operator

    def code(self) -> str:
        return f"ErrorCode.{self._code}"

    def desc(self) -> str:
        return self._text

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return self._name

    def node_operator(self) -> str:
        return self._operator


class OnnxParser:
    """Fills a network. As in TensorRT it owns the weights: a network whose parser is gone cannot be built."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger, self._errors = network, logger, list[ParserError]()

    def set_flag(self, flag: OnnxParserFlag) -> None:
        assert isinstance(flag, OnnxParserFlag)

    def parse(self, model: bytes) -> bool:
        try:
            self._network._fill(model)
        except (
            DecodeError,
            ValueError,
            onnx.checker.ValidationError,
            shape_inference.InferenceError,
        ) as error:
            self._errors.append(ParserError("MODEL_DESERIALIZE_FAILED", str(error).splitlines()[0]))
            return False
        for index, node in enumerate(self._network._shapes_only.graph.node):
            if node.op_type in _UNKNOWN_OPERATORS or asked_to_fail("parse"):
                self._errors.append(ParserError("UNSUPPORTED_NODE", "", index, node.name, node.op_type))
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def __del__(self) -> None:
        self._network._onnx = b""


class IOptimizationProfile:
    """Sizes of each input: least, best, most."""

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        if len({len(min), len(opt), len(max)}) != 1:
            raise ValueError("a profile has three shapes of one length")
        self._shapes[input] = (min, opt, max)


class ITimingCache:
    """Grows with each build that uses it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content


class IBuilderConfig:
    """What a plan is built with. Has no attributes but TensorRT's."""

    __slots__ = (
        "DLA_core",
        "_cache",
        "_flags",
        "_profiles",
        "builder_optimization_level",
        "default_device_type",
        "hardware_compatibility_level",
        "profiling_verbosity",
        "progress_monitor",
    )

    def __init__(self) -> None:
        self._flags = {"TF32"}
        self._profiles: list[IOptimizationProfile] = []
        self.progress_monitor: IProgressMonitor | None = None
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.default_device_type, self.DLA_core = DeviceType.GPU, -1
        self._cache = ITimingCache(b"")

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag.name)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        assert isinstance(pool, MemoryPoolType)
        assert pool_size > 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        return self._cache


class Builder:
    """Builds plans, on the GPU that they are for."""

    num_DLA_cores = 0
    _needs_gpu = True
    _config = IBuilderConfig

    def __init__(self, logger: ILogger) -> None:
        if self._needs_gpu and not _driver.device_count():
            refuse(logger, "CUDA initialization failure")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED, "networks are strongly typed"
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return self._config()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        problem = _problem(network, config)
        monitor = config.progress_monitor
        if monitor and not problem:
            monitor.phase_start("Building Engine", None, 2)
            going_on = monitor.step_complete("Building Engine", 0) and monitor.step_complete(
                "Building Engine", 1
            )
            monitor.phase_finish("Building Engine")
            problem = "" if going_on else "the build was cancelled"
        if problem:
            refuse(self._logger, problem)
            return None
        cache = config.get_timing_cache()
        cache._content += hashlib.sha256(network._onnx).digest()[:4]
        module = sys.modules[type(self).__module__.partition(".")[0]]
        inputs = tuple(
            _profiled(tensor, [_sizes(each, tensor) for each in config._profiles])
            for tensor in network._inputs
        )
        runs = [
            _output_shapes(network._shapes_only, {each.name: each.shapes[k] for each in inputs})
            for k in range(len(config._profiles))
        ]
        outputs = tuple(_profiled(tensor, [run[tensor.name] for run in runs]) for tensor in network._outputs)
        flags = tuple(sorted(config._flags))
        return Plan(module.__name__, module.__version__, flags, inputs, outputs, network._onnx).to_bytes()


def _problem(network: INetworkDefinition, config: IBuilderConfig) -> str:
    if asked_to_fail("build"):
        return "it was asked to fail"
    if not network._onnx:
        return "the network is empty, or its parser is gone"
    if not config._profiles:
        return "a network with an open dimension needs a profile"
    for profile in config._profiles:
        for tensor in network._inputs:
            sizes = profile._shapes.get(tensor.name, ())
            if len(set(sizes)) != 1:
                return f"the stand-in takes profiles of one size, and {tensor.name} has {sizes}"
            if any(declared not in (-1, size) for declared, size in zip(tensor.shape, sizes[0], strict=True)):
                return f"{tensor.name} is {tensor.shape}, and a profile has {sizes[0]}"
    return ""


def _sizes(profile: IOptimizationProfile, tensor: ITensor) -> tuple[int, ...]:
    return profile._shapes[tensor.name][0]


def _profiled(tensor: ITensor, shapes: list[tuple[int, ...]]) -> Tensor:
    assert tensor.dtype is not None, f"{tensor.name} has no type"
    return Tensor(tensor.name, tensor.dtype.name, tensor.shape, tuple(shapes))


def _output_shapes(
    network: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Of all outputs, where the inputs have these."""
    model = onnx.ModelProto()
    model.CopyFrom(network)
    for info in model.graph.input:
        for dimension, size in zip(info.type.tensor_type.shape.dim, shapes.get(info.name, ()), strict=False):
            dimension.dim_value = size
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    return {info.name: _tensor(info).shape for info in inferred.graph.output}


def _tensor(info: ValueInfoProto) -> ITensor:
    kind = info.type.tensor_type
    shape = tuple(each.dim_value if each.HasField("dim_value") else -1 for each in kind.shape.dim)
    return ITensor(info.name, _dtype(kind.elem_type), shape)


def _dtype(kind: int) -> DataType | None:
    return DataType[_TYPES[kind]] if kind in _TYPES else None
