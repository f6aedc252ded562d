"""Options of `bench all`, and what is checked of them before anything is measured."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stenosis_trt.engine.errors import InputError, NotWritten
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.messages import print_message

SECTION_MODULES = {
    "load": "stenosis_trt.bench.load.section",
    "peers": "stenosis_trt.bench.peers.section",
    "energy": "stenosis_trt.bench.energy.section",
    "roofline": "stenosis_trt.bench.roofline.section",
    "scaling": "stenosis_trt.bench.scaling.section",
}
"""Module of each section, in the order in which they run. Its `measure` takes a `BenchContext`."""

SECONDS = {"load": 420.0, "peers": 300.0, "energy": 60.0, "roofline": 120.0, "scaling": 240.0}
"""Time of each section; together less than 20 minutes."""
QUICK_DIVISOR = 6.0
"""Divides the times of a quick run."""
QUICK_PHANTOMS = 3
"""Phantoms of a quick run, if no number is given."""

_REQUIRED = {"load": ("mlperf_loadgen", "mlcommons-loadgen"), "peers": ("scipy", "scipy")}
"""Module and package without which a section has nothing to measure."""
_PAGE_NEEDS = ("jinja2", "jinja2")
_PROBE_BYTES = 8 << 20
"""Bytes that are written to the output folder before anything is measured; a record has fewer."""


@dataclass(frozen=True)
class BenchOptions:
    """Options of a run.

    Attributes:
        out: folder of the record and its page.
        pack: pack under test; None for the reference pack.
        device, precision, threads: see `BenchContext`.
        studies: folder with a folder for each study, or a number of phantoms; None for the usual number.
        sections: names of `SECTION_MODULES`; () for all.
        required_peers: names of peers without which nothing is measured.
        quick: give each section a sixth of its time.
        official: see `BenchContext`.
        command: command line, for the record.
        say: prints a line of progress.
    """

    out: Path
    pack: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    studies: Path | int | None = None
    sections: tuple[str, ...] = ()
    required_peers: tuple[str, ...] = ()
    quick: bool = False
    official: bool = False
    command: str = ""
    say: Callable[[str], None] = field(default=print_message, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The sections to measure, in the order of `SECTION_MODULES`."""
        return tuple(name for name in SECTION_MODULES if not self.sections or name in self.sections)

    def seconds(self, name: str) -> float:
        """Return the time of a section."""
        return SECONDS[name] / (QUICK_DIVISOR if self.quick else 1.0)


def check_options(options: BenchOptions) -> None:
    """Check, before anything is opened, what a run needs.

    Raises:
        InputError: a section is not known, or a package is missing.
        NotWritten: the output folder cannot be written, or its disk is full.
    """
    if unknown := [name for name in options.sections if name not in SECTION_MODULES]:
        raise InputError(
            f"There is no section {unknown[0]!r}.", f"Give some of {', '.join(SECTION_MODULES)}."
        )
    missing = [
        (name, package)
        for name, (module, package) in _REQUIRED.items()
        if name in options.names and importlib.util.find_spec(module) is None
    ]
    if missing:
        name, package = missing[0]
        others = " ".join(f"--only {other}" for other in options.names if other not in dict(missing))
        without = f"; or leave the section out: {others}" if others else ""
        raise InputError(
            f"Section {name} needs the package {package}, which is not installed.",
            f'Install it: pip install "stenosis-trt[bench]"{without}.',
        )
    if importlib.util.find_spec(_PAGE_NEEDS[0]) is None:
        raise InputError(
            f"The page of the record needs the package {_PAGE_NEEDS[1]}, which is not installed.",
            'Install it: pip install "stenosis-trt[bench]".',
        )
    _check_room(options.out)


def check_peers(options: BenchOptions, pack: Pack, on_gpu: bool, precision: str) -> None:
    """Check that the required peers are there.

    Args:
        options: has the names.
        pack: the pack under test.
        on_gpu: the product computes on a GPU.
        precision: the product's own.

    Raises:
        InputError: one is not known, or missing.
    """
    if not options.required_peers:
        return
    from stenosis_trt.bench.peers.catalogue import find_peers

    found, absent = find_peers(pack, on_gpu, precision)
    reasons = {absence.name.removeprefix("peers."): absence.reason for absence in absent}
    names = [peer.name for peer in found]
    for name in options.required_peers:
        if name in reasons:
            raise InputError(
                f"Peer {name} is missing: {reasons[name]}", "Install it, or leave out --require-peer."
            )
        if name not in names:
            raise InputError(f"There is no peer {name!r}.", f"Give one of {', '.join((*names, *reasons))}.")


def _check_room(out: Path) -> None:
    probe = out / f".room.{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("wb") as stream:
                stream.write(b"\0" * _PROBE_BYTES)
                stream.flush()
                os.fsync(stream.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise NotWritten(
            f"{out} cannot be written ({error.strerror or error}).", "Make room, or give another folder."
        ) from error
