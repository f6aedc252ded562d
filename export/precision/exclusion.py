"""Blocks that err most are left out of INT8, within a share of the multiply-adds.

Errors of blocks differ by orders of magnitude, and the worst are often the smallest: the first blocks of an
EfficientNet have few channels and few multiply-adds, and everything behind them sees their errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.export.onnx.graphs import quantised_share, run_model
from stenosis_trt.export.precision.blocks import QuantisedBlock, quantised_blocks
from stenosis_trt.export.precision.convert import ConvertedModel, with_error_metrics
from stenosis_trt.export.precision.fp16_emulation import emulate_fp16
from stenosis_trt.export.precision.sensitivity import INPUTS_MEASURED, block_errors
from stenosis_trt.export.precision.shares import QUANTISED_SHARE
from stenosis_trt.export.precision.unquantise import unquantise_nodes

LEFT_OUT_SHARE = 0.02
"""Default limit of the multiply-adds that are left out."""
_NOTABLE = 0.05
"""Share of the sum of all squared errors from which a block is worth leaving out."""


def leave_out_worst_blocks(
    data: bytes, converted: ConvertedModel, inputs: Float32Array, limit: float = LEFT_OUT_SHARE
) -> ConvertedModel:
    """Leave the blocks with the largest errors out of INT8; returns `converted` if there is none.

    A block is left out if its squared error is a twentieth of the sum over all blocks or more, and if what is
    left out stays within `limit`. Errors are measured on the inputs on which the model errs most.

    Args:
        data: the FP32 model.
        converted: INT8 model from `to_int8` or `rewrite_squeeze_excite`.
        inputs: calibration inputs, float32 (N, C, H, W).
        limit: largest share of the multiply-adds that is left out, 0 to 1.

    Raises:
        PrecisionError: the changed model returns values that are not finite.
    """
    if limit <= 0:
        return converted
    blocks = quantised_blocks(onnx.load_model_from_string(converted.data))
    error = run_model(emulate_fp16(converted.data), inputs) - run_model(data, inputs)
    squared = np.square(error, dtype=np.float64).reshape(len(inputs), -1).mean(axis=1)
    worst_inputs = np.sort(np.argsort(-squared, kind="stable")[:INPUTS_MEASURED])
    errors = block_errors(converted, blocks, inputs[worst_inputs])
    left = choose_blocks(blocks, [item.relative_rms for item in errors], limit)
    if not left:
        return converted
    model = unquantise_nodes(converted, {node for block in left for node in block.nodes})
    metrics = {
        **converted.metrics,
        QUANTISED_SHARE: quantised_share(model),
        "blocks_left_out": float(len(left)),
    }
    found = with_error_metrics(data, model, inputs, {})
    return replace(converted, data=found.data, metrics={**metrics, **found.metrics})


def choose_blocks(
    blocks: Sequence[QuantisedBlock], errors: Sequence[float], limit: float
) -> list[QuantisedBlock]:
    """Choose the blocks to leave out, largest error first.

    Args:
        blocks: all quantised blocks of a model.
        errors: root mean square error of each.
        limit: see `leave_out_worst_blocks`.
    """
    squared = np.square(np.asarray(errors, dtype=np.float64))
    whole_error, whole_work = float(squared.sum()), sum(block.multiply_adds for block in blocks)
    left: list[QuantisedBlock] = []
    work = 0
    for index in np.argsort(-squared, kind="stable"):
        block = blocks[int(index)]
        if squared[index] < _NOTABLE * whole_error or not whole_error:
            break
        if work + block.multiply_adds <= limit * whole_work:
            left.append(block)
            work += block.multiply_adds
    return left
