"""Measure the time of a study, peak memory, and the start-up time of the command.

    python -m stenosis_trt.bench.speed.study_time --studies 10 --out study_time.json

Phantoms are rendered and graded twice in new processes; the first run warms the page cache, and `run.json` of
the second is evaluated. Times vary on shared machines: compare only figures of one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stenosis_trt.bench.phantom import PhantomOptions, write_studies

_SEED = 808
_HELP_RUNS = 7
_COMMAND = (sys.executable, "-c", "from stenosis_trt.engine.cli.app import main; main()")


def _seconds(*arguments: object) -> float:
    start = time.perf_counter()
    subprocess.run([*_COMMAND, *map(str, arguments)], check=False, capture_output=True)
    return time.perf_counter() - start


def measure(studies: int, folder: Path) -> dict[str, Any]:
    """Render `studies` phantoms below `folder`, grade them, and return the figures; times in seconds."""
    write_studies(folder / "in", PhantomOptions(studies, _SEED, workers=2))
    _seconds("grade", folder / "in", "--out", folder / "cold")
    whole = _seconds("grade", folder / "in", "--out", folder / "warm")
    record = json.loads((folder / "warm" / "run.json").read_text(encoding="utf-8"))
    stages = record["seconds"]["stages"]
    computed = sum(stages[stage]["median"] for stage in ("levels", "grade", "cord"))
    return {
        "machine": record["machine"],
        "versions": record["versions"],
        "pack": record["pack"],
        "studies": studies,
        "seconds_a_study_computed_median": round(computed, 3),
        "seconds_a_study_read_median": stages["read"]["median"],
        "seconds_a_study_whole_run": round(record["seconds"]["total"] / studies, 3),
        "seconds_whole_process": round(whole, 3),
        "stages": stages,
        "peak_memory_bytes": record["peak_memory_bytes"],
        "help_seconds_median": round(statistics.median(_seconds("--help") for _ in range(_HELP_RUNS)), 3),
    }


def main() -> None:
    """Print the figures as JSON; with `--out` write them to a file too."""
    parser = argparse.ArgumentParser(description="Time and memory of grading phantom studies.")
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="stenosis-bench-") as folder:
        text = json.dumps(measure(arguments.studies, Path(folder)), indent=2) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
