"""Time from the start of a process to its end: `--help`, and `grade` of one study with its tables written.

    python -m stenosis_trt.bench.speed.start_time --runs 10 --out start_time.json

The commands take turns with a Python that does nothing, so that other load affects all alike. Each runs once
before, which fills the page cache; modules are compiled to a temporary folder, as an installation has them.
Processor time includes that of the reading processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.engine.packs.pack import REFERENCE
from stenosis_trt.engine.runs.output_folder import RESULTS_CSV
from stenosis_trt.engine.runs.provenance import describe_machine, package_versions

_SEED = 1717
_COMMAND = (sys.executable, "-c", "from stenosis_trt.engine.cli.app import main; main()")


def compiled_environment(cache: Path) -> dict[str, str]:
    """Return this process's environment, in which Python keeps compiled modules in `cache`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**environment, "PYTHONPYCACHEPREFIX": str(cache)}


def timed_run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Run a command; return wall and processor seconds, those of its children included.

    Raises:
        CalledProcessError: it fails.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=dict(environment), stdin=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(work: Path, runs: int, pack: str = REFERENCE) -> dict[str, Any]:
    """Start each command `runs` times, with temporary files in `work`, and return the figures in seconds."""
    studies = work / "in"
    write_studies(studies, PhantomOptions(1, _SEED, workers=1))
    (folder,) = (path for path in studies.iterdir() if path.is_dir())
    environment = compiled_environment(work / "compiled")
    times: dict[str, list[tuple[float, float]]] = {"python": [], "help": [], "grade": []}
    for number in range(runs + 1):
        out = work / f"out_{number}"
        grade = (*_COMMAND, "grade", str(folder), "--out", str(out), "--pack", pack)
        commands = {"python": (sys.executable, "-c", "pass"), "help": (*_COMMAND, "--help"), "grade": grade}
        for name, command in commands.items():
            measured = timed_run(command, environment)
            if number:
                times[name].append(measured)
        if not (out / RESULTS_CSV).is_file():
            raise RuntimeError("A run wrote no results.")
    return {
        "machine": describe_machine(),
        "versions": package_versions(),
        "pack": pack,
        "runs": runs,
        "seconds": {name: _summary([wall for wall, _ in values]) for name, values in times.items()},
        "processor_seconds": {name: _summary([cpu for _, cpu in values]) for name, values in times.items()},
    }


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"min": round(min(values), 3), "median": round(statistics.median(values), 3)}


def main() -> None:
    """Print the figures as JSON; with `--out` write them to a file too."""
    parser = argparse.ArgumentParser(description="Time from process start to results of one study.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--pack", default=REFERENCE)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="stenosis-bench-") as folder:
        figures = measure(Path(folder), arguments.runs, arguments.pack)
    text = json.dumps(figures, indent=2) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
