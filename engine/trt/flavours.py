"""Capabilities of the two flavours of TensorRT as data, and the build settings. Imports neither."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stenosis_trt.engine.errors import TensorRTError

Capability = tuple[int, int]
"""Compute capability of a GPU, (8, 7) for 8.7."""

DEFAULT_BATCHES = (1, 2, 4, 6, 8, 16, 32)
"""Batch sizes: a study has 6 levels, and series have 12 to 30 slices."""

HARDWARE_COMPATIBILITY_LEVELS = ("same-compute-capability", "ampere-plus")
"""GPUs that a plan of TensorRT runs on: the same compute capability, or any from 8.0 on."""

LARGEST_BATCH = 4096


@dataclass(frozen=True)
class BuildSettings:
    """Settings of a build. Each batch size gets an optimisation profile of exactly that size.

    Attributes:
        batches: batch sizes, ascending.
        builder_level: optimisation level 0 to 5, higher is slower to build; None for TensorRT's default.
        workspace_bytes: limit of scratch memory; None for all memory of the GPU.
        tf32: allow TF32 (10-bit mantissa) in FP32 convolutions, faster from compute capability 8.0 on.
        version_compatible: build a plan that later versions of TensorRT can load.
        hardware_compatible: one of `HARDWARE_COMPATIBILITY_LEVELS`, or "" for this GPU model only.
        compute_capabilities: capabilities to build for, ascending; () for the flavour's default.
        dla_core: DLA core to run on, with GPU fallback; None for the GPU only.
        detailed: keep layer information for the engine inspector and profilers.

    Raises:
        ValueError: a setting is out of range; the message says what is valid.
    """

    batches: tuple[int, ...] = DEFAULT_BATCHES
    builder_level: int | None = None
    workspace_bytes: int | None = None
    tf32: bool = False
    version_compatible: bool = False
    hardware_compatible: str = ""
    compute_capabilities: tuple[Capability, ...] = ()
    dla_core: int | None = None
    detailed: bool = False

    def __post_init__(self) -> None:
        level = 0 if self.builder_level is None else self.builder_level
        workspace = 1 if self.workspace_bytes is None else self.workspace_bytes
        distance = self.hardware_compatible
        checks = (
            (
                bool(self.batches) and all(1 <= size <= LARGEST_BATCH for size in self.batches),
                f"Batches are whole numbers of 1 to {LARGEST_BATCH}, such as --batch 1,8.",
            ),
            (
                self.batches == tuple(sorted(set(self.batches))),
                "Batch sizes must be in ascending order without repetition.",
            ),
            (0 <= level <= 5, "The builder level must be 0 to 5."),
            (workspace > 0, "The workspace must be at least one byte, such as --workspace 2GiB."),
            (
                distance in ("", *HARDWARE_COMPATIBILITY_LEVELS),
                f"Hardware compatibility must be one of {', '.join(HARDWARE_COMPATIBILITY_LEVELS)}.",
            ),
            (self.dla_core is None or self.dla_core >= 0, "The DLA core must be 0 or more."),
        )
        for holds, rule in checks:
            if not holds:
                raise ValueError(rule)

    def command_options(self) -> Iterator[str]:
        """Options of `stenosis-trt build` for these settings, without defaults."""
        if self.batches != DEFAULT_BATCHES:
            yield f"--batch {','.join(map(str, self.batches))}"
        if self.builder_level is not None:
            yield f"--builder-level {self.builder_level}"
        if self.workspace_bytes is not None:
            yield f"--workspace {self.workspace_bytes}"
        if self.tf32:
            yield "--tf32"
        if self.version_compatible:
            yield "--version-compatible"
        if self.hardware_compatible:
            yield f"--hardware-compatible {self.hardware_compatible}"
        if self.compute_capabilities:
            yield f"--compute-capability {','.join(map(format_capability, self.compute_capabilities))}"
        if self.dla_core is not None:
            yield f"--dla-core {self.dla_core}"
        if self.detailed:
            yield "--detailed-profiling"


@dataclass(frozen=True)
class Flavour:
    """A flavour of TensorRT and its capabilities.

    Attributes:
        name: value of `build --flavour`.
        modules: names of its Python modules; the first one installed is imported.
        install: how to install it.
        builds_without_gpu: builds ahead of time without a GPU, for several compute capabilities.
        timing_cache: supports a cache of layer timings.
        version_compatible, hardware_compatible, dla: supports this option of `BuildSettings`.
        targets: compute capabilities that can be built for ahead of time.
        default_targets: compute capabilities of a plan if none are requested.
        newer_than: such a plan also runs on GPUs of higher capability than this.
    """

    name: str
    modules: tuple[str, ...]
    install: str
    builds_without_gpu: bool
    timing_cache: bool
    version_compatible: bool
    hardware_compatible: bool
    dla: bool
    targets: tuple[Capability, ...] = ()
    default_targets: tuple[Capability, ...] = ()
    newer_than: Capability | None = None

    def check(self, settings: BuildSettings) -> None:
        """Check that this flavour supports the settings.

        Raises:
            TensorRTError: it does not; the reason names the option.
        """
        unknown = [item for item in settings.compute_capabilities if item not in self.targets]
        asked = (
            (settings.version_compatible and not self.version_compatible, "--version-compatible"),
            (bool(settings.hardware_compatible) and not self.hardware_compatible, "--hardware-compatible"),
            (settings.dla_core is not None and not self.dla, "--dla-core"),
            (bool(settings.compute_capabilities) and not self.builds_without_gpu, "--compute-capability"),
        )
        for refused, option in asked:
            if refused:
                other = next(name for name in FLAVOURS if name != self.name)
                raise TensorRTError(
                    f"{self.name} has nothing like {option}.",
                    f"Leave it out, or build with --flavour {other}.",
                )
        if unknown:
            unsupported = ", ".join(map(format_capability, unknown))
            raise TensorRTError(
                f"{self.name} cannot build for compute capability {unsupported}.",
                f"Give some of {','.join(map(format_capability, self.targets))}.",
            )

    def runs_on(self, capability: Capability, targets: tuple[Capability, ...] = ()) -> bool:
        """True if a plan built ahead of time for `targets` (() for the default) runs on such a GPU."""
        if targets:
            return capability in targets
        newer = self.newer_than is not None and capability > self.newer_than
        return capability in self.default_targets or newer


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            name="tensorrt",
            modules=("tensorrt",),
            install="pip install 'stenosis-trt[trt]', or on a Jetson apt-get install nvidia-jetpack and a "
            "virtual environment made with --system-site-packages",
            builds_without_gpu=False,
            timing_cache=True,
            version_compatible=True,
            hardware_compatible=True,
            dla=True,
        ),
        # Observed with 1.7.1.116: deserialising on 9.0 fails and lists default_targets and ">12.0"; the
        # timing cache has no effect, hardware compatibility is unsupported, and VERSION_COMPATIBLE fails
        # because the wheel lacks a library.
        Flavour(
            name="tensorrt-rtx",
            modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
            install="pip install 'stenosis-trt[rtx]', or 'stenosis-trt[rtx-build]' on a machine without CUDA",
            builds_without_gpu=True,
            timing_cache=False,
            version_compatible=False,
            hardware_compatible=False,
            dla=False,
            targets=((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)),
            default_targets=((8, 0), (8, 6), (8, 9), (12, 0), (12, 1)),
            newer_than=(12, 0),
        ),
    )
}


def format_capability(capability: Capability) -> str:
    """Format a compute capability: (8, 7) → "8.7"."""
    return "{}.{}".format(*capability)


def parse_capability(text: str) -> Capability:
    """Parse a compute capability: "8.7" → (8, 7).

    Raises:
        ValueError: the text is not a compute capability.
    """
    found = re.fullmatch(r"(\d{1,3})\.(\d)", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a compute capability. Give one such as 8.6.")
    return int(found[1]), int(found[2])
