"""Blocks that err most stay out of INT8, if they cost little."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.export.onnx.graphs import quantised_share, run_model
from stenosis_trt.export.precision.blocks import QuantisedBlock
from stenosis_trt.export.precision.convert import Int8Options, to_int8
from stenosis_trt.export.precision.exclusion import choose_blocks, leave_out_worst_blocks
from stenosis_trt.export.precision.fp16_emulation import emulate_fp16


def _blocks(**work: int) -> list[QuantisedBlock]:
    return [QuantisedBlock(name, (name,), count) for name, count in work.items()]


@pytest.mark.parametrize(
    ("errors", "limit", "expected"),
    [
        ((1.0, 0.1, 0.1, 0.1), 0.02, ["a"]),
        # The second is as bad, and too large.
        ((1.0, 1.0, 0.1, 0.1), 0.02, ["a"]),
        ((1.0, 1.0, 0.9, 0.1), 0.02, ["a", "c"]),
        ((1.0, 1.0, 0.9, 0.9), 0.03, ["a", "c", "d"]),
        ((1.0, 1.0, 0.9, 0.9), 0.005, []),
        ((0.0, 0.0, 0.0, 0.0), 0.02, []),
    ],
)
def test_the_worst_blocks_are_chosen_within_the_limit(
    errors: tuple[float, ...], limit: float, expected: list[str]
) -> None:
    blocks = _blocks(a=10, b=970, c=10, d=10)
    assert [block.name for block in choose_blocks(blocks, errors, limit)] == expected


@pytest.mark.slow
def test_a_network_without_its_worst_blocks_errs_less_and_is_nearly_all_int8(
    pack: Pack, inputs: dict[str, Float32Array]
) -> None:
    data, some = pack.read_model("cord"), inputs["cord"]
    full = to_int8(data, some, Int8Options("max"))
    found = leave_out_worst_blocks(data, full, some)
    assert found.metrics["blocks_left_out"] >= 1
    share = quantised_share(onnx.load_model_from_string(found.data))
    assert 0.98 <= share < 1.0
    assert found.metrics["quantised_share"] == share
    expected = run_model(data, some)
    errors = [np.square(run_model(emulate_fp16(item.data), some) - expected).mean() for item in (full, found)]
    assert errors[1] < 0.7 * errors[0]
    assert leave_out_worst_blocks(data, full, some, 0.0) is full
