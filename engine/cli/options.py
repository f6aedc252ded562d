"""Options that several commands share, and parsers of option values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stenosis_trt.engine.trt.flavours import Capability

PathsArgument = Annotated[
    list[Path], typer.Argument(help="Folders, files, DICOMDIRs or archives.", show_default=False)
]
PackOption = Annotated[
    Path | None, typer.Option(help="Model pack: a folder or a zip. [default: the reference pack]")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or gpu; gpu never falls back to the CPU.")]
PrecisionOption = Annotated[
    str,
    typer.Option(
        help="fp32, fp16, int8, bf16 (CPU), or auto: the fastest that passed: FP16 with such plans on a GPU, "
        "what `build --device cpu` found on a CPU, else FP32."
    ),
]
FlavourOption = Annotated[
    str | None, typer.Option(help="tensorrt or tensorrt-rtx. [default: the installed one that has plans]")
]
WorkersOption = Annotated[
    int,
    typer.Option(min=1, help="Processes that read files. More than one helps with slow storage or a GPU."),
]
NoPathsOption = Annotated[
    bool,
    typer.Option("--no-paths", help="Write numbers and hashes instead of paths, which may name patients."),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--read-limit",
        metavar="NAME=VALUE",
        help="Limit for reading files, such as max_file_bytes=4GiB; repeatable.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document; `stenosis-trt schema` has its schema.")
]
ValidationStudiesOption = Annotated[
    list[Path] | None,
    typer.Option(help="Studies of the gate, compared with FP32; repeatable. [default: 20 phantoms]"),
]
ValidationVolumesOption = Annotated[
    Path | None,
    typer.Option(help="Volumes, a folder a subject: compare 20 semi-synthetic studies of them as well."),
]
ValidationSubjectOption = Annotated[
    list[str] | None,
    typer.Option(help="With --validation-volumes: a subject to use; repeatable. [default: all]"),
]
SigningKeyOption = Annotated[
    Path | None,
    typer.Option(metavar="KEY", help="Sign the written files with this private key (Ed25519, PEM)."),
]
TrustedKeyOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--trusted-key",
        metavar="PUB",
        help="Accept the pack and plans only if signed with this key (PEM), or another one given.",
    ),
]

FormatOption = Annotated[
    str,
    typer.Option(
        "--format", metavar="LIST", help="What to write: csv, json, sr, sc, png, gsps, text, html, parquet."
    ),
]
SrForOption = Annotated[
    str, typer.Option("--sr-for", metavar="VIEWER", help="Structure of the SR: for ohif, or for slicer.")
]
ReportTemplateOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Jinja2 template of the report text. [default: that of the program]"),
]


def parse_names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list: unique names in the order of their first occurrence."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_batches(text: str) -> tuple[int, ...]:
    """Parse batch sizes: "8,1" is (1, 8).

    Raises:
        ValueError: an item is not a whole number.
    """
    for part in parse_names(text):
        if not re.fullmatch(r"[0-9]{1,9}", part):
            raise ValueError(f"{part!r} is no batch. Give whole numbers, such as --batch 1,8.")
    return tuple(sorted({int(part) for part in parse_names(text)}))


def parse_capabilities(text: str) -> tuple[Capability, ...]:
    """Parse compute capabilities: "8.9,8.6" is ((8, 6), (8, 9)).

    Raises:
        ValueError: an item is not a compute capability.
    """
    from stenosis_trt.engine.trt.flavours import parse_capability

    return tuple(sorted({parse_capability(part) for part in parse_names(text)}))
