"""How much each block of a model loses in INT8: the error at the output with that block alone quantised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.export.onnx.graphs import Float32Array, run_model
from stenosis_trt.export.precision.blocks import QuantisedBlock
from stenosis_trt.export.precision.convert import ConvertedModel
from stenosis_trt.export.precision.fp16_emulation import emulate_fp16
from stenosis_trt.export.precision.unquantise import unquantise_nodes

INPUTS_MEASURED = 8
"""Calibration inputs that errors are measured on, evenly taken: ranks of blocks need no more."""


@dataclass(frozen=True)
class BlockError:
    """What quantising one block does to a model's output.

    Attributes:
        relative_rms: root mean square of the change, of that of the output.
        largest: the largest absolute change of any output value.
    """

    relative_rms: float
    largest: float


def block_errors(
    converted: ConvertedModel,
    blocks: Sequence[QuantisedBlock],
    inputs: Float32Array,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[BlockError, ...]:
    """The error of each block, held against the same model with nothing quantised.

    Args:
        converted: an INT8 model as `to_int8` makes it.
        blocks: all of its blocks.
        inputs: float32 (N, C, H, W), of which `INPUTS_MEASURED` are taken.
        advance: told how many of how many blocks are done.
    """
    some = inputs[np.unique(np.linspace(0, len(inputs) - 1, INPUTS_MEASURED).round().astype(int))]
    every = {node for block in blocks for node in block.nodes}
    plain = _answers(converted, every, some)
    size = float(np.sqrt(np.mean(np.square(plain, dtype=np.float64)))) or 1.0
    errors = []
    for done, block in enumerate(blocks, start=1):
        change = _answers(converted, every.difference(block.nodes), some) - plain
        rms = float(np.sqrt(np.mean(np.square(change, dtype=np.float64))))
        errors.append(BlockError(rms / size, float(np.abs(change).max())))
        advance(done, len(blocks))
    return tuple(errors)


def _answers(converted: ConvertedModel, left_out: set[str], inputs: Float32Array) -> Float32Array:
    model = unquantise_nodes(converted, left_out)
    return run_model(emulate_fp16(bytes(model.SerializeToString())), inputs)
