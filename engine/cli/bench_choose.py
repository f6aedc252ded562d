"""The command `stenosis-trt bench choose`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import exit_on_error, fail, needs_package
from stenosis_trt.engine.cli.options import PackOption

if TYPE_CHECKING:
    from stenosis_trt.bench.speed.roofline import StudyWork
    from stenosis_trt.engine.packs.pack import Pack


def choose(
    records: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RECORD|FOLDER]...",
            help="Records of `bench all`, `bench gpu-suite` or `bench kernels`, or folders of them.",
            show_default=False,
        ),
    ] = None,
    studies_per_hour: Annotated[
        float, typer.Option(metavar="N", help="Mean number of studies that arrive in an hour.")
    ] = 20.0,
    p99: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Longest 99th percentile of the latency. [default: any]"),
    ] = None,
    joules: Annotated[
        float | None, typer.Option(metavar="J", help="Largest energy of a study. [default: any]")
    ] = None,
    reading: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Time to read a study's files on the host. [default: unknown]"),
    ] = None,
    device: Annotated[str, typer.Option(help="Show devices whose name contains this. [default: all]")] = "",
    pack: PackOption = None,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 or int8. [default: what `auto` takes on a GPU]")
    ] = "auto",
    sagittal_slices: Annotated[int, typer.Option(min=1, help="Sagittal slices of a study.")] = 15,
    levels: Annotated[int, typer.Option(min=1, help="Disc levels graded in a study.")] = 6,
    axial_slices: Annotated[int, typer.Option(min=1, help="Axial slices measured in a study.")] = 30,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Say which Jetson or GPU serves so many studies an hour, at which p99 latency and energy.

    Devices are computed from their peak rates, and machines of the records from what was measured on them;
    each figure says which. Exit code 2: a file is no record, a value is out of range, or there is no pack.
    """
    from stenosis_trt.bench.choose import (
        Demand,
        choice_lines,
        choice_record,
        computed_candidates,
        measured_candidates,
    )
    from stenosis_trt.bench.choose_records import read_machines
    from stenosis_trt.engine.packs.pack import open_pack

    for name, value, least in (
        ("studies-per-hour", studies_per_hour, 0.0),
        ("p99", p99, 0.0),
        ("joules", joules, 0.0),
        ("reading", reading, None),
    ):
        if value is not None and not (math.isfinite(value) and value >= 0.0 and value != least):
            fail(f"--{name} {value:g} is not allowed. Give a positive number.")
    demand = Demand(studies_per_hour, p99, joules, reading)
    with exit_on_error():
        machines = read_machines(records or [])
        opened = open_pack(pack)
    chosen = _precision(opened, precision)
    work = _work(opened, {"levels": sagittal_slices, "grader": levels, "cord": axial_slices})
    candidates = [
        item
        for item in (
            *measured_candidates(machines, demand),
            *computed_candidates(work, chosen, demand, machines),
        )
        if device.lower() in item.device.lower()
    ]
    if not candidates:
        fail(f"No device is called {device}. Leave out --device to see all.")
    limit = "" if p99 is None else f", p99 within {p99:g} s"
    typer.echo(f"{studies_per_hour:g} studies an hour{limit}; pack {work.pack}, {chosen.upper()} on GPUs.")
    if chosen != "fp32" and chosen not in opened.precisions:
        typer.echo(f"The pack has no {chosen.upper()} models: figures are as if it had.")
    for line in choice_lines(candidates):
        typer.echo(line)
    if json is not None:
        _write(json, choice_record(work, demand, candidates))


def _precision(pack: Pack, precision: str) -> str:
    from stenosis_trt.bench.speed.devices import PRECISIONS

    if precision == "auto":
        variants = [model.variants.get("fp16") for model in pack.models.values()]
        return "fp16" if all(item is not None and item.passed for item in variants) else "fp32"
    if precision not in PRECISIONS:
        fail(f"There is no precision {precision!r}. Give one of auto, {', '.join(PRECISIONS)}.")
    return precision


def _work(pack: Pack, batches: dict[str, int]) -> StudyWork:
    from stenosis_trt.bench.speed.roofline import StudyWork, kernel_bytes

    with needs_package(
        "Counting what networks compute needs {}. "
        "Install it: pip install onnx; 'stenosis-trt[bench]' brings it too."
    ):
        from stenosis_trt.bench.roofline.layer_work import model_work
    with exit_on_error():
        models = tuple(model_work(pack, name, batch) for name, batch in batches.items())
    return StudyWork(f"{pack.name} {pack.version}", models, kernel_bytes(pack, batches))


def _write(path: Path, content: dict[str, object]) -> None:
    from json import dumps

    from stenosis_trt.engine.support.atomic_files import write_text_atomically

    try:
        write_text_atomically(path, dumps(content, indent=2) + "\n")
    except OSError as error:
        fail(f"{path} cannot be written ({error.strerror}). Give another file.")
