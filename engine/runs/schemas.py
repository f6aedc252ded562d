"""JSON Schemas of the files of a run, and of pack.json: what `stenosis-trt schema NAME` prints.

They are made from the dataclasses and column tables that write the files. A row of a CSV file is an object of
strings, as `csv.DictReader` reads it from a file in the default format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.packs.manifest import (
    InputEntry,
    Manifest,
    ModelEntries,
    ModelEntry,
    OutputEntry,
    VariantEntry,
    WeightsEntry,
)
from stenosis_trt.engine.packs.models import InputSpec, OutputSpec
from stenosis_trt.engine.packs.pack import SCHEMAS
from stenosis_trt.engine.records import LEVELS, CordMeasurement, HealthyComparison, LevelResult, StudyResult
from stenosis_trt.engine.reports.result_columns import RESULT_COLUMNS, STUDY_NUMBER, Column, ColumnKind
from stenosis_trt.engine.runs.run_record import (
    BackendRecord,
    CountsRecord,
    CpuFields,
    ExecutionRecord,
    GpuFields,
    MachineRecord,
    MemoryRecord,
    ModelRunRecord,
    OptionsRecord,
    PackRecord,
    PlanRecord,
    RunRecord,
    SecondsRecord,
    StageSeconds,
)
from stenosis_trt.engine.runs.table_columns import ERRORS, STUDIES
from stenosis_trt.engine.support.published_schema import (
    OPEN_POLICY,
    SchemaName,
    attribute_texts,
    object_schema,
    type_schema,
)

_PROBABILITY = {"minimum": 0, "maximum": 1}
_LIMITS: Mapping[str, Mapping[str, Any]] = {
    "StudyResult.levels": {"minItems": len(LEVELS), "maxItems": len(LEVELS)},
    "LevelResult.level": {"enum": list(LEVELS)},
    "LevelResult.grade": {"minimum": 0, "maximum": 3},
    "LevelResult.confidence": _PROBABILITY,
    "LevelResult.p_ood": _PROBABILITY,
    "CordMeasurement.confidence": _PROBABILITY,
    "CordMeasurement.ap_mm": {"minimum": 0},
    "CordMeasurement.transverse_mm": {"exclusiveMinimum": 0},
    "CordMeasurement.slice_angle_degrees": {"minimum": 0, "maximum": 90},
}
"""What types do not say of the fields of a result."""

_COUNT, _NUMBER = r"^\d*$", r"^(-?\d+(\.\d+)?(e[-+]?\d+)?)?$"
_TABLE_POLICY = (
    "A row as an object of strings; a missing value is an empty string. In a file for spreadsheets "
    f"(--csv-for-excel) numbers may have a decimal comma. {OPEN_POLICY}"
)


def file_schemas() -> Mapping[str, Callable[[], dict[str, Any]]]:
    """Return a function for each file that makes its JSON Schema (draft 2020-12), by the file's name."""
    return _SCHEMAS


def _results_line() -> dict[str, Any]:
    names = SchemaName("results.jsonl", 2, "One line of results.jsonl: the result of a study")
    kinds = (StudyResult, LevelResult, CordMeasurement, HealthyComparison)
    schema = type_schema(names, StudyResult, kinds, _LIMITS)
    first = {
        "study_number": {"type": "integer", "minimum": 1, "description": STUDY_NUMBER.meaning},
        "study_path": {"type": "string", "description": STUDIES["path"].meaning},
    }
    schema["properties"] = {**first, **schema["properties"]}
    schema["required"] = list(schema["properties"])
    return schema


def _run() -> dict[str, Any]:
    names = SchemaName("run.json", 1, "run.json: what produced the results of a run, and what it cost")
    kinds = (
        *(RunRecord, PackRecord, BackendRecord, OptionsRecord, MachineRecord, CountsRecord, StageSeconds),
        *(SecondsRecord, MemoryRecord, ReadLimits),
    )
    schema = type_schema(names, RunRecord, kinds)
    definitions = schema["$defs"]
    backend = definitions["BackendRecord"]
    gpu = type_schema(SchemaName("", 0, ""), GpuFields, (GpuFields, PlanRecord))
    cpu = type_schema(SchemaName("", 0, ""), CpuFields, (CpuFields, ModelRunRecord, ExecutionRecord))
    for own in (gpu, cpu):
        definitions |= own["$defs"]
        backend["properties"] |= {name: _without_null(words) for name, words in own["properties"].items()}
    del backend["properties"]["fields"]
    backend["required"].remove("fields")
    schema["properties"]["earlier"] = {
        "type": "array",
        "items": {"type": "object"},
        "description": "The same of the earlier runs that this one resumed and that graded something, oldest "
        "first, as the release that ran then wrote it.",
    }
    schema["required"].append("earlier")
    return schema


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a field that is absent where it has no value."""
    (alternative,) = (item for item in schema["anyOf"] if item.get("type") != "null")
    return {**alternative, **{key: value for key, value in schema.items() if key != "anyOf"}}


def _pack() -> dict[str, Any]:
    names = SchemaName(
        "pack.json",
        SCHEMAS[-1],
        "pack.json: the manifest of a model pack",
        "Other entries of the pack and other models are allowed, and ignored. Unknown entries within a model "
        "that is used are refused.",
    )
    entries = (Manifest, ModelEntries, ModelEntry, InputEntry, OutputEntry, VariantEntry, WeightsEntry)
    schema = type_schema(names, Manifest, entries, written=False)
    for owner, spec in (("InputEntry", InputSpec), ("OutputEntry", OutputSpec)):
        texts = attribute_texts(spec)
        for name, keywords in schema["$defs"][owner]["properties"].items():
            keywords["description"] = texts[name]
    layout = {"type": "integer", "enum": [*SCHEMAS], "description": "Layout of the pack."}
    schema["properties"] = {"schema": layout, **schema["properties"]}
    schema["required"] = ["schema", *schema["required"]]
    return schema


def _rows(file: str, columns: Mapping[str, Column], number: int = 1) -> dict[str, Any]:
    names = SchemaName(file, number, f"One row of {file}", _TABLE_POLICY)
    return object_schema(names, {name: _cell(column) for name, column in columns.items()})


def _cell(column: Column) -> dict[str, Any]:
    cell: dict[str, Any] = {"type": "string", "description": column.meaning}
    if column.kind is ColumnKind.COUNT:
        cell["pattern"] = _COUNT
    elif column.kind is ColumnKind.NUMBER:
        cell["pattern"] = _NUMBER
    elif column.kind is ColumnKind.GRADE:
        cell["enum"] = ["", "0", "1", "2", "3"]
    elif column.values:
        cell["enum"] = [*column.values, *(() if column.always else ("",))]
    return cell


_SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "results.jsonl": _results_line,
    "run.json": _run,
    "results.csv": lambda: _rows("results.csv", RESULT_COLUMNS, 2),
    "studies.csv": lambda: _rows("studies.csv", STUDIES),
    "errors.csv": lambda: _rows("errors.csv", ERRORS),
    "pack.json": _pack,
}
