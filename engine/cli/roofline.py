"""The command `stenosis-trt bench roofline`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import exit_on_error, fail, needs_package
from stenosis_trt.engine.cli.options import PackOption

if TYPE_CHECKING:
    from stenosis_trt.bench.speed.devices import GpuSpec
    from stenosis_trt.bench.speed.roofline import KernelComparison, StudyWork


def roofline(
    pack: PackOption = None,
    sagittal_slices: Annotated[int, typer.Option(min=1, help="Sagittal slices of a study.")] = 15,
    levels: Annotated[int, typer.Option(min=1, help="Disc levels graded in a study.")] = 6,
    axial_slices: Annotated[int, typer.Option(min=1, help="Axial slices measured in a study.")] = 30,
    device: Annotated[
        str,
        typer.Option(
            help="Show stages on devices whose name contains this. [default: totals of all devices]"
        ),
    ] = "",
    compare_with: Annotated[
        list[Path] | None, typer.Option(help="JSON file of `bench kernels` to compare with; repeatable.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="Show the peak rates of each device and their sources.")
    ] = False,
) -> None:
    """Compute lower bounds of the time per study from its operations, its bytes and hardware peak rates.

    Nothing is measured and no GPU is needed. Exit code 2: no usable pack, or onnx is not installed.
    """
    from stenosis_trt.bench.speed.devices import GPU_SPECS
    from stenosis_trt.bench.speed.roofline import (
        NOTICE,
        comparison_lines,
        roofline_record,
        source_lines,
        stage_lines,
        time_lines,
        work_lines,
    )

    shown = [item for item in GPU_SPECS if device.lower() in item.name.lower()]
    if not shown:
        fail(f"No device is called {device}. There are {', '.join(item.name for item in GPU_SPECS)}.")
    compared = [_compared(path) for path in compare_with or []]
    study = _study(pack, {"levels": sagittal_slices, "grader": levels, "cord": axial_slices})
    typer.echo(f"{NOTICE} Pack {study.pack}, one study.")
    tables = [work_lines(study), time_lines(study, shown)]
    tables += [stage_lines(study, item) for item in shown if device]
    tables += [source_lines(shown)] if sources else []
    tables += [comparison_lines(*item) for item in compared]
    for table in tables:
        typer.echo()
        for line in table:
            typer.echo(line)
    if json is not None:
        _write(json, roofline_record(study, compared))


def _compared(path: Path) -> tuple[GpuSpec, tuple[KernelComparison, ...]]:
    from stenosis_trt.bench.speed.roofline import compare_with_measured, read_kernel_record

    try:
        return compare_with_measured(read_kernel_record(path))
    except ValueError as error:
        fail(f"{path} cannot be compared: {error}. Give a file of `stenosis-trt bench kernels`.")


def _study(path: Path | None, batches: dict[str, int]) -> StudyWork:
    from stenosis_trt.bench.speed.roofline import StudyWork, kernel_bytes
    from stenosis_trt.engine.packs.pack import open_pack

    with (
        needs_package(
            "Counting what networks compute needs {}. "
            "Install it: pip install onnx; 'stenosis-trt[bench]' brings it too."
        ),
        exit_on_error(),
    ):
        from stenosis_trt.bench.roofline.layer_work import model_work

        found = open_pack(path)
        models = tuple(model_work(found, name, batch) for name, batch in batches.items())
    return StudyWork(f"{found.name} {found.version}", models, kernel_bytes(found, batches))


def _write(path: Path, content: dict[str, object]) -> None:
    from json import dumps

    from stenosis_trt.engine.support.atomic_files import write_text_atomically

    try:
        write_text_atomically(path, dumps(content, indent=2) + "\n")
    except OSError as error:
        fail(f"{path} cannot be written ({error.strerror}). Give another file.")
