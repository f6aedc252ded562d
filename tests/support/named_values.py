"""Weights that follow from a tensor's name alone, with which other libraries were asked for their answers."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def named_value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor that depends on its name in the library alone; small variances make the epsilon count."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    if name.endswith("running_var"):
        return torch.from_numpy(rng.uniform(0.01, 0.05, shape).astype(np.float32))
    values = rng.standard_normal(shape)
    if len(shape) > 1:
        values = values / np.sqrt(np.prod(shape[1:])) * (0.2 if len(shape) == 4 else 1.0)
    else:
        values = 1 + 0.1 * values if name.endswith("weight") else 0.1 * values
    return torch.from_numpy(values.astype(np.float32))
