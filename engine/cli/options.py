"""Options that several commands have, and values of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stenosis_trt.engine.dicom.limits import ReadLimits

PathsArgument = Annotated[
    list[Path], typer.Argument(help="Folders, files, DICOMDIRs or archives.", show_default=False)
]
PackOption = Annotated[
    Path | None, typer.Option(help="Model pack: a folder or a zip. [default: the reference pack]")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or gpu; gpu never falls back to the CPU.")]
PrecisionOption = Annotated[
    str, typer.Option(help="fp32, fp16, int8, or auto: FP16 on a GPU that has such plans, else FP32.")
]
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


def read_limits(settings: list[str] | None) -> ReadLimits:
    """The limits of reading, with these settings.

    Raises:
        ValueError: a setting is none, or has no such value.
    """
    from stenosis_trt.engine.dicom.limits import limits_from_settings

    return limits_from_settings(settings or [])
