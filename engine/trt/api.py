"""Parse, build and deserialise with TensorRT or TensorRT-RTX. The only module that imports them.

`flavours` describes how the flavours differ. Networks are strongly typed in all versions (10.3 and later), so
that the ONNX file alone determines the precision.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.support.atomic_files import write_bytes_atomically
from stenosis_trt.engine.trt.callbacks import interruptible, make_logger, make_progress_monitor
from stenosis_trt.engine.trt.flavours import FLAVOURS, BuildSettings, Flavour, format_capability
from stenosis_trt.engine.trt.network import ParsedNetwork, describe_network
from stenosis_trt.engine.trt.progress import BuildProgress

_COMPATIBLE = {"same-compute-capability": "SAME_COMPUTE_CAPABILITY", "ampere-plus": "AMPERE_PLUS"}
_MOST_ERRORS = 4


@dataclass(frozen=True)
class BuiltPlan:
    """A serialised engine, its `ParsedNetwork.layer_counts`, and the duration of the build in seconds."""

    data: bytes
    layers: Mapping[str, int]
    seconds: float


def installed_flavours() -> tuple[str, ...]:
    """Names of the installed flavours, found without importing them."""
    return tuple(
        name for name, flavour in FLAVOURS.items() if any(map(importlib.util.find_spec, flavour.modules))
    )


class TensorRT:
    """An imported flavour. `version` is that of its module, such as "10.3.0" or "1.7.1.116"."""

    def __init__(self, flavour: Flavour) -> None:
        """Import the flavour.

        Raises:
            TensorRTError: it is not installed, or its libraries do not load; the advice says what to install.
        """
        self.flavour = flavour
        self._trt = _module(flavour)
        self.version = str(self._trt.__version__)
        self._log = make_logger(self._trt)

    def parse_network(self, onnx: bytes) -> ParsedNetwork:
        """Parse a model and describe the types of its tensors and layers.

        Raises:
            TensorRTError: TensorRT cannot parse the model.
        """
        builder = self._builder()
        network, _parser = self._parse(builder, onnx, on_dla=False)
        return describe_network(network)

    def register_module_name(self) -> None:
        """Register the flavour in `sys.modules` under its own name, which TensorRT-RTX's wheels lack."""
        sys.modules.setdefault(self.flavour.modules[0], self._trt)

    def build(
        self,
        onnx: bytes,
        shape: tuple[int, int, int],
        settings: BuildSettings,
        timing_cache: Path | None = None,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> BuiltPlan:
        """Build one plan.

        Args:
            onnx: content of the ONNX file.
            shape: (C, H, W) of one input.
            settings: settings that `Flavour.check` accepts.
            timing_cache: file to read and update if the flavour supports it; None for no cache.
            report: progress callback, called with (percent, 100).

        Raises:
            TensorRTError: the model cannot be parsed or built; the reason quotes TensorRT.
            KeyboardInterrupt: the build was interrupted.
        """
        builder = self._builder()
        network, _parser = self._parse(builder, onnx, settings.dla_core is not None)
        config = builder.create_builder_config()
        self._profiles(builder, network, config, shape, settings.batches)
        self._configure(builder, config, settings)
        if timing_cache is not None and self.flavour.timing_cache:
            known = timing_cache.read_bytes() if timing_cache.is_file() else b""
            cache = config.create_timing_cache(known)
            if cache is None or not config.set_timing_cache(cache, False):
                config.set_timing_cache(config.create_timing_cache(b""), False)
        start = time.monotonic()
        with interruptible() as stopped:
            config.progress_monitor = make_progress_monitor(self._trt, BuildProgress(report), stopped)
            plan = builder.build_serialized_network(network, config)
        seconds = time.monotonic() - start
        if plan is None:
            raise self.make_error("built no plan", "See the reason; `--verbose` shows all its messages.")
        if timing_cache is not None and self.flavour.timing_cache:
            timing_cache.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(timing_cache, bytes(config.get_timing_cache().serialize()))
        return BuiltPlan(bytes(plan), describe_network(network).layer_counts, seconds)

    def deserialise(self, plan: bytes, host_code: bool = False) -> Any:
        """Deserialise a plan to an engine (`ICudaEngine`). A plan is code: check its hash before.

        Args:
            plan: content of the file.
            host_code: allow code that runs on the host, which a version-compatible plan contains; the sidecar
                says whether it is one.

        Raises:
            TensorRTError: there is no GPU, or TensorRT rejects the plan; the reason quotes TensorRT.
        """
        runtime = self._trt.Runtime(self._log)
        if host_code and self.flavour.version_compatible:
            runtime.engine_host_code_allowed = True
        self._log.errors.clear()
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self.make_error(
                "rejects the plan",
                "Check the GPU and its driver with stenosis-trt doctor, or rebuild the plan here.",
            )
        return engine

    def execution_context(self, engine: Any) -> Any:
        """Create a context (`IExecutionContext`) of an engine, at profile 0 and without scratch memory.

        The context keeps a reference to the engine, and the engine to its runtime.

        Raises:
            TensorRTError: memory is short, or TensorRT fails for another reason.
        """
        self._log.errors.clear()
        scratch = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.flavour.builds_without_gpu:
            # TensorRT-RTX compiles kernels for new shapes, by default in the background of the first runs: a
            # CUDA graph captured meanwhile would keep the generic kernels.
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(scratch)
            strategies = self._trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            # The whole pipeline is captured: no nested graphs.
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.DISABLED
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(scratch)
        if context is None:
            raise self.make_error(
                "makes no execution context", "End other programs on the GPU, or load fewer batches."
            )
        return context

    def clear_errors(self) -> None:
        """Discard logged errors, so that `make_error` quotes only later ones."""
        self._log.errors.clear()

    def make_error(self, what: str, advice: str) -> TensorRTError:
        """Create the error for a failure such as "built no plan", quoting the errors that TensorRT logged."""
        said = "; ".join(self._log.errors[-_MOST_ERRORS:]) or "no reason given"
        return TensorRTError(f"{self.flavour.name} {self.version} {what}: {said}.", advice)

    def _builder(self) -> Any:
        self._log.errors.clear()
        try:
            return self._trt.Builder(self._log)
        except Exception as error:  # pybind11 raises TypeError where the library made none
            raise self.make_error(
                "has no builder here", "Check the GPU's driver (stenosis-trt doctor)."
            ) from error

    def _parse(self, builder: Any, onnx: bytes, on_dla: bool) -> tuple[Any, Any]:
        """Parse a model. Returns the network, and the parser, which owns the weights."""
        flags = 1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(flags)
        parser = self._trt.OnnxParser(network, self._log)
        if on_dla and hasattr(self._trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
            parser.set_flag(self._trt.OnnxParserFlag.ADJUST_FOR_DLA)
        if not parser.parse(onnx):
            found = "; ".join(_parser_error(parser.get_error(index)) for index in range(parser.num_errors))
            raise TensorRTError(
                f"{self.flavour.name} {self.version} cannot take the ONNX model: {found or 'no reason'}.",
                "Export the model without these operators.",
            )
        return network, parser

    def _profiles(
        self, builder: Any, network: Any, config: Any, shape: tuple[int, ...], batches: tuple[int, ...]
    ) -> None:
        if network.num_inputs != 1:
            raise TensorRTError(f"The model has {network.num_inputs} inputs.", "Export it with one.")
        tensor = network.get_input(0)
        declared = tuple(tensor.shape)
        sizes = zip(declared[1:], shape, strict=False)
        if len(declared) != 4 or declared[0] != -1 or any(size not in (-1, fixed) for size, fixed in sizes):
            raise TensorRTError(
                f"The model's input is {declared}, and the pack says {(-1, *shape)} (−1 is any size).",
                "Export it with a dynamic batch and the size in pack.json.",
            )
        for size in batches:
            profile = builder.create_optimization_profile()
            exact = (size, *shape)
            profile.set_shape(tensor.name, exact, exact, exact)
            config.add_optimization_profile(profile)

    def _configure(self, builder: Any, config: Any, settings: BuildSettings) -> None:
        trt, flags = self._trt, self._trt.BuilderFlag
        if not settings.tf32:
            config.clear_flag(flags.TF32)
        if hasattr(flags, "REQUIRE_USER_ALLOCATION"):
            # Otherwise TensorRT-RTX allocates at run time, which cannot be captured into a CUDA graph.
            config.set_flag(flags.REQUIRE_USER_ALLOCATION)
        if settings.builder_level is not None:
            config.builder_optimization_level = settings.builder_level
        if settings.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
        if settings.version_compatible:
            config.set_flag(flags.VERSION_COMPATIBLE)
        if settings.hardware_compatible:
            level = getattr(trt.HardwareCompatibilityLevel, _COMPATIBLE[settings.hardware_compatible], None)
            if level is None:
                raise TensorRTError(
                    f"{self.flavour.name} {self.version} does not support {settings.hardware_compatible}.",
                    "Leave --hardware-compatible out, or use a later version.",
                )
            config.hardware_compatibility_level = level
        if settings.compute_capabilities:
            config.num_compute_capabilities = len(settings.compute_capabilities)
            for index, capability in enumerate(settings.compute_capabilities):
                name = f"SM{format_capability(capability).replace('.', '')}"
                config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
        if settings.detailed:
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if settings.dla_core is not None:
            if settings.dla_core >= builder.num_DLA_cores:
                raise TensorRTError(
                    f"There is no DLA core {settings.dla_core}: {self.flavour.name} {self.version} has "
                    f"{builder.num_DLA_cores} here.",
                    "Leave --dla-core out.",
                )
            config.default_device_type = trt.DeviceType.DLA
            config.DLA_core = settings.dla_core
            config.set_flag(flags.GPU_FALLBACK)


def _module(flavour: Flavour) -> Any:
    """Import the module of a flavour. The imports are literal, so that tools can find them."""
    try:
        if flavour.name == "tensorrt":
            import tensorrt

            return tensorrt
        if importlib.util.find_spec("tensorrt_rtx"):
            import tensorrt_rtx

            return tensorrt_rtx
        import tensorrt_rtx_bindings

        return tensorrt_rtx_bindings
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name in flavour.modules
        why = "is not installed" if missing else f"does not load ({error})"
        raise TensorRTError(f"{flavour.name} {why}.", f"Install it: {flavour.install}.") from error


def _parser_error(error: Any) -> str:
    """Format an error of the ONNX parser with its node."""
    node, operator = error.node_name(), error.node_operator()
    code = str(error.code()).rpartition(".")[2].lower().replace("_", " ")
    said = error.desc()
    text = code if said in ("", "false") else f"{code}, {said.rstrip('.')}"
    if error.node() < 0:
        return text
    return f"node {node or error.node()} ({operator}): {text}"
