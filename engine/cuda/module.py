"""Kernels: loaded from a binary, and launched with arguments laid out as C lays them out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stenosis_trt.engine.cuda.device import Device, Resource, Stream, pycuda_errors
from stenosis_trt.engine.cuda.memory import DeviceBuffer, HostArray

Grid = tuple[int, int, int]
KernelArgument = np.generic | int | DeviceBuffer | HostArray
"""By value: a NumPy scalar, also of a structure. By address: an int, a buffer, a mapped array."""


@dataclass(frozen=True)
class KernelAttributes:
    """What the driver says of a kernel.

    Attributes:
        name: its name.
        registers: of a thread.
        local_bytes: of a thread, in memory: what did not fit in registers.
        max_threads: that a block may have.
    """

    name: str
    registers: int
    local_bytes: int
    max_threads: int


class Module(Resource):
    """A loaded cubin, fatbin or PTX."""

    def __init__(self, device: Device, image: bytes) -> None:
        """Load the binary.

        Raises:
            CudaError: the driver does not take it, or it is not for this GPU.
        """
        with device.creating():
            self._native: Any = device.pycuda.module_from_buffer(image)
        self._functions: dict[str, Any] = {}
        super().__init__(device)

    def kernel_attributes(self, name: str) -> KernelAttributes:
        """Facts about the kernel `name`.

        Raises:
            CudaError: there is none.
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
        """Give a kernel to `stream`.

        Args:
            function: the kernel's name.
            grid: blocks in x, y, z.
            block: threads of a block in x, y, z.
            arguments: in the kernel's order, each of exactly its parameter's type.
            stream: in whose order it is done.

        Raises:
            CudaError: there is no such kernel, or the driver refused. What goes wrong while it runs is raised
                by some later call, at the latest by waiting for the stream.
            TypeError: an argument is of no type that a kernel takes.
        """
        stream.check_open()
        parameters = pack_arguments(arguments)
        with pycuda_errors:
            # PyCUDA's own packing forgets how structures are aligned.
            self._function(function)._launch_kernel(grid, block, parameters, 0, stream.native)
        stream.record_use(self, *(argument for argument in arguments if isinstance(argument, Resource)))

    def _function(self, name: str) -> Any:
        self.check_open()
        if name not in self._functions:
            self._functions[name] = self._native.get_function(name)
        return self._functions[name]

    def _release(self) -> None:
        # PyCUDA unloads a module when nothing refers to it any more, and functions do.
        self._functions.clear()
        self._native = None


def pack_arguments(arguments: Iterable[KernelArgument]) -> bytes:
    """A kernel's parameters in memory: each at the next multiple of its alignment, as in a structure of C.

    Raises:
        TypeError: an argument is of no type that a kernel takes.
        CudaError: a buffer or array among them is closed.
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
