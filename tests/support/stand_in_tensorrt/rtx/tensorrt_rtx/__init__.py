"""A stand-in for TensorRT-RTX: that for TensorRT, and what this flavour has of its own.

A plan that was not built with REQUIRE_USER_ALLOCATION cannot be captured, nor can a context that captures
graphs of its own, or one that does not compile its kernels for new shapes at once.
"""

from __future__ import annotations

from enum import Enum

import tensorrt
from tensorrt import *  # noqa: F403
from tensorrt import _running

__version__ = "1.7.1.116"

BuilderFlag = Enum("BuilderFlag", "TF32 REQUIRE_USER_ALLOCATION")
CudaGraphStrategy = Enum("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")
DynamicShapesKernelSpecializationStrategy = Enum(
    "DynamicShapesKernelSpecializationStrategy", "LAZY EAGER NONE"
)
ComputeCapability = Enum("ComputeCapability", "SM75 SM80 SM86 SM89 SM120 SM121")


class IRuntimeConfig:
    """How a context is to run; as TensorRT-RTX has it if it is not told."""

    def __init__(self) -> None:
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY
        self._allocation = tensorrt.ExecutionContextAllocationStrategy.STATIC

    def set_execution_context_allocation_strategy(
        self, strategy: tensorrt.ExecutionContextAllocationStrategy
    ) -> None:
        self._allocation = strategy


class IBuilderConfig(tensorrt._building.IBuilderConfig):
    __slots__ = ("num_compute_capabilities",)

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        assert isinstance(compute_capability, ComputeCapability)
        return index < self.num_compute_capabilities


class Builder(tensorrt.Builder):
    _needs_gpu = False
    _config = IBuilderConfig


class IExecutionContext(_running.IExecutionContext):
    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
        super().__init__(engine)
        self._config = config

    def _problem_in_capture(self) -> str:
        eager = DynamicShapesKernelSpecializationStrategy.EAGER
        if self._config.dynamic_shapes_kernel_specialization_strategy is not eager:
            return "kernels for these shapes may not be compiled yet"
        if self._config.cuda_graph_strategy is not CudaGraphStrategy.DISABLED:
            return "it captures a graph of its own"
        if "REQUIRE_USER_ALLOCATION" not in self.engine._plan.flags:
            return "it allocates while it runs"
        return super()._problem_in_capture()


class ICudaEngine(tensorrt.ICudaEngine):
    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> IExecutionContext | None:
        assert runtime_config._allocation is tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
        return self._made(IExecutionContext, self, runtime_config)


class Runtime(tensorrt.Runtime):
    _engine = ICudaEngine
