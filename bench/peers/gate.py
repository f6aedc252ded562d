"""What the gate of this machine refused: OpenVINO's ways to run a model whose grades differ from FP32's."""

from __future__ import annotations

from collections.abc import Mapping

from stenosis_trt.engine.backends.cpu.candidates import BFLOAT16, FLOAT32, OPENVINO, Arithmetic
from stenosis_trt.engine.backends.cpu.table import CpuTable

ARITHMETIC: Mapping[str, Arithmetic] = {
    "openvino_fp32": Arithmetic(OPENVINO, "fp32", FLOAT32),
    "openvino_bf16": Arithmetic(OPENVINO, "fp32", BFLOAT16),
    "openvino_int8": Arithmetic(OPENVINO, "int8", FLOAT32),
    "openvino_int8_bf16": Arithmetic(OPENVINO, "int8", BFLOAT16),
}
"""What each peer computes in, as the table of `stenosis-trt build --device cpu` names it."""


def refused(table: CpuTable | None) -> dict[str, frozenset[str]]:
    """Return the peers that the gate refused, by model.

    What the gate did not check, or where there is no table, is not refused: it stays an opponent.
    """
    if table is None:
        return {}
    return {
        model: frozenset(
            peer
            for peer, arithmetic in ARITHMETIC.items()
            if str(arithmetic) in outcomes and outcomes[str(arithmetic)].get("passed") is not True
        )
        for model, outcomes in table.alone.items()
    }
