"""Blocks of a network: groups of layers that a runtime may fuse, with their operations and traffic.

A layer with weights belongs to the block that its weight's name says: the name up to its second number.
"network.features.2.0.block.1.weight" lies in "features.2.0", an MBConv block of EfficientNet, and
"network.stages.1.1.first.0.weight" in "stages.1.1". A layer without weights belongs to the block of the
latest layer that it reads from, where a runtime may fuse it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stenosis_trt.bench.roofline.layer_work import fold_fp16_weights, model_layers
from stenosis_trt.bench.speed.roofline import LayerWork
from stenosis_trt.engine.packs.pack import Pack

if TYPE_CHECKING:
    import onnx

_SEPARATORS = re.compile(r"[./]+")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_NUMBERS_IN_NAME = 2


@dataclass(frozen=True)
class BlockWork:
    """Work of one block for one input of the network.

    Attributes:
        name: from its weights' names, or of its first layer.
        layers: its layers, in graph order.
        aliases: names that a runtime may give to its layers: of nodes and of their outputs.
        inputs: elements of activations that it reads from other blocks or from the network's input.
        outputs: elements of activations that other blocks read, or that are the network's output.
    """

    name: str
    layers: tuple[LayerWork, ...]
    aliases: frozenset[str]
    inputs: int
    outputs: int

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of its convolutions and matrix products."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def weights(self) -> int:
        """Elements of its constants."""
        return sum(layer.weights for layer in self.layers)


def network_blocks(pack: Pack, name: str) -> tuple[BlockWork, ...]:
    """Blocks of a pack's model, in graph order, as if all of it were FP32.

    Raises:
        PackError: shapes cannot be inferred from the graph.
    """
    import onnx

    model = fold_fp16_weights(onnx.load_model_from_string(pack.read_model(name)))
    return model_blocks(model, (1, *pack.models[name].input_shape), name)


def model_blocks(model: onnx.ModelProto, shape: tuple[int, ...], name: str) -> tuple[BlockWork, ...]:
    """Blocks of a model in FP32, in graph order.

    Args:
        model: FP32, with one input.
        shape: (1, C, H, W) of the input.
        name: name of the model in messages.

    Raises:
        PackError: shapes cannot be inferred from the graph.
    """
    layers = {layer.name: layer for layer in model_layers(model, shape, name)}
    nodes = [node for node in model.graph.node if node.output]
    constants = {item.name for item in model.graph.initializer}
    block_of = _assign(nodes, constants)
    sizes = {layer.name: layer.outputs for layer in layers.values()}
    sizes[model.graph.input[0].name] = int(np.prod(shape))
    # A view has the elements of what it views.
    for node in nodes:
        if node.output[0] not in sizes and node.input and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    readers: dict[str, set[str]] = defaultdict(set)
    for node in nodes:
        for item in node.input:
            readers[item].add(block_of[node.output[0]])
    for item in model.graph.output:
        readers[item.name].add("")
    members: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        members.setdefault(block_of[node.output[0]], []).append(node)

    def block(name: str, found: Sequence[onnx.NodeProto]) -> BlockWork:
        return _block(name, found, layers, sizes, lambda item: bool(readers[item] - {name}))

    blocks = (block(name, found) for name, found in members.items())
    return tuple(item for item in blocks if item.layers)


def _block(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    layers: Mapping[str, LayerWork],
    sizes: Mapping[str, int],
    read_elsewhere: Callable[[str], bool],
) -> BlockWork:
    made = {item for node in nodes for item in node.output}
    read = dict.fromkeys(item for node in nodes for item in node.input if item and item not in made)
    computing = [node for node in nodes if node.output[0] in layers]
    return BlockWork(
        name,
        tuple(layers[node.output[0]] for node in computing),
        frozenset(text for node in computing for text in (node.name, *node.output) if text),
        sum(sizes.get(item, 0) for item in read),
        sum(sizes.get(item, 0) for item in made if read_elsewhere(item)),
    )


def _assign(nodes: Sequence[onnx.NodeProto], constants: Collection[str]) -> dict[str, str]:
    """Block of each node, by its first output."""
    found: dict[str, str] = {}
    order = {item: index for index, node in enumerate(nodes) for item in node.output}
    prefix = _common_prefix(
        path
        for node in nodes
        if node.op_type in _WEIGHTED
        for path in [_weight_path(node, constants)]
        if path
    )
    for node in nodes:
        path = _weight_path(node, constants) if node.op_type in _WEIGHTED else ()
        makers = [item for item in node.input if item in found]
        if path:
            block = ".".join(_block_path(path[len(prefix) :])) or path[-1]
        elif makers:
            block = found[max(makers, key=order.__getitem__)]
        else:
            block = node.output[0]
        found.update(dict.fromkeys(node.output, block))
    return found


def _weight_path(node: onnx.NodeProto, constants: Collection[str]) -> tuple[str, ...]:
    """Parts of the name of a layer's weight, without the last, "weight"; () if it is not a constant."""
    weights = [item for item in node.input[1:2] if item in constants]
    return tuple(part for part in _SEPARATORS.split(weights[0]) if part)[:-1] if weights else ()


def _block_path(path: Sequence[str]) -> Sequence[str]:
    numbers = [index for index, part in enumerate(path) if part.isdigit()]
    return path[: numbers[_NUMBERS_IN_NAME - 1] + 1] if len(numbers) >= _NUMBERS_IN_NAME else path


def _common_prefix(paths: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Leading parts that all paths share, without a path's last part."""
    found: tuple[str, ...] | None = None
    for path in paths:
        head = path[:-1]
        if found is None:
            found = head
        shared = 0
        while shared < min(len(found), len(head)) and found[shared] == head[shared]:
            shared += 1
        found = found[:shared]
    return found or ()
