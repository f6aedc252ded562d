"""The blocks of a quantised network: what is left unquantised, or not, as a whole.

A block is found by how the graph is wired, since names say nothing in many a file: a residual block is what
lies between a fork and the addition that joins it; a gate (squeeze-excite) belongs to the layer it weighs.
What is in neither goes with those that its weights' names put with it beside residual blocks, or stays alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import onnx

from stenosis_trt.export.errors import PrecisionError
from stenosis_trt.export.onnx.graphs import multiply_adds

_JOINS = ("Add", "Sum")
_GATES = ("Mul",)
_UPSAMPLING = ("Resize", "Upsample", "ConvTranspose", "DepthToSpace")
_LARGEST = 8
"""Layers of one block: the residual blocks in use have up to six."""
_QDQ = ("QuantizeLinear", "DequantizeLinear")
_SEPARATORS = re.compile(r"[./]+")


@dataclass(frozen=True)
class QuantisedBlock:
    """Nodes that are quantised together.

    Attributes:
        name: of its weights or nodes, for people.
        nodes: those that take quantised tensors, each by its first output, in the graph's order.
        multiply_adds: of one input.
    """

    name: str
    nodes: tuple[str, ...]
    multiply_adds: int


def quantised_blocks(model: onnx.ModelProto) -> tuple[QuantisedBlock, ...]:
    """Everything in a Q/DQ model that takes quantised tensors, in blocks, in the graph's order.

    Raises:
        PrecisionError: nothing in it is quantised.
    """
    wiring = _Dataflow(model)
    work = multiply_adds(model)
    quantised = [index for index in wiring.alive if wiring.takes_quantised(index)]
    layers = [index for index in quantised if work.get(wiring.output(index), 0)]
    if not layers:
        raise PrecisionError("No layer of the model is quantised.", "Quantise it first.")
    groups = _grouped(wiring, layers)
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


_Part = TypeVar("_Part")


class _Dataflow:
    """What a graph's nodes take from one another, Q/DQ taken away, and which of them all ways lead through.

    Nodes are numbered in the graph's order, which is topological. `alive` are those that compute with the
    input; what computes shapes is not among them.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self._maker = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        inputs = {item.name for item in model.graph.input} - {item.name for item in model.graph.initializer}
        sources: dict[int, list[int]] = {}
        for index, node in enumerate(self.nodes):
            if node.op_type in (*_QDQ, "Shape"):
                continue
            origins = [self._origin(name) for name in node.input if name]
            makers = [self._maker[name] for name in origins if self._maker.get(name) in sources]
            if makers or any(name in inputs for name in origins):
                sources[index] = list(dict.fromkeys(makers))
        self.alive = list(sources)
        self.sources = sources
        self.targets: dict[int, list[int]] = {index: [] for index in self.alive}
        for index, makers in sources.items():
            for maker in makers:
                self.targets[maker].append(index)
        self._before = _gateways(self.alive, sources)
        self._after = _gateways(self.alive[::-1], self.targets)

    def output(self, index: int) -> str:
        return str(self.nodes[index].output[0])

    def takes_quantised(self, index: int) -> bool:
        return any(
            self.nodes[maker].op_type == "DequantizeLinear"
            for maker in (self._maker.get(name, -1) for name in self.nodes[index].input)
            if maker >= 0
        )

    def weight_path(self, index: int) -> tuple[str, ...]:
        """The parts of the name of a layer's weight, without "weight" at its end."""
        names = self.nodes[index].input
        origin = self._origin(names[1]) if len(names) > 1 else ""
        if not origin or origin in self._maker:
            return ()
        return tuple(part for part in _SEPARATORS.split(origin) if part)[:-1]

    def fork(self, index: int) -> int | None:
        """The last node that every way from the input to this one leads through; None for the input."""
        return self._before[index][-2] if len(self._before[index]) > 1 else None

    def gateways(self, index: int) -> tuple[int, ...]:
        """The nodes that every way from the input to this one leads through, itself last."""
        return self._before[index]

    def between(self, fork: int, join: int) -> list[int]:
        """The nodes that are reached through `fork` alone and lead to `join` alone, `join` with them."""
        return [
            index
            for index in self.alive
            if fork < index <= join and fork in self._before[index] and join in self._after[index]
        ]

    def layers_on_shortest_way(self, fork: int, join: int, layers: Collection[int]) -> int:
        """Layers on the way from `fork` to `join` that has the fewest; `join` does not count."""
        fewest = {fork: 0}
        for index in self.alive:
            if fork < index <= join:
                ways = [fewest[source] for source in self.sources[index] if source in fewest]
                if ways:
                    fewest[index] = min(ways) + (index in layers and index != join)
        return fewest.get(join, len(layers))

    def nearest(self, index: int, wanted: Collection[int]) -> int:
        """The last of `wanted` before a node on some way to it; failing that, the first one after it."""
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

    def _origin(self, name: str) -> str:
        """The tensor that was quantised and dequantised to this one; itself where it was not."""
        while name in self._maker and self.nodes[self._maker[name]].op_type in _QDQ:
            name = self.nodes[self._maker[name]].input[0]
        return name


def _gateways(order: Sequence[int], before: Mapping[int, Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """For each node, those that every way to it leads through, itself last (its chain of dominators)."""
    chains: dict[int, tuple[int, ...]] = {}
    for index in order:
        chains[index] = (*_common([chains[other] for other in before[index]]), index)
    return chains


def _common(sequences: Sequence[tuple[_Part, ...]]) -> tuple[_Part, ...]:
    """What all begin with; () for none."""
    shortest = min(sequences, key=len, default=())
    for place, part in enumerate(shortest):
        if any(other[place] != part for other in sequences):
            return shortest[:place]
    return shortest


def _grouped(wiring: _Dataflow, layers: Sequence[int]) -> list[list[int]]:
    """The layers in blocks, in the graph's order."""
    left = set(layers)
    residual = _residual(wiring, left)
    left -= {index for group in residual for index in group}
    gated = _gated(wiring, left)
    left -= {index for group in gated for index in group}
    groups = _joined_by_name(wiring, residual, [*gated, *([index] for index in left)])
    return sorted(groups, key=lambda group: group[0])


def _residual(wiring: _Dataflow, layers: Collection[int]) -> list[list[int]]:
    """Layers of each residual block: a detour around a way of at most one layer, at one resolution."""
    found = []
    for join in wiring.alive:
        fork = wiring.fork(join)
        if wiring.nodes[join].op_type not in _JOINS or len(wiring.sources[join]) < 2 or fork is None:
            continue
        region = wiring.between(fork, join)
        group = [index for index in region if index in layers]
        if not 1 <= len(group) <= _LARGEST or wiring.layers_on_shortest_way(fork, join, layers) > 1:
            continue
        if not any(wiring.nodes[index].op_type in _UPSAMPLING for index in region):
            found.append(group)
    return _outermost(found)


def _gated(wiring: _Dataflow, layers: set[int]) -> list[list[int]]:
    """Layers of each gate, with the layer whose output it weighs."""
    found = []
    for join in wiring.alive:
        fork = wiring.fork(join)
        if wiring.nodes[join].op_type not in _GATES or len(wiring.sources[join]) < 2 or fork is None:
            continue
        group = [index for index in wiring.between(fork, join) if index in layers]
        if not 1 <= len(group) < _LARGEST:
            continue
        weighed = [index for index in wiring.gateways(fork) if index in layers]
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


def _joined_by_name(
    wiring: _Dataflow, residual: Sequence[list[int]], others: Sequence[list[int]]
) -> list[list[int]]:
    """Others joined where names put them beside residual blocks: what a stage begins with has no shortcut."""
    every = {index: wiring.weight_path(index) for group in (*residual, *others) for index in group}
    parents = {scope[:-1] for group in residual if len(scope := _scope(group, every)) > 1}
    joined: dict[tuple[str, ...], list[list[int]]] = {}
    apart = []
    for group in others:
        common = _common([every[index] for index in group])
        depth = max((len(parent) for parent in parents if common[: len(parent)] == parent), default=-1)
        if len(common) > depth >= 0:
            joined.setdefault(common[: depth + 1], []).append(group)
        else:
            apart.append(group)
    for groups in joined.values():
        together = sorted(index for group in groups for index in group)
        apart += [together] if len(together) <= _LARGEST else groups
    return [*residual, *apart]


def _scope(group: Collection[int], paths: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
    """The shortest beginning of the names of a group's weights that no other weight has; () for none."""
    common = _common([paths[index] for index in group])
    others = [path for index, path in paths.items() if index not in group]
    for depth in range(1, len(common) + 1):
        if not any(path[:depth] == common[:depth] for path in others):
            return common[:depth]
    return ()


def _names(wiring: _Dataflow, groups: Sequence[Sequence[int]]) -> list[str]:
    """A name for each block: where its weights' names differ from all others', else its nodes' names."""
    paths = {index: wiring.weight_path(index) for group in groups for index in group}
    scopes = [_scope(group, paths) for group in groups]
    shared = len(_common(list(paths.values())))
    while shared and any(len(scope) > shared and scope[shared].isdigit() for scope in scopes):
        # "features.2.0" says more than "2.0".
        shared -= 1
    names = []
    for group, scope in zip(groups, scopes, strict=True):
        ends = [wiring.nodes[index].name or wiring.output(index) for index in (group[0], group[-1])]
        names.append(".".join(scope[shared:]) or " to ".join(dict.fromkeys(ends)))
    return names
