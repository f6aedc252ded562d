"""GPU utilisation during a run, sampled with NVML.

NVML reports the share of the last sample period (1/6 s to 1 s, depending on the GPU) in which any kernel ran,
not how many multiprocessors were busy.
"""

from __future__ import annotations

import ctypes
import threading
import time
from types import TracebackType

_LIBRARY, _DRIVER = "libnvidia-ml.so.1", "libcuda.so.1"
_SAMPLE_SECONDS = 0.05
_BUS_BYTES = 32


class _Rates(ctypes.Structure):
    """nvmlUtilization_t."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class GpuUtilisation:
    """Samples the utilisation every 50 ms during a `with` block.

    Attributes:
        reason: why utilisation is not available; "" if it is.
        samples: (time.perf_counter(), percent).
    """

    def __init__(self, library: str = _LIBRARY, driver: str = _DRIVER) -> None:
        """Find the first GPU of this process in NVML by its PCI bus ID, since NVML lists all GPUs."""
        self.samples: list[tuple[float, int]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="utilisation", daemon=True)
        self._handle = ctypes.c_void_p()
        self._nvml: ctypes.CDLL | None = None
        self.reason = self._open(library, driver)

    def median(self, start: float, end: float) -> float | None:
        """Median percentage between two times of `time.perf_counter`; None without samples."""
        within = sorted(percent for when, percent in self.samples if start <= when <= end)
        return float(within[len(within) // 2]) if within else None

    def __enter__(self) -> GpuUtilisation:
        if not self.reason:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def _open(self, library: str, driver: str) -> str:
        try:
            nvml, cuda = ctypes.CDLL(library), ctypes.CDLL(driver)
        except OSError as error:
            return f"{error}"
        device, bus = ctypes.c_int(), ctypes.create_string_buffer(_BUS_BYTES)
        code = cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0)
        code = code or cuda.cuDeviceGetPCIBusId(bus, _BUS_BYTES, device)
        if code:
            return f"the driver does not report the PCI bus ID of the GPU (error {code})"
        code = nvml.nvmlInit_v2()
        if code:
            return f"NVML does not start (error {code})"
        self._nvml = nvml
        code = nvml.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(self._handle))
        rates = _Rates()
        code = code or nvml.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(rates))
        # 3 is NVML_ERROR_NOT_SUPPORTED: a Jetson, or a MIG partition.
        return f"NVML does not report the utilisation of this GPU (error {code})" if code else ""

    def _sample(self) -> None:
        assert self._nvml is not None
        rates = _Rates()
        while not self._end.wait(_SAMPLE_SECONDS):
            if self._nvml.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(rates)) == 0:
                self.samples.append((time.perf_counter(), rates.gpu))
