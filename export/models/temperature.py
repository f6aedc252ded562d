"""Probabilities that can be taken at their word: a temperature fitted to data that was held out, and how far
from the truth they are.

Networks that are trained to the end are surer than they are right. One number mends most of it: logits are
divided by a temperature, which changes no grade and no order (Guo et al., ICML 2017).
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
"""The range that a temperature is looked for in. Where every target has the largest logit, the likelihood
grows all the way to the lower end, and that is what is found."""

TEMPERATURE = "temperature"
"""The name of `TemperatureScaled`'s own tensor, in checkpoints and in ONNX files."""

_TOLERANCE = 1e-6
"""Of the logarithm of the temperature."""


def fit_temperature(logits: FloatArray, targets: IntArray) -> float:
    """The temperature in `TEMPERATURES` with the least negative log-likelihood of the targets.

    Args:
        logits: of a network on data that it did not learn from, float64 (N, C).
        targets: the class of each, int (N,).

    Returns:
        T, for softmax(logits / T); above 1 the network was surer than it was right.

    Raises:
        ValueError: there is nothing, the shapes do not go together, a logit is not finite, or a target is no
            class.
    """
    values, classes = _checked(logits, targets, "logits")
    rows = np.arange(len(classes))
    above_target = values - values[rows, classes][:, None]
    above_target[rows, classes] = -np.inf

    def loss(log_temperature: float) -> float:
        # log(1 + Σ exp(above / T)) keeps its digits where it is next to nothing; log Σ exp − target does not.
        others = np.logaddexp.reduce(above_target * math.exp(-log_temperature), axis=1)
        return float(np.logaddexp(0.0, others).mean())

    # The loss is convex in 1 / T, and so has one valley along log T too.
    low, high = map(math.log, TEMPERATURES)
    found = optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": _TOLERANCE}
    )
    return math.exp(float(found.x))


def expected_calibration_error(probabilities: FloatArray, targets: IntArray, bins: int = 15) -> float:
    """How far, in the mean, the highest probability is from the share of cases in which its class is right.

    Args:
        probabilities: float (N, C), each row adding up to 1.
        targets: the class of each, int (N,).
        bins: of equal width over 0 to 1, each with its upper end (Guo et al., ICML 2017).

    Returns:
        Σ n_b / N · |right_b / n_b − mean probability_b|, in 0 to 1.

    Raises:
        ValueError: there is nothing, the shapes do not go together, a value is no probability, a target is no
            class, or there is no bin.
    """
    if bins < 1:
        raise ValueError(f"{bins} bins hold nothing. Give at least 1.")
    values, classes = _checked(probabilities, targets, "probabilities")
    if values.min() < 0.0 or values.max() > 1.0:
        raise ValueError("The probabilities reach beyond 0 to 1. Give them after the softmax.")
    highest, right = values.max(axis=1), values.argmax(axis=1) == classes
    places = np.clip(np.ceil(highest * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=right - highest, minlength=bins)
    return float(np.abs(gaps).sum() / len(classes))


class TemperatureScaled(nn.Module):
    """A network whose logits come out divided by a temperature; exported, it is part of the ONNX file.

    Args:
        network: gives logits, (N, C).
        temperature: as `fit_temperature` finds it.

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


def _checked(values: FloatArray, targets: IntArray, what: str) -> tuple[FloatArray, IntArray]:
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
