"""What a peer is: another way to run a network, with a function that loads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.bench.peers.pairing import Timer
from stenosis_trt.engine.backends.base import Float32Array


class PeerAbsent(Exception):
    """A peer that cannot be measured. The message says why, as one sentence."""


@dataclass(frozen=True)
class Workload:
    """A network and the batch that it is measured on.

    Attributes:
        model: ONNX file.
        batch: float32 (N, C, H, W).
        threads: threads on a CPU; None for the peer's default.
    """

    model: Path
    batch: Float32Array
    threads: int | None = None


@dataclass(frozen=True)
class Loaded:
    """A network that is loaded for a workload.

    Attributes:
        run: computes the outputs of the batch and waits for them. On a GPU, batch and outputs stay in its
            memory, as in `Product.models`.
        outputs: returns the outputs of the last run, float32.
    """

    run: Callable[[], object]
    outputs: Callable[[], Float32Array]


Load = Callable[[Workload], Loaded]
"""Loads a network for a workload. Raises PeerAbsent, or any error of the peer's library."""


@dataclass(frozen=True)
class Peer:
    """One way to run a network.

    Attributes:
        name: for the names of figures.
        label: for tables and charts.
        load: loads a network; a function of a module, so that another process can be told of it.
        precision: precision of the ONNX file that it is given.
        isolated: run it in a process of its own, with a limit of time.
        batches_apart: a process for each batch, since a network that takes too long to load ends its process.
    """

    name: str
    label: str
    load: Load
    precision: str = "fp32"
    isolated: bool = False
    batches_apart: bool = False


@dataclass(frozen=True)
class CommandPeer:
    """A command that repeats a network in a process of its own, and prints how long one pass takes.

    Attributes:
        name, label, precision: see `Peer`.
        open: prepares a network in a folder, and returns a timer that gives what the command printed. Raises
            PeerAbsent.
    """

    name: str
    label: str
    open: Callable[[Workload, Path], Timer]
    precision: str = "fp32"


AnyPeer = Peer | CommandPeer


def load_or_absent(load: Load, workload: Workload) -> tuple[Loaded, Float32Array]:
    """Load a network and run it once.

    Returns:
        The network, and its outputs.

    Raises:
        PeerAbsent: it cannot be loaded or run; the library of a peer may raise anything.
    """
    try:
        loaded = load(workload)
        loaded.run()
        return loaded, loaded.outputs()
    except PeerAbsent:
        raise
    except Exception as error:
        raise PeerAbsent(f"It cannot run this network: {one_line(error).rstrip('.')}.") from error


def one_line(error: BaseException, longest: int = 200) -> str:
    """Return the message of an error on one line, truncated, or the name of its class."""
    return " ".join(str(error).split())[:longest] or type(error).__name__
