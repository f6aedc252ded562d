"""`schema`, `doctor --json`, `inspect --json`: one JSON document on standard output, as its schema says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dicom_factory import series
from header_factory import axial, sagittal, study
from pydicom.dataset import Dataset
from strict_schema import faults, parse_strictly
from time_limits import time_limit

from stenosis_trt.engine.cli.doctor import collect_findings, report_lines
from stenosis_trt.engine.cli.documents import DoctorDocument, document_json, document_schemas
from stenosis_trt.engine.cli.inspection import (
    file_lines,
    files_document,
    inspect_document,
    inspection_lines,
    study_lines,
)
from stenosis_trt.engine.records import Problem, Stage
from stenosis_trt.engine.runs.schemas import file_schemas
from stenosis_trt.engine.selection.select import select_series


def _call(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = "from stenosis_trt.engine.cli.app import main; main()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=time_limit(120))


def _checked(name: str, text: str) -> Any:
    content = parse_strictly(text)
    assert faults(document_schemas()[name](), content) == []
    return content


def test_schema_lists_its_names_and_prints_each() -> None:
    listed = _call("schema")
    assert listed.returncode == 0
    names = listed.stdout.splitlines()
    assert names == [*file_schemas(), *document_schemas()]
    assert {"results.jsonl", "run.json", "errors.csv", "pack.json"} <= set(names)
    for name, version in (("results.jsonl", 2), ("inspect.json", 1)):
        answer = _call("schema", name)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert parse_strictly(answer.stdout)["$id"] == f"urn:stenosis-trt:schema:{name}:{version}"


def test_a_schema_that_is_not_there_is_one_sentence() -> None:
    answer = _call("schema", "results.xml")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(
        "stenosis-trt: There is no schema 'results.xml'. Give one of results.jsonl,"
    )
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize("name", document_schemas())
def test_each_field_of_a_document_is_described(name: str) -> None:
    schema = document_schemas()[name]()
    for part in (schema, *schema.get("$defs", {}).values()):
        for field, keywords in part["properties"].items():
            assert keywords.get("description"), (part["title"], field)


def test_doctor_prints_one_document_with_the_findings_of_the_text() -> None:
    answer = _call("doctor", "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    content = _checked("doctor.json", answer.stdout)
    told = [finding["name"] for finding in content["findings"]]
    assert told == [finding.name for finding in collect_findings()]
    assert {"version", "CPU", "memory", "reference pack", "grade would take"} <= set(told)


def test_every_fact_of_doctors_text_is_in_its_document() -> None:
    findings = collect_findings()
    content = _checked("doctor.json", document_json(DoctorDocument(findings)))
    text = " ".join(" ".join(report_lines(findings)).split())
    for finding in content["findings"]:
        for words in (finding["name"], finding["value"], finding["advice"]):
            assert " ".join(words.split()) in text
    (pack,) = [finding for finding in content["findings"] if finding["name"] == "reference pack"]
    assert pack["facts"]["name"] == "reference"
    assert pack["facts"]["clinical_use"] is False
    (taken,) = [finding for finding in content["findings"] if finding["name"] == "grade would take"]
    assert taken["facts"]["backend"] in taken["value"]


def test_doctor_with_a_pack_that_is_not_there_prints_no_document(tmp_path: Path) -> None:
    answer = _call("doctor", "--json", "--pack", tmp_path / "none")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("stenosis-trt: There is no pack at ")


def _problems() -> list[Problem]:
    return [
        Problem("/in/a.txt", Stage.HEADER, "The file is not DICOM.", "Nothing to do.", harmless=True),
        Problem("/in/b\x1b.dcm", Stage.HEADER, "The file is empty.", "Send it again."),
    ]


def test_the_document_of_inspect_has_what_the_lines_have() -> None:
    graded = select_series(study(sagittal("1"), axial("2")))
    refused = select_series(replace(study(sagittal("3", modality="CT")), path="/other\x1b[2J"))
    selections = [graded, refused]
    content = _checked("inspect.json", document_json(inspect_document(selections, _problems())))
    heading, *lines = inspection_lines(selections)
    names = heading.split("\t")
    rows = [dict(zip(names, line.split("\t"), strict=True)) for line in lines]
    found = [
        {
            "study": str(item["study"]),
            "series": str(one["series"]),
            "plane": one["plane"],
            "slices": str(one["slices"]),
            "description": one["description"],
            "role": one["role"] or "–",
            "reason": one["reason"],
            "folder": item["folder"],
            "study_uid": item["study_uid"],
        }
        for item in content["studies"]
        for one in item["series"]
    ]
    assert found == [{key: row[key] for key in found[0]} for row in rows]
    assert [item["gradable"] for item in content["studies"]] == [True, False]
    assert content["studies"][1]["folder"] == "/other\\x1b[2J"
    (line,) = [line for line in study_lines(selections) if line.startswith("Study 2")]
    assert content["studies"][1]["reason"] in line
    assert [item["path"] for item in content["problems"]] == ["/in/a.txt", "/in/b\\x1b.dcm"]
    assert [item["harmless"] for item in content["problems"]] == [True, False]


def test_the_document_of_the_files_has_what_the_lines_have() -> None:
    studies = [study(sagittal("1"), axial("2"))]
    content = _checked("inspect-files.json", document_json(files_document(studies, _problems())))
    _, *lines = file_lines(studies, _problems())
    found = [
        "\t".join(("" if item["study"] is None else str(item["study"]), str(item["file"]), item["path"]))
        for item in content["files"]
    ]
    assert found == lines


@pytest.mark.parametrize("options", [(), ("--no-paths",), ("--files",)])
def test_inspect_prints_one_document_and_the_messages_and_exit_code_of_the_text(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    def change(content: Dataset, index: int) -> None:
        content.SeriesDescription = "t2 Müller ≥ \x1b[2J"
        content.SpecificCharacterSet = "ISO_IR 192"

    series(tmp_path / "in" / "study", 7, change)
    (tmp_path / "in" / "broken.dcm").write_bytes(b"")
    plain = _call("inspect", tmp_path / "in", *options)
    answer = _call("inspect", tmp_path / "in", *options, "--json")
    assert answer.returncode == plain.returncode == (0 if "--files" in options else 1)
    assert _without_hash(answer.stderr) == _without_hash(plain.stderr)
    name = "inspect-files.json" if "--files" in options else "inspect.json"
    content = _checked(name, answer.stdout)
    assert answer.stdout.isascii()
    assert "SECRET" not in answer.stdout + answer.stderr
    if "--files" not in options:
        (described,) = content["studies"][0]["series"]
        assert described["description"] == "t2 Müller ≥  [2J"
        assert ("study [" in content["studies"][0]["folder"]) == ("--no-paths" in options)
        assert (str(tmp_path) in answer.stdout) == ("--no-paths" not in options)


def _without_hash(text: str) -> str:
    """The text without the hashes of --no-paths, whose key differs from run to run."""
    return text.split("[")[0]


def test_inspect_of_nothing_is_a_document_too(tmp_path: Path) -> None:
    answer = _call("inspect", tmp_path, "--json")
    assert (answer.returncode, answer.stderr) == (1, "No study was found.\n")
    content = _checked("inspect.json", answer.stdout)
    assert (content["studies"], content["problems"]) == ([], [])


def test_inspect_of_a_path_that_is_not_there_prints_no_document(tmp_path: Path) -> None:
    answer = _call("inspect", tmp_path / "none", "--json")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("stenosis-trt: ")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("doctor.json", lambda content: content["findings"][0].pop("value")),
        ("doctor.json", lambda content: content.update(schema="another")),
    ],
)
def test_a_document_that_lacks_something_does_not_fit(
    name: str, change: Callable[[dict[str, Any]], object]
) -> None:
    content = json.loads(document_json(DoctorDocument(collect_findings())))
    change(content)
    assert faults(document_schemas()[name](), content) != []
