"""INT8 as it will be, simulated while a network learns, so that its weights come to suit it.

Within `simulated_int8` a network's forward pass rounds what `stenosis-trt quantise` will round: the weights
of convolutions and linear layers, by output channel, and their inputs, by tensor, all symmetric. Gradients
pass straight through (Bengio et al., arXiv 1308.3432; Jacob et al., CVPR 2018) and are zero where a value is
cut off. The network itself stays as it is: the same modules, the same names in its state dict, and it is
exported as any other.

What is rounded was read off the Q/DQ that ModelOpt 0.47 puts into ONNX files of our networks
(`tests/export/training/test_quantised.py` holds the two against each other):

- layers too small for Tensor Cores stay as they are, by ModelOpt's own rules;
- of a sum of two maps, what comes past the convolutions is rounded, and not what a convolution adds to it;
- squeeze-excite branches stay as they are, as after `rewrites`: their maps are one pixel large.

Batch normalisation is folded into the weights on the way to ONNX. That multiplies each output channel by one
number, and its scale with it: the rounding is the same. Not simulated are scales rounded up to numbers that
FP16 has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

_LOWEST, _HIGHEST = -128, 127
_SMALLEST_SCALE = 1e-12
"""Of channels and activations that are all zero, which any scale leaves so."""
_TENSOR_CORE = 16
"""Channels below which ModelOpt leaves matrix products, and some convolutions, out of INT8."""

_CONVOLUTION: Callable[..., torch.Tensor] = nn.functional.conv2d
_LINEAR: Callable[..., torch.Tensor] = nn.functional.linear
_SUMS = (torch.Tensor.add, torch.add)


@dataclass
class ActivationRanges:
    """The largest absolute value of each activation that is rounded; it becomes 127.

    Attributes:
        batches: forward passes that are looked at; after them the ranges are fixed.
        percentile: of the absolute values of a batch that counts as its largest. 100 is the maximum, which
            ModelOpt's default "entropy" chose as well on eight inputs of each network.
        seen: forward passes that were looked at.
        largest: over all of them, by the name of the weight that takes the activation, or "sum 0" and on.
    """

    batches: int = 16
    percentile: float = 100.0
    seen: int = 0
    largest: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.batches < 1:
            raise ValueError(f"Ranges cannot be found in {self.batches} batches. Give 1 or more.")
        if not 50.0 < self.percentile <= 100.0:
            raise ValueError(f"The percentile is {self.percentile}. Give one over 50 and up to 100.")

    @property
    def fixed(self) -> bool:
        """Whether all batches were seen."""
        return self.seen >= self.batches

    def widen(self, place: str, values: torch.Tensor) -> None:
        """Take the values of one batch at a place into account."""
        found = _percentile(values.detach().abs().flatten(), self.percentile)
        self.largest[place] = max(self.largest.get(place, 0.0), found)


@contextmanager
def simulated_int8(network: nn.Module, ranges: ActivationRanges) -> Iterator[nn.Module]:
    """Within the context, calls of `network` compute as if it were INT8.

    Args:
        network: with `Conv2d` and `Linear` layers; it is not changed.
        ranges: of its activations. Until they are fixed, calls widen them and round nothing: calibration
            looks at a network that is not rounded, too.

    Yields:
        The network.

    Raises:
        ValueError: nothing in the network would be INT8.
        RuntimeError: at a call, nothing was rounded in the batches that were looked at, or not this
            activation.
    """
    weights = quantised_layers(network)
    if not weights:
        raise ValueError(
            f"No layer of the network would be INT8: none has {_TENSOR_CORE} channels. Train without it."
        )
    simulation = _Simulation(network, weights, ranges)
    before = network.register_forward_pre_hook(simulation.begin)
    # Also after an exception: the simulation must not outlive the call.
    after = network.register_forward_hook(simulation.end, always_call=True)
    try:
        yield network
    finally:
        before.remove()
        after.remove()


def quantised_layers(network: nn.Module) -> tuple[str, ...]:
    """Names of the weights that ModelOpt would quantise, squeeze-excite branches not told apart."""
    return tuple(
        f"{name}.weight" if name else "weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and _is_large_enough(module)
    )


def _is_large_enough(layer: nn.Conv2d | nn.Linear) -> bool:
    """ModelOpt's rules for INT8: `find_nodes_from_convs_to_exclude` and `…_matmul_to_exclude`."""
    outputs, inputs = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        return bool(min(outputs, inputs) >= _TENSOR_CORE)
    kernel = layer.weight.shape[2:]
    if min(outputs, inputs) >= _TENSOR_CORE:
        return True
    if layer.groups > 1:
        return bool(outputs % 8 == 0 and min(kernel) >= 3)
    even = outputs % 8 == 0 or inputs % 8 == 0
    return bool(even and max(outputs, inputs) >= _TENSOR_CORE and len(set(kernel)) == 1)


class _Simulation(TorchFunctionMode):
    """Rounds what convolutions, linear layers and sums of maps are given, while it is entered."""

    def __init__(self, network: nn.Module, weights: Sequence[str], ranges: ActivationRanges) -> None:
        super().__init__()
        self._names = {network.get_parameter(name): name for name in weights}
        self._ranges = ranges
        self._entered = self._observing = False
        self._sums = 0
        self._taken = WeakTensorKeyDictionary()

    def begin(self, network: nn.Module, inputs: object) -> None:
        """A forward pass begins."""
        if self._ranges.fixed and not self._ranges.largest:
            raise RuntimeError(
                "Nothing of the network would be INT8: all its maps are one pixel large. Train without it."
            )
        self._observing = not self._ranges.fixed
        self._sums, self._taken = 0, WeakTensorKeyDictionary()
        self._entered = True
        self.__enter__()  # type: ignore[no-untyped-call]

    def end(self, network: nn.Module, inputs: object, output: object) -> None:
        """It ends, well or not; also where it was refused at its beginning."""
        if not self._entered:
            return
        self._entered = False
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._ranges.seen += self._observing

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is _CONVOLUTION or func is _LINEAR:
            args = self._of_a_layer(args)
        elif func in _SUMS:
            args = self._of_a_sum(args)
        return func(*args, **(kwargs or {}))

    def _of_a_layer(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        values, weight, *others = args
        name = self._names.get(weight)
        if name is None or (values.dim() == 4 and values.shape[2:] == (1, 1)):
            return args
        self._taken[values] = True
        rounded = weight if self._observing else _rounded_weight(weight)
        return (self._rounded(name, values), rounded, *others)

    def _of_a_sum(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not all(isinstance(item, torch.Tensor) and item.dim() == 4 for item in args[:2]):
            return args
        one, other = args[:2]
        if one.shape != other.shape:
            return args
        place = f"sum {self._sums}"
        self._sums += 1
        # What a layer of the branch took comes past it as well. Where the top-down path meets a lateral
        # convolution neither was taken, and the path stands first.
        if other in self._taken and one not in self._taken:
            return (one, self._rounded(place, other), *args[2:])
        return (self._rounded(place, one), other, *args[2:])

    def _rounded(self, place: str, values: torch.Tensor) -> torch.Tensor:
        if self._observing:
            self._ranges.widen(place, values)
            return values
        if place not in self._ranges.largest:
            raise RuntimeError(
                f"What goes into {place} has no range: no batch that was looked at came by. "
                "Use the ranges with the network they were found on."
            )
        scale = max(self._ranges.largest[place] / _HIGHEST, _SMALLEST_SCALE)
        with torch.autocast(values.device.type, enabled=False):
            rounded = torch.fake_quantize_per_tensor_affine(values.float(), scale, 0, _LOWEST, _HIGHEST)
        return rounded.to(values.dtype)


def _rounded_weight(weight: torch.Tensor) -> torch.Tensor:
    """A weight (outputs, …) rounded with a scale for each output."""
    largest = weight.detach().abs().flatten(1).amax(dim=1)
    scale = (largest / _HIGHEST).clamp_min(_SMALLEST_SCALE)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, _LOWEST, _HIGHEST)


def _percentile(values: torch.Tensor, percentile: float) -> float:
    """The smallest of the values that this share of them does not exceed."""
    if percentile == 100.0:
        return float(values.max())
    place = max(1, math.ceil(values.numel() * percentile / 100.0))
    return float(values.float().kthvalue(place).values)
