"""Files that a resumed run reads: what was written comes back, and anything else is refused by name."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stand_in

from stenosis_trt.engine.errors import OutputError
from stenosis_trt.engine.records import (
    FrameHeader,
    HealthyComparison,
    Problem,
    SeriesHeader,
    Stage,
    StudyHeader,
)
from stenosis_trt.engine.runs.outputs import ResultStore
from stenosis_trt.engine.runs.stored_results import (
    FORMAT_VERSION,
    DamagedFile,
    StoredStudy,
    read_study,
    study_json,
)

UID = "1.2.3"
PROBLEM = Problem("/x", Stage.PIXELS, "Broken.", "Send again.", UID)


def _header() -> StudyHeader:
    frames = (FrameHeader(Path("/study/a.dcm"), 0, "1.2.3.1", None),)
    return StudyHeader(UID, "/study", (SeriesHeader(UID, "1.2.3.9", "MR", frames),))


def _kept() -> StoredStudy:
    return StoredStudy(FORMAT_VERSION, UID, "/study", "hash", stand_in.result(UID), (PROBLEM,))


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _compared() -> StoredStudy:
    whole = stand_in.result(UID)
    healthy = HealthyComparison(compression_ratio_z=-1.25, compression_ratio_percentile=9.5)
    first = replace(whole.levels[0], mscc=0.25, mscc_reference="above", healthy=healthy)
    return replace(_kept(), result=replace(whole, levels=(first, *whole.levels[1:])))


@pytest.mark.parametrize(
    "kept",
    [_kept(), replace(_kept(), result=None), _compared()],
    ids=["graded", "failed", "compared with healthy adults"],
)
def test_a_study_comes_back_as_it_was_written(kept: StoredStudy, tmp_path: Path) -> None:
    assert read_study(_write(tmp_path / "study.json", study_json(kept))) == kept


def test_a_study_of_a_version_without_the_comparison_is_read(tmp_path: Path) -> None:
    content = json.loads(study_json(_kept()))
    for level in content["result"]["levels"]:
        for name in ("mscc", "mscc_reference", "healthy"):
            del level[name]
    assert read_study(_write(tmp_path / "study.json", json.dumps(content))) == _kept()


def _without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.pop(name)


def _level(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["result"]["levels"][0].__setitem__(name, value)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no problems": _without("problems"),
    "no images": _without("images"),
    "no format": _without("format"),
    "another format": lambda content: content.update(format=FORMAT_VERSION + 1),
    "a result that is a list": lambda content: content.update(result=[]),
    "an empty result": lambda content: content.update(result={}),
    "problems by name": lambda content: content.update(problems={"a": {}}),
    "an unknown stage": lambda content: content["problems"][0].update(stage="none"),
    "a grade in words": _level("grade", "2"),
    "a grade that does not exist": _level("grade", 7),
    "three probabilities": _level("probabilities", [0.1, 0.2, 0.7]),
    "a cord that is a number": _level("cord", 3),
    "an MSCC in words": _level("mscc", "0.3"),
    "an unknown reference of MSCC": _level("mscc_reference", "beside"),
    "a z-score in words": _level("healthy", {"ap_z": "low"}),
    "a point of two numbers": _level("point", [1.0, 2.0]),
    "warnings in one text": _level("warnings", "low_contrast"),
    "five levels": lambda content: content["result"]["levels"].pop(),
    "a result of another study": lambda content: content["result"].update(study_uid="1.9"),
    "neither result nor problem": lambda content: content.update(result=None, problems=[]),
    "half a character": lambda content: content.update(path="\ud800"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_study_of_the_wrong_shape_is_damaged(name: str, tmp_path: Path) -> None:
    content = json.loads(study_json(_kept()))
    CHANGES[name](content)
    with pytest.raises(DamagedFile):
        read_study(_write(tmp_path / "study.json", json.dumps(content)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        f'{{"format": {FORMAT_VERSION}, "path": ' + "[" * 500 + "]" * 500 + "}",
        study_json(_kept()).replace('"confidence": 0.7', '"confidence": 1e999'),
        study_json(_kept()).replace('"confidence": 0.7', '"confidence": NaN'),
        study_json(_kept()).replace(f'"format": {FORMAT_VERSION}', '"format": ' + "9" * 5000),
    ],
    ids=["empty", "list", "null", "deep list", "deep object", "deep enough", "too large", "NaN", "digits"],
)
def test_text_that_holds_no_study_is_damaged(text: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedFile):
        read_study(_write(tmp_path / "study.json", text))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder", "nothing"):
        with pytest.raises(DamagedFile, match="regular file"):
            read_study(tmp_path / name)


def _resume(out: Path) -> None:
    """What a resumed run reads of its folder."""
    with ResultStore(out, {"pack": "a"}, resume=True) as store:
        store.earlier_runs()
        store.is_done(_header())
        store.write_tables([UID], [])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that a run left, with a study that was graded and a record."""
    with ResultStore(tmp_path / "out", {"pack": "a"}, resume=False) as store:
        store.add(_header(), stand_in.result(UID), [PROBLEM])
        store.write_run({"counts": {"graded": 1}, "seconds": {"total": 1.5}, "earlier": []})
        store.write_tables([UID], [])
    return tmp_path / "out"


@pytest.mark.parametrize("value", ["[]", "3", '{"pack": {}}', '{"pack": [1]}', "[" * 9999, '{"pack": 1e999}'])
def test_a_damaged_note_of_what_made_the_results_is_named(value: str, out: Path) -> None:
    (out / "studies" / "made_with.json").write_text(value)
    with pytest.raises(OutputError, match=r"studies/made_with\.json .*another --out"):
        _resume(out)


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "{}",
        '{"counts": []}',
        '{"counts": {"graded": "1"}}',
        '{"counts": {"graded": 1}, "earlier": {"a": 1}}',
        '{"counts": {"graded": 1}, "earlier": [3]}',
        '{"counts": {"graded": 1}, "seconds": 1e999}',
        '{"counts": {"graded": 1}, "a": ' + "[" * 9999,
    ],
)
def test_a_damaged_record_of_earlier_runs_is_named_with_what_to_do(value: str, out: Path) -> None:
    (out / "run.json").write_text(value)
    with pytest.raises(OutputError, match=r"run\.json .*Delete it and give --resume"):
        _resume(out)


def test_records_of_earlier_runs_are_kept_as_they_are(out: Path) -> None:
    with ResultStore(out, {"pack": "a"}, resume=True) as store:
        first = {"counts": {"graded": 1}, "seconds": {"total": 1.5}}
        assert store.earlier_runs() == [first]
        store.write_run({"counts": {"graded": 0}, "earlier": [first]})
        assert store.earlier_runs() == [first]


def _mutated(text: str, random_: random.Random) -> str:
    """The JSON with one value replaced, removed, or moved."""
    content = json.loads(text)
    place: Any = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = random_.choice(keys)
        if not isinstance(place[key], dict | list) or not place[key] or random_.random() < 0.3:
            break
        place = place[key]
    if random_.random() < 0.2:
        del place[key]
    else:
        place[key] = random_.choice(
            [
                None,
                True,
                -1,
                2**70,
                0.5,
                "",
                "x",
                [],
                {},
                [[]],
                {"a": {}},
                float("nan"),
                float("inf"),
                "\ud800",
            ]
        )
    return json.dumps(content)


def test_whatever_one_value_is_changed_to_a_resume_goes_on_or_names_the_file(out: Path) -> None:
    """Results that a change leaves valid are used; nothing else than OutputError ends the run."""
    random_ = random.Random(7)
    others = [out / "studies" / "made_with.json", out / "studies" / "state.json"]
    (study,) = set((out / "studies").glob("*.json")) - {*others}
    files = [study, *others, out / "run.json"]
    whole = {path: path.read_text() for path in files}
    refused = 0
    for _ in range(400):
        path = random_.choice(files)
        path.write_text(_mutated(whole[path], random_))
        try:
            _resume(out)
        except OutputError as error:
            refused += 1
            named = path.name in str(error) or "were made with another" in str(error)
        else:
            named = True
        assert named
        for name, text in whole.items():
            name.write_text(text)
    assert refused > 100
