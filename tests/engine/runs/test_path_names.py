"""`--no-paths`: nothing of a path is written, and a file can be found again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import stand_in
from dicom_factory import compressed, dataset, write
from pydicom.uid import RLELossless, generate_uid
from stand_in import write_studies
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from stenosis_trt.engine.cli.app import app
from stenosis_trt.engine.errors import OutputError
from stenosis_trt.engine.runs.batch import grade_paths
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.engine.runs.summary import RunSummary

NAME = "MUELLER^HANS"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny").path


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _studies(folder: Path) -> Path:
    """Below a folder with a patient's name: two studies, of which one lost an image; two files that are no
    images."""
    named = folder / NAME
    write_studies(named, 2)
    broken = sorted((named / "study1").iterdir())[3]
    content = compressed(dataset(3), RLELossless)
    content.StudyInstanceUID = generate_uid(entropy_srcs=["study", "1"])
    content.SeriesInstanceUID = generate_uid(entropy_srcs=["series", "1"])
    content.SOPInstanceUID = generate_uid(entropy_srcs=["image", "1", "3"])
    write(broken, content, RLELossless)
    broken.write_bytes(broken.read_bytes()[:-40])
    for name in ("b.txt", "a.txt"):
        (named / name).write_text("text")
    return named


def _grade(paths: list[Path], out: Path, pack: Path, **options: object) -> RunSummary:
    chosen = GradeOptions(pack=pack, device="cpu", **options)  # type: ignore[arg-type]
    return grade_paths(paths, out, chosen, stand_in.grade)


def test_paths_are_in_the_tables_and_agree_by_study_number(tmp_path: Path, pack: Path) -> None:
    named = _studies(tmp_path)
    _grade([named], tmp_path / "out", pack)
    studies = _rows(tmp_path / "out" / "studies.csv")
    assert [(row["study_number"], row["path"]) for row in studies] == [
        ("1", str(named / "study0")),
        ("2", str(named / "study1")),
    ]
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    numbers = {row["study_uid"]: row["study_number"] for row in studies}
    for line in lines:
        assert str(line["study_number"]) == numbers[line["study_uid"]]
    for row in _rows(tmp_path / "out" / "results.csv"):
        assert row["study_number"] == numbers[row["study_uid"]]
    assert {line["study_path"] for line in lines} == {
        row["path"] for row in studies if row["status"] == "graded"
    }
    for row in _rows(tmp_path / "out" / "errors.csv"):
        assert row["study_number"] == numbers.get(row["study_uid"], "")


def test_no_file_and_no_message_holds_a_path(tmp_path: Path, pack: Path) -> None:
    named = _studies(tmp_path)
    out = tmp_path / NAME / "out"
    arguments = ["grade", str(named), "--out", str(out), "--pack", str(pack), "--no-paths", "--device", "cpu"]
    for more in ([], ["--resume"], []):
        answer = CliRunner().invoke(app, [*arguments, *more])
        assert NAME not in answer.output
    assert answer.exit_code == 2
    written = [path for path in out.rglob("*") if path.is_file()]
    assert {path.name for path in written} > {"results.csv", "errors.csv", "studies.csv", "run.json"}
    assert not [path for path in written if NAME in path.read_text()]
    assert NAME not in CliRunner().invoke(app, ["inspect", str(named), "--no-paths"]).output


def test_a_file_is_found_again_by_its_number(tmp_path: Path, pack: Path) -> None:
    named = _studies(tmp_path)
    _grade([named], tmp_path / "shown", pack)
    _grade([named], tmp_path / "hidden", pack, no_paths=True)
    listed = CliRunner().invoke(app, ["inspect", str(named), "--files"]).stdout.splitlines()
    paths = {(study, number): path for study, number, path in (line.split("\t") for line in listed[1:])}
    shown = _rows(tmp_path / "shown" / "errors.csv")
    hidden = _rows(tmp_path / "hidden" / "errors.csv")
    assert len(shown) == len(hidden) >= 3
    kinds = set()
    for row, other in zip(shown, hidden, strict=True):
        assert {**row, "path": ""} == {**other, "path": ""}
        what, _, digest = other["path"].rpartition(" ")
        assert len(digest) == len("[]") + 12
        kinds.add(what.rstrip("0123456789 "))
        number = what.split()[-1]
        study = "" if what.startswith("reported") else other["study_number"]
        assert paths[study, number] == row["path"]
    assert kinds == {"file", "reported file"}


def test_the_hash_of_a_path_differs_between_runs_and_not_within_one(tmp_path: Path, pack: Path) -> None:
    named = _studies(tmp_path)
    seen = []
    for run in ("one", "two"):
        _grade([named], tmp_path / run, pack, no_paths=True)
        rows = _rows(tmp_path / run / "errors.csv")
        seen.append([row["path"] for row in rows if row["path"].startswith("reported file 1 ")])
        lines = (tmp_path / run / "results.jsonl").read_text().splitlines()
        (first, *_) = (json.loads(line)["study_path"] for line in lines)
        assert first in {row["path"] for row in _rows(tmp_path / run / "studies.csv")}
    assert seen[0] != seen[1]


def test_results_with_and_without_paths_are_not_mixed(tmp_path: Path, pack: Path) -> None:
    folder = write_studies(tmp_path / "in", 1)
    _grade([folder], tmp_path / "out", pack)
    with pytest.raises(OutputError, match="another setting of --no-paths"):
        _grade([folder], tmp_path / "out", pack, no_paths=True, resume=True)
