"""What the two flavours of TensorRT can do, as data, and the settings of a plan. Imports neither."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stenosis_trt.engine.errors import TensorRTError

Capability = tuple[int, int]
"""A GPU's compute capability, (8, 7) for 8.7."""

DEFAULT_BATCHES = (1, 2, 4, 6, 8, 16, 32)
"""A study has six levels; stacks have 12 to 30 slices."""

HARDWARE_COMPATIBILITY_LEVELS = ("same-compute-capability", "ampere-plus")
"""How far a plan of TensorRT may travel: to any GPU of the same compute capability, or of 8.0 and later."""

LARGEST_BATCH = 4096


@dataclass(frozen=True)
class BuildSettings:
    """What a plan is built with. Each batch gets an optimisation profile of its own, of exactly that size.

    Attributes:
        batches: rising.
        builder_level: 0 to 5, more being slower to build and faster to run; None for TensorRT's own choice.
        workspace_bytes: scratch memory a plan may ask for; None for all of the GPU's.
        tf32: let FP32 convolutions round their factors to 10 bits, faster from compute capability 8.0 on.
        version_compatible: runs on later versions of TensorRT too.
        hardware_compatible: one of `HARDWARE_COMPATIBILITY_LEVELS`, or "" for this GPU's model alone.
        compute_capabilities: those to build for, rising; () for the flavour's own choice.
        dla_core: deep learning accelerator to run on, the GPU doing what it cannot; None for the GPU alone.
        detailed: keep what the engine inspector and profilers show of each layer.

    Raises:
        ValueError: a setting is out of range; the message says what can be.
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
            (self.batches == tuple(sorted(set(self.batches))), "Batches rise, and each is there once."),
            (0 <= level <= 5, "The builder level is 0 to 5."),
            (workspace > 0, "The workspace is at least one byte, such as --workspace 2GiB."),
            (
                distance in ("", *HARDWARE_COMPATIBILITY_LEVELS),
                f"Hardware compatibility is one of {', '.join(HARDWARE_COMPATIBILITY_LEVELS)}.",
            ),
            (self.dla_core is None or self.dla_core >= 0, "A DLA core is 0 or more."),
        )
        for holds, rule in checks:
            if not holds:
                raise ValueError(rule)

    def command_options(self) -> Iterator[str]:
        """Options of `stenosis-trt build` that give these settings, without those that are the default."""
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
    """One flavour of TensorRT, and what it has.

    Attributes:
        name: as `build --flavour` takes it.
        modules: to import, the first that is there.
        install: what brings it.
        builds_without_gpu: needs no GPU to build, and its plans run on several kinds.
        timing_cache: can keep what it measured of each layer for the next build.
        version_compatible, hardware_compatible, dla: has this option of `BuildSettings`.
        targets: compute capabilities that can be asked for, where plans are built ahead.
        default_targets: those of a plan for which none was asked for.
        newer_than: such a plan runs on GPUs beyond this one as well.
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
        """Refuse settings that this flavour does not have.

        Raises:
            TensorRTError: and which one it is.
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
        """Whether a plan built ahead for `targets` (() for the default) runs on such a GPU."""
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
        # As 1.7.1.116 behaves: deserialising on 9.0 is refused with the list of default_targets and ">12.0";
        # its timing cache does nothing, hardware compatibility is said to be unsupported, and
        # VERSION_COMPATIBLE fails for want of a library that is not part of it.
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
    """ "8.7" of (8, 7)."""
    return "{}.{}".format(*capability)


def parse_capability(text: str) -> Capability:
    """(8, 7) of "8.7".

    Raises:
        ValueError: it is not such a text.
    """
    found = re.fullmatch(r"(\d{1,3})\.(\d)", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no compute capability. Give one such as 8.6.")
    return int(found[1]), int(found[2])
