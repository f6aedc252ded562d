"""Load the networks of a study for every peer, and compare their outputs with the product's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stenosis_trt.bench.peers.model_files import model_file
from stenosis_trt.bench.peers.opened import OpenedPeer, open_peer
from stenosis_trt.bench.peers.pairing import Timer
from stenosis_trt.bench.peers.peer import AnyPeer, Peer, PeerAbsent, Workload, load_or_absent
from stenosis_trt.bench.peers.runtime_peers import load_onnxruntime
from stenosis_trt.bench.record.record import Absence
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.backends.stepwise import StepwiseBackend
from stenosis_trt.engine.packs.pack import Pack

Batches = Mapping[str, Mapping[str, Float32Array]]
"""Inputs (N, C, H, W) of each network, by the name of the batch."""

_LARGEST_DIFFERENCE = 0.25
"""Outputs lie in [0, 1]. A peer that differs by more does not compute the same."""


@dataclass(frozen=True)
class NetworkOptions:
    """Files and limits.

    Attributes:
        pack: the pack under test.
        files: folder that `write_models` wrote.
        work: folder for temporary files.
        threads: threads on a CPU; None for each peer's default.
        seconds: how long to load and to measure, about.
        say: prints a line of progress.
        refused: peers whose grades the gate refused on this machine, by model.
    """

    pack: Pack
    files: Path
    work: Path
    threads: int | None
    seconds: float
    say: Callable[[str], None]
    refused: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedPeer:
    """A peer and the networks that it runs.

    Attributes:
        peer: the peer.
        opened: what runs them, by batch.
        differences: the networks that are loaded, by batch, with the largest absolute difference of their
            outputs from the product's (on a GPU, from the FP32 model's on a CPU); None for a command.
    """

    peer: AnyPeer
    opened: Mapping[str, OpenedPeer]
    differences: Mapping[str, Mapping[str, float | None]]

    def has(self, models: Sequence[str], batch: str) -> bool:
        """Return True if the peer runs all of these networks."""
        return set(models) <= self.differences[batch].keys()

    def timer(self, models: Sequence[str], batch: str) -> Timer:
        """Return a timer of networks that run one after the other."""
        keys = [_key(model, batch) for model in models]
        return lambda: self.opened[batch].time(keys)


def load_peers(
    product: Product, batches: Batches, peers: Sequence[AnyPeer], options: NetworkOptions, stack: ExitStack
) -> tuple[list[LoadedPeer], list[Absence]]:
    """Load each network at each batch for each peer.

    Args:
        product: the product.
        batches: inputs.
        peers: see `find_peers`.
        options: files and limits.
        stack: closes what is opened.

    Returns:
        The peers that run at least one network, and what is absent, with reasons.
    """
    wanted = _expected_outputs(product, batches, options)
    deadline = time.monotonic() + options.seconds
    found, absent = [], []
    for peer in peers:
        options.say(f"peers: loading {peer.label}")
        opened = _open(peer, batches, options.work, stack)
        differences: dict[str, dict[str, float | None]] = {batch: {} for batch in batches}
        reasons: dict[str, str] = {}
        for batch, by_model in batches.items():
            for model, images in by_model.items():
                with _noted(reasons, _key(model, batch)):
                    workload = _workload(peer, model, images, options)
                    key = _key(model, batch)
                    output = opened[batch].load(key, workload, deadline - time.monotonic())
                    differences[batch][model] = _difference(output, wanted[model, batch])
        for batch, loaded in differences.items():
            # A network may have ended the process that ran others of the batch.
            if opened[batch].end_reason:
                reasons.update({_key(model, batch): opened[batch].end_reason for model in loaded})
                loaded.clear()
        if any(differences.values()):
            found.append(LoadedPeer(peer, opened, differences))
            absent += [Absence(f"peers.models.{at}.{peer.name}", reason) for at, reason in reasons.items()]
        else:
            absent.append(Absence(f"peers.{peer.name}", next(iter(reasons.values()), "There is no input.")))
    return found, absent


def _key(model: str, batch: str) -> str:
    return f"{model}.{batch}"


def _open(peer: AnyPeer, batches: Batches, work: Path, stack: ExitStack) -> dict[str, OpenedPeer]:
    """Open a peer, once for all batches or once for each of them."""
    if isinstance(peer, Peer) and peer.batches_apart:
        return {batch: stack.enter_context(closing(open_peer(peer, work))) for batch in batches}
    return dict.fromkeys(batches, stack.enter_context(closing(open_peer(peer, work))))


@contextmanager
def _noted(reasons: dict[str, str], name: str) -> Iterator[None]:
    """Note why something is absent, and go on."""
    try:
        yield
    except PeerAbsent as error:
        reasons[name] = str(error)


def _workload(peer: AnyPeer, model: str, images: Float32Array, options: NetworkOptions) -> Workload:
    file = model_file(options.pack, options.files, model, peer.precision)
    if file is None:
        raise PeerAbsent(f"The pack has no {peer.precision.upper()} model of {model} that passed the gate.")
    return Workload(file, images, options.threads)


def _expected_outputs(
    product: Product, batches: Batches, options: NetworkOptions
) -> dict[tuple[str, str], Float32Array]:
    """The product's own outputs; for a GPU those of the FP32 models on the CPU."""
    backend = product.grader.opened_backend

    def infer(model: str, images: Float32Array) -> Float32Array:
        if isinstance(backend, StepwiseBackend):
            return backend.infer(model, images)
        file = options.files / options.pack.models[model].file
        return load_or_absent(load_onnxruntime, Workload(file, images))[1]

    return {
        (model, batch): infer(model, images)
        for batch, by_model in batches.items()
        for model, images in by_model.items()
    }


def _difference(output: Float32Array | None, wanted: Float32Array) -> float | None:
    """Largest absolute difference of outputs.

    Raises:
        PeerAbsent: they differ by so much that the peer computes something else.
    """
    if output is None:
        return None
    if output.shape != wanted.shape:
        raise PeerAbsent(f"Its outputs have the shape {output.shape}, and the product's {wanted.shape}.")
    difference = float(np.abs(output - wanted).max())
    if not difference <= _LARGEST_DIFFERENCE:
        raise PeerAbsent(f"Its outputs differ from the product's by up to {difference:.3f}.")
    return difference
