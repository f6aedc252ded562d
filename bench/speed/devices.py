"""Peak rates of GPUs, computed from the vendor's specifications.

The TOPS of data sheets include structured sparsity and, for Jetsons, the deep learning accelerators. Neither
applies here, so peaks are computed: multiprocessors × clock × dense operations per multiprocessor and clock.
`stated_tera_operations` holds the vendor's dense figures; a test compares both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class SmArchitecture:
    """Operations per clock of one streaming multiprocessor (SM); a multiply-add counts as two.

    Attributes:
        fp32: of the CUDA cores, 128 × 2. TF32 is not used by the plans.
        fp16, int8: of the tensor cores, for dense matrices and the fastest accumulator.
    """

    name: str
    fp32: int
    fp16: int
    int8: int

    def operations_per_clock(self, precision: str) -> int:
        """Operations per clock in a precision of `PRECISIONS`."""
        return {"fp32": self.fp32, "fp16": self.fp16, "int8": self.int8}[precision]


AMPERE_TEGRA = SmArchitecture("Ampere (8.7)", 256, 2048, 4096)
ADA = SmArchitecture("Ada (8.9)", 256, 1024, 2048)
HOPPER = SmArchitecture("Hopper (9.0)", 256, 4096, 8192)
BLACKWELL_TEGRA = SmArchitecture("Blackwell (11.0)", 256, 8192, 16384)
BLACKWELL = SmArchitecture("Blackwell (12.0)", 256, 1024, 2048)


@dataclass(frozen=True)
class GpuSpec:
    """Specification of a GPU in one power mode.

    Attributes:
        name: product name, with the power mode if there are several.
        driver_name: name that the driver reports; "" if several modes report the same.
        architecture: operations per clock of a multiprocessor.
        multiprocessors: number of multiprocessors.
        gigahertz: maximum clock of the mode.
        gigabytes_a_second: memory bandwidth.
        fp32_gigahertz: clock without tensor cores, if different.
    """

    name: str
    driver_name: str
    architecture: SmArchitecture
    multiprocessors: int
    gigahertz: float
    gigabytes_a_second: float
    fp32_gigahertz: float | None = None

    @property
    def source(self) -> str:
        """Source of the figures."""
        return _SOURCES[self.name]

    @property
    def stated_tera_operations(self) -> Mapping[str, float]:
        """The vendor's dense figures in 10¹² operations per second, by precision."""
        return _STATED.get(self.name, {})

    @property
    def watts(self) -> float | None:
        """Largest power: of a Jetson's whole module in this mode, of a card's board; None where unstated."""
        return _POWER[self.name][0]

    @property
    def power_source(self) -> str:
        """Source of `watts`, or why there is none."""
        return _POWER[self.name][1]

    def peak(self, precision: str) -> float:
        """Peak dense operations per second in a precision of `PRECISIONS`."""
        clock = self.fp32_gigahertz if precision == "fp32" and self.fp32_gigahertz else self.gigahertz
        return self.multiprocessors * clock * 1e9 * self.architecture.operations_per_clock(precision)


_SUPER_BLOG = "developer.nvidia.com/blog/nvidia-jetson-orin-nano-developer-kit-gets-a-super-boost"
_THOR_BLOG = "developer.nvidia.com/blog/introducing-nvidia-jetson-thor-the-ultimate-platform-for-physical-ai"
_HOPPER = "Hopper's white paper (SM counts, clocks of 1.83 GHz with and 1.98 GHz without tensor cores)"

_SOURCES = {
    "Jetson Orin Nano 8GB, 15 W": "data sheet of the module (625 MHz, 40 sparse and 20 dense INT8 TOPS); "
    f"{_SUPER_BLOG} (10 FP16 TFLOPS, 68 GB/s)",
    "Jetson Orin Nano 8GB, 25 W SUPER": "nvpmodel_p3767_0003_super.conf of Jetson Linux 36.4 (GPU at 918 "
    "MHz in mode 25W); memory as in MAXN SUPER",
    "Jetson Orin Nano 8GB, MAXN SUPER": f"{_SUPER_BLOG} (1020 MHz, 67 sparse and 33 dense INT8 TOPS, 17 FP16 "
    "TFLOPS, 102 GB/s)",
    "Jetson Orin NX 16GB, MAXN": "data sheet of the module (1024 cores, 918 MHz, 102.4 GB/s; of its 100 "
    "sparse INT8 TOPS its deep learning accelerators give 40)",
    "Jetson Orin NX 16GB, 40 W SUPER": "nvpmodel_p3767_0000_super.conf of Jetson Linux 36.4 (GPU at 1173 "
    "MHz in mode 40W); else as above",
    "Jetson AGX Orin 64GB, 30 W": "nvpmodel_p3701_0000.conf of Jetson Linux 36.4 (MODE_30W: GPU at 612 MHz "
    "with half of its multiprocessors off, memory at its full clock)",
    "Jetson AGX Orin 64GB, MAXN": "technical brief of the series (16 multiprocessors, 1.3 GHz, 5.3 FP32 "
    "TFLOPS, 170 sparse INT8 TOPS of the GPU: half of it is dense; 204.8 GB/s)",
    "Jetson AGX Thor (T5000), MAXN": f"{_THOR_BLOG} (2560 cores, 1.57 GHz, 273 GB/s; 1035 sparse INT8, 517 "
    "sparse FP16: half of each is dense)",
    "L4": "data sheet (7424 cores, 30.3 FP32, 300 GB/s; 242 sparse FP16, 485 sparse INT8: half of it is "
    "dense)",
    "GeForce RTX 4090": "Ada's white paper (82.6 FP32; 330.3 FP16, with FP32 accumulators half of it; 660.6 "
    "INT8; 1008 GB/s)",
    "RTX PRO 6000 Blackwell Workstation": "product page (24064 cores, 125 FP32, 1792 GB/s; 4000 sparse FP4: "
    "an eighth of it is dense FP16, a quarter dense INT8)",
    "H100 SXM": f"{_HOPPER}; data sheet (67 FP32, 3.35 TB/s; 1979 sparse FP16, 3958 sparse INT8: half is "
    "dense)",
    "H200 SXM": f"{_HOPPER}; data sheet (as H100 SXM, with 4.8 TB/s)",
}
"""Source of the figures of each GPU."""

_MODE = "power budget of the mode in the nvpmodel file, which holds for the whole module"
_UNCAPPED = "MAXN has no power budget"

_POWER: Mapping[str, tuple[float | None, str]] = {
    "Jetson Orin Nano 8GB, 15 W": (15.0, _MODE),
    "Jetson Orin Nano 8GB, 25 W SUPER": (25.0, _MODE),
    "Jetson Orin Nano 8GB, MAXN SUPER": (None, _UNCAPPED),
    "Jetson Orin NX 16GB, MAXN": (None, _UNCAPPED),
    "Jetson Orin NX 16GB, 40 W SUPER": (40.0, _MODE),
    "Jetson AGX Orin 64GB, 30 W": (30.0, _MODE),
    "Jetson AGX Orin 64GB, MAXN": (60.0, "data sheet of the module: 15 W to 60 W"),
    "Jetson AGX Thor (T5000), MAXN": (130.0, f"{_THOR_BLOG}: 40 W to 130 W"),
    "L4": (72.0, "data sheet: 72 W"),
    "GeForce RTX 4090": (450.0, "Ada's white paper: total graphics power of 450 W"),
    "RTX PRO 6000 Blackwell Workstation": (600.0, "product page: 600 W"),
    "H100 SXM": (700.0, "data sheet: up to 700 W"),
    "H200 SXM": (700.0, "data sheet: up to 700 W"),
}
"""Largest power in W, and its source."""

_STATED: dict[str, dict[str, float]] = {
    "Jetson Orin Nano 8GB, 15 W": {"fp16": 10.0, "int8": 20.0},
    "Jetson Orin Nano 8GB, MAXN SUPER": {"fp16": 17.0, "int8": 33.0},
    "Jetson Orin NX 16GB, MAXN": {"int8": 30.0},
    "Jetson AGX Orin 64GB, MAXN": {"fp32": 5.3, "int8": 85.0},
    "Jetson AGX Thor (T5000), MAXN": {"fp16": 258.5, "int8": 517.5},
    "L4": {"fp32": 30.3, "fp16": 121.0, "int8": 242.5},
    "GeForce RTX 4090": {"fp32": 82.6, "fp16": 330.3, "int8": 660.6},
    "RTX PRO 6000 Blackwell Workstation": {"fp32": 125.0, "fp16": 500.0, "int8": 1000.0},
    "H100 SXM": {"fp32": 67.0, "fp16": 989.5, "int8": 1979.0},
    "H200 SXM": {"fp32": 67.0, "fp16": 989.5, "int8": 1979.0},
}
"""The vendors' dense figures in 10¹² operations per second."""

GPU_SPECS: tuple[GpuSpec, ...] = (
    GpuSpec("Jetson Orin Nano 8GB, 15 W", "", AMPERE_TEGRA, 8, 0.625, 68.0),
    GpuSpec("Jetson Orin Nano 8GB, 25 W SUPER", "", AMPERE_TEGRA, 8, 0.918, 102.0),
    GpuSpec("Jetson Orin Nano 8GB, MAXN SUPER", "", AMPERE_TEGRA, 8, 1.02, 102.0),
    GpuSpec("Jetson Orin NX 16GB, MAXN", "", AMPERE_TEGRA, 8, 0.918, 102.4),
    GpuSpec("Jetson Orin NX 16GB, 40 W SUPER", "", AMPERE_TEGRA, 8, 1.173, 102.4),
    GpuSpec("Jetson AGX Orin 64GB, 30 W", "", AMPERE_TEGRA, 8, 0.612, 204.8),
    GpuSpec("Jetson AGX Orin 64GB, MAXN", "", AMPERE_TEGRA, 16, 1.3, 204.8),
    GpuSpec("Jetson AGX Thor (T5000), MAXN", "NVIDIA Thor", BLACKWELL_TEGRA, 20, 1.57, 273.0),
    GpuSpec("L4", "NVIDIA L4", ADA, 58, 2.04, 300.0),
    GpuSpec("GeForce RTX 4090", "NVIDIA GeForce RTX 4090", ADA, 128, 2.52, 1008.0),
    GpuSpec(
        "RTX PRO 6000 Blackwell Workstation",
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        BLACKWELL,
        188,
        2.617,
        1792.0,
    ),
    GpuSpec("H100 SXM", "NVIDIA H100 80GB HBM3", HOPPER, 132, 1.83, 3350.0, 1.98),
    GpuSpec("H200 SXM", "NVIDIA H200", HOPPER, 132, 1.83, 4800.0, 1.98),
)


def device_of_driver(name: str) -> GpuSpec | None:
    """Return the GPU that the driver reports under a name; None if it is not in `GPU_SPECS`."""
    return next((item for item in GPU_SPECS if item.driver_name and item.driver_name == name), None)
