"""Power, energy and clocks of the product's GPU by NVML, called through ctypes."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from stenosis_trt.engine.errors import DeviceError

_LIBRARY, _DRIVER = "libnvidia-ml.so.1", "libcuda.so.1"
_BUS_BYTES, _NAME_BYTES = 32, 96
_CLOCKS = {"graphics": 0, "sm": 1, "memory": 2}
"""nvmlClockType_t."""


@dataclass(frozen=True)
class NvmlGpu:
    """The first GPU of this process in NVML.

    Attributes:
        name: what is read.
        has_counter: whether there is a counter of energy (from Volta on).
    """

    name: str
    has_counter: bool
    _nvml: ctypes.CDLL
    _handle: ctypes.c_void_p

    @property
    def joules(self) -> NvmlReader | None:
        """The counter of energy since the driver was loaded; None without one."""
        if not self.has_counter:
            return None
        return NvmlReader(self, "nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)

    @property
    def watts(self) -> NvmlReader | None:
        """The present power; None where there is a counter of energy."""
        if self.has_counter:
            return None
        return NvmlReader(self, "nvmlDeviceGetPowerUsage", ctypes.c_uint)

    def state(self) -> dict[str, float]:
        """Return clocks in MHz and the power limit in W, as far as NVML gives them."""
        found = {}
        for name, kind in _CLOCKS.items():
            value = ctypes.c_uint()
            if self._nvml.nvmlDeviceGetClockInfo(self._handle, kind, ctypes.byref(value)) == 0:
                found[f"{name}_mhz"] = float(value.value)
        limit = ctypes.c_uint()
        if self._nvml.nvmlDeviceGetPowerManagementLimit(self._handle, ctypes.byref(limit)) == 0:
            found["power_limit_watts"] = limit.value / 1e3
        return found


@dataclass(frozen=True)
class NvmlReader:
    """Reads one value of a GPU, which NVML gives in thousandths, in J or W."""

    gpu: NvmlGpu
    function: str
    kind: type[ctypes.c_uint] | type[ctypes.c_ulonglong]

    def __call__(self) -> float:
        """Return the value.

        Raises:
            DeviceError: NVML gives none.
        """
        value = self.kind()
        code = getattr(self.gpu._nvml, self.function)(self.gpu._handle, ctypes.byref(value))
        if code:
            raise DeviceError(f"NVML does not give the power of the GPU any more (error {code}).")
        return value.value / 1e3


def open_nvml(library: str = _LIBRARY, driver: str = _DRIVER) -> NvmlGpu | str:
    """Find the first GPU of this process in NVML by its PCI bus ID; return why there is none, as a phrase."""
    try:
        nvml, cuda = ctypes.CDLL(library), ctypes.CDLL(driver)
    except OSError as error:
        return f"NVML cannot be loaded ({error})"
    device, bus = ctypes.c_int(), ctypes.create_string_buffer(_BUS_BYTES)
    code = cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0)
    code = code or cuda.cuDeviceGetPCIBusId(bus, _BUS_BYTES, device)
    if code:
        return f"the driver gives no GPU for NVML (error {code})"
    handle, name = ctypes.c_void_p(), ctypes.create_string_buffer(_NAME_BYTES)
    # Never shut down: the library is left as it is until the process ends.
    code = nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(handle))
    code = code or nvml.nvmlDeviceGetName(handle, name, _NAME_BYTES)
    if code:
        return f"NVML does not give the GPU (error {code})"
    energy, power = ctypes.c_ulonglong(), ctypes.c_uint()
    counter = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy)) == 0
    if not counter and (code := nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(power))):
        # 3 is NVML_ERROR_NOT_SUPPORTED: a Jetson, or a MIG partition.
        return f"NVML does not give the power of this GPU (error {code})"
    what = "energy counter" if counter else "power"
    return NvmlGpu(f"NVML, {what} of {name.value.decode(errors='replace')}", counter, nvml, handle)
