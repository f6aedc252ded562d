"""The networks alone: the product against every peer, at a study's batch and at batch 1."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from stenosis_trt.bench.peers.catalogue import OPENVINO
from stenosis_trt.bench.peers.loading import Batches, LoadedPeer, NetworkOptions, load_peers
from stenosis_trt.bench.peers.pairing import PairedTimes, Timer, measure_pairs, timed
from stenosis_trt.bench.peers.peer import AnyPeer, CommandPeer
from stenosis_trt.bench.record.record import Absence
from stenosis_trt.bench.systems.product import Product, StudyInputs

STUDY, ONE = "study_batch", "batch_1"

ALL = "all"
"""The three networks of a study, one after the other."""

BEST_OPENVINO = "openvino_best"
"""OpenVINO with the precision that is fastest for each network, among those that were measured."""

_LOADING_SHARE = 0.4
"""Share of the time for loading, of which torch.compile takes most."""

_COMMAND_REPEATS = 20
"""Runs of ours beside one of a command, which repeats the network itself."""

Group = tuple[str, str]
"""A network, or ALL, and the name of a batch."""


@dataclass(frozen=True)
class NetworkTimes:
    """What was measured.

    Attributes:
        pairs: times in pairs by network (or ALL) and batch, then by peer.
        images: number of inputs by network and batch.
        differences: largest absolute difference of outputs from the product's, by peer, batch and network.
        best_openvino: peer that stands for each network in BEST_OPENVINO, by batch.
        absences: peers that could not be measured, for all networks or for some.
    """

    pairs: dict[Group, dict[str, PairedTimes]] = field(default_factory=dict)
    images: dict[Group, int] = field(default_factory=dict)
    differences: dict[str, Mapping[str, Mapping[str, float | None]]] = field(default_factory=dict)
    best_openvino: dict[str, dict[str, str]] = field(default_factory=dict)
    absences: list[Absence] = field(default_factory=list)


def measure_networks(
    product: Product, inputs: StudyInputs, peers: Sequence[AnyPeer], options: NetworkOptions
) -> NetworkTimes:
    """Load each peer's networks, compare their outputs with the product's, and time them in pairs.

    Args:
        product: the product.
        inputs: inputs of one study.
        peers: see `find_peers`.
        options: files and limits.
    """
    batches = {
        STUDY: dict(inputs.batches),
        ONE: {name: np.ascontiguousarray(batch[:1]) for name, batch in inputs.batches.items()},
    }
    times = NetworkTimes()
    end = time.monotonic() + options.seconds
    with ExitStack() as stack:
        loading = replace(options, seconds=_LOADING_SHARE * options.seconds)
        loaded, absent = load_peers(product, batches, peers, loading, stack)
        times.absences.extend(absent)
        for item in loaded:
            times.differences[item.peer.name] = item.differences
        for batch, by_model in batches.items():
            times.images.update({(name, batch): len(images) for name, images in by_model.items()})
            times.images[ALL, batch] = sum(map(len, by_model.values()))
        costs = {group: _cost(product, batches, loaded, group) for group in times.images}
        for group, cost in costs.items():
            options.say(f"peers: timing {group[0]}, {group[1]}")
            later = sum(costs[other] for other in list(costs)[list(costs).index(group) :])
            seconds = max(end - time.monotonic(), 0.0) * cost / max(later, 1e-9)
            times.pairs[group] = _measure(product, batches, loaded, times, group, seconds)
    return times


def _models(batches: Batches, group: Group) -> tuple[str, ...]:
    """The networks of a group."""
    model, batch = group
    return tuple(batches[batch]) if model == ALL else (model,)


def _ours(product: Product, batches: Batches, group: Group) -> Timer:
    chosen = StudyInputs({name: batches[group[1]][name] for name in _models(batches, group)})
    return timed(lambda: product.models(chosen))


def _timers(batches: Batches, loaded: Sequence[LoadedPeer], group: Group) -> dict[str, Timer]:
    models, batch = _models(batches, group), group[1]
    return {item.peer.name: item.timer(models, batch) for item in loaded if item.has(models, batch)}


def _cost(product: Product, batches: Batches, loaded: Sequence[LoadedPeer], group: Group) -> float:
    """Seconds of one round of a group, from one run of each side, which also warms it up."""
    ours = _ours(product, batches, group)
    ours()
    timers = _timers(batches, loaded, group)
    return ours() * len(timers) + sum(timer() for timer in timers.values())


def _measure(
    product: Product,
    batches: Batches,
    loaded: Sequence[LoadedPeer],
    times: NetworkTimes,
    group: Group,
    seconds: float,
) -> dict[str, PairedTimes]:
    ours, timers = _ours(product, batches, group), _timers(batches, loaded, group)
    if group[0] == ALL:
        best = _best_openvino(batches, loaded, times, group[1])
        if best:
            times.best_openvino[group[1]] = {name: item.peer.name for name, item in best.items()}
            parts = [item.timer((name,), group[1]) for name, item in best.items()]
            timers[BEST_OPENVINO] = lambda: sum(part() for part in parts)
    commands = {item.peer.name for item in loaded if isinstance(item.peer, CommandPeer)}
    called = {name: timer for name, timer in timers.items() if name not in commands}
    repeated = {name: timer for name, timer in timers.items() if name in commands}
    pairs = measure_pairs(ours, called, seconds / (2 if repeated else 1))
    if repeated:
        # A command gives the median of many runs in a row; so does ours beside it.
        pairs |= measure_pairs(partial(_median_of_many, ours), repeated, seconds / 2)
    return pairs


def _median_of_many(timer: Timer) -> float:
    return statistics.median(timer() for _ in range(_COMMAND_REPEATS))


def _best_openvino(
    batches: Batches, loaded: Sequence[LoadedPeer], times: NetworkTimes, batch: str
) -> dict[str, LoadedPeer]:
    """The fastest of OpenVINO's precisions for each network; empty if a network has none."""
    best: dict[str, LoadedPeer] = {}
    for model in batches[batch]:
        pairs = times.pairs[model, batch]
        ratios = {
            item.peer.name: (pairs[item.peer.name].ratio().value, item)
            for item in loaded
            if item.peer.name in OPENVINO and item.peer.name in pairs
        }
        if not ratios:
            return {}
        best[model] = min(ratios.values(), key=lambda pair: pair[0])[1]
    return best
