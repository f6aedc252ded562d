"""Temperature scaling on data with known results."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from held_out_cases import UNUSABLE_CASES, drawn_cases, softmax
from torch import nn

from stenosis_trt.export.models.temperature import TEMPERATURES, TemperatureScaled, fit_temperature
from stenosis_trt.export.onnx.from_torch import export_network


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    logits, targets = drawn_cases(20000)
    assert fit_temperature(logits * temperature, targets) == pytest.approx(temperature, rel=0.03)


def test_the_temperature_found_has_the_least_loss() -> None:
    logits, targets = drawn_cases(500)

    def loss(temperature: float) -> float:
        return float(-np.log(softmax(logits / temperature)[np.arange(500), targets]).mean())

    found = fit_temperature(logits, targets)
    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01))


def test_logits_that_are_always_right_take_the_lower_end_and_always_wrong_ones_the_upper() -> None:
    targets = np.array([0, 1, 2, 3])
    assert fit_temperature(10.0 * np.eye(4), targets) == pytest.approx(TEMPERATURES[0], rel=1e-3)
    assert fit_temperature(-10.0 * np.eye(4), targets) == pytest.approx(TEMPERATURES[1], rel=1e-3)


def test_logits_of_any_size_overflow_nothing() -> None:
    logits, targets = drawn_cases(2000)
    assert np.isfinite(fit_temperature(1e6 + logits, targets))


@pytest.mark.parametrize(("values", "targets", "words"), UNUSABLE_CASES)
def test_what_cannot_be_used_is_said(values: np.ndarray, targets: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit_temperature(values, targets)


class _Tiny(nn.Module):
    """Five logits, of a convolution's means."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 20.0 * self.convolution(x).mean(dim=(2, 3))


def test_an_exported_network_gives_the_softmax_of_its_logits_by_the_temperature() -> None:
    torch.manual_seed(0)
    network = _Tiny().eval()
    images = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
    exported = export_network(TemperatureScaled(network, 2.5), "classes", images, half_weights=False)
    (answer,) = onnxruntime.InferenceSession(exported.data).run(None, {"image": images})
    with torch.inference_mode():
        logits = network(torch.from_numpy(images)).numpy()
    assert np.allclose(answer, softmax(logits / 2.5), atol=1e-5)
    assert not np.allclose(answer, softmax(logits), atol=1e-2)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_no_positive_number_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="has to be positive"):
        TemperatureScaled(_Tiny(), temperature)
