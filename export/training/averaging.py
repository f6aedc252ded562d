"""Mean of the weights of two networks."""

from __future__ import annotations

import copy

import torch
from torch import nn


def mean_network(one: nn.Module, other: nn.Module) -> nn.Module:
    """Return a network with the mean of the weights and statistics of two, where one continues the other.

    Such a mean is often as good as the better one and varies less between runs (Wortsman et al., Model soups,
    ICML 2022).

    Args:
        one: a network.
        other: the same network after further training. What is no floating-point number is taken from it.

    Raises:
        ValueError: the networks differ in their tensors.
    """
    first, second = one.state_dict(), other.state_dict()
    if {name: item.shape for name, item in first.items()} != {k: v.shape for k, v in second.items()}:
        raise ValueError("The networks differ in their tensors, so their weights have no mean.")
    mean = copy.deepcopy(other)
    mean.load_state_dict(
        {
            name: torch.lerp(first[name], item, 0.5) if item.is_floating_point() else item
            for name, item in second.items()
        }
    )
    return mean
