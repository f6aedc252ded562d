"""Measurements at hand for `bench choose`: records of `bench all`, `bench gpu-suite` and `bench kernels`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stenosis_trt.bench.record.files import RecordError, read_record
from stenosis_trt.bench.record.record import BenchRecord, Figure
from stenosis_trt.engine.errors import InputError

_ADVICE = "Give files of `stenosis-trt bench all`, `bench gpu-suite` or `bench kernels`, or folders of them."
_WHOLE = ("load.single_stream.whole.p50", "scaling.flight.one by one")
"""Figures of a study from its files to its results, best first."""
_WHOLE_TAIL = "load.single_stream.whole.p90"
_RATE = "load.offline.whole.throughput"
_WHOLE_IN_SUITE = "one study, files to ratios"


@dataclass(frozen=True)
class MeasuredMachine:
    """What was measured of a study on one machine.

    Attributes:
        name: GPU that computed, or the processor.
        path: the file.
        whole_ms: median time of a study from its files to its results.
        tail_ms: a high percentile of the same; None if the file has none.
        studies_a_second: throughput with reading ahead; None if the file has none.
        joules: of a study; None if the file has none.
        preprocessing_ms: of a study on the GPU, from the kernel benchmark.
        stood_in: the GPU was simulated: times are those of a processor.
    """

    name: str
    path: Path
    whole_ms: float | None = None
    tail_ms: float | None = None
    studies_a_second: float | None = None
    joules: float | None = None
    preprocessing_ms: float | None = None
    stood_in: bool = False


def read_machines(paths: Sequence[Path]) -> tuple[MeasuredMachine, ...]:
    """Read files, and the records among the JSON files of folders.

    Raises:
        InputError: there is no such file, a folder holds no record, or a file is damaged or none of the
            three.
    """
    found: list[MeasuredMachine] = []
    for path in paths:
        if path.is_dir():
            machines = [item for file in sorted(path.glob("*.json")) if (item := _read(file)) is not None]
            if not machines:
                raise InputError(f"The folder {path} holds no record of a benchmark.", _ADVICE)
            found += machines
            continue
        machine = _read(path)
        if machine is None:
            raise InputError(f"{path} is no record of a benchmark.", _ADVICE)
        found.append(machine)
    return tuple(found)


def _read(path: Path) -> MeasuredMachine | None:
    """Return what a file holds; None if it is JSON of something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).", _ADVICE) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON.", _ADVICE) from error
    fields = content.keys() if isinstance(content, dict) else set()
    try:
        if {"sections", "machine", "product"} <= fields:
            return _of_record(read_record(path), path)
        if {"scenarios", "gpu"} <= fields:
            return _of_suite(content, path)
        if {"figures", "machine"} <= fields:
            return _of_kernels(content, path)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise InputError(f"{path} is damaged.", _ADVICE) from error
    return None


def _of_record(record: BenchRecord, path: Path) -> MeasuredMachine:
    figures = record.figures()
    whole = next((figures[name] for name in _WHOLE if name in figures), None)
    gpus = list(record.machine.get("gpus") or ())
    on_gpu = record.product.get("backend") == "tensorrt" and gpus
    # "NVIDIA L4, 24 GB"
    name = str(gpus[0]).rpartition(",")[0] if on_gpu else str(record.machine.get("processor", "CPU"))
    cores = "" if on_gpu else f", {record.machine.get('cores')} cores"
    return MeasuredMachine(
        f"{name}{cores}",
        path,
        _value(whole),
        _value(figures.get(_WHOLE_TAIL)),
        _value(figures.get(_RATE)),
        _value(_energy(figures)),
    )


def _energy(figures: Mapping[str, Figure]) -> Figure | None:
    """The energy of a whole study, or else of any part of it."""
    found = [item for name, item in figures.items() if name.startswith("energy.") and item.unit == "J"]
    return next((item for item in found if ".whole" in item.name), found[0] if found else None)


def _value(figure: Figure | None) -> float | None:
    return None if figure is None else figure.value


def _of_suite(content: Mapping[str, Any], path: Path) -> MeasuredMachine:
    figures: dict[str, Mapping[str, Any]] = {}
    for scenario in content["scenarios"].values():
        figures.update((item["name"], item) for item in scenario["figures"])
    whole = figures.get(_WHOLE_IN_SUITE, {})
    rates = [float(item["value"]) for name, item in figures.items() if name.endswith(", sustained")]
    return MeasuredMachine(
        str(content["gpu"]["name"]),
        path,
        whole.get("value"),
        whole.get("p99"),
        max(rates, default=None),
        stood_in=bool(content.get("stand_in")),
    )


def _of_kernels(content: Mapping[str, Any], path: Path) -> MeasuredMachine:
    machine = content["machine"]
    name = machine.get("gpu") or f"{machine['processor']}, {machine['cores']} cores"
    by = "graph" if machine.get("gpu") else "NumPy"
    times = [
        float(item["median_us"]) / 1e3
        for item in content["figures"]
        if item["by"] == by and item["name"].startswith("one study, all preprocessing")
    ]
    return MeasuredMachine(str(name), path, preprocessing_ms=min(times, default=None))
