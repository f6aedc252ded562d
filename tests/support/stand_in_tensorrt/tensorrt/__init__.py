"""A stand-in for TensorRT, on a stand-in for NVIDIA's driver: ONNX Runtime computes what a GPU would.

It proves the code that calls TensorRT: what is built, bound, enqueued, captured and given back; nothing
about a GPU. This folder's parent goes in front of a process's module path, and `tests/support/fake_driver`,
built, in front of its libraries. `rtx`, beside this folder, has TensorRT-RTX likewise.

A plan holds the ONNX file and its profiles. A run is a host function on the driver's stream: as late as
other work, captured into graphs and replayed with them, on the addresses of when it was enqueued. Engines
and contexts take memory of the device, which counts in the driver's limit and in
`fake_cuda_count("device_memory")`.

It refuses what TensorRT refuses, with an error in the log and an answer of False or None: a plan of another
version, profiles and shapes that do not fit; tensors without an address, or at one that is no multiple of
256 or not live memory; scratch memory that is missing or too small; and, in a capture, a context that has
not run once since it was given its profile, shapes, addresses and scratch memory, where TensorRT asks that
for new shapes alone. What TensorRT leaves undefined loses the device: a run whose context or memory is gone
when its turn comes. Each run fills its scratch memory with rubbish.

STAND_IN_TENSORRT_FAIL     what is to fail, as long as it says so, such as "enqueue,capture": parse, build,
                           deserialise, context (for lack of memory), profile, shape, address, enqueue,
                           capture
STAND_IN_TENSORRT_VERSION  10.3.0
STAND_IN_TENSORRT_SCRATCH  bytes of scratch memory for each input of a batch (65536)
"""

from __future__ import annotations

from tensorrt._building import Builder, OnnxParser
from tensorrt._running import ICudaEngine, IExecutionContext, Runtime
from tensorrt._words import (
    VERSION,
    BuilderFlag,
    DataType,
    DeviceType,
    ExecutionContextAllocationStrategy,
    HardwareCompatibilityLevel,
    ILogger,
    IProgressMonitor,
    LayerType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParserFlag,
    ProfilingVerbosity,
    TensorIOMode,
)

__version__ = VERSION

__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "DeviceType",
    "ExecutionContextAllocationStrategy",
    "HardwareCompatibilityLevel",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "IProgressMonitor",
    "LayerType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "OnnxParserFlag",
    "ProfilingVerbosity",
    "Runtime",
    "TensorIOMode",
]
