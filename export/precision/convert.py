"""Conversion of ONNX models to FP16 and INT8 for strongly typed TensorRT networks.

FP16 is made by ModelOpt's AutoCast, INT8 by ModelOpt's explicit Q/DQ. Inputs and outputs stay FP32. Whether a
converted model is accurate enough is decided by the gate.
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

from stenosis_trt.bench.roofline.layer_work import fold_fp16_weights
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.export.errors import PrecisionError
from stenosis_trt.export.onnx.graphs import (
    activation_percentiles,
    largest_activation,
    nodes_in_fp32,
    quantised_share,
    quantised_weights,
    round_scales_to_fp16,
    run_model,
    set_activation_scales,
)
from stenosis_trt.export.precision.fp16_emulation import emulate_fp16
from stenosis_trt.export.precision.shares import QUANTISED_SHARE

CALIBRATION_METHODS = ("entropy", "max", "percentile")
HIGH_PRECISION_DTYPES = ("fp16", "fp32")

_SAFE_IN_FP16 = 65504.0 / 8
"""Largest activation on calibration inputs for FP16; leaves a factor of 8 for other inputs."""
_IMAGES_AT_ONCE = 8
_PIXELS_AT_ONCE = _IMAGES_AT_ONCE * 256 * 256
"""AutoCast keeps all activations of a batch in memory: 0.4 GB for eight inputs of 256² of EfficientNet-B5."""


@dataclass(frozen=True)
class Int8Options:
    """How INT8 scales are found, and the type of everything that is not INT8.

    Attributes:
        calibration_method: one of `CALIBRATION_METHODS`.
        percentile: percentile of absolute activations, for the method "percentile".
        high_precision_dtype: "fp16" or "fp32".
    """

    calibration_method: str = "entropy"
    percentile: float = 99.99
    high_precision_dtype: str = "fp16"

    def __post_init__(self) -> None:
        if self.calibration_method not in CALIBRATION_METHODS:
            raise ValueError(
                f"There is no calibration method {self.calibration_method!r}. Give one of "
                f"{', '.join(CALIBRATION_METHODS)}."
            )
        if not 50.0 < self.percentile <= 100.0:
            raise ValueError(f"The percentile is {self.percentile}. Give one over 50 and up to 100.")
        if self.high_precision_dtype not in HIGH_PRECISION_DTYPES:
            raise ValueError(
                f"The high-precision dtype can be {' or '.join(HIGH_PRECISION_DTYPES)}, not "
                f"{self.high_precision_dtype!r}."
            )


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model with its metrics.

    `original_weights` holds the INT8 weights before quantisation, float32, by initialiser name.
    """

    data: bytes
    metrics: dict[str, float]
    original_weights: Mapping[str, Float32Array] = field(default_factory=dict, repr=False)


def require_modelopt() -> None:
    """Raise PrecisionError if ModelOpt is not installed."""
    _modelopt("quantization")


def to_fp16(data: bytes, inputs: Float32Array) -> ConvertedModel:
    """Convert a model to FP16. Nodes that would overflow on the calibration inputs stay FP32.

    Args:
        data: FP32 model as ONNX; weights stored as FP16 and cast count as FP32.
        inputs: calibration inputs, float32 (N, C, H, W).

    Raises:
        PrecisionError: ModelOpt is not installed or cannot convert the model.
    """
    autocast = _modelopt("autocast")
    plain = fold_fp16_weights(onnx.load_model_from_string(data))
    with _as_file(plain) as path, _wrapped_modelopt_errors("fp16"):
        batch = path.with_name("calibration.npz")
        np.savez(batch, allow_pickle=False, **{plain.graph.input[0].name: _evenly_spaced(inputs)})
        model = autocast.convert_to_mixed_precision(
            str(path), keep_io_types=True, calibration_data=str(batch), data_max=_SAFE_IN_FP16
        )
    return with_error_metrics(data, model, inputs, {"nodes_in_fp32": float(nodes_in_fp32(model))})


def to_int8(data: bytes, inputs: Float32Array, options: Int8Options | None = None) -> ConvertedModel:
    """Convert a model to INT8 with explicit Q/DQ: weights per channel, stored as INT8; activations per
    tensor.

    Everything else is FP16, or FP32 if asked for or if a value would overflow FP16.

    Args:
        data: see `to_fp16`.
        inputs: calibration inputs, float32 (N, C, H, W).
        options: None for the defaults.

    Raises:
        PrecisionError: ModelOpt is not installed, cannot convert the model, or quantised nothing.
    """
    options = options or Int8Options()
    quantization = _modelopt("quantization")
    plain = fold_fp16_weights(onnx.load_model_from_string(data))
    with _as_file(plain) as path, _wrapped_modelopt_errors("int8"):
        quantised = path.with_name("quantised.onnx")
        # ModelOpt needs batches of equal size that use all inputs.
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
    half = options.high_precision_dtype == "fp16" and largest_activation(plain, inputs) <= _SAFE_IN_FP16
    if half:
        round_scales_to_fp16(model)
    weights = quantised_weights(model)
    with _wrapped_modelopt_errors("int8"):
        model = _modelopt("quantization.qdq_utils").qdq_to_dq(model)
        if half:
            model = _modelopt("autocast.convert").convert_to_f16(model, keep_io_types=True)
    metrics = {"elsewhere_fp16": float(half), QUANTISED_SHARE: quantised_share(model)}
    return replace(with_error_metrics(data, model, inputs, metrics), original_weights=weights)


def with_error_metrics(
    data: bytes, model: onnx.ModelProto, inputs: Float32Array, metrics: dict[str, float]
) -> ConvertedModel:
    """Measure the output error of a converted model and return both.

    Args:
        data: the original model as ONNX.
        model: the converted model.
        inputs: float32 (N, C, H, W); evenly spaced ones are used.
        metrics: further metrics to store.

    Raises:
        PrecisionError: the converted model returns values that are not finite.
    """
    onnx.checker.check_model(model)
    converted = bytes(model.SerializeToString())
    some = _evenly_spaced(inputs)
    error = np.abs(run_model(emulate_fp16(converted), some) - run_model(data, some))
    if not np.isfinite(error).all():
        raise PrecisionError(
            "The converted model returns values that are not finite.",
            "Calibrate on studies like those it will grade.",
        )
    figures = {
        "maximum_output_error": float(error.max()),
        "mean_output_error": float(error.mean()),
        "bytes": float(len(converted)),
    }
    return ConvertedModel(converted, {**figures, **metrics})


def _evenly_spaced(inputs: Float32Array) -> Float32Array:
    """A few evenly spaced inputs."""
    count = min(len(inputs), _batch_size(inputs))
    return np.asarray(inputs[np.linspace(0, len(inputs) - 1, count).round().astype(int)])


def _batch_size(inputs: Float32Array) -> int:
    height, width = inputs.shape[2:]
    return int(np.clip(_PIXELS_AT_ONCE // (height * width), 1, _IMAGES_AT_ONCE))


def _modelopt(module: str) -> Any:
    try:
        with _wrapped_modelopt_errors("import"):
            return importlib.import_module(f"modelopt.onnx.{module}")
    except ImportError as error:
        raise PrecisionError(
            f"FP16 and INT8 models are made by NVIDIA ModelOpt, which is not installed ({error.name}).",
            "Install it: pip install 'stenosis-trt[export]'",
        ) from error


@contextlib.contextmanager
def _as_file(model: onnx.ModelProto) -> Iterator[Path]:
    """The model as a file in a temporary folder, because ModelOpt writes beside its input."""
    with tempfile.TemporaryDirectory(prefix="stenosis-precision-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        yield path


@contextlib.contextmanager
def _wrapped_modelopt_errors(precision: str) -> Iterator[None]:
    """Suppress ModelOpt's output and turn its exceptions into PrecisionError."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except (ImportError, MemoryError, OSError, PrecisionError):
        # Errors of the system are not ModelOpt's.
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise PrecisionError(
            f"ModelOpt cannot make {precision} of the model ({type(error).__name__}: {text}).",
            "Leave this precision out, or export the model with other operators.",
        ) from error
    finally:
        logging.disable(before)
