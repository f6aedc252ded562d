"""Temperature scaling of logits (Guo et al., ICML 2017).

Trained networks are overconfident. Dividing the logits by one fitted temperature corrects most of that and
changes neither grades nor their order.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import optimize
from torch import nn

from stenosis_trt.bench.statistics.calibration import FloatArray, IntArray, check_scores

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
    values, classes = check_scores(logits, targets, "logits")
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
