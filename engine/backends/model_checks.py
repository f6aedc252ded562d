"""Checks of a model against its specification: its tensors when it is opened, its output after each run.

A model that fails when it is opened makes the pack unusable (`PackError`). A model that passes then and later
gives invalid values for the images of a study affects that study only (`ModelOutputError`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.errors import PackError, StenosisError
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.records import Stage
from stenosis_trt.kernels.reference import HEATMAP_TOLERANCE

_ADVICE = "Export the model again as its pack.json says, or use another pack."
_STAGES = {"levels": Stage.LEVELS, "grader": Stage.GRADE, "cord": Stage.CORD}


class ModelOutputError(StenosisError):
    """A model gave invalid values for the images of one study.

    Attributes:
        model: the specification of the model.
        stage: that the model belongs to.
        fault: what is wrong with the output, without the model's name.
        reason, advice: for the study's row in errors.csv.
    """

    def __init__(self, model: ModelSpec, fault: str) -> None:
        self.model, self.stage, self.fault = model, _STAGES[model.name], fault
        super().__init__(
            f"The model {model.name} ({model.file}) cannot be used for this study: {fault}.",
            "Check the images of the study for damage and grade it by eye; if other studies fail in the same "
            "way, use another precision or pack.",
        )


def model_error(model: ModelSpec, fault: str) -> PackError:
    """Create the PackError for a model with this fault."""
    return PackError(f"{model.file} cannot be used as the model {model.name}: {fault}.", _ADVICE)


def check_tensor(
    model: ModelSpec, name: str, wanted: tuple[int, ...], shape: Sequence[object], is_float32: bool
) -> None:
    """Compare one tensor of a model with its specification.

    Args:
        model: the specification.
        name: "input" or "output".
        wanted: specified shape without the batch.
        shape: shape in the model with the batch; an entry that is not an int is dynamic.
        is_float32: True if the tensor is float32.

    Raises:
        PackError: the type or a fixed size differs, or the batch is fixed.
    """
    shown = f"its {name} is {_shown(shape)}, not {_shown(('batch', *wanted))}"
    if not is_float32:
        raise model_error(model, f"its {name} is not float32")
    if len(shape) != 1 + len(wanted):
        raise model_error(model, shown)
    if any(isinstance(found, int) and found != size for found, size in zip(shape[1:], wanted, strict=True)):
        raise model_error(model, shown)
    if isinstance(shape[0], int):
        raise model_error(model, f"the batch of its {name} is fixed at {shape[0]} instead of dynamic")


def check_values(model: ModelSpec, batch: Float32Array, output: Float32Array) -> None:
    """Check the output of a model for `batch`.

    Raises:
        ModelOutputError: see `check_output`.
        ValueError: the input is not finite.
    """
    if not np.isfinite(batch).all():
        raise ValueError(f"The input of the model {model.name} is not finite.")
    check_output(model, len(batch), output)


def check_output(model: ModelSpec, inputs: int, output: Float32Array) -> None:
    """Check the output of a model for `inputs` inputs.

    Raises:
        ModelOutputError: the shape differs from the specification, a value is not finite or not in [0, 1], or
            the probabilities of a row do not add up to 1.
    """
    wanted = (inputs, *model.output_shape)
    if output.shape != wanted:
        raise ModelOutputError(model, f"its output is {_shown(output.shape)}, not {_shown(wanted)}")
    _check_range(model, output)
    if (
        model.output.kind == "classes"
        and np.abs(output.sum(axis=1) - 1.0).max(initial=0.0) > HEATMAP_TOLERANCE
    ):
        raise ModelOutputError(model, "the probabilities of its classes do not add up to 1")


def check_confidence(model: ModelSpec, confidence: Float32Array) -> None:
    """Check the peaks of heatmaps that stay on the device.

    The kernels give a peak of NaN for a map with a value that is not finite or below 0: see
    `decode_keypoints`.

    Raises:
        ModelOutputError: a peak is NaN or not in [0, 1].
    """
    if np.isnan(confidence).any():
        raise ModelOutputError(model, "its heatmaps have values that are not finite or below 0")
    _check_range(model, confidence)


def _check_range(model: ModelSpec, values: Float32Array) -> None:
    if not np.isfinite(values).all():
        raise ModelOutputError(model, "its output is not finite")
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if low < -HEATMAP_TOLERANCE or high > 1.0 + HEATMAP_TOLERANCE:
        raise ModelOutputError(
            model, f"its output reaches from {low:.3g} to {high:.3g}, and has to lie between 0 and 1"
        )


def noise_batch(model: ModelSpec) -> Float32Array:
    """Two normalised images of noise as input of a model, float32 (2, C, H, W)."""
    image = np.random.default_rng(0).random((2, *model.input_shape), dtype=np.float32)
    mean, std = (np.array(value, np.float32)[:, None, None] for value in (model.input.mean, model.input.std))
    return (image - mean) / std


def _shown(shape: Sequence[object]) -> str:
    return " × ".join(str(size) if isinstance(size, (int, str)) else "any" for size in shape)
