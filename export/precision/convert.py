"""A model in FP16 or INT8, as strongly typed TensorRT networks want it: the precision lies in the ONNX.

FP16 is made by ModelOpt's AutoCast, INT8 by ModelOpt's explicit Q/DQ. Inputs and outputs stay FP32. Whether
the result still grades as it should is not decided here but by the gate.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from stenosis_trt.export.errors import PrecisionError
from stenosis_trt.export.onnx.graphs import (
    Float32Array,
    activation_percentiles,
    fold_fp16_weights,
    largest_activation,
    nodes_in_fp32,
    quantised_share,
    quantised_weights,
    round_scales_to_fp16,
    run_model,
    set_activation_scales,
)
from stenosis_trt.export.precision.fp16_emulation import emulate_fp16

CALIBRATION_METHODS = ("entropy", "max", "percentile")
HIGH_PRECISION_DTYPES = ("fp16", "fp32")

_SAFE_IN_HALF = 65504.0 / 8
"""Values seen on calibration inputs may grow eightfold on others before they overflow FP16."""
_IMAGES_AT_ONCE = 8
_PIXELS_AT_ONCE = _IMAGES_AT_ONCE * 256 * 256
"""AutoCast keeps every activation of its images in memory; of B5 that is 0.4 GB for eight of 256²."""


@dataclass(frozen=True)
class Int8Options:
    """How INT8 scales are found, and what runs between the quantised layers.

    Attributes:
        calibration_method: one of `CALIBRATION_METHODS`.
        percentile: of absolute activations, for the calibrator of that name.
        high_precision_dtype: "fp16" or "fp32".
    """

    calibration_method: str = "entropy"
    percentile: float = 99.99
    high_precision_dtype: str = "fp16"

    def __post_init__(self) -> None:
        if self.calibration_method not in CALIBRATION_METHODS:
            raise ValueError(
                f"There is no calibrator {self.calibration_method!r}. Give one of "
                f"{', '.join(CALIBRATION_METHODS)}."
            )
        if not 50.0 < self.percentile <= 100.0:
            raise ValueError(f"The percentile is {self.percentile}. Give one over 50 and up to 100.")
        if self.high_precision_dtype not in HIGH_PRECISION_DTYPES:
            raise ValueError(
                f"Elsewhere there can be {' or '.join(HIGH_PRECISION_DTYPES)}, not "
                f"{self.high_precision_dtype!r}."
            )


@dataclass(frozen=True)
class ConvertedModel:
    """A model in another precision, with figures of what it costs and holds.

    `original_weights` has those that are INT8 as they were before, float32, by the names of their
    initialisers.
    """

    data: bytes
    metrics: dict[str, float]
    original_weights: Mapping[str, Float32Array] = field(default_factory=dict, repr=False)


def require_modelopt() -> None:
    """Refuse at once where ModelOpt is not installed.

    Raises:
        PrecisionError: it is not.
    """
    _modelopt("quantization")


def to_fp16(data: bytes, inputs: Float32Array) -> ConvertedModel:
    """A model in FP16; nodes that would overflow on the calibration inputs stay FP32.

    Args:
        data: ONNX model in FP32; weights stored as FP16 and cast are taken as FP32.
        inputs: calibration inputs, float32 (N, C, H, W).

    Raises:
        PrecisionError: ModelOpt is missing, or cannot convert the model.
    """
    autocast = _modelopt("autocast")
    plain = fold_fp16_weights(onnx.load_model_from_string(data))
    with _work(plain) as path, _quiet("fp16"):
        batch = path.with_name("calibration.npz")
        np.savez(batch, allow_pickle=False, **{plain.graph.input[0].name: _some(inputs)})
        model = autocast.convert_to_mixed_precision(
            str(path), keep_io_types=True, calibration_data=str(batch), data_max=_SAFE_IN_HALF
        )
    return with_error_metrics(data, model, inputs, {"nodes_in_fp32": float(nodes_in_fp32(model))})


def to_int8(data: bytes, inputs: Float32Array, options: Int8Options | None = None) -> ConvertedModel:
    """A model with explicit Q/DQ: weights by channel, stored as INT8; activations by tensor.

    Where a value would overflow FP16, or FP32 is asked for, everything else stays FP32.

    Args:
        data: as for `to_fp16`.
        inputs: calibration inputs, float32 (N, C, H, W).
        options: see `Int8Options`.

    Raises:
        PrecisionError: ModelOpt is missing, or cannot convert the model, or quantised nothing.
    """
    options = options or Int8Options()
    quantization = _modelopt("quantization")
    plain = fold_fp16_weights(onnx.load_model_from_string(data))
    with _work(plain) as path, _quiet("int8"):
        quantised = path.with_name("quantised.onnx")
        # ModelOpt wants batches of one size, and none of the inputs must be left over.
        count = max(size for size in range(1, _batch_size(inputs) + 1) if len(inputs) % size == 0)
        shape = "x".join(map(str, (count, *inputs.shape[1:])))
        quantization.quantize(
            str(path),
            "int8",
            calibration_data=inputs,
            calibration_method="entropy" if options.calibration_method == "entropy" else "max",
            calibration_shapes=f"{plain.graph.input[0].name}:{shape}",
            calibration_eps=["cpu"],
            output_path=str(quantised),
            high_precision_dtype="fp32",
            log_level="ERROR",
        )
        model = onnx.load(quantised)
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise PrecisionError(
            "ModelOpt found nothing in the model to quantise.", "Publish it in FP16: --precision fp16."
        )
    if options.calibration_method == "percentile":
        set_activation_scales(model, activation_percentiles(plain, model, inputs, options.percentile))
    half = options.high_precision_dtype == "fp16" and largest_activation(plain, inputs) <= _SAFE_IN_HALF
    if half:
        round_scales_to_fp16(model)
    weights = quantised_weights(model)
    with _quiet("int8"):
        model = _modelopt("quantization.qdq_utils").qdq_to_dq(model)
        if half:
            model = _modelopt("autocast.convert").convert_to_f16(model, keep_io_types=True)
    metrics = {"elsewhere_fp16": float(half), "quantised_share": quantised_share(model)}
    return replace(with_error_metrics(data, model, inputs, metrics), original_weights=weights)


def with_error_metrics(
    data: bytes, model: onnx.ModelProto, inputs: Float32Array, metrics: dict[str, float]
) -> ConvertedModel:
    """A model that was made of another, with figures of how far its answers are from the other's.

    Args:
        data: the other, as an ONNX file.
        model: the new one.
        inputs: some of which both are given, float32 (N, C, H, W).
        metrics: further figures to keep.

    Raises:
        PrecisionError: the new one answers with values that are not finite.
    """
    onnx.checker.check_model(model)
    converted = bytes(model.SerializeToString())
    some = _some(inputs)
    error = np.abs(run_model(emulate_fp16(converted), some) - run_model(data, some))
    if not np.isfinite(error).all():
        raise PrecisionError(
            "The converted model answers with values that are not finite.",
            "Calibrate on studies like those it will grade.",
        )
    figures = {
        "maximum_output_error": float(error.max()),
        "mean_output_error": float(error.mean()),
        "bytes": float(len(converted)),
    }
    return ConvertedModel(converted, {**figures, **metrics})


def _some(inputs: Float32Array) -> Float32Array:
    """A few inputs, evenly taken."""
    count = min(len(inputs), _batch_size(inputs))
    return np.asarray(inputs[np.linspace(0, len(inputs) - 1, count).round().astype(int)])


def _batch_size(inputs: Float32Array) -> int:
    height, width = inputs.shape[2:]
    return int(np.clip(_PIXELS_AT_ONCE // (height * width), 1, _IMAGES_AT_ONCE))


def _modelopt(module: str) -> Any:
    try:
        with _quiet("import"):
            return importlib.import_module(f"modelopt.onnx.{module}")
    except ImportError as error:
        raise PrecisionError(
            f"FP16 and INT8 models are made by NVIDIA ModelOpt, which is not installed ({error.name}).",
            "Install it: pip install 'stenosis-trt[export]'",
        ) from error


@contextlib.contextmanager
def _work(model: onnx.ModelProto) -> Iterator[Path]:
    """The model as a file in a folder of its own: ModelOpt writes beside it."""
    with tempfile.TemporaryDirectory(prefix="stenosis-precision-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        yield path


@contextlib.contextmanager
def _quiet(precision: str) -> Iterator[None]:
    """Keep what ModelOpt prints from the terminal, and turn what it raises into one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except (ImportError, MemoryError, OSError, PrecisionError):
        # A full disk is none of ModelOpt's faults.
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise PrecisionError(
            f"ModelOpt cannot make {precision} of the model ({type(error).__name__}: {text}).",
            "Leave this precision out, or export the model with other operators.",
        ) from error
    finally:
        logging.disable(before)
