"""What GPUs can do at most, as data: from their makers' figures by formulas that are written here.

A data sheet's TOPS count the zeros that structured sparsity leaves out, and a Jetson's count its deep
learning accelerators. Neither is of use here, so peaks are computed: multiprocessors × clock × operations
that one of them does in a clock. What makers say of dense operations is in `stated`; a test compares both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class SmArchitecture:
    """Operations of one multiprocessor in one clock; a multiply-add is two.

    Attributes:
        fp32: of its CUDA cores, 128 × 2. TF32 is left out: plans are built without it.
        fp16, int8: of its tensor cores, on dense matrices, with the fastest accumulator there is.
    """

    name: str
    fp32: int
    fp16: int
    int8: int

    def operations_per_clock(self, precision: str) -> int:
        """Of one multiprocessor in one clock."""
        return {"fp32": self.fp32, "fp16": self.fp16, "int8": self.int8}[precision]


AMPERE_TEGRA = SmArchitecture("Ampere (8.7)", 256, 2048, 4096)
ADA = SmArchitecture("Ada (8.9)", 256, 1024, 2048)
HOPPER = SmArchitecture("Hopper (9.0)", 256, 4096, 8192)
BLACKWELL_TEGRA = SmArchitecture("Blackwell (11.0)", 256, 8192, 16384)
BLACKWELL = SmArchitecture("Blackwell (12.0)", 256, 1024, 2048)


@dataclass(frozen=True)
class GpuSpec:
    """A GPU in one power mode.

    Attributes:
        name: as people call it, with the mode where there are several.
        driver_name: as its driver calls it; "" where several devices answer alike.
        architecture: what a multiprocessor does in a clock.
        multiprocessors: how many it has.
        gigahertz: the highest clock of the mode.
        gigabytes_a_second: of its memory.
        stated_tera_operations: the maker's dense figures in 10¹² operations a second, where there are any.
        source: where the figures are from.
        fp32_gigahertz: the clock without tensor cores, where it is another.
    """

    name: str
    driver_name: str
    architecture: SmArchitecture
    multiprocessors: int
    gigahertz: float
    gigabytes_a_second: float
    source: str
    stated_tera_operations: Mapping[str, float] = field(default_factory=dict)
    fp32_gigahertz: float | None = None

    def peak(self, precision: str) -> float:
        """Operations a second, dense."""
        clock = self.fp32_gigahertz if precision == "fp32" and self.fp32_gigahertz else self.gigahertz
        return self.multiprocessors * clock * 1e9 * self.architecture.operations_per_clock(precision)


_SUPER_BLOG = "developer.nvidia.com/blog/nvidia-jetson-orin-nano-developer-kit-gets-a-super-boost"
_THOR_BLOG = "developer.nvidia.com/blog/introducing-nvidia-jetson-thor-the-ultimate-platform-for-physical-ai"
_HOPPER = "Hopper's white paper (SM counts, clocks of 1.83 GHz with and 1.98 GHz without tensor cores)"

GPU_SPECS: tuple[GpuSpec, ...] = (
    GpuSpec(
        "Jetson Orin Nano 8GB, 15 W",
        "",
        AMPERE_TEGRA,
        8,
        0.625,
        68.0,
        "data sheet of the module (625 MHz, 40 sparse and 20 dense INT8 TOPS); "
        f"{_SUPER_BLOG} (10 FP16 TFLOPS, 68 GB/s)",
        {"fp16": 10.0, "int8": 20.0},
    ),
    GpuSpec(
        "Jetson Orin Nano 8GB, 25 W SUPER",
        "",
        AMPERE_TEGRA,
        8,
        0.918,
        102.0,
        "nvpmodel_p3767_0003_super.conf of Jetson Linux 36.4 (GPU at 918 MHz in mode 25W); memory as in MAXN "
        "SUPER",
    ),
    GpuSpec(
        "Jetson Orin Nano 8GB, MAXN SUPER",
        "",
        AMPERE_TEGRA,
        8,
        1.02,
        102.0,
        f"{_SUPER_BLOG} (1020 MHz, 67 sparse and 33 dense INT8 TOPS, 17 FP16 TFLOPS, 102 GB/s)",
        {"fp16": 17.0, "int8": 33.0},
    ),
    GpuSpec(
        "Jetson Orin NX 16GB, MAXN",
        "",
        AMPERE_TEGRA,
        8,
        0.918,
        102.4,
        "data sheet of the module (1024 cores, 918 MHz, 102.4 GB/s; of its 100 sparse INT8 TOPS its deep "
        "learning accelerators give 40)",
        {"int8": 30.0},
    ),
    GpuSpec(
        "Jetson Orin NX 16GB, 40 W SUPER",
        "",
        AMPERE_TEGRA,
        8,
        1.173,
        102.4,
        "nvpmodel_p3767_0000_super.conf of Jetson Linux 36.4 (GPU at 1173 MHz in mode 40W); else as above",
    ),
    GpuSpec(
        "Jetson AGX Orin 64GB, 30 W",
        "",
        AMPERE_TEGRA,
        8,
        0.612,
        204.8,
        "nvpmodel_p3701_0000.conf of Jetson Linux 36.4 (MODE_30W: GPU at 612 MHz with half of its "
        "multiprocessors off, memory at its full clock)",
    ),
    GpuSpec(
        "Jetson AGX Orin 64GB, MAXN",
        "",
        AMPERE_TEGRA,
        16,
        1.3,
        204.8,
        "technical brief of the series (16 multiprocessors, 1.3 GHz, 5.3 FP32 TFLOPS, 170 sparse INT8 TOPS "
        "of the GPU: half of it is dense; 204.8 GB/s)",
        {"fp32": 5.3, "int8": 85.0},
    ),
    GpuSpec(
        "Jetson AGX Thor (T5000), MAXN",
        "NVIDIA Thor",
        BLACKWELL_TEGRA,
        20,
        1.57,
        273.0,
        f"{_THOR_BLOG} (2560 cores, 1.57 GHz, 273 GB/s; 1035 sparse INT8, 517 sparse FP16: half of each is "
        "dense)",
        {"fp16": 258.5, "int8": 517.5},
    ),
    GpuSpec(
        "L4",
        "NVIDIA L4",
        ADA,
        58,
        2.04,
        300.0,
        "data sheet (7424 cores, 30.3 FP32, 300 GB/s; 242 sparse FP16, 485 sparse INT8: half of it is dense)",
        {"fp32": 30.3, "fp16": 121.0, "int8": 242.5},
    ),
    GpuSpec(
        "GeForce RTX 4090",
        "NVIDIA GeForce RTX 4090",
        ADA,
        128,
        2.52,
        1008.0,
        "Ada's white paper (82.6 FP32; 330.3 FP16, with FP32 accumulators half of it; 660.6 INT8; 1008 GB/s)",
        {"fp32": 82.6, "fp16": 330.3, "int8": 660.6},
    ),
    GpuSpec(
        "RTX PRO 6000 Blackwell Workstation",
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        BLACKWELL,
        188,
        2.617,
        1792.0,
        "product page (24064 cores, 125 FP32, 1792 GB/s; 4000 sparse FP4: an eighth of it is dense FP16, a "
        "quarter dense INT8)",
        {"fp32": 125.0, "fp16": 500.0, "int8": 1000.0},
    ),
    GpuSpec(
        "H100 SXM",
        "NVIDIA H100 80GB HBM3",
        HOPPER,
        132,
        1.83,
        3350.0,
        f"{_HOPPER}; data sheet (67 FP32, 3.35 TB/s; 1979 sparse FP16, 3958 sparse INT8: half is dense)",
        {"fp32": 67.0, "fp16": 989.5, "int8": 1979.0},
        fp32_gigahertz=1.98,
    ),
    GpuSpec(
        "H200 SXM",
        "NVIDIA H200",
        HOPPER,
        132,
        1.83,
        4800.0,
        f"{_HOPPER}; data sheet (as H100 SXM, with 4.8 TB/s)",
        {"fp32": 67.0, "fp16": 989.5, "int8": 1979.0},
        fp32_gigahertz=1.98,
    ),
)
