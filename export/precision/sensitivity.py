"""Sensitivity of a model to INT8: output error with one block quantised at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.export.onnx.graphs import run_model
from stenosis_trt.export.precision.blocks import QuantisedBlock
from stenosis_trt.export.precision.convert import ConvertedModel
from stenosis_trt.export.precision.fp16_emulation import emulate_fp16
from stenosis_trt.export.precision.unquantise import unquantise_nodes

INPUTS_MEASURED = 8
"""Number of calibration inputs, evenly spaced, on which errors are measured; enough to rank blocks."""


@dataclass(frozen=True)
class BlockError:
    """Output error of a model with a single block quantised.

    Attributes:
        relative_rms: root mean square of the error, divided by that of the output.
        largest: largest absolute error of any output value.
    """

    relative_rms: float
    largest: float


def block_errors(
    converted: ConvertedModel,
    blocks: Sequence[QuantisedBlock],
    inputs: Float32Array,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[BlockError, ...]:
    """Measure the error of each block relative to the model without any quantised block.

    Args:
        converted: INT8 model from `to_int8`.
        blocks: all of its blocks.
        inputs: float32 (N, C, H, W); `INPUTS_MEASURED` of them are used.
        advance: called with (blocks done, total).
    """
    some = inputs[np.unique(np.linspace(0, len(inputs) - 1, INPUTS_MEASURED).round().astype(int))]
    every = {node for block in blocks for node in block.nodes}
    plain = _outputs(converted, every, some)
    size = float(np.sqrt(np.mean(np.square(plain, dtype=np.float64)))) or 1.0
    errors = []
    for done, block in enumerate(blocks, start=1):
        change = _outputs(converted, every.difference(block.nodes), some) - plain
        rms = float(np.sqrt(np.mean(np.square(change, dtype=np.float64))))
        errors.append(BlockError(rms / size, float(np.abs(change).max())))
        advance(done, len(blocks))
    return tuple(errors)


def _outputs(converted: ConvertedModel, left_out: set[str], inputs: Float32Array) -> Float32Array:
    model = unquantise_nodes(converted, left_out)
    return run_model(emulate_fp16(bytes(model.SerializeToString())), inputs)
