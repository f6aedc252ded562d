"""Assignment of the nodes that a runtime executes to the blocks of the ONNX graph.

Runtimes fuse nodes and rename them: ONNX Runtime calls a convolution with its ReLU "relu_3_nchwc" by the
tensor that it writes and a SiLU "node_silu_2/QuickGeluFusion/", OpenVINO "node_Conv_289/WithoutBiases". A
node whose name holds a name of the graph is assigned by it. Nodes that only change the layout of a tensor
are often named after nothing in the graph; they are assigned to the block that ran before them. Everything
else stays unassigned.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stenosis_trt.bench.roofline.blocks import BlockWork
from stenosis_trt.bench.roofline.profiles import NodeTime, Run

LAYOUT_OPERATORS = frozenset(
    (
        *("ReorderInput", "ReorderOutput", "Reorder", "Reshape", "Transpose", "Cast", "Convert", "Concat"),
        *("Unsqueeze", "Squeeze", "Input", "Output", "Parameter", "Result", "MemCopy"),
    )
)
"""Operators that may be assigned by their order."""

_ENDINGS = re.compile(r"(_nchwc|_quant|_fused|_bias|/.*)$")
_SEPARATORS = re.compile(r"[^A-Za-z0-9.]+")


@dataclass(frozen=True)
class BlockTime:
    """Time of a block in each run, in ms.

    Attributes:
        name: of the block.
        milliseconds: of each run.
        operators: time in ms by the runtime's operator, summed over the runs.
    """

    name: str
    milliseconds: tuple[float, ...]
    operators: Mapping[str, float]


@dataclass(frozen=True)
class Assignment:
    """Profile of a model by block.

    Attributes:
        blocks: time of each block, in graph order; 0 where the runtime ran nothing for it.
        unassigned: time of each other node in each run, by name.
        by_order: share of the time that was assigned by the order of execution.
    """

    blocks: tuple[BlockTime, ...]
    unassigned: Mapping[str, tuple[float, ...]]
    by_order: float


def assign_nodes(runs: Sequence[Run], blocks: Sequence[BlockWork]) -> Assignment:
    """Sum the times of the nodes of each run by block."""
    names = {alias: block.name for block in blocks for alias in block.aliases}
    times: dict[str, list[float]] = {block.name: [0.0] * len(runs) for block in blocks}
    operators: dict[str, dict[str, float]] = {block.name: defaultdict(float) for block in blocks}
    unassigned: dict[str, list[float]] = {}
    ordered = whole = 0.0
    for number, run in enumerate(runs):
        last = blocks[0].name if blocks else ""
        for node in run:
            whole += node.milliseconds
            block = block_of_node(node, names)
            if block is None and node.operator in LAYOUT_OPERATORS and last:
                block = last
                ordered += node.milliseconds
            if block is None:
                unassigned.setdefault(node.name, [0.0] * len(runs))[number] += node.milliseconds
                continue
            times[block][number] += node.milliseconds
            operators[block][node.operator] += node.milliseconds
            last = block
    return Assignment(
        tuple(BlockTime(block.name, tuple(times[block.name]), operators[block.name]) for block in blocks),
        {name: tuple(values) for name, values in unassigned.items()},
        ordered / whole if whole else 0.0,
    )


def block_of_node(node: NodeTime, names: Mapping[str, str]) -> str | None:
    """Return the block whose graph holds a name that the node's name consists of or ends with, or None.

    Args:
        node: an executed node.
        names: block of each name of the graph.
    """
    text = node.name
    while text:
        if text in names:
            return names[text]
        shorter = _ENDINGS.sub("", text)
        if shorter == text:
            break
        text = shorter
    # "image_f32_abcd_bf16_acdb_node_Conv_287": the reorder of an input, named after its reader.
    parts = list(_SEPARATORS.finditer(text))
    for separator in parts:
        if text[separator.end() :] in names:
            return names[text[separator.end() :]]
    return None
