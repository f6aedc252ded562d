"""EfficientNet-B5 (Tan and Le, ICML 2019), with names and shapes of torchvision's `efficientnet_b5`.

Checkpoints trained with torchvision load strictly. torchvision itself needs compiled operators that CPU
builds of torch do not have. Differences in other libraries' EfficientNet-B5 are an `EfficientNetVariant`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

_WIDTH, _DEPTH = 1.6, 2.2
_BATCH_NORM_MOMENTUM = 0.01
_SQUEEZE = 4


@dataclass(frozen=True)
class EfficientNetVariant:
    """Differences between libraries; the defaults are torchvision's.

    Attributes:
        epsilon: of batch normalisation.
        same_padding: pad strided convolutions like TensorFlow's SAME, with the odd pixel behind; otherwise
            symmetrically.
        padding_image_size: image (height, width) that SAME padding is computed for; None for the input's
            size.
    """

    epsilon: float = 1e-3
    same_padding: bool = False
    padding_image_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class _StageSpec:
    """Row of the paper's table 1 (B0), before scaling."""

    expansion: int
    kernel: int
    stride: int
    inputs: int
    outputs: int
    repeats: int

    def scaled(self) -> _StageSpec:
        return replace(
            self,
            inputs=_round_channels(self.inputs * _WIDTH),
            outputs=_round_channels(self.outputs * _WIDTH),
            repeats=math.ceil(self.repeats * _DEPTH),
        )


_B0 = (
    _StageSpec(1, 3, 1, 32, 16, 1),
    _StageSpec(6, 3, 2, 16, 24, 2),
    _StageSpec(6, 5, 2, 24, 40, 2),
    _StageSpec(6, 3, 2, 40, 80, 3),
    _StageSpec(6, 5, 1, 80, 112, 3),
    _StageSpec(6, 5, 2, 112, 192, 4),
    _StageSpec(6, 3, 1, 192, 320, 1),
)


def _round_channels(channels: float) -> int:
    """Round to a multiple of 8, but not down by more than 10 %."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class _SameConv2d(nn.Conv2d):
    """Convolution with ⌈size / stride⌉ output pixels, like TensorFlow's SAME.

    `built_for` is the (height, width) the padding is computed for; None for the input's size.
    """

    built_for: tuple[int, int] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = self.built_for or (x.shape[2], x.shape[3])
        top, bottom = self._padding(height, 0)
        left, right = self._padding(width, 1)
        return super().forward(functional.pad(x, (left, right, top, bottom)))

    def _padding(self, size: int, axis: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, same_padding: bool
) -> nn.Conv2d:
    if same_padding and stride > 1:
        return _SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    # Equal to SAME padding for an odd kernel without stride.
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)


class _ConvNormAct(nn.Sequential):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        variant: EfficientNetVariant,
        *,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        layers: list[nn.Module] = [
            _convolution(inputs, outputs, kernel, stride, groups, variant.same_padding),
            nn.BatchNorm2d(outputs, eps=variant.epsilon, momentum=_BATCH_NORM_MOMENTUM),
        ]
        if act:
            layers.append(nn.SiLU(inplace=True))
        super().__init__(*layers)


class _SqueezeExcitation(nn.Module):
    """Hu et al., CVPR 2018; `fc1` and `fc2` are 1×1 convolutions, as in torchvision."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(scale))


def _drop_rows(x: torch.Tensor, probability: float) -> torch.Tensor:
    """Stochastic depth (Huang et al., ECCV 2016): zero whole samples and rescale the others."""
    kept = 1.0 - probability
    mask = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(kept)
    return x * mask / kept


class _MBConv(nn.Module):
    def __init__(self, stage: _StageSpec, first: bool, drop: float, variant: EfficientNetVariant) -> None:
        super().__init__()
        inputs = stage.inputs if first else stage.outputs
        stride = stage.stride if first else 1
        expanded = _round_channels(inputs * stage.expansion)
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(_ConvNormAct(inputs, expanded, 1, variant))
        layers.append(_ConvNormAct(expanded, expanded, stage.kernel, variant, stride=stride, groups=expanded))
        layers.append(_SqueezeExcitation(expanded, max(1, inputs // _SQUEEZE)))
        layers.append(_ConvNormAct(expanded, stage.outputs, 1, variant, act=False))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == stage.outputs
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.block(x)
        if not self.residual:
            return result
        if self.training and self.drop > 0.0:
            result = _drop_rows(result, self.drop)
        return x + result


class EfficientNetB5(nn.Module):
    """Image `(N, channels, H, W)` → logits `(N, classes)`. 28.349 M parameters with 4 classes.

    Residual branches are initialised to zero (Goyal et al., arXiv 1706.02677); otherwise training from
    scratch makes no progress within a thousand steps.

    Args:
        classes: output classes.
        dropout: before the classifier; 0.4 in the paper.
        stochastic_depth: drop probability of the last block, rising linearly from 0; 0.2 in the paper.
        channels: input channels.
        variant: library whose network it is.
    """

    def __init__(
        self,
        classes: int = 4,
        dropout: float = 0.4,
        stochastic_depth: float = 0.2,
        *,
        channels: int = 3,
        variant: EfficientNetVariant = EfficientNetVariant(),
    ) -> None:
        super().__init__()
        stages = [stage.scaled() for stage in _B0]
        blocks = sum(stage.repeats for stage in stages)
        features: list[nn.Module] = [_ConvNormAct(channels, stages[0].inputs, 3, variant, stride=2)]
        done = 0
        for stage in stages:
            row: list[nn.Module] = []
            for index in range(stage.repeats):
                drop = stochastic_depth * done / blocks
                row.append(_MBConv(stage, index == 0, drop, variant))
                done += 1
            features.append(nn.Sequential(*row))
        last = stages[-1].outputs
        features.append(_ConvNormAct(last, 4 * last, 1, variant))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(dropout, inplace=True), nn.Linear(4 * last, classes))
        self._initialise()
        self._pad_for(variant.padding_image_size)

    def _pad_for(self, size: tuple[int, int] | None) -> None:
        """Fix the SAME padding of strided convolutions to that of an image of this size."""
        for module in self.modules():
            if size is not None and isinstance(module, _SameConv2d):
                module.built_for = size
                size = (-(-size[0] // module.stride[0]), -(-size[1] // module.stride[1]))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                # torchvision's 1 / √classes is meant for a thousand classes; with four, the initial logits
                # are too large to train.
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, _MBConv) and module.residual:
                norm = module.block[-1].get_submodule("1")
                nn.init.zeros_(norm.get_parameter("weight"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.features(x).mean((2, 3))
        logits: torch.Tensor = self.classifier(pooled)
        return logits
