"""Named arrays that travel together between the machine and the device, in one copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.cuda.device import Device, Stream
from stenosis_trt.engine.cuda.memory import DeviceBuffer, HostArray

ALIGNMENT = 256
"""Bytes: what memory of the device begins on, and what TensorRT wants of a tensor's address."""


def align_up(nbytes: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class MirroredArrays:
    """Arrays in page-locked memory, and room for the same on the device.

    Attributes:
        host: each array, by its name.
        nbytes: of all of them, on either side.
    """

    def __init__(self, device: Device, fields: Mapping[str, tuple[npt.DTypeLike, int]]) -> None:
        """Make an array of (dtype, elements) of each name, all zero on both sides' first copy.

        Raises:
            CudaError: there is not as much memory.
        """
        self._offsets: dict[str, int] = {}
        self.nbytes = 0
        for name, (dtype, count) in fields.items():
            self._offsets[name] = self.nbytes
            self.nbytes += align_up(np.dtype(dtype).itemsize * count)
        self._pinned = HostArray(device, self.nbytes, np.uint8)
        self._device = DeviceBuffer(device, self.nbytes)
        whole = self._pinned.array
        whole[:] = 0
        self.host: dict[str, npt.NDArray[Any]] = {}
        for name, (dtype, count) in fields.items():
            first = self._offsets[name]
            self.host[name] = whole[first : first + np.dtype(dtype).itemsize * count].view(dtype)

    def address(self, name: str) -> int:
        """Where an array is on the device."""
        return self._device.address + self._offsets[name]

    def upload(self, stream: Stream) -> None:
        """Copy all arrays to the device, in the order of `stream`."""
        self._device.copy_from(self._pinned.array, stream)

    def download(self, stream: Stream) -> None:
        """Copy all arrays from the device, in the order of `stream`."""
        self._device.copy_to(self._pinned.array, stream)

    def close(self) -> None:
        """Give the memory back."""
        self.host.clear()
        self._device.close()
        self._pinned.close()
