"""Blocks of a quantised network: groups of nodes that are quantised or left unquantised together.

Blocks follow from the wiring of the graph, because node names are often meaningless: a residual block is what
lies between a fork and the addition that joins it; a gate (squeeze-excite) belongs to the layer whose output
it scales. Remaining layers are grouped by their weights' names if those put them beside residual blocks, or
else stay single.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import onnx

from stenosis_trt.bench.roofline.layer_work import multiply_adds
from stenosis_trt.export.errors import PrecisionError
from stenosis_trt.export.onnx.graphs import QDQ, before_qdq

_JOINS = ("Add", "Sum")
_GATES = ("Mul",)
_UPSAMPLING = ("Resize", "Upsample", "ConvTranspose", "DepthToSpace")
_MAX_LAYERS = 8
"""Maximum number of layers in a block; common residual blocks have up to six."""
_SEPARATORS = re.compile(r"[./]+")


@dataclass(frozen=True)
class QuantisedBlock:
    """Nodes that are quantised together.

    Attributes:
        name: from its weights or nodes, for reports.
        nodes: first outputs of the nodes that take quantised tensors, in graph order.
        multiply_adds: for one input.
    """

    name: str
    nodes: tuple[str, ...]
    multiply_adds: int


def quantised_blocks(model: onnx.ModelProto) -> tuple[QuantisedBlock, ...]:
    """Group all nodes of a Q/DQ model that take quantised tensors into blocks, in graph order.

    Raises:
        PrecisionError: nothing in the model is quantised.
    """
    wiring = _Dataflow(model)
    work = multiply_adds(model)
    quantised = [index for index in wiring.alive if wiring.takes_quantised(index)]
    layers = [index for index in quantised if work.get(wiring.output(index), 0)]
    if not layers:
        raise PrecisionError("No layer of the model is quantised.", "Quantise it first.")
    groups = _group_layers(wiring, layers)
    place = {index: number for number, group in enumerate(groups) for index in group}
    for index in quantised:
        if index not in place:
            place[index] = place[wiring.nearest(index, place)]
    members: list[list[int]] = [[] for _ in groups]
    for index in quantised:
        members[place[index]].append(index)
    names = _names(wiring, groups)
    return tuple(
        QuantisedBlock(
            name,
            tuple(wiring.output(index) for index in nodes),
            sum(work.get(wiring.output(index), 0) for index in nodes),
        )
        for name, nodes in zip(names, members, strict=True)
    )


_T = TypeVar("_T")


class _Dataflow:
    """Dataflow between the nodes of a graph without Q/DQ, with dominators and post-dominators.

    Nodes are numbered in graph order, which is topological. `alive` are the nodes that depend on the input's
    values; those that compute shapes are not.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self._index_of = {
            name: index for index, node in enumerate(self.nodes) for name in node.output if name
        }
        self._producers = {name: self.nodes[index] for name, index in self._index_of.items()}
        inputs = {item.name for item in model.graph.input} - {item.name for item in model.graph.initializer}
        sources: dict[int, list[int]] = {}
        for index, node in enumerate(self.nodes):
            if node.op_type in (*QDQ, "Shape"):
                continue
            origins = [before_qdq(self._producers, name) for name in node.input if name]
            makers = [self._index_of[name] for name in origins if self._index_of.get(name) in sources]
            if makers or any(name in inputs for name in origins):
                sources[index] = list(dict.fromkeys(makers))
        self.alive = list(sources)
        self.sources = sources
        self.targets: dict[int, list[int]] = {index: [] for index in self.alive}
        for index, makers in sources.items():
            for maker in makers:
                self.targets[maker].append(index)
        self._before = _dominators(self.alive, sources)
        self._after = _dominators(self.alive[::-1], self.targets)

    def output(self, index: int) -> str:
        return str(self.nodes[index].output[0])

    def takes_quantised(self, index: int) -> bool:
        return any(
            self.nodes[maker].op_type == "DequantizeLinear"
            for maker in (self._index_of.get(name, -1) for name in self.nodes[index].input)
            if maker >= 0
        )

    def weight_path(self, index: int) -> tuple[str, ...]:
        """Parts of the name of a layer's weight, without the final "weight"."""
        names = self.nodes[index].input
        origin = before_qdq(self._producers, names[1]) if len(names) > 1 else ""
        if not origin or origin in self._index_of:
            return ()
        return tuple(part for part in _SEPARATORS.split(origin) if part)[:-1]

    def fork(self, index: int) -> int | None:
        """Immediate dominator of a node; None for the input."""
        return self._before[index][-2] if len(self._before[index]) > 1 else None

    def dominators(self, index: int) -> tuple[int, ...]:
        """Dominators of a node from the input on, itself last."""
        return self._before[index]

    def between(self, fork: int, join: int) -> list[int]:
        """Nodes dominated by `fork` and post-dominated by `join`, including `join`."""
        return [
            index
            for index in self.alive
            if fork < index <= join and fork in self._before[index] and join in self._after[index]
        ]

    def fewest_layers_between(self, fork: int, join: int, layers: Collection[int]) -> int:
        """Fewest layers on a path from `fork` to `join`, not counting `join`."""
        fewest = {fork: 0}
        for index in self.alive:
            if fork < index <= join:
                ways = [fewest[source] for source in self.sources[index] if source in fewest]
                if ways:
                    fewest[index] = min(ways) + (index in layers and index != join)
        return fewest.get(join, len(layers))

    def nearest(self, index: int, wanted: Collection[int]) -> int:
        """Last of `wanted` that is an ancestor of a node; if there is none, its first descendant."""
        for step, best in ((self.sources, max), (self.targets, min)):
            seen, waiting = {index}, list(step[index])
            found = []
            while waiting:
                other = waiting.pop()
                if other in seen:
                    continue
                seen.add(other)
                if other in wanted:
                    found.append(other)
                else:
                    waiting.extend(step[other])
            if found:
                return best(found)
        return min(wanted, key=lambda other: abs(other - index))


def _dominators(order: Sequence[int], before: Mapping[int, Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """Chain of dominators of each node, itself last."""
    chains: dict[int, tuple[int, ...]] = {}
    for index in order:
        chains[index] = (*_common_prefix([chains[other] for other in before[index]]), index)
    return chains


def _common_prefix(sequences: Sequence[tuple[_T, ...]]) -> tuple[_T, ...]:
    """Longest common prefix; () for none."""
    shortest = min(sequences, key=len, default=())
    for place, part in enumerate(shortest):
        if any(other[place] != part for other in sequences):
            return shortest[:place]
    return shortest


def _group_layers(wiring: _Dataflow, layers: Sequence[int]) -> list[list[int]]:
    """Layers grouped into blocks, in graph order."""
    left = set(layers)
    residual = _residual_blocks(wiring, left)
    left -= {index for group in residual for index in group}
    gated = _gate_blocks(wiring, left)
    left -= {index for group in gated for index in group}
    groups = _join_by_name(wiring, residual, [*gated, *([index] for index in left)])
    return sorted(groups, key=lambda group: group[0])


def _residual_blocks(wiring: _Dataflow, layers: Collection[int]) -> list[list[int]]:
    """Layers of each residual block: parallel to a path of at most one layer, without upsampling."""
    found = []
    for join in wiring.alive:
        fork = wiring.fork(join)
        if wiring.nodes[join].op_type not in _JOINS or len(wiring.sources[join]) < 2 or fork is None:
            continue
        region = wiring.between(fork, join)
        group = [index for index in region if index in layers]
        if not 1 <= len(group) <= _MAX_LAYERS or wiring.fewest_layers_between(fork, join, layers) > 1:
            continue
        if not any(wiring.nodes[index].op_type in _UPSAMPLING for index in region):
            found.append(group)
    return _outermost(found)


def _gate_blocks(wiring: _Dataflow, layers: set[int]) -> list[list[int]]:
    """Layers of each gate, with the layer whose output it scales."""
    found = []
    for join in wiring.alive:
        fork = wiring.fork(join)
        if wiring.nodes[join].op_type not in _GATES or len(wiring.sources[join]) < 2 or fork is None:
            continue
        group = [index for index in wiring.between(fork, join) if index in layers]
        if not 1 <= len(group) < _MAX_LAYERS:
            continue
        weighed = [index for index in wiring.dominators(fork) if index in layers]
        found.append(sorted({*weighed[-1:], *group}))
    return _outermost(found)


def _outermost(groups: Iterable[list[int]]) -> list[list[int]]:
    taken: set[int] = set()
    kept = []
    for group in sorted(groups, key=len, reverse=True):
        if taken.isdisjoint(group):
            kept.append(group)
            taken.update(group)
    return kept


def _join_by_name(
    wiring: _Dataflow, residual: Sequence[list[int]], others: Sequence[list[int]]
) -> list[list[int]]:
    """Join layers whose names put them beside residual blocks: a stage's first layer has no shortcut."""
    every = {index: wiring.weight_path(index) for group in (*residual, *others) for index in group}
    parents = {scope[:-1] for group in residual if len(scope := _scope(group, every)) > 1}
    joined: dict[tuple[str, ...], list[list[int]]] = {}
    apart = []
    for group in others:
        common = _common_prefix([every[index] for index in group])
        depth = max((len(parent) for parent in parents if common[: len(parent)] == parent), default=-1)
        if len(common) > depth >= 0:
            joined.setdefault(common[: depth + 1], []).append(group)
        else:
            apart.append(group)
    for groups in joined.values():
        together = sorted(index for group in groups for index in group)
        apart += [together] if len(together) <= _MAX_LAYERS else groups
    return [*residual, *apart]


def _scope(group: Collection[int], paths: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
    """Shortest prefix of a group's weight names that no other weight has; () for none."""
    common = _common_prefix([paths[index] for index in group])
    others = [path for index, path in paths.items() if index not in group]
    for depth in range(1, len(common) + 1):
        if not any(path[:depth] == common[:depth] for path in others):
            return common[:depth]
    return ()


def _names(wiring: _Dataflow, groups: Sequence[Sequence[int]]) -> list[str]:
    """Name of each block: the part of its weights' names that differs from all others, or its node names."""
    paths = {index: wiring.weight_path(index) for group in groups for index in group}
    scopes = [_scope(group, paths) for group in groups]
    shared = len(_common_prefix(list(paths.values())))
    while shared and any(len(scope) > shared and scope[shared].isdigit() for scope in scopes):
        # "features.2.0" is clearer than "2.0".
        shared -= 1
    names = []
    for group, scope in zip(groups, scopes, strict=True):
        ends = [wiring.nodes[index].name or wiring.output(index) for index in (group[0], group[-1])]
        names.append(".".join(scope[shared:]) or " to ".join(dict.fromkeys(ends)))
    return names
