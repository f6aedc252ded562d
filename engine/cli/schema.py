"""The command `stenosis-trt schema`: the JSON Schemas of the files and documents that programs read."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from stenosis_trt.engine.cli.errors import fail


def schema(
    name: Annotated[
        str | None, typer.Argument(help="File or document, such as results.jsonl. [default: list them]")
    ] = None,
) -> None:
    """Print the JSON Schema of a file or document, or list those that have one."""
    from stenosis_trt.engine.cli.documents import document_schemas
    from stenosis_trt.engine.runs.schemas import file_schemas

    schemas = {**file_schemas(), **document_schemas()}
    if name is None:
        for known in schemas:
            typer.echo(known)
        return
    if name not in schemas:
        fail(f"There is no schema {name!r}. Give one of {', '.join(schemas)}.")
    typer.echo(json.dumps(schemas[name](), indent=2))
