"""Quantisation-aware training: INT8 simulated in the forward pass, so that weights adapt to it.

Within `simulated_int8`, the forward pass rounds what `stenosis-trt quantise` will round: weights of
convolutions and linear layers per output channel and their inputs per tensor, symmetrically. Gradients pass
straight through (Bengio et al., arXiv 1308.3432; Jacob et al., CVPR 2018) and are zero for clipped values.
Modules and state dict do not change, so the network is exported as usual.

The rounding follows the Q/DQ that ModelOpt 0.47 inserts into ONNX files of our networks (compared by
`tests/export/training/test_quantised.py`):

- layers too small for Tensor Cores are not quantised, by ModelOpt's own rules;
- of a sum of two maps, the shortcut is quantised, and the output of the convolution is not;
- squeeze-excite branches are not quantised, as after `rewrites`: their maps have one pixel.

Batch normalisation is folded into the weights on export. That scales each output channel together with its
quantisation step and gives the same rounding. Scales rounded up to FP16 are not simulated.
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
"""Lower bound of scales, for channels and activations that are all zero."""
_TENSOR_CORE = 16
"""Minimum number of channels with which ModelOpt quantises matrix products and most convolutions."""

_CONVOLUTION: Callable[..., torch.Tensor] = nn.functional.conv2d
_LINEAR: Callable[..., torch.Tensor] = nn.functional.linear
_SUMS = (torch.Tensor.add, torch.add)


@dataclass
class ActivationRanges:
    """Largest absolute value of each quantised activation, which becomes 127.

    Attributes:
        batches: number of forward passes that are measured; afterwards the ranges are fixed.
        percentile: percentile of a batch's absolute values taken as its largest. ModelOpt's default "entropy"
            equals 100 (the maximum) on eight inputs of each network.
        seen: forward passes measured so far.
        largest: by the name of the weight that takes the activation, or "sum 0" etc.
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
        """True once all batches were measured."""
        return self.seen >= self.batches

    def widen(self, place: str, values: torch.Tensor) -> None:
        """Extend the range of an activation to the values of a batch."""
        found = _percentile(values.detach().abs().flatten(), self.percentile)
        self.largest[place] = max(self.largest.get(place, 0.0), found)


@contextmanager
def simulated_int8(network: nn.Module, ranges: ActivationRanges) -> Iterator[nn.Module]:
    """Context in which calls of `network` simulate INT8.

    Args:
        network: has `Conv2d` and `Linear` layers; is not changed.
        ranges: of its activations. Until they are fixed, calls measure them and round nothing.

    Yields:
        The network.

    Raises:
        ValueError: no layer of the network would be INT8.
        RuntimeError: in a call, if no activation has a range, or a particular one has none.
    """
    weights = quantised_layers(network)
    if not weights:
        raise ValueError(
            f"No layer of the network would be INT8: none has {_TENSOR_CORE} channels. Train without it."
        )
    simulation = _Simulation(network, weights, ranges)
    before = network.register_forward_pre_hook(simulation.begin)
    # Also after an exception, so that the simulation ends with the call.
    after = network.register_forward_hook(simulation.end, always_call=True)
    try:
        yield network
    finally:
        before.remove()
        after.remove()


def quantised_layers(network: nn.Module) -> tuple[str, ...]:
    """Names of the weights that ModelOpt would quantise, including squeeze-excite branches."""
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
    """Rounds inputs and weights of convolutions, linear layers and sums while it is entered."""

    def __init__(self, network: nn.Module, weights: Sequence[str], ranges: ActivationRanges) -> None:
        super().__init__()
        self._names = {network.get_parameter(name): name for name in weights}
        self._ranges = ranges
        self._entered = self._observing = False
        self._sums = 0
        self._layer_inputs = WeakTensorKeyDictionary()

    def begin(self, network: nn.Module, inputs: object) -> None:
        """Forward pre-hook."""
        if self._ranges.fixed and not self._ranges.largest:
            raise RuntimeError(
                "Nothing of the network would be INT8: all its maps are one pixel large. Train without it."
            )
        self._observing = not self._ranges.fixed
        self._sums, self._layer_inputs = 0, WeakTensorKeyDictionary()
        self._entered = True
        self.__enter__()  # type: ignore[no-untyped-call]

    def end(self, network: nn.Module, inputs: object, output: object) -> None:
        """Forward hook; also called after an exception."""
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
            args = self._round_layer(args)
        elif func in _SUMS:
            args = self._round_sum(args)
        return func(*args, **(kwargs or {}))

    def _round_layer(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        values, weight, *others = args
        name = self._names.get(weight)
        if name is None or (values.dim() == 4 and values.shape[2:] == (1, 1)):
            return args
        self._layer_inputs[values] = True
        rounded = weight if self._observing else _fake_quantise_weight(weight)
        return (self._fake_quantise(name, values), rounded, *others)

    def _round_sum(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not all(isinstance(item, torch.Tensor) and item.dim() == 4 for item in args[:2]):
            return args
        one, other = args[:2]
        if one.shape != other.shape:
            return args
        place = f"sum {self._sums}"
        self._sums += 1
        # The shortcut is the input of one of the branch's layers. Where the top-down path meets a lateral
        # convolution, neither is a layer's input, and the path is the first operand.
        if other in self._layer_inputs and one not in self._layer_inputs:
            return (one, self._fake_quantise(place, other), *args[2:])
        return (self._fake_quantise(place, one), other, *args[2:])

    def _fake_quantise(self, place: str, values: torch.Tensor) -> torch.Tensor:
        if self._observing:
            self._ranges.widen(place, values)
            return values
        if place not in self._ranges.largest:
            raise RuntimeError(
                f"What goes into {place} has no range: no measured batch reached it. "
                "Use the ranges with the network they were found on."
            )
        scale = max(self._ranges.largest[place] / _HIGHEST, _SMALLEST_SCALE)
        with torch.autocast(values.device.type, enabled=False):
            rounded = torch.fake_quantize_per_tensor_affine(values.float(), scale, 0, _LOWEST, _HIGHEST)
        return rounded.to(values.dtype)


def _fake_quantise_weight(weight: torch.Tensor) -> torch.Tensor:
    """Weight (outputs, …) rounded with one scale per output."""
    largest = weight.detach().abs().flatten(1).amax(dim=1)
    scale = (largest / _HIGHEST).clamp_min(_SMALLEST_SCALE)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, _LOWEST, _HIGHEST)


def _percentile(values: torch.Tensor, percentile: float) -> float:
    """Smallest value that is not exceeded by `percentile` % of the values."""
    if percentile == 100.0:
        return float(values.max())
    place = max(1, math.ceil(values.numel() * percentile / 100.0))
    return float(values.float().kthvalue(place).values)
