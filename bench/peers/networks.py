"""The networks alone: the product against every peer, at a study's batch and at batch 1."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from stenosis_trt.bench.peers.catalogue import OPENVINO
from stenosis_trt.bench.peers.loading import Batches, LoadedPeer, NetworkOptions, load_peers
from stenosis_trt.bench.peers.pairing import PairedTimes, Timer, measure_pairs, timed
from stenosis_trt.bench.peers.peer import AnyPeer, CommandPeer, PeerAbsent
from stenosis_trt.bench.record.record import Absence
from stenosis_trt.bench.systems.inputs import StudyInputs
from stenosis_trt.bench.systems.product import Product

STUDY, ONE = "study_batch", "batch_1"

ALL = "all"
"""The three networks of a study, one after the other."""

BEST_OPENVINO = "openvino_best"
"""OpenVINO with the precision that is fastest for each network, among those that the gate did not refuse."""

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
    end = time.monotonic() + options.seconds
    with ExitStack() as stack:
        loading = replace(options, seconds=_LOADING_SHARE * options.seconds)
        loaded, absent = load_peers(product, batches, peers, loading, stack)
        measurement = _Measurement(product, batches, loaded, absent, options.refused)
        costs = {group: measurement.cost(group) for group in measurement.times.images}
        while costs:
            group, cost = next(iter(costs.items()))
            options.say(f"peers: timing {group[0]}, {group[1]}")
            left = max(end - time.monotonic(), 0.0)
            measurement.measure(group, left * cost / max(sum(costs.values()), 1e-9))
            del costs[group]
    return measurement.times


class _Measurement:
    """The loaded peers, and the times as far as they are measured."""

    def __init__(
        self,
        product: Product,
        batches: Batches,
        loaded: Sequence[LoadedPeer],
        absent: Sequence[Absence],
        refused: Mapping[str, frozenset[str]],
    ) -> None:
        self._loaded, self._refused = loaded, refused
        self._models: dict[Group, tuple[str, ...]] = {}
        self._ours: dict[Group, Timer] = {}
        self.times = NetworkTimes(absences=list(absent))
        self.times.differences.update({item.peer.name: item.differences for item in loaded})
        for batch, by_model in batches.items():
            for model in (*by_model, ALL):
                names = tuple(by_model) if model == ALL else (model,)
                chosen = StudyInputs({name: by_model[name] for name in names})
                self._models[model, batch] = names
                self._ours[model, batch] = timed(partial(product.models, chosen))
                self.times.images[model, batch] = chosen.images

    def cost(self, group: Group) -> float:
        """Seconds of one round of a group, from a run of each side, which also warms it up."""
        ours = self._ours[group]
        ours()
        seconds = 0.0
        for timer in self._timers(group).values():
            # Why a peer cannot be run any more is noted when it is measured.
            with suppress(PeerAbsent):
                seconds += ours() + timer()
        return seconds

    def measure(self, group: Group, seconds: float) -> None:
        """Time a group in pairs."""
        ours, timers = self._ours[group], self._timers(group)
        if group[0] == ALL:
            timers |= self._best_openvino(group[1])
        commands = {item.peer.name for item in self._loaded if isinstance(item.peer, CommandPeer)}
        called = {name: timer for name, timer in timers.items() if name not in commands}
        repeated = {name: timer for name, timer in timers.items() if name in commands}
        pairs, gone = measure_pairs(ours, called, seconds / (2 if repeated else 1), PeerAbsent)
        if repeated:
            # A command gives the time of many runs in a row; so does ours beside it.
            more, more_gone = measure_pairs(partial(_median_of_many, ours), repeated, seconds / 2, PeerAbsent)
            pairs, gone = pairs | more, gone | more_gone
        self.times.pairs[group] = pairs
        self.times.absences.extend(
            Absence(f"peers.models.{group[0]}.{group[1]}.{name}", str(error)) for name, error in gone.items()
        )

    def _timers(self, group: Group) -> dict[str, Timer]:
        models, batch = self._models[group], group[1]
        return {item.peer.name: item.timer(models, batch) for item in self._loaded if item.has(models, batch)}

    def _best_openvino(self, batch: str) -> dict[str, Timer]:
        """A timer of the fastest of OpenVINO's precisions for each network; none if a network has none."""
        best: dict[str, LoadedPeer] = {}
        for model in self._models[ALL, batch]:
            pairs = self.times.pairs[model, batch]
            wanted = (set(OPENVINO) - self._refused.get(model, frozenset())) & pairs.keys()
            measured = [item for item in self._loaded if item.peer.name in wanted]
            if not measured:
                return {}
            best[model] = min(measured, key=lambda item: pairs[item.peer.name].ratio().value)
        self.times.best_openvino[batch] = {model: item.peer.name for model, item in best.items()}
        parts = [item.timer((model,), batch) for model, item in best.items()]
        return {BEST_OPENVINO: lambda: sum(part() for part in parts)}


def _median_of_many(timer: Timer) -> float:
    return statistics.median(timer() for _ in range(_COMMAND_REPEATS))
