"""Choose the flavour of TensorRT that builds plans, and the GPU to build on."""

from __future__ import annotations

from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.support.hardware import Gpu, NvidiaDriver
from stenosis_trt.engine.trt.flavours import FLAVOURS, BuildSettings, Flavour, format_capability


def choose_flavour(name: str | None, installed: tuple[str, ...], driver: NvidiaDriver) -> Flavour:
    """Choose the requested flavour, else the installed one; of two, TensorRT if there is a GPU.

    Raises:
        TensorRTError: it is not installed, or none is.
    """
    if name is not None:
        if name not in installed:
            raise TensorRTError(f"{name} is not installed.", f"Install it: {FLAVOURS[name].install}.")
        return FLAVOURS[name]
    if not installed:
        ways = "; or ".join(f"{flavour.name}: {flavour.install}" for flavour in FLAVOURS.values())
        raise TensorRTError("Neither TensorRT nor TensorRT-RTX is installed.", f"Install one. {ways}.")
    suitable = [item for item in installed if FLAVOURS[item].builds_without_gpu != bool(driver.gpus)]
    return FLAVOURS[(suitable or list(installed))[0]]


def select_gpu(flavour: Flavour, settings: BuildSettings, driver: NvidiaDriver) -> Gpu | None:
    """GPU that plans are built on and for; None if they are built ahead of time.

    Raises:
        TensorRTError: the flavour needs a GPU and there is none, or its plans would not run on this GPU.
    """
    if not flavour.builds_without_gpu:
        if not driver.gpus:
            raise TensorRTError(
                f"{flavour.name} builds on the GPU that it builds for, and here is none: "
                f"{driver.unavailable_reason}.",
                "Build where the plans are to run, or build ahead of time with --flavour tensorrt-rtx.",
            )
        return driver.gpus[0]
    if settings.compute_capabilities or not driver.gpus:
        return None
    gpu = driver.gpus[0]
    if flavour.runs_on(gpu.compute_capability):
        return None
    here = format_capability(gpu.compute_capability)
    if gpu.compute_capability in flavour.targets:
        advice = f"Give --compute-capability {here}."
    else:
        others = ",".join(map(format_capability, flavour.default_targets))
        advice = (
            f"Use TensorRT here ({FLAVOURS['tensorrt'].install}; --flavour tensorrt), or build for other "
            f"machines with --compute-capability {others}."
        )
    raise TensorRTError(
        f"Plans of {flavour.name} do not run on this machine's {gpu.name} (compute capability {here}).",
        advice,
    )
