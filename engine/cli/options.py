"""Options that several commands have, and values of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import fail

if TYPE_CHECKING:
    from stenosis_trt.engine.dicom.limits import ReadLimits

PathsArgument = Annotated[
    list[Path], typer.Argument(help="Folders, files, DICOMDIRs or archives.", show_default=False)
]
PackOption = Annotated[
    Path | None, typer.Option(help="Model pack: a folder or a zip. [default: the reference pack]")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or gpu; gpu never falls back to the CPU.")]
PrecisionOption = Annotated[str, typer.Option(help="fp32, fp16 or int8: what the pack holds.")]
FlavourOption = Annotated[
    str | None, typer.Option(help="tensorrt or tensorrt-rtx. [default: what is installed and has plans]")
]
WorkersOption = Annotated[
    int,
    typer.Option(
        min=1, help="Processes that read files; one is enough unless storage is slow or a GPU computes."
    ),
]
NoPathsOption = Annotated[
    bool,
    typer.Option("--no-paths", help="Write numbers and hashes in place of paths, which may name patients."),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A limit of reading, such as max_file_bytes=4GiB; repeatable."),
]


def some_exist(paths: list[Path], no_paths: bool = False) -> None:
    """Leave with exit code 2 where there is nothing at any of the paths; with `no_paths` none is named."""
    from stenosis_trt.engine.support.safe_text import visible

    if not any(map(os.path.lexists, paths)):
        shown = "any of the PATHS" if no_paths else ", ".join(visible(str(path)) for path in paths)
        fail(f"There is nothing at {shown}. Give folders, files or DICOMDIRs that are there.")


def read_limits(settings: list[str] | None) -> ReadLimits:
    """The limits of reading, with these settings.

    Raises:
        ValueError: a setting is none, or has no such value.
    """
    from stenosis_trt.engine.dicom.limits import with_settings

    return with_settings(settings or [])
