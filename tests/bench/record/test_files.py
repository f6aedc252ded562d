"""A record that is written is read back whole; a file that is none is refused with one sentence."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_records import figure, full_record, record

from stenosis_trt.bench.record.checking import checked_section
from stenosis_trt.bench.record.files import RecordError, json_value, read_record, write_record
from stenosis_trt.bench.record.record import Chart, Section, Series


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = full_record()
    write_record(tmp_path / "a.json", written)
    assert read_record(tmp_path / "a.json") == written


def test_a_full_disk_leaves_the_record_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_record(path, record(figure("load.a", 1.0)))
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_record(path, record(figure("load.a", 2.0)))
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def _changed(change: Any) -> str:
    content = json.loads(json.dumps(_content()))
    change(content)
    return json.dumps(content)


def _content() -> dict[str, Any]:
    from stenosis_trt.bench.record.files import record_json

    content: dict[str, Any] = json.loads(record_json(record(figure("load.a", 1.0))))
    return content


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not JSON"),
        ("[]", "Input should be an object"),
        ('{"figures": []}', "schema: Field required"),
        (_changed(lambda content: content.update(schema=2)), "has layout 2, and this release reads 1"),
        (_changed(lambda content: content.pop("machine")), "machine: Field required"),
        (_changed(lambda content: content.update(extra=1)), "extra: Extra inputs are not permitted"),
        (
            _changed(lambda content: content["sections"][0]["figures"][0].update(value="1")),
            "sections.0.figures.0.value: Input should be a valid number",
        ),
        (
            _changed(lambda content: content["sections"][0]["figures"][0].update(better="up")),
            "sections.0.figures.0.better: Input should be",
        ),
    ],
)
def test_a_file_that_is_no_record_is_refused_with_its_fault(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert said in caught.value.reason
    assert caught.value.reason.count("\n") == 0


def test_a_number_that_is_not_finite_is_no_record(tmp_path: Path) -> None:
    text = _changed(lambda content: content["machine"].update(cores=0)).replace('"cores": 0', '"cores": NaN')
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RecordError, match="finite"):
        read_record(tmp_path / "a.json")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none.json", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(RecordError, match=said):
            read_record(path)


def test_what_a_terminal_would_obey_is_escaped_in_a_record_of_others(tmp_path: Path) -> None:
    text = _changed(lambda content: content["machine"].update(processor="\x1b[2J\u202eAMD"))
    (tmp_path / "a.json").write_text(text)
    assert read_record(tmp_path / "a.json").machine["processor"] == "\\x1b[2J\\u202eAMD"


def test_values_of_numpy_and_paths_become_json() -> None:
    value = {"a": np.float32(0.5), "b": np.arange(3), "c": (Path("x"), None, True), 4: float("nan")}
    assert json_value(value) == {"a": 0.5, "b": [0, 1, 2], "c": ["x", None, True], "4": None}
    with pytest.raises(TypeError, match="object"):
        json_value({"a": object()})


def test_a_figure_that_is_no_number_becomes_an_absence() -> None:
    section = Section("load", "Load", (figure("load.a", float("nan"), spread=0.0), figure("load.b", 2.0)))
    checked = checked_section(section)
    assert [item.name for item in checked.figures] == ["load.b"]
    assert [(item.name, item.reason) for item in checked.absences] == [
        ("load.a", "Text of load.a: the result is no number.")
    ]


def test_an_interval_with_one_end_is_dropped() -> None:
    whole = figure("load.a", 2.0)
    half = replace(whole, name="load.b", high=None)
    odd = replace(whole, name="load.c", low=float("nan"))
    checked = checked_section(Section("load", "Load", (whole, half, odd)))
    assert [(item.low, item.high) for item in checked.figures] == [(1.98, 2.02), (None, None), (None, None)]


def test_points_that_cannot_be_drawn_are_left_out() -> None:
    series = Series(
        "a", (0.0, 1.0, 2.0, 4.0), (1.0, np.float64(2.0), float("inf"), 3.0), labels=("p", "q", "r", "s")
    )
    chart = Chart("lines", "t", "x", "y", (series, Series("b", (0.0,), (1.0,))), log_x=True)
    (drawn,) = checked_section(Section("load", "Load", (), charts=(chart,))).charts
    assert drawn.series == (Series("a", (1.0, 4.0), (2.0, 3.0), labels=("q", "s")),)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (Section("load", "Load", (figure("peers.a", 1.0),)), "not one of section load"),
        (Section("load", "Load", (figure("load.a", 1.0), figure("load.a", 2.0))), "is there twice"),
        (
            Section("load", "Load", (), charts=(Chart("cdf", "t", "x", "y", (Series("a", (1.0,), ()),)),)),
            "different lengths",
        ),
    ],
)
def test_a_section_that_breaks_the_contract_is_refused(section: Section, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked_section(section)
