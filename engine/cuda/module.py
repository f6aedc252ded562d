"""Kernel modules: load a binary and launch its kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stenosis_trt.engine.cuda.device import Device, Resource, Stream, pycuda_errors
from stenosis_trt.engine.cuda.memory import DeviceBuffer, HostArray

Grid = tuple[int, int, int]
KernelArgument = np.generic | int | DeviceBuffer | HostArray
"""By value: a NumPy scalar or aligned structure. By address: an int, a buffer or a mapped array."""


@dataclass(frozen=True)
class KernelAttributes:
    """Attributes of a kernel that the driver reports.

    Attributes:
        name: name of the kernel.
        registers: registers per thread.
        local_bytes: local memory per thread, for spilled registers.
        max_threads: largest number of threads per block.
    """

    name: str
    registers: int
    local_bytes: int
    max_threads: int


class Module(Resource):
    """A loaded cubin, fatbin or PTX."""

    def __init__(self, device: Device, image: bytes) -> None:
        """Load a binary.

        Raises:
            CudaError: the driver rejects it, or it is for another GPU.
        """
        with device.creating():
            self._native: Any = device.pycuda.module_from_buffer(image)
        self._functions: dict[str, Any] = {}
        super().__init__(device)

    def kernel_attributes(self, name: str) -> KernelAttributes:
        """Query the attributes of the kernel `name`.

        Raises:
            CudaError: there is no such kernel.
        """
        with self.device.current(), pycuda_errors:
            native, attributes = self._function(name), self.device.pycuda.function_attribute
            return KernelAttributes(
                name,
                registers=native.get_attribute(attributes.NUM_REGS),
                local_bytes=native.get_attribute(attributes.LOCAL_SIZE_BYTES),
                max_threads=native.get_attribute(attributes.MAX_THREADS_PER_BLOCK),
            )

    def launch(
        self, function: str, grid: Grid, block: Grid, arguments: tuple[KernelArgument, ...], stream: Stream
    ) -> None:
        """Launch a kernel on `stream`.

        Args:
            function: name of the kernel.
            grid: blocks in x, y, z.
            block: threads per block in x, y, z.
            arguments: in the order of the kernel's parameters, each of exactly their type.
            stream: stream to enqueue it on.

        Raises:
            CudaError: there is no such kernel, or the launch failed. Errors during execution are raised by a
                later call, at the latest by synchronising the stream.
            TypeError: an argument has a type that kernels cannot take.
        """
        stream.check_open()
        parameters = pack_arguments(arguments)
        with pycuda_errors:
            # PyCUDA's own packing ignores the alignment of structures.
            self._function(function)._launch_kernel(grid, block, parameters, 0, stream.native)
        stream.record_use(self, *(argument for argument in arguments if isinstance(argument, Resource)))

    def _function(self, name: str) -> Any:
        self.check_open()
        if name not in self._functions:
            self._functions[name] = self._native.get_function(name)
        return self._functions[name]

    def _release(self) -> None:
        # PyCUDA unloads a module with its last reference, and functions hold one.
        self._functions.clear()
        self._native = None


def pack_arguments(arguments: Iterable[KernelArgument]) -> bytes:
    """Lay out kernel arguments as a C structure: each at the next multiple of its alignment.

    Raises:
        TypeError: an argument has a type that kernels cannot take.
        CudaError: a buffer or array is closed.
    """
    packed = bytearray()
    for position, argument in enumerate(arguments):
        value = _value(argument)
        if value is None:
            raise TypeError(
                f"Argument {position} of a kernel is {argument!r}. Give a NumPy scalar of its type, "
                "if a structure of an aligned dtype; an address; a DeviceBuffer; or a mapped HostArray."
            )
        packed += bytes(-len(packed) % value.dtype.alignment) + value.tobytes()
    return bytes(packed)


def _value(argument: object) -> np.generic | None:
    if isinstance(argument, DeviceBuffer | HostArray):
        argument.check_open()
        return None if argument.address is None else np.uint64(argument.address)
    if isinstance(argument, np.void):
        return argument if argument.dtype.isalignedstruct else None
    if isinstance(argument, np.number | np.bool_):
        return argument
    return np.uint64(argument) if isinstance(argument, int) and not isinstance(argument, bool) else None
