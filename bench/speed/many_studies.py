"""Memory and time of a run over many studies: both must not grow with their number.

    python -m stenosis_trt.bench.speed.many_studies --studies 1000 --out many_studies.json

Copies of a few phantoms with identifiers of their own are graded by one command. Each time that a study is
stored, the resident memory of the program and of its reading processes is noted, with their processor time.
The first and the last tenth of the studies are compared: the median of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.bench.speed.processes import child_processes, processor_seconds, resident_bytes
from stenosis_trt.bench.speed.suite.copies import copy_studies
from stenosis_trt.engine.packs.pack import REFERENCE
from stenosis_trt.engine.runs.output_folder import RUN_JSON, STUDIES
from stenosis_trt.engine.runs.provenance import describe_machine, package_versions

_SEED = 1818
_PHANTOMS = 10
_COMMAND = (sys.executable, "-c", "from stenosis_trt.engine.cli.app import main; main()")
_SECONDS_BETWEEN_SAMPLES = 0.02
_SHARE = 10
"""The first and the last of this many parts of the studies are compared."""
_HASH_DIGITS = 64
_MIB = 1 << 20
EXIT_INCOMPLETE = 1
"""Exit code of `grade` where some studies could not be graded."""


@dataclass(frozen=True)
class Sample:
    """State of a run when a number of studies was stored.

    Attributes:
        studies: number of studies stored.
        seconds: wall time since the start.
        processor_seconds: of the program and its reading processes that run.
        main_bytes, reading_bytes: resident memory of the program, and of its reading processes.
    """

    studies: int
    seconds: float
    processor_seconds: float
    main_bytes: int
    reading_bytes: int


def write_input(work: Path, studies: int) -> Path:
    """Write `studies` studies below `work` and return their folder."""
    source, folder = work / "phantoms", work / "in"
    write_studies(source, PhantomOptions(min(_PHANTOMS, studies), _SEED, workers=2))
    copy_studies(source, folder, studies)
    return folder


def sample_run(folder: Path, out: Path, pack: str, workers: int = 1) -> list[Sample]:
    """Grade the studies in `folder` in a new process; return a sample for each number of stored studies seen.

    Raises:
        RuntimeError: the run fails.
    """
    command = (*_COMMAND, "grade", str(folder), "--out", str(out), "--pack", pack, "--workers", str(workers))
    start, samples, seen = time.perf_counter(), [], 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(_SECONDS_BETWEEN_SAMPLES)
            stored = _stored(out / STUDIES)
            if stored > seen:
                seen = stored
                sample = _sample(process.pid, stored, time.perf_counter() - start)
                samples.extend([] if sample is None else [sample])
    if process.returncode not in (0, EXIT_INCOMPLETE):
        raise RuntimeError(f"The run ended with exit code {process.returncode}.")
    return samples


def _stored(folder: Path) -> int:
    """Number of studies in the folder of results, graded or not. Their files are named by a hash."""
    if not folder.is_dir():
        return 0
    return sum(len(path.name.partition(".")[0]) == _HASH_DIGITS for path in folder.glob("*.json"))


def _sample(pid: int, studies: int, seconds: float) -> Sample | None:
    children = child_processes(pid)
    if not children:
        # The reading processes have ended.
        return None
    try:
        processor = sum(map(processor_seconds, [pid, *children]))
    except OSError:
        # One of them is ending.
        return None
    reading = sum(map(resident_bytes, children))
    return Sample(studies, seconds, processor, resident_bytes(pid), reading)


def compare(samples: Sequence[Sample], studies: int) -> dict[str, Any]:
    """Compare the first and the last tenth of the studies.

    The first study is left out: models reserve their memory in it.

    Raises:
        ValueError: there are too few samples.
    """
    part = max(1, studies // _SHARE)
    first = [sample for sample in samples if 1 < sample.studies <= part]
    last = [sample for sample in samples if sample.studies > studies - part]
    if len(first) < 2 or len(last) < 2:
        raise ValueError(f"{len(samples)} samples of {studies} studies are too few. Give more studies.")
    return {
        "studies_compared": part,
        "main_mib": _growth([s.main_bytes / _MIB for s in first], [s.main_bytes / _MIB for s in last]),
        "reading_mib": _growth(
            [s.reading_bytes / _MIB for s in first], [s.reading_bytes / _MIB for s in last]
        ),
        "seconds_a_study": _growth(*(_steps(part, "seconds") for part in (first, last))),
        "processor_seconds_a_study": _growth(*(_steps(part, "processor_seconds") for part in (first, last))),
    }


def _steps(samples: Sequence[Sample], name: str) -> list[float]:
    """Time of a study over a part of the run, as a list of one."""
    one, other = samples[0], samples[-1]
    return [(getattr(other, name) - getattr(one, name)) / (other.studies - one.studies)]


def _growth(first: Sequence[float], last: Sequence[float]) -> dict[str, float]:
    before, after = statistics.median(first), statistics.median(last)
    return {"first": round(before, 4), "last": round(after, 4), "ratio": round(after / before, 4)}


def measure(work: Path, studies: int, pack: str = REFERENCE, workers: int = 1) -> dict[str, Any]:
    """Grade `studies` studies and return the figures."""
    folder = write_input(work, studies)
    samples = sample_run(folder, work / "out", pack, workers)
    record = json.loads((work / "out" / RUN_JSON).read_text(encoding="utf-8"))
    return {
        "machine": describe_machine(),
        "versions": package_versions(),
        "pack": record["pack"],
        "studies": studies,
        "graded": record["counts"]["graded"],
        "files": record["counts"]["files"],
        "seconds": record["seconds"]["total"],
        "seconds_before_first_study": round(samples[0].seconds, 2),
        "peak_memory_bytes": record["peak_memory_bytes"],
        **compare(samples, studies),
    }


def main() -> None:
    """Print the figures as JSON; with `--out` write them to a file too."""
    parser = argparse.ArgumentParser(description="Memory and time of a run over many studies.")
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1, help="reading processes")
    parser.add_argument("--pack", default=REFERENCE)
    parser.add_argument("--work", type=Path, help="folder for the studies: 9 MB each [default: temporary]")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="stenosis-bench-", dir=arguments.work) as folder:
        figures = measure(Path(folder), arguments.studies, arguments.pack, arguments.workers)
    text = json.dumps(figures, indent=2) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
