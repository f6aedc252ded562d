"""Time reading a study's slices into shared memory, compared with arrays.

    python -m stenosis_trt.bench.speed.reading_time --workers 1 2 --runs 40 --out reading_time.json

One phantom study of 15 sagittal and 30 axial slices of 512² pixels is read from the page cache both ways in
turn, so that other load affects both alike. The CPU time of this process is reported beside the wall time: it
receives the slices of all reader processes and hence bounds the throughput.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from stenosis_trt.bench.phantom.dicom_files import TRANSFER_SYNTAXES, write_study
from stenosis_trt.bench.phantom.scan.acquisition import plan_axial, plan_sagittal
from stenosis_trt.bench.phantom.study import PhantomStudy, sample_study
from stenosis_trt.engine.dicom.pixel_memory import PixelMemory
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import LoadedSlice, SeriesHeader
from stenosis_trt.engine.runs.provenance import describe_machine, package_versions

_SEED = 512
_SIZE, _SAGITTAL, _AXIAL = 512, 15, 30
_SLOT_BYTES = 2 * _SIZE * _SIZE * (_SAGITTAL + _AXIAL)
_WARM_UP = 3


def large_study() -> PhantomStudy:
    """A phantom of 15 sagittal and 30 axial slices of 512² pixels."""
    study, rng = sample_study(_SEED, 0), np.random.default_rng(_SEED)
    sagittal = replace(study.sagittal.protocol, slices=_SAGITTAL, rows=_SIZE, columns=_SIZE)
    axial = replace(study.axial.protocol, slices=_AXIAL, rows=_SIZE, columns=_SIZE)
    return replace(
        study,
        sagittal=replace(
            study.sagittal, protocol=sagittal, poses=tuple(plan_sagittal(study.anatomy, sagittal, rng))
        ),
        axial=replace(
            study.axial, protocol=axial, poses=tuple(plan_axial(study.anatomy, axial, rng))[:_AXIAL]
        ),
    )


def measure(folder: Path, syntax: str, workers: Sequence[int], runs: int) -> dict[str, Any]:
    """Write a study below `folder`, read it both ways, and return the figures; median times in ms."""
    write_study(large_study(), folder, syntax)
    return {
        "machine": describe_machine(),
        "versions": package_versions(),
        "syntax": syntax,
        "runs": runs,
        "workers": {str(count): _compare(folder, count, runs) for count in workers},
    }


def _compare(folder: Path, workers: int, runs: int) -> dict[str, Any]:
    with PixelMemory(_SLOT_BYTES) as memory, DicomReader(workers=workers, memory=memory) as reader:
        (study,) = reader.scan([folder]).studies

        def arrays(number: int) -> list[LoadedSlice]:
            return _load(reader, study.series)

        def shared(number: int) -> list[LoadedSlice]:
            slot = memory.slots[number % len(memory.slots)]
            slot.reset()
            slices = _load(reader, study.series, slot)
            if slot.outside_slot:
                raise RuntimeError(f"{slot.outside_slot} slices did not fit in the slot.")
            return slices

        for one, other in zip(arrays(0), shared(0), strict=True):
            if not np.array_equal(one.stored, other.stored):
                raise RuntimeError("A slice differs in shared memory.")
        count = len(arrays(0))
        timed: dict[str, list[tuple[float, float]]] = {"arrays": [], "shared": []}
        for number in range(_WARM_UP + runs):
            for name, read in (("arrays", arrays), ("shared", shared)):
                timed[name].append(_timed(read, number))
    medians = {
        name: [round(1000 * statistics.median(column), 2) for column in zip(*times[_WARM_UP:], strict=True)]
        for name, times in timed.items()
    }
    return {
        "slices": count,
        **{f"{name}_ms": wall for name, (wall, _) in medians.items()},
        **{f"{name}_own_cpu_ms": cpu for name, (_, cpu) in medians.items()},
        "ratio": round(medians["arrays"][0] / medians["shared"][0], 2),
        "own_cpu_ratio": round(medians["arrays"][1] / medians["shared"][1], 2),
    }


def _load(reader: DicomReader, series: Sequence[SeriesHeader], *slot: Any) -> list[LoadedSlice]:
    found: list[LoadedSlice] = []
    for item in series:
        slices, problems = reader.load(item.frames, *slot)
        if problems:
            raise RuntimeError(f"A slice could not be read: {problems[0].reason}")
        found += slices
    return found


def _timed(read: Callable[[int], object], number: int) -> tuple[float, float]:
    """Wall time and CPU time of this process, in seconds."""
    start, computed = time.perf_counter(), time.process_time()
    read(number)
    return time.perf_counter() - start, time.process_time() - computed


def main() -> None:
    """Print the figures as JSON; with `--out` write them to a file too."""
    parser = argparse.ArgumentParser(description="Time of reading a study with and without shared memory.")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="reading processes")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--syntax", choices=sorted(TRANSFER_SYNTAXES), default="explicit")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="stenosis-bench-") as folder:
        figures = measure(Path(folder), arguments.syntax, arguments.workers, arguments.runs)
    text = json.dumps(figures, indent=2) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
