"""Accounting of device memory under a ceiling that the user sets."""

from __future__ import annotations

from stenosis_trt.engine.cuda.device import Device
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.cuda.memory import DeviceBuffer

_MIB = 1 << 20


class MemoryBudget:
    """Budget of device memory.

    Attributes:
        bytes_by_purpose: reserved bytes by purpose.
    """

    def __init__(self, device: Device, ceiling_bytes: int | None = None) -> None:
        """Without a ceiling, only the free memory limits allocations."""
        self._device, self._ceiling = device, ceiling_bytes
        self.bytes_by_purpose: dict[str, int] = {}

    @property
    def total_bytes(self) -> int:
        """Total reserved bytes."""
        return sum(self.bytes_by_purpose.values())

    def reserve(self, nbytes: int, purpose: str) -> None:
        """Reserve memory that is allocated elsewhere, and replace an earlier reservation of this purpose.

        Raises:
            CudaError: the ceiling would be exceeded; `out_of_memory`.
        """
        others = self.total_bytes - self.bytes_by_purpose.get(purpose, 0)
        if self._ceiling is not None and others + nbytes > self._ceiling:
            raise CudaError(
                f"The {purpose} take {nbytes / _MIB:.0f} MiB of the GPU's memory, beside "
                f"{others / _MIB:.0f} MiB for the rest: more than the ceiling of "
                f"{self._ceiling / _MIB:.0f} MiB.",
                f"Give --gpu-memory {-(-(others + nbytes) // _MIB)}, or build plans for smaller batches "
                "(stenosis-trt build --batch).",
                "CUDA_ERROR_OUT_OF_MEMORY",
            )
        self.bytes_by_purpose[purpose] = nbytes

    def buffer(self, nbytes: int, purpose: str) -> DeviceBuffer:
        """Reserve and allocate memory.

        Raises:
            CudaError: the ceiling would be exceeded, or memory is short; `out_of_memory`.
        """
        self.reserve(nbytes, purpose)
        return DeviceBuffer(self._device, nbytes)
