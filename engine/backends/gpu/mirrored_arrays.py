"""Named arrays on host and device that are copied together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.cuda.device import Device, Stream
from stenosis_trt.engine.cuda.memory import DeviceBuffer, HostArray

ALIGNMENT = 256
"""Alignment of device allocations, and required of tensor addresses by TensorRT, in bytes."""


def align_up(nbytes: int) -> int:
    """Round up to a multiple of `ALIGNMENT`."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class MirroredArrays:
    """Arrays in page-locked host memory with counterparts in one device allocation.

    Attributes:
        host: the host arrays by name.
        nbytes: total size on either side.
    """

    def __init__(self, device: Device, fields: Mapping[str, tuple[npt.DTypeLike, int]]) -> None:
        """Allocate an array of (dtype, elements) per name. The host arrays are zero.

        Raises:
            CudaError: memory is short.
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
        """Device address of an array."""
        return self._device.address + self._offsets[name]

    def upload(self, stream: Stream) -> None:
        """Copy all arrays to the device, asynchronously on `stream`."""
        self._device.copy_from(self._pinned.array, stream)

    def download(self, stream: Stream) -> None:
        """Copy all arrays from the device, asynchronously on `stream`."""
        self._device.copy_to(self._pinned.array, stream)

    def close(self) -> None:
        """Free the memory."""
        self.host.clear()
        self._device.close()
        self._pinned.close()
