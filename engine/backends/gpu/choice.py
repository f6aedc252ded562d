"""Choose the plans for the GPU of this machine, if there is one.

What finds and builds plans is imported after a GPU was found: most machines without one grade on the CPU, and
start faster.
"""

from __future__ import annotations

import importlib.util

from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.hardware import query_nvidia_driver


class NoGpuError(CudaError):
    """No GPU is visible to this process."""


def choose_plans(pack: Pack, precision: str, options: GpuOptions) -> ChosenPlans:
    """Choose plans of a pack for the first GPU of this machine.

    Uses the first installed flavour with a loadable plan for each model, TensorRT before TensorRT-RTX. If
    there is none and `options.build_missing_plans` is set, the missing plans of the first flavour are built.

    Args:
        pack: a loaded pack.
        precision: precision to grade in.
        options: options of the GPU.

    Raises:
        NoGpuError: there is no GPU.
        CudaError: PyCUDA is not installed.
        TensorRTError: no flavour is installed that runs on this GPU, or there are no plans; the advice has
            the command that builds them.
        PackError: plans are to be built, and the pack is not writable or requires signatures.
    """
    driver = query_nvidia_driver()
    if not driver.gpus:
        raise NoGpuError(
            f"There is no GPU to grade on: {driver.unavailable_reason}.",
            "Check that the GPU is visible to this process, or grade with --device cpu.",
        )
    if importlib.util.find_spec("pycuda") is None:
        raise CudaError("PyCUDA is not installed.", "Install it: pip install 'stenosis-trt[gpu]'")
    from stenosis_trt.engine.backends.gpu.plan_choice import plans_for

    return plans_for(pack, precision, options, driver)
