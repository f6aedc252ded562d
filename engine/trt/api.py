"""TensorRT and TensorRT-RTX, of which this is the only importer: find, parse, build, deserialise.

What the flavours differ in is data (`tensorrt_flavours`). One way for all versions from 10.3 on: a strongly
typed network, so that precision is what the ONNX file says and nothing else.
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
    """A serialised engine. `layers` as `ParsedNetwork.counts` gives them; `seconds` of the build alone."""

    data: bytes
    layers: Mapping[str, int]
    seconds: float


def installed_flavours() -> tuple[str, ...]:
    """Names of the flavours that can be imported here; nothing is imported."""
    return tuple(
        name for name, flavour in FLAVOURS.items() if any(map(importlib.util.find_spec, flavour.modules))
    )


class TensorRT:
    """One flavour, loaded. `version` is its own, such as "10.3.0" or "1.7.1.116"."""

    def __init__(self, flavour: Flavour) -> None:
        """Import the flavour.

        Raises:
            TensorRTError: it is not installed, or its libraries do not load; and what to install.
        """
        self.flavour = flavour
        self._trt = _module(flavour)
        self.version = str(self._trt.__version__)
        self._log = make_logger(self._trt)

    def parse_network(self, onnx: bytes) -> ParsedNetwork:
        """What TensorRT understands of a model: the types of its tensors, and what is quantised.

        Raises:
            TensorRTError: TensorRT cannot take the model.
        """
        builder = self._builder()
        network, _parser = self._parse(builder, onnx, on_dla=False)
        return describe_network(network)

    def register_module_name(self) -> None:
        """Make the flavour importable under its own name, which TensorRT-RTX's wheels do not have."""
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
            onnx: the model's file.
            shape: (C, H, W) of one input; the first dimension is the batch.
            settings: what the flavour has; see `Flavour.check`.
            timing_cache: file to read and write where the flavour has one; None to do without.
            report: called with how far the build is, as (percent, 100).

        Raises:
            TensorRTError: the model cannot be parsed or built, with TensorRT's own words.
            KeyboardInterrupt: it was interrupted.
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
            raise self.make_error("built no plan", "See the reason; `--verbose` shows all that it said.")
        if timing_cache is not None and self.flavour.timing_cache:
            timing_cache.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(timing_cache, bytes(config.get_timing_cache().serialize()))
        return BuiltPlan(bytes(plan), describe_network(network).layer_counts, seconds)

    def deserialise(self, plan: bytes, host_code: bool = False) -> Any:
        """The engine (`ICudaEngine`) of a plan whose hash was checked. A plan is code: take none unchecked.

        Args:
            plan: the file.
            host_code: let it bring code that runs on the host, as a version-compatible plan does; whether it
                is one stands in its sidecar.

        Raises:
            TensorRTError: there is no GPU, or it refuses the plan, with TensorRT's own words.
        """
        runtime = self._trt.Runtime(self._log)
        if host_code and self.flavour.version_compatible:
            runtime.engine_host_code_allowed = True
        self._log.errors.clear()
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self.make_error(
                "does not take the plan",
                "See what stenosis-trt doctor says of the GPU and its driver, or build it again here.",
            )
        return engine

    def execution_context(self, engine: Any) -> Any:
        """A context (`IExecutionContext`) of an engine, at profile 0, without scratch memory as yet.

        It keeps the engine, and the engine its runtime: they go in this order, whoever lets go first.

        Raises:
            TensorRTError: there is not enough memory, or TensorRT refuses for another reason.
        """
        self._log.errors.clear()
        scratch = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.flavour.builds_without_gpu:
            # TensorRT-RTX compiles kernels as it meets shapes. Left to itself it would do that behind the
            # first runs, and a CUDA graph captured meanwhile would keep the kernels that stand in for them.
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(scratch)
            strategies = self._trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            # Graphs of its own would be captured within those of the whole pipe.
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
        """From here on, `failure` tells what TensorRT says after this."""
        self._log.errors.clear()

    def make_error(self, what: str, advice: str) -> TensorRTError:
        """The error to raise where TensorRT, say, "built no plan", with its own words of why."""
        said = "; ".join(self._log.errors[-_MOST_ERRORS:]) or "it gave no reason"
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
        """The network, and the parser, which owns the weights."""
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
                "Export it with a dynamic batch, and the size that pack.json says.",
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
            # Without it TensorRT-RTX allocates while it runs, and cannot be captured into a CUDA graph.
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
                    f"{self.flavour.name} {self.version} has no {settings.hardware_compatible}.",
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
    """The flavour's module. The imports are spelt out, so that they can be found."""
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
    """One error of the ONNX parser, with the node it is about."""
    node, operator = error.node_name(), error.node_operator()
    code = str(error.code()).rpartition(".")[2].lower().replace("_", " ")
    said = error.desc()
    text = code if said in ("", "false") else f"{code}, {said.rstrip('.')}"
    if error.node() < 0:
        return text
    return f"node {node or error.node()} ({operator}): {text}"
