"""Runs a target: its corpus, then changed input for some seconds, each within bounds of time and memory."""

from __future__ import annotations

import argparse
import base64
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

CORPUS = Path(__file__).parent / "corpus"

_SECONDS_AN_INPUT = 20.0
"""Of processor time; a busy machine does not make a reader slow."""
_BYTES_BEYOND = 2 << 30
"""Of address space that one input may take beyond what is taken already."""
_KEPT = 400
_SHOWN_BYTES = 20_000


@dataclass(frozen=True)
class Target:
    """A function under test and what it promises.

    Attributes:
        name: of its module, and of its folder in the corpus.
        declared: exceptions that the function may raise; it may also return.
        seeds: makes valid inputs.
        mutate: changes an input.
        check: calls the function with an input, in an empty folder of its own.
    """

    name: str
    declared: tuple[type[BaseException], ...]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[random.Random, bytes], bytes]
    check: Callable[[bytes, Path], object]

    @property
    def corpus(self) -> list[Path]:
        """Inputs that once failed."""
        return sorted(path for path in (CORPUS / self.name).glob("*") if path.is_file())


class ContractBroken(Exception):
    """An input that a target neither takes nor refuses as it promises; the message holds the input.

    Attributes:
        place: exception and line.
        data: the input.
    """

    def __init__(self, target: Target, data: bytes, error: BaseException) -> None:
        self.place, self.data = _place(error), data
        shown = base64.b64encode(data[:_SHOWN_BYTES]).decode()
        cut = f" (the first {_SHOWN_BYTES} of {len(data)} bytes)" if len(data) > _SHOWN_BYTES else ""
        super().__init__(
            f"{target.name}: {self.place}: {str(error)[:300]}\n"
            f"Input in base64{cut}, to be decoded into tests/fuzz/corpus/{target.name}/NAME:\n{shown}"
        )


class _TooSlow(BaseException):
    """No `except Exception` takes it."""


def run_input(target: Target, data: bytes) -> str:
    """Call a target with one input.

    Returns:
        What came out: the same text for inputs that end in the same place.

    Raises:
        ContractBroken: the target raised something that it does not declare, or exceeded a bound.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        try:
            with _bounds():
                target.check(data, Path(folder))
        except target.declared as error:
            return _place(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise ContractBroken(target, data, error) from error
    return "returned"


def run_seconds(target: Target, seconds: float, seed: int) -> int:
    """Call a target with changed inputs for some seconds; what ends in a new place is changed further.

    Returns:
        How many inputs were tried.

    Raises:
        ContractBroken: see `run_input`.
    """
    rng = random.Random(seed)
    seeds = target.seeds()
    pool = list(seeds)
    seen = {run_input(target, data) for data in seeds}
    tried, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        # What ends early ends early again: valid inputs stay every second one.
        data = target.mutate(rng, rng.choice(rng.choice((seeds, pool))))
        place = run_input(target, data)
        tried += 1
        if place not in seen and len(pool) < _KEPT:
            seen.add(place)
            pool.append(data)
    return tried


def _place(error: BaseException) -> str:
    """Type and innermost line of this project: where an input came to its end."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    return f"{type(error).__name__} {Path(own[-1].filename).name}:{own[-1].lineno}"


@contextmanager
def _bounds() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _BYTES_BEYOND

    def too_slow(number: int, frame: FrameType | None) -> None:
        raise _TooSlow(f"more than {_SECONDS_AN_INPUT:.0f} s of processor time")

    before = signal.signal(signal.SIGPROF, too_slow)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS_AN_INPUT)
    resource.setrlimit(
        resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def main(target: Target) -> None:
    """`python -m fuzz.NAME`: run a target by hand."""
    parser = argparse.ArgumentParser(description=f"Fuzz {target.name}.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--keep", type=Path, help="Folder for what fails; goes on until the time is over.")
    parser.add_argument("inputs", type=Path, nargs="*", help="Try these files and nothing else.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.inputs:
        for path in options.inputs:
            print(f"{path}: {run_input(target, path.read_bytes())}")
        return
    print(f"{target.name}: seed {options.seed}, {options.seconds:g} s", flush=True)
    places: set[str] = set()
    deadline, seed = time.monotonic() + options.seconds, options.seed
    while (left := deadline - time.monotonic()) > 0:
        broken = _first_broken(target, left, seed)
        seed += 1
        if broken is None:
            continue
        if options.keep is None:
            sys.exit(str(broken))
        if broken.place not in places:
            places.add(broken.place)
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / re.sub(r"[^\w.]", "_", broken.place)).write_bytes(broken.data)
            print(str(broken).splitlines()[0], flush=True)
    print(f"{target.name}: {len(places)} places failed")
    sys.exit(1 if places else 0)


def _first_broken(target: Target, seconds: float, seed: int) -> ContractBroken | None:
    try:
        tried = run_seconds(target, seconds, seed)
    except ContractBroken as broken:
        return broken
    print(f"{target.name}: {tried} inputs held", flush=True)
    return None
