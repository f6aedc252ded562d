"""The JSON documents that `doctor --json` and `inspect --json` print, and their schemas.

They hold the facts of the text. A document names its schema, which `stenosis-trt schema NAME` prints.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from stenosis_trt.engine.support.published_schema import SchemaName, type_schema

Fact = str | int | float | bool | None


@dataclass(frozen=True)
class Finding:
    """One finding of `doctor`.

    Attributes:
        name: what was examined, such as "CPU"; several findings may have one name.
        value: what was found, in words.
        advice: what to do about it; "" if nothing needs to be done.
        facts: what was found, as values by name; empty where `value` says it all.
    """

    name: str
    value: str
    advice: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True)
class DoctorDocument:
    """What a machine has, and what `grade` would use.

    Attributes:
        findings: in the order of the text.
    """

    names: ClassVar = SchemaName("doctor.json", 1, "Output of stenosis-trt doctor --json")

    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class InspectedSeries:
    """A series and the decision on it.

    Attributes:
        series: number of the series in its study, from 1.
        plane: "sagittal", "axial", "coronal" or "oblique"; "" where the header does not say.
        slices: number of slices.
        description: SeriesDescription on one line, cut to 64 characters. It is free text.
        role: what the series would be graded as; None if it would not.
        reason: why.
    """

    series: int
    plane: str
    slices: int
    description: str
    role: str | None
    reason: str


@dataclass(frozen=True)
class InspectedStudy:
    """A study.

    Attributes:
        study: number of the study, from 1.
        folder: its folder; with --no-paths a number and a hash.
        study_uid: Study Instance UID.
        gradable: it can be graded, judged by its headers.
        reason: why it cannot be graded; "" if it can.
        warnings: names of warnings that its result would get.
        series: its series.
    """

    study: int
    folder: str
    study_uid: str
    gradable: bool
    reason: str
    warnings: tuple[str, ...]
    series: tuple[InspectedSeries, ...]


@dataclass(frozen=True)
class InspectedProblem:
    """A file that cannot be used.

    Attributes:
        path: the file; with --no-paths a number and a hash.
        reason: what is wrong, in one sentence.
        what_to_do: what to do about it, in one sentence.
        harmless: no image is lost.
    """

    path: str
    reason: str
    what_to_do: str
    harmless: bool


@dataclass(frozen=True)
class InspectDocument:
    """The studies below some paths.

    Attributes:
        studies: the studies, in the order of their paths.
        problems: files that cannot be used.
    """

    names: ClassVar = SchemaName("inspect.json", 1, "Output of stenosis-trt inspect --json")

    studies: tuple[InspectedStudy, ...]
    problems: tuple[InspectedProblem, ...]


@dataclass(frozen=True)
class ListedFile:
    """A file and its numbers.

    Attributes:
        study: number of its study; None for a file that belongs to no study and is reported.
        file: number of the file in its study, or among the reported files, from 1.
        path: the file.
    """

    study: int | None
    file: int
    path: str


@dataclass(frozen=True)
class FilesDocument:
    """The files below some paths, with the numbers of `grade --no-paths`.

    Attributes:
        files: the files of each study, then those that belong to no study and are reported.
    """

    names: ClassVar = SchemaName("inspect-files.json", 1, "Output of stenosis-trt inspect --files --json")

    files: tuple[ListedFile, ...]


Document = DoctorDocument | InspectDocument | FilesDocument

_CLASSES: Mapping[type[Document], tuple[type, ...]] = {
    DoctorDocument: (DoctorDocument, Finding),
    InspectDocument: (InspectDocument, InspectedStudy, InspectedSeries, InspectedProblem),
    FilesDocument: (FilesDocument, ListedFile),
}


def document_json(document: Document) -> str:
    """Return a document as one JSON text in ASCII, which every terminal and pipe takes unchanged."""
    return json.dumps({"schema": document.names.uri, **asdict(document)}, indent=2, allow_nan=False)


def document_schemas() -> dict[str, Callable[[], dict[str, Any]]]:
    """Return a function for each document that makes its schema, by the name of the schema."""
    return {
        kind.names.name: lambda kind=kind, classes=classes: _schema(kind, classes)  # type: ignore[misc]
        for kind, classes in _CLASSES.items()
    }


def _schema(kind: type[Document], classes: Iterable[type]) -> dict[str, Any]:
    schema = type_schema(kind.names, kind, classes)
    its_id = {"type": "string", "const": kind.names.uri, "description": "$id of the schema of the document."}
    schema["properties"] = {"schema": its_id, **schema["properties"]}
    schema["required"] = ["schema", *schema["required"]]
    return schema
