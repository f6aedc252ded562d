"""Quantisation-aware training: rounding equal to ModelOpt's, gradients, and the accuracy it gains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from stenosis_trt.export.onnx.from_torch import export_network, torch_inference
from stenosis_trt.export.onnx.graphs import run_model
from stenosis_trt.export.precision.convert import Int8Options, to_int8
from stenosis_trt.export.precision.rewrites import RewrittenModel, rewrite_squeeze_excite
from stenosis_trt.export.training.quantised import ActivationRanges, quantised_layers, simulated_int8


def _layer(
    inputs: int, outputs: int, kernel: int, act: nn.Module, stride: int = 1, groups: int = 1
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        act,
    )


class _Small(nn.Module):
    """What our networks are made of: residual and squeeze-excite branches, depthwise layers, a way up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(3, 16, 3, nn.ReLU(inplace=True), stride=2)
        self.expand = _layer(16, 32, 1, nn.SiLU(inplace=True))
        self.depthwise = _layer(32, 32, 3, nn.SiLU(inplace=True), groups=32)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.project = _layer(32, 16, 1, nn.Identity())
        self.down = _layer(16, 24, 3, nn.ReLU(inplace=True), stride=2)
        self.laterals = nn.ModuleList([nn.Conv2d(16, 16, 1), nn.Conv2d(24, 16, 1)])
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        branch = self.depthwise(self.expand(x))
        factors = functional.silu(self.squeeze(branch.mean((2, 3), keepdim=True)))
        x = x + self.project(branch * torch.sigmoid(self.excite(factors)))
        top = functional.interpolate(self.laterals[1](self.down(x)), scale_factor=2.0, mode="nearest")
        heatmaps: torch.Tensor = self.head(functional.relu(top + self.laterals[0](x)))
        return heatmaps


def _small() -> _Small:
    torch.manual_seed(3)
    network = _Small()
    with torch.no_grad():
        for _ in range(20):  # statistics of batch normalisation
            network(torch.randn(8, 3, 32, 32))
    return network.eval()


def _images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def _observed(network: nn.Module, images: torch.Tensor, percentile: float = 100.0) -> ActivationRanges:
    ranges = ActivationRanges(1, percentile)
    with simulated_int8(network, ranges), torch.no_grad():
        network(images)
    return ranges


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.parametrize("percentile", [100.0, 99.0])
def test_it_answers_as_the_model_that_modelopt_makes(percentile: float) -> None:
    network, images = _small(), _images()
    data = export_network(network, "heatmaps", images.numpy(), half_weights=False).data
    options = Int8Options(
        "max" if percentile == 100.0 else "percentile", percentile, high_precision_dtype="fp32"
    )
    real = rewrite_squeeze_excite(data, to_int8(data, images.numpy(), options), images.numpy())
    assert isinstance(real, RewrittenModel), "the squeeze-excite branch is out of INT8"
    answers = run_model(real.data, images.numpy())
    error = _rms(answers - run_model(data, images.numpy()))
    with simulated_int8(network, _observed(network, images, percentile)):
        simulated = torch_inference(network, "heatmaps")(images.numpy())
    assert error > 1e-3
    assert _rms(simulated - answers) < 0.1 * error


def test_layers_too_small_for_int8_are_left_alone() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 16, 1),
        nn.Conv2d(16, 16, 1, groups=16),
        nn.Conv2d(16, 16, 3, groups=16),
    )
    network.append(nn.Linear(16, 4)).append(nn.Linear(16, 16))
    assert quantised_layers(network) == ("1.weight", "3.weight", "5.weight")
    assert {"head.weight", "stem.0.weight", "depthwise.0.weight"} <= set(quantised_layers(_small()))


def test_gradients_reach_every_parameter_and_point_the_same_way() -> None:
    network, images = _small(), _images()
    ranges = _observed(network, images)

    def gradients() -> dict[str, torch.Tensor]:
        network.zero_grad()
        network(images).square().mean().backward()
        return {
            name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None
        }

    plain = gradients()
    with simulated_int8(network, ranges):
        rounded = gradients()
    assert rounded.keys() == dict(network.named_parameters()).keys()
    for name, value in rounded.items():
        assert not torch.equal(value, plain[name]), name
        assert functional.cosine_similarity(value.flatten(), plain[name].flatten(), dim=0) > 0.9, name


def test_it_works_in_mixed_precision() -> None:
    network, images = _small(), _images()
    with simulated_int8(network, _observed(network, images)):
        single = network(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = network(images)
        mixed.float().square().mean().backward()
    assert mixed.dtype == torch.bfloat16
    assert all(value.grad is not None and value.grad.isfinite().all() for value in network.parameters())
    assert (mixed - single).abs().mean() < 0.05 * single.abs().mean()


def test_what_is_cut_off_gets_no_gradient() -> None:
    layer = nn.Conv2d(16, 16, 1)
    ranges = _observed(layer, torch.full((1, 16, 2, 2), 1.0))
    x = torch.full((1, 16, 2, 2), 0.5, requires_grad=True)
    y = torch.full((1, 16, 2, 2), 1.5, requires_grad=True)
    with simulated_int8(layer, ranges):
        (layer(x).sum() + layer(y).sum()).backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.abs().max() > 0.0
    assert y.grad.abs().max() == 0.0


def test_the_network_keeps_its_names_and_weights_and_answers_as_before() -> None:
    network, images = _small(), _images()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    before = network(images)
    with simulated_int8(network, _observed(network, images)):
        within = network(images)
        assert network.state_dict().keys() == state.keys()
        assert dict(network.named_parameters()).keys() == dict(_small().named_parameters()).keys()
    assert not torch.equal(before, within)
    assert torch.equal(before, network(images))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_a_pass_that_fails_leaves_nothing_rounded() -> None:
    network, images = _small(), _images()
    ranges = _observed(network, images)
    with simulated_int8(network, ranges):
        with pytest.raises(RuntimeError, match="channels"):
            network(torch.zeros(1, 4, 32, 32))
        one = network.stem(images)
    assert torch.equal(one, network.stem(images))


def test_ranges_are_the_largest_of_their_batches_and_then_fixed() -> None:
    layer = nn.Conv2d(16, 16, 1)
    ranges = ActivationRanges(2)
    with simulated_int8(layer, ranges):
        for size in (1.0, 3.0, 7.0):
            layer(torch.full((1, 16, 2, 2), -size))
    assert ranges.fixed
    assert ranges.largest == {"weight": 3.0}


def test_a_percentile_leaves_outliers_out() -> None:
    values = torch.ones(1, 16, 10, 10)
    values[0, 0, 0, 0] = 100.0
    layer = nn.Conv2d(16, 16, 1)
    assert _observed(layer, values, 99.9).largest == {"weight": 1.0}
    assert _observed(layer, values).largest == {"weight": 100.0}


def test_channels_that_are_all_zero_stay_zero() -> None:
    layer = nn.Conv2d(16, 16, 1, bias=False)
    with torch.no_grad():
        layer.weight[3] = 0.0
    x = torch.zeros(1, 16, 2, 2)
    with simulated_int8(layer, _observed(layer, x)):
        assert torch.equal(layer(x), torch.zeros(1, 16, 2, 2))
    ranges = _observed(layer, torch.ones(1, 16, 2, 2))
    with simulated_int8(layer, ranges):
        assert layer(torch.ones(1, 16, 2, 2))[0, 3].abs().max() == 0.0


def test_what_cannot_be_simulated_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="would be INT8"),
        simulated_int8(nn.Conv2d(3, 4, 1), ActivationRanges()),
    ):
        pass
    layer = nn.Conv2d(16, 16, 1)
    pixel = torch.ones(1, 16, 1, 1)
    seen = _observed(layer, pixel)
    with simulated_int8(layer, seen), pytest.raises(RuntimeError, match="one pixel large"):
        layer(pixel)
    other = ActivationRanges(1, seen=1, largest={"somewhere": 1.0})
    with simulated_int8(layer, other), pytest.raises(RuntimeError, match="goes into weight has no range"):
        layer(torch.ones(1, 16, 2, 2))
    for wrong in ({"batches": 0}, {"percentile": 20.0}):
        with pytest.raises(ValueError, match="Give"):
            ActivationRanges(**wrong)


def _badly_scaled() -> nn.Sequential:
    """One weight of each filter is forty times the others, and meets an activation that is hardly there."""
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 16, 1))
    with torch.no_grad():
        network[0].weight[:, 0] *= 40.0
        network[2].weight[:, 0] *= 40.0
        network[0].bias[0] = -1e3
    return network


def _correlated() -> torch.Tensor:
    """Input (64, 16, 4, 4) of three factors: as in images, what one channel's rounding adds another can take.

    With independent channels the nearest number would be the best there is, and nothing to be learnt.
    """
    generator = torch.Generator().manual_seed(6)
    x = torch.einsum(
        "oi,nihw->nohw",
        torch.randn(16, 3, generator=generator),
        torch.randn(64, 3, 4, 4, generator=generator),
    )
    x[:, 0] *= 0.02
    return x


def _rounded_weights(network: nn.Sequential) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
    """Each weight and what INT8 with one scale a filter makes of it, by its definition."""
    for layer in (network[0], network[2]):
        weight = layer.weight.detach()
        scale = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
        yield layer.weight, (weight / scale).round() * scale


def test_training_with_it_gives_weights_that_take_int8_better() -> None:
    teacher, x = _badly_scaled(), _correlated()
    wanted = teacher(x).detach()

    def error_once_rounded(simulated: bool) -> float:
        network, ranges, steps = _badly_scaled(), ActivationRanges(1), 150
        optimiser = torch.optim.Adam(network.parameters())
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = 5e-3 * (1.0 - step / steps)
            with simulated_int8(network, ranges) if simulated else nullcontext():
                loss = functional.mse_loss(network(x), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        for weight, rounded in list(_rounded_weights(network)):
            weight.data = rounded
        return functional.mse_loss(network(x), wanted).item()

    plain, simulated = error_once_rounded(False), error_once_rounded(True)
    assert simulated < 0.6 * plain
