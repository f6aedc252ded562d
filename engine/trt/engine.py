"""A deserialised plan with one execution context per batch size.

    plan = LoadedPlan(TensorRT(FLAVOURS["tensorrt"]), data, (1, 8))
    scratch = DeviceBuffer(device, max(plan.scratch_bytes, 1))
    plan.prepare(8, images.address, answers.address, scratch.address, stream)
    plan.enqueue(8, stream)                                  # once uncaptured,
    graph = Graph(stream, lambda: plan.enqueue(8, stream))   # then captured if desired

Use it inside `with device.current():`, from one thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.cuda.device import Stream
from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.support.closeable import Closeable
from stenosis_trt.engine.trt.api import TensorRT

_DTYPES: dict[str, npt.DTypeLike] = {"FLOAT": np.float32, "HALF": np.float16}
"""NumPy dtypes by TensorRT's names."""
_BUILD_AGAIN = "Build it again: stenosis-trt build PACK --force."
_LOOK = "See the reason; for an error of the GPU, see nvidia-smi and the kernel log."


@dataclass(frozen=True)
class _Addresses:
    """Device addresses of the input, the output and the scratch memory of a batch."""

    input: int
    output: int
    scratch: int


class LoadedPlan(Closeable):
    """A deserialised engine and its execution contexts.

    Use it on one stream: runs of one batch, and contexts that share scratch memory, must not overlap.

    Attributes:
        batches: supported batch sizes, ascending.
        input_shape: (C, H, W) of one input.
        input_dtype: float32 or float16.
        output_shape: shape of one output: (classes,) or (points, H, W).
        output_dtype: float32 or float16.
        scratch_bytes: device memory that `prepare` needs for any batch; may be 0. Plans on one stream can
            share it.
        closed: True once it has been closed.
    """

    def __init__(
        self, tensorrt: TensorRT, plan: bytes, batches: tuple[int, ...], host_code: bool = False
    ) -> None:
        """Deserialise a plan. A plan is code: check its hash before.

        Args:
            tensorrt: flavour and version that the plan was built with.
            plan: content of the file.
            batches: batch sizes of its profiles, in order, by its sidecar.
            host_code: True if it is version-compatible, by its sidecar; see `TensorRT.deserialise`.

        Raises:
            TensorRTError: TensorRT rejects the plan, memory is short (`out_of_memory`), or its profiles,
                inputs or outputs are not as expected.
        """
        self.closed = False
        self.batches = batches
        self._tensorrt = tensorrt
        self._engine: Any = tensorrt.deserialise(plan, host_code)
        self._input, self._output = _tensor_names(self._engine)
        self.input_shape = _input_shape(self._engine, self._input, batches)
        self.input_dtype = _dtype(self._engine, self._input)
        self.output_dtype = _dtype(self._engine, self._output)
        self.scratch_bytes = int(self._engine.device_memory_size_v2)
        self._contexts: dict[int, Any] = {}
        self._prepared: dict[int, _Addresses] = {}
        # If height and width are dynamic in the network, only a context knows the output shape.
        first = self._context(batches[0])
        self._set_shape(first, batches[0])
        self.output_shape = _output_shape(first, self._output, batches[0])

    def prepare(
        self, batch: int, input_address: int, output_address: int, scratch_address: int, stream: Stream
    ) -> None:
        """Bind a batch to device memory. Must not be called while capturing.

        The first call for a batch creates its context, which allocates memory; later calls only set addresses
        that changed. Existing graphs keep the addresses that they were captured with.

        Run `enqueue` once uncaptured afterwards, before capturing it: TensorRT defers work for new shapes
        until then, and TensorRT-RTX compiles kernels for them.

        Args:
            batch: one of `batches`.
            input_address: address of (batch, *input_shape) contiguous values, a multiple of 256 like that of
                a `DeviceBuffer`.
            output_address: address of (batch, *output_shape) values, likewise.
            scratch_address: address of `scratch_bytes` bytes, likewise, unused by others while the batch
                runs; ignored if `scratch_bytes` is 0.
            stream: stream that the batch will run on.

        Raises:
            TensorRTError: memory is short, or TensorRT fails; the reason quotes TensorRT.
            CudaError: the calling thread is capturing.
            ValueError: the plan was not built for this batch, or is closed.
        """
        self._check_usable(batch)
        stream.device.check_not_capturing()
        addresses = _Addresses(input_address, output_address, scratch_address)
        if self._prepared.get(batch) == addresses:
            return
        context = self._context(batch)
        if batch not in self._prepared:
            self._tensorrt.clear_errors()
            profile = self.batches.index(batch)
            self._check_set(
                context.set_optimization_profile_async(profile, stream.handle), f"profile {profile}"
            )
            self._set_shape(context, batch)
        self._prepared.pop(batch, None)
        self._tensorrt.clear_errors()
        context.set_device_memory(scratch_address if self.scratch_bytes else 0, self.scratch_bytes)
        for name, address in ((self._input, input_address), (self._output, output_address)):
            self._check_set(context.set_tensor_address(name, address), f"the address of {name!r}")
        self._prepared[batch] = addresses

    def enqueue(self, batch: int, stream: Stream) -> None:
        """Enqueue the inference of a prepared batch on `stream`.

        It can be captured into a `Graph`, which keeps a reference to this plan and cannot be launched after
        the plan is closed.

        Raises:
            TensorRTError: TensorRT fails; the reason quotes TensorRT.
            ValueError: the batch is not prepared, or the plan is closed.
        """
        self._check_usable(batch)
        if batch not in self._prepared:
            raise ValueError(f"A batch of {batch} is not prepared.")
        self._tensorrt.clear_errors()
        if not self._contexts[batch].execute_async_v3(stream.handle):
            raise self._tensorrt.make_error(f"cannot run a batch of {batch}", _LOOK)
        stream.record_use(self)

    def close(self) -> None:
        """Release all resources. No batch may still run. Idempotent."""
        self.closed = True
        # Contexts before the engine; the engine releases its runtime.
        self._prepared.clear()
        self._contexts.clear()
        self._engine = None

    def _check_usable(self, batch: int) -> None:
        if self.closed:
            raise ValueError("This LoadedPlan is closed.")
        if batch not in self.batches:
            raise ValueError(
                f"A batch of {batch}: the plan was built for {', '.join(map(str, self.batches))}."
            )

    def _context(self, batch: int) -> Any:
        if batch not in self._contexts:
            self._contexts[batch] = self._tensorrt.execution_context(self._engine)
        return self._contexts[batch]

    def _set_shape(self, context: Any, batch: int) -> None:
        self._tensorrt.clear_errors()
        shape = (batch, *self.input_shape)
        self._check_set(context.set_input_shape(self._input, shape), f"the shape {shape}")

    def _check_set(self, done: bool, what: str) -> None:
        if not done:
            raise self._tensorrt.make_error(f"rejects {what}", _BUILD_AGAIN)


def _tensor_names(engine: Any) -> tuple[str, str]:
    """Names of the single input and the single output."""
    names: dict[str, list[str]] = {"INPUT": [], "OUTPUT": []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        names[engine.get_tensor_mode(name).name].append(name)
    inputs, outputs = names["INPUT"], names["OUTPUT"]
    if len(inputs) != 1 or len(outputs) != 1:
        raise TensorRTError(
            f"The plan has {len(inputs)} inputs and {len(outputs)} outputs instead of one each.",
            "Export the model with one of each, and rebuild the plan.",
        )
    return inputs[0], outputs[0]


def _input_shape(engine: Any, name: str, batches: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) of the profiles. The n-th profile must be of exactly the n-th batch size."""
    count = engine.num_optimization_profiles
    found = [
        [tuple(map(int, size)) for size in engine.get_tensor_profile_shape(name, k)] for k in range(count)
    ]
    shape = found[0][0][1:]
    if len(shape) != 3 or found != [[(batch, *shape)] * 3 for batch in batches]:
        told = "; ".join(" to ".join(map(str, sorted({sizes[0], sizes[-1]}))) for sizes in found)
        said = ", ".join(map(str, batches))
        raise TensorRTError(
            f"The plan has profiles of {told}, but its sidecar lists batches of {said}.", _BUILD_AGAIN
        )
    return shape


def _dtype(engine: Any, name: str) -> np.dtype[Any]:
    kind = engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise TensorRTError(f"The plan's {name!r} is {kind}.", "Export the model with FP32 or FP16 there.")
    return np.dtype(_DTYPES[kind])


def _output_shape(context: Any, name: str, batch: int) -> tuple[int, ...]:
    """Output shape without the batch dimension."""
    shape = tuple(map(int, context.get_tensor_shape(name)))
    if shape[:1] != (batch,) or any(size < 1 for size in shape):
        raise TensorRTError(
            f"The plan's output for a batch of {batch} has the shape {shape}.",
            "Export the model with an output whose first dimension is the batch and whose others are fixed.",
        )
    return shape[1:]
