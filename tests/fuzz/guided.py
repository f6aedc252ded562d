"""A target guided by coverage: `python -m fuzz.guided NAME --seconds 600`. Needs the package atheris."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path

import atheris  # type: ignore[import-not-found]

from fuzz import TARGETS

_LONGEST = 1_000_000


def main() -> None:
    """Run until the time is over or something fails; the input that failed is left in --keep."""
    parser = argparse.ArgumentParser(description="Fuzz a target, guided by coverage.")
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", type=Path, default=Path("failed"), help="Folder for what fails.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    # Nothing of the product may be imported before: what is imported here is instrumented.
    with atheris.instrument_imports(include=["stenosis_trt"]):
        target = import_module(f"fuzz.{options.name}").TARGET
        run_input = import_module("fuzz.harness").run_input
    seeds = [*target.seeds(), *(path.read_bytes() for path in target.corpus)]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        return bytes(target.mutate(rng, data or rng.choice(seeds))[:max_size])

    def one(data: bytes) -> None:
        run_input(target, data)

    options.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as folder:
        for number, data in enumerate(target.seeds()):
            (Path(folder) / str(number)).write_bytes(data)
        arguments = [f"-max_total_time={options.seconds}", f"-max_len={_LONGEST}", "-rss_limit_mb=0"]
        arguments += [f"-artifact_prefix={options.keep}/", folder]
        atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
