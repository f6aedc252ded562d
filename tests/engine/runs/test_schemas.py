"""The published schemas describe what a run writes: every field, and no value that would not be written."""

from __future__ import annotations

import copy
import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import stand_in
from dicom_factory import series
from fake_gpu import on_the_fake_gpu
from gpu_backend import tiny_backend
from jsonschema import Draft202012Validator
from shared_phantoms import phantoms
from strict_schema import faults, parse_strictly
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.packs.pack import MANIFEST, reference_pack
from stenosis_trt.engine.runs.batch import grade_paths
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.engine.runs.run_record import GpuFields
from stenosis_trt.engine.runs.schemas import file_schemas
from stenosis_trt.engine.support.published_schema import DIALECT, attribute_texts

_NAMES = tuple(file_schemas())


def _schema(name: str) -> dict[str, Any]:
    return file_schemas()[name]()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run: a phantom, a study that is refused, and a file that is no image."""
    folder = tmp_path_factory.mktemp("run")
    studies = folder / "studies"
    studies.mkdir()
    (studies / "phantom").symlink_to(phantoms(1, 33) / "study_0001")
    series(studies / "refused", 3)
    (studies / "note.txt").write_text("no image", encoding="utf-8")
    for _ in range(2):
        # A resumed run writes the record of the earlier one beside its own.
        grade_paths([studies], folder / "out", GradeOptions(device="cpu", resume=True))
    return folder / "out"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _document(path: Path) -> dict[str, Any]:
    """The content of run.json, or the first line of results.jsonl."""
    text = path.read_text(encoding="utf-8")
    content: dict[str, Any] = parse_strictly(text.splitlines()[0] if path.suffix == ".jsonl" else text)
    return content


@pytest.mark.parametrize("name", _NAMES)
def test_each_schema_is_valid_and_has_version_title_and_descriptions(name: str) -> None:
    schema = _schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DIALECT
    # Diameters in the slice became diameters across the cord; models may share weights.
    version = 2 if name in ("pack.json", "results.csv", "results.jsonl") else 1
    assert schema["$id"] == f"urn:stenosis-trt:schema:{name}:{version}"
    assert schema["title"]
    assert "nknown" in schema["description"] or "do not know" in schema["description"]
    for part in (schema, *schema.get("$defs", {}).values()):
        for field, keywords in part.get("properties", {}).items():
            assert keywords.get("description"), (part.get("title"), field)
    # What is printed is JSON again.
    assert json.loads(json.dumps(schema)) == schema


def test_a_line_of_a_graded_phantom_fits_and_every_field_is_described(out: Path) -> None:
    (line,) = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    content = parse_strictly(line)
    assert faults(_schema("results.jsonl"), content) == []
    assert any(level["grade"] is not None for level in content["levels"])


def test_a_line_with_levels_that_were_not_graded_fits() -> None:
    content = {"study_number": 1, "study_path": "", **asdict(stand_in.result("1.2"))}
    assert faults(_schema("results.jsonl"), parse_strictly(json.dumps(content))) == []


def test_run_json_fits_with_the_record_of_an_earlier_run(out: Path) -> None:
    content = parse_strictly((out / "run.json").read_text(encoding="utf-8"))
    assert len(content["earlier"]) == 1
    assert faults(_schema("run.json"), content) == []
    earlier = {**content["earlier"][0], "earlier": []}
    assert faults(_schema("run.json"), earlier) == []
    assert content["pack"]["clinical_use"] is False


@pytest.mark.parametrize("name", ["results.csv", "studies.csv", "errors.csv"])
def test_every_row_of_a_table_fits(out: Path, name: str) -> None:
    rows = _rows(out / name)
    assert rows
    schema = _schema(name)
    assert list(rows[0]) == list(schema["properties"])
    for row in rows:
        assert faults(schema, row) == []


def test_the_run_has_a_graded_and_a_refused_study_and_a_file_that_is_no_image(out: Path) -> None:
    assert sorted(row["status"] for row in _rows(out / "studies.csv")) == ["failed", "graded"]
    assert {row["harmless"] for row in _rows(out / "errors.csv")} == {"yes", "no"}


@pytest.mark.parametrize("other", [False, True])
def test_manifests_fit(tmp_path: Path, other: bool) -> None:
    schema = _schema("pack.json")
    tiny = write_tiny_pack(tmp_path / "tiny", other=other)
    for path in (tiny.path, reference_pack()):
        assert _reader_faults(schema, parse_strictly((path / MANIFEST).read_text(encoding="utf-8"))) == []


def _reader_faults(schema: dict[str, Any], instance: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(schema).iter_errors(instance)]


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("results.jsonl", ("levels", 0, "grade"), 4),
        ("results.jsonl", ("levels", 0, "grade"), "2"),
        ("results.jsonl", ("levels", 0, "level"), "C1/2"),
        ("results.jsonl", ("levels", 0, "confidence"), 1.5),
        ("results.jsonl", ("levels", 0, "probabilities"), [0.5, 0.5]),
        ("results.jsonl", ("levels", 0, "point"), [1.0, 2.0]),
        ("results.jsonl", ("levels",), []),
        ("results.jsonl", ("study_number",), 0),
        ("run.json", ("pack", "clinical_use"), "no"),
        ("run.json", ("counts", "graded"), None),
        ("run.json", ("options", "limits"), {}),
        ("errors.csv", ("stage",), "elsewhere"),
        ("errors.csv", ("harmless",), ""),
        ("results.csv", ("kang_grade",), "4"),
        ("results.csv", ("p0",), "nan"),
        ("studies.csv", ("worst_grade",), "1.0"),
        ("pack.json", ("models", "cord", "input", "size"), [1, 1]),
        ("pack.json", ("clinical_use",), "yes"),
        ("pack.json", ("schema",), 3),
    ],
)
def test_a_wrong_value_does_not_fit(out: Path, name: str, place: tuple[Any, ...], value: Any) -> None:
    instance: Any
    if name == "pack.json":
        instance = parse_strictly((reference_pack() / MANIFEST).read_text(encoding="utf-8"))
    elif name.endswith(".csv"):
        instance = _rows(out / name)[0]
    else:
        instance = _document(out / name)
    assert _reader_faults(_schema(name), instance) == []
    changed = copy.deepcopy(instance)
    parent = changed
    for step in place[:-1]:
        parent = parent[step]
    parent[place[-1]] = value
    assert _reader_faults(_schema(name), changed) != []


@pytest.mark.parametrize("name", [name for name in _NAMES if name != "pack.json"])
def test_a_reader_of_today_takes_a_field_of_tomorrow_and_misses_one_that_is_gone(
    out: Path, name: str
) -> None:
    schema = _schema(name)
    instance = _rows(out / name)[0] if name.endswith(".csv") else _document(out / name)
    assert _reader_faults(schema, {**instance, "of_tomorrow": "1"}) == []
    for field in instance:
        assert _reader_faults(schema, {key: value for key, value in instance.items() if key != field}), field


def test_texts_of_attributes_are_told_apart_though_they_share_a_line() -> None:
    class _Made:
        """One.

        Attributes:
            first: of the two; None if there is none. second, third: both of them,
                on two lines: with a colon.
            a_name: a_name / second; see `Other`.

        Raises:
            ValueError: never.
        """

        model_fields = ("first", "second", "third", "a_name")

    assert attribute_texts(_Made) == {
        "first": "Of the two; null if there is none.",
        "second": "Both of them, on two lines: with a colon.",
        "third": "Both of them, on two lines: with a colon.",
        "a_name": "a_name / second.",
    }


@on_the_fake_gpu(with_kernels=True, FAKE_CUDA_CAPABILITY="90", FAKE_CUDA_INTEGRATED="1")
def test_the_schema_of_run_json_has_every_field_that_a_gpu_adds() -> None:
    with tiny_backend((2,)) as gpu:
        told = json.loads(json.dumps(gpu.record()))
    described = _schema("run.json")["$defs"]["BackendRecord"]
    assert {*told} <= {*described["properties"]}
    assert {*GpuFields.__dataclass_fields__} <= {*described["properties"]}
    record = {"backend": "tensorrt", "reason": "", "gpu_failures": [], **told}
    assert faults({**described, "$defs": _schema("run.json")["$defs"]}, record) == []
