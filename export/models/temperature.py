"""Temperature scaling of logits and the expected calibration error (Guo et al., ICML 2017).

Trained networks are overconfident. Dividing the logits by one fitted temperature corrects most of that and
changes neither grades nor their order.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy import optimize
from torch import nn

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

TEMPERATURES = (0.05, 20.0)
"""Search range. If every target has the largest logit, the likelihood increases to the lower end, which is
returned."""

TEMPERATURE = "temperature"
"""Name of `TemperatureScaled`'s tensor in checkpoints and ONNX files."""

_TOLERANCE = 1e-6
"""Tolerance of the logarithm of the temperature."""


def fit_temperature(logits: FloatArray, targets: IntArray) -> float:
    """Temperature within `TEMPERATURES` that minimises the negative log-likelihood.

    Args:
        logits: on held-out data, float64 (N, C).
        targets: class of each row, int (N,).

    Returns:
        T for softmax(logits / T); above 1 for an overconfident network.

    Raises:
        ValueError: the arrays are empty or their shapes differ, a logit is not finite, or a target is not a
            class.
    """
    values, classes = _check_arrays(logits, targets, "logits")
    rows = np.arange(len(classes))
    above_target = values - values[rows, classes][:, None]
    above_target[rows, classes] = -np.inf

    def loss(log_temperature: float) -> float:
        # log(1 + Σ exp(above / T)) stays accurate near zero; log Σ exp − target does not.
        others = np.logaddexp.reduce(above_target * math.exp(-log_temperature), axis=1)
        return float(np.logaddexp(0.0, others).mean())

    # The loss is convex in 1 / T, and therefore unimodal in log T.
    low, high = map(math.log, TEMPERATURES)
    found = optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": _TOLERANCE}
    )
    return math.exp(float(found.x))


def expected_calibration_error(probabilities: FloatArray, targets: IntArray, bins: int = 15) -> float:
    """Mean difference between the highest probability and the accuracy.

    Args:
        probabilities: float (N, C), rows sum to 1.
        targets: class of each row, int (N,).
        bins: of equal width over 0 to 1, each including its upper end.

    Returns:
        Σ n_b / N · |accuracy_b − mean confidence_b|, 0 to 1.

    Raises:
        ValueError: the arrays are empty or their shapes differ, a value is not a probability, a target is not
            a class, or `bins` is below 1.
    """
    if bins < 1:
        raise ValueError(f"{bins} bins are too few. Give at least 1.")
    values, classes = _check_arrays(probabilities, targets, "probabilities")
    if values.min() < 0.0 or values.max() > 1.0:
        raise ValueError("The probabilities reach beyond 0 to 1. Give them after the softmax.")
    highest, right = values.max(axis=1), values.argmax(axis=1) == classes
    places = np.clip(np.ceil(highest * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - highest, minlength=bins)
    return float(np.abs(gaps).sum() / len(classes))


class TemperatureScaled(nn.Module):
    """Network whose logits are divided by a temperature, which is exported as part of the ONNX file.

    Args:
        network: returns logits (N, C).
        temperature: from `fit_temperature`.

    Raises:
        ValueError: the temperature is not a positive number.
    """

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0.0):
            raise ValueError(f"The temperature is {temperature}, and has to be positive. Fit it again.")
        self.network = network
        self.register_buffer(TEMPERATURE, torch.tensor(float(temperature), dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits / temperature."""
        logits: torch.Tensor = self.network(x)
        return logits / self.get_buffer(TEMPERATURE)


def _check_arrays(values: FloatArray, targets: IntArray, what: str) -> tuple[FloatArray, IntArray]:
    rows, classes = np.asarray(values, dtype=np.float64), np.asarray(targets)
    if rows.size == 0 or classes.size == 0:
        raise ValueError(f"There are no {what} or no targets. Give those of at least one held-out case.")
    if rows.ndim != 2 or classes.shape != rows.shape[:1]:
        raise ValueError(
            f"The {what} are {rows.shape} and the targets {classes.shape}. Give (N, classes) and (N,)."
        )
    if not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"The targets are {classes.dtype}. Give the classes as whole numbers.")
    if not np.isfinite(rows).all():
        raise ValueError(f"Not all {what} are finite. Look at the network that gave them.")
    if classes.min() < 0 or classes.max() >= rows.shape[1]:
        raise ValueError(
            f"The targets reach from {classes.min()} to {classes.max()}, and the classes from 0 to "
            f"{rows.shape[1] - 1}. Give targets of these classes."
        )
    return rows, classes.astype(np.int64)
