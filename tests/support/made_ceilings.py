"""Ceilings of a made-up processor and a block of two layers, for figures that can be computed by hand."""

from __future__ import annotations

from stenosis_trt.bench.roofline.blocks import BlockWork
from stenosis_trt.bench.roofline.ceilings import Ceilings, MemoryLevel, Rate
from stenosis_trt.bench.speed.roofline import LayerWork


def made_rate(*rounds: float) -> Rate:
    """A rate with these rounds."""
    return Rate("a probe", rounds)


CEILINGS = Ceilings(
    2,
    {"fp32": made_rate(90e9, 100e9), "bf16": made_rate(200e9), "int8": made_rate(400e9)},
    {"fp32": made_rate(50e9)},
    (
        MemoryLevel("L2", 1_000_000, made_rate(100e9), made_rate(50e9)),
        MemoryLevel("memory", None, made_rate(20e9), made_rate(10e9)),
    ),
)
"""Multiply-adds and bytes a second."""

BLOCK = BlockWork(
    "block",
    (LayerWork("a", "Conv", 10**6, 1000, 5000, 5000), LayerWork("b", "Relu", 0, 0, 5000, 5000)),
    frozenset({"a", "b"}),
    5000,
    5000,
)
"""A convolution and its ReLU."""
