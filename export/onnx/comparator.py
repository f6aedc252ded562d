"""The only importer of Polygraphy: runs models and plans, compares their outputs, and summarises them.

Polygraphy is imported on use. Its exceptions become one-line errors, and its output is suppressed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.store import StoredPlan, read_plan
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.engine.trt.api import TensorRT, installed_flavours
from stenosis_trt.export.errors import PreparationError
from stenosis_trt.export.onnx.graphs import cpu_session

_RTX = "tensorrt-rtx"
_VARIABLE = "POLYGRAPHY_USE_TENSORRT_RTX"


class ComparatorError(PreparationError):
    """A file or plan that cannot be compared or summarised."""


@dataclass(frozen=True)
class OutputChange:
    """Difference of an output to that of the FP32 model, over all values of all inputs.

    Attributes:
        output: name of the output.
        largest, mean: absolute difference.
        snr_db: signal-to-noise ratio, 20 log10(‖FP32‖ / ‖difference‖); infinite if the outputs are equal.
    """

    output: str
    largest: float
    mean: float
    snr_db: float


def run_inputs(runner: Any, inputs: Float32Array, batch: int) -> Any:
    """Run all inputs in batches of exactly `batch`; returns Polygraphy's `IterationResult`.

    The last batch is filled with repeated inputs, whose outputs are dropped.
    """
    # Polygraphy imports PyTorch if installed, and mistakes an interrupt during that for its absence.
    with suppress(ImportError):
        importlib.import_module("torch")
    with _polygraphy():
        from polygraphy.comparator import Comparator, IterationResult

        with runner:
            (source,) = runner.get_input_metadata(use_numpy_dtypes=False)
        count = -(-len(inputs) // batch) * batch
        filled = np.resize(inputs, (count, *inputs.shape[1:]))
        feeds = [{source: filled[first : first + batch]} for first in range(0, count, batch)]
        ((name, parts),) = Comparator.run([runner], data_loader=feeds)
        outputs = {
            output: np.concatenate([part[output] for part in parts])[: len(inputs)] for output in parts[0]
        }
        return IterationResult(outputs, runner_name=name)


def output_changes(expected: Any, answers: Any) -> tuple[OutputChange, ...]:
    """Compare a runner's outputs with the expected ones.

    Raises:
        ComparatorError: their names differ, so that Polygraphy would compare unrelated outputs.
    """
    if list(expected) != list(answers):
        raise ComparatorError(
            f"The outputs are {', '.join(answers)}, and those of the model in FP32 {', '.join(expected)}.",
            "Make the file again: stenosis-trt quantise.",
        )
    with _polygraphy():
        from polygraphy.comparator import Comparator, RunResults, SimpleCompareFunc, SnrCompareFunc

        results = RunResults([("FP32", [expected]), ("compared", [answers])])
        functions = [SimpleCompareFunc(check_error_stat="max"), SnrCompareFunc()]
        errors, ratios = (
            accuracy["FP32", "compared"][0]
            for accuracy in Comparator.compare_accuracy(results, compare_func=functions)
        )
    return tuple(
        OutputChange(name, errors[name].max_absdiff, errors[name].mean_absdiff, float(ratios[name].snr))
        for name in expected
    )


def onnx_summary(data: bytes) -> str:
    """Polygraphy's summary of an ONNX model: inputs, outputs and node counts.

    Raises:
        ComparatorError: Polygraphy is not installed.
    """
    with _polygraphy():
        from polygraphy.backend.onnx import util

        return str(util.str_from_onnx(onnx.load_model_from_string(data)))


def plan_summary(pack: Pack, plan: StoredPlan, tensorrt: TensorRT) -> str:
    """Polygraphy's summary of a plan: memory, profiles and layers. Requires a GPU that can load the plan.

    Raises:
        ComparatorError, PlanError, TensorRTError: see `parity.compare_plan`.
    """
    engine = tensorrt.deserialise(read_plan(pack, plan), plan.sidecar.version_compatible)
    with _polygraphy(tensorrt):
        from polygraphy.backend.trt import util

        return str(util.str_from_engine(engine, tensorrt.execution_context(engine)))


def onnx_runner(data: bytes) -> Any:
    """Polygraphy runner of a model in ONNX Runtime on the CPU, Q/DQ computed as written."""
    with _polygraphy():
        from polygraphy.backend.onnxrt import OnnxrtRunner

        return OnnxrtRunner(cpu_session(data))


def plan_runner(tensorrt: TensorRT, engine: Any, profile: int) -> Any:
    """Polygraphy runner of one profile of a plan, with a context like those used for grading."""
    with _polygraphy(tensorrt):
        from polygraphy.backend.trt import TrtRunner

        context = tensorrt.execution_context(engine)
        return TrtRunner(context, optimization_profile=profile, allocation_strategy="profile")


@contextmanager
def _polygraphy(tensorrt: TensorRT | None = None) -> Iterator[None]:
    """Context in which Polygraphy can be imported; its exceptions become ComparatorError.

    Raises:
        ComparatorError: Polygraphy is missing, too old, set to the other TensorRT flavour, or fails.
    """
    try:
        from polygraphy import config

        _set_flavour(config)
        from polygraphy.exception import PolygraphyException
        from polygraphy.logger import G_LOGGER
    except ModuleNotFoundError as error:
        raise ComparatorError(
            f"Files and plans are compared and shown by Polygraphy, which is not installed ({error.name}).",
            "Install it: pip install 'stenosis-trt[export]'",
        ) from error
    if tensorrt is not None:
        _check_flavour(config, tensorrt)
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
            yield
    except ImportError as error:
        raise ComparatorError(
            f"Polygraphy {package_version('polygraphy')} cannot be used ({error}).",
            "Install what goes with this release: pip install --upgrade 'stenosis-trt[export]'",
        ) from error
    except OSError as error:
        # If Polygraphy finds no CUDA runtime, it lets the loader's OSError through.
        raise ComparatorError(
            f"Polygraphy cannot load the CUDA runtime ({error}).",
            "Put the folder of libcudart.so on LD_LIBRARY_PATH, or install one: pip install "
            "nvidia-cuda-runtime-cu12.",
        ) from error
    except PolygraphyException as error:
        text = " ".join(str(error).split())[:300]
        raise ComparatorError(
            f"Polygraphy fails: {text}.",
            "See what stenosis-trt doctor says of the GPU and of what is installed.",
        ) from error


def _set_flavour(config: Any) -> None:
    """Set the installed TensorRT flavour, which Polygraphy reads on import, unless the variable is set."""
    if _VARIABLE not in os.environ and "polygraphy.util" not in sys.modules:
        config.USE_TENSORRT_RTX = installed_flavours() == (_RTX,)


def _check_flavour(config: Any, tensorrt: TensorRT) -> None:
    wants_rtx = tensorrt.flavour.name == _RTX
    if wants_rtx != config.USE_TENSORRT_RTX:
        raise ComparatorError(
            f"Polygraphy is set to another flavour than {tensorrt.flavour.name}, and takes one at a time.",
            f"Call again with {_VARIABLE}={int(wants_rtx)} in the environment.",
        )
    tensorrt.register_module_name()
