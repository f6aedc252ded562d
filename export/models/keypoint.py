"""Heatmap network for keypoints: disc levels on sagittal slices, points of the cord on axial slices.

A residual encoder down to 1/32 resolution, whose last convolutions see the whole image (levels are told apart
by counting from the skull base), and a light top-down path to the resolution of the heatmaps, as in feature
pyramid networks (Lin et al., CVPR 2017).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

_WIDTHS = (24, 48, 80, 112, 144)
"""Channels at strides 2, 4, 8, 16 and 32."""


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x + self.second(self.first(x)))


class KeypointNet(nn.Module):
    """Image `(N, channels, H, W)` → heatmap logits `(N, keypoints, H / stride, W / stride)`.

    H and W must be multiples of 32. The sigmoid of the output is the heatmap; the height of its peak is the
    confidence that the point is visible.

    Args:
        channels: input channels.
        keypoints: number of heatmaps.
        stride: input pixels per heatmap pixel, 2 or 4.
        decoder: channels of the top-down path.
    """

    def __init__(self, channels: int, keypoints: int, stride: int, decoder: int = 64) -> None:
        super().__init__()
        if stride not in (2, 4):
            raise ValueError(f"A stride of {stride} is not offered. Give 2 or 4.")
        before = (channels, *_WIDTHS[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                _convolution(inputs, outputs, stride=2), *(_Residual(outputs) for _ in range(depth))
            )
            for inputs, outputs, depth in zip(before, _WIDTHS, (0, 1, 1, 1, 3), strict=True)
        )
        self.skipped = stride // 2 - 1
        used = _WIDTHS[self.skipped :]
        self.laterals = nn.ModuleList(nn.Conv2d(width, decoder, 1) for width in used)
        self.smooth = nn.ModuleList(_convolution(decoder, decoder) for _ in used[:-1])
        self.head = nn.Conv2d(decoder, keypoints, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Start near zero, like almost all of a heatmap.
        nn.init.normal_(self.head.weight, std=0.01)
        if self.head.bias is not None:
            nn.init.constant_(self.head.bias, -4.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        features = features[self.skipped :]
        top: torch.Tensor = self.laterals[-1](features[-1])
        for index in range(len(features) - 2, -1, -1):
            top = functional.interpolate(top, scale_factor=2.0, mode="nearest")
            top = self.smooth[index](top + self.laterals[index](features[index]))
        logits: torch.Tensor = self.head(top)
        return logits
