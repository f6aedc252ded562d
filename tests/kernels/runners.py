"""Where kernels run in the tests: on the CPU build of their source, and on a GPU where there is one.

A runner takes NumPy arrays as a kernel's arguments and leaves in them what the kernel wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from cuda_on_cpu import CpuKernels

from stenosis_trt.engine.cuda.device import Device, Stream
from stenosis_trt.engine.cuda.memory import DeviceBuffer
from stenosis_trt.engine.cuda.module import Module
from stenosis_trt.kernels.binaries import load_kernel_image
from stenosis_trt.kernels.launches import LaunchConfig
from stenosis_trt.kernels.table import KERNELS

Argument = np.ndarray | int


class Runner(Protocol):
    """Runs one kernel to its end."""

    def run(self, kernel: str, grids: LaunchConfig, arguments: Sequence[Argument]) -> None:
        """Launch `kernel`; arrays are passed by address and hold its output afterwards."""
        ...


class CpuRunner:
    """Runs the CPU build; `seed` sets the order of blocks and threads."""

    def __init__(self, kernels: CpuKernels, seed: int) -> None:
        self._kernels, self._seed = kernels, seed

    def run(self, kernel: str, grids: LaunchConfig, arguments: Sequence[Argument]) -> None:
        """See `Runner.run`."""
        self._kernels.launch(kernel, grids.grid, grids.block, *typed(kernel, arguments), seed=self._seed)


def typed(kernel: str, arguments: Sequence[Argument]) -> list[np.ndarray | np.generic]:
    """Arguments as the kernel's table has them: arrays of the right dtype, numbers as NumPy scalars."""
    result: list[np.ndarray | np.generic] = []
    for parameter, argument in zip(KERNELS[kernel].parameters, arguments, strict=True):
        if not parameter.array:
            result.append(parameter.dtype.type(argument))
            continue
        assert isinstance(argument, np.ndarray)
        assert argument.dtype == parameter.dtype, f"{kernel} takes {parameter.dtype} for {parameter.name}"
        result.append(argument)
    return result


class GpuRunner:
    """Runs the shipped binary on a GPU."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream = Stream(device)
        self._module = Module(
            device, load_kernel_image(device.compute_capability, device.driver_version).data
        )

    def run(self, kernel: str, grids: LaunchConfig, arguments: Sequence[Argument]) -> None:
        """See `Runner.run`."""
        with self._device.current():
            given: list[np.generic | DeviceBuffer] = []
            copied: list[tuple[np.ndarray, DeviceBuffer]] = []
            for item in typed(kernel, arguments):
                if not isinstance(item, np.ndarray):
                    given.append(item)
                    continue
                buffer = DeviceBuffer(self._device, max(item.nbytes, 1))
                buffer.copy_from(item, self._stream)
                given.append(buffer)
                copied.append((item, buffer))
            self._module.launch(kernel, grids.grid, grids.block, tuple(given), self._stream)
            for array, buffer in copied:
                buffer.copy_to(array, self._stream)
            self._stream.synchronize()
            for _, buffer in copied:
                buffer.close()
