"""`inspect` shows every series with its reason, no patient identifier and no control characters."""

from __future__ import annotations

import io
from dataclasses import replace

from header_factory import axial, sagittal, study
from rich.console import Console

from stenosis_trt.engine.cli.inspection import inspection_lines, inspection_tables, problem_lines, study_lines
from stenosis_trt.engine.records import Problem, Stage
from stenosis_trt.engine.selection.select import SeriesSelection, select_series


def _shown(*choices: SeriesSelection) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    for table in inspection_tables(choices):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _plain(*choices: SeriesSelection) -> list[dict[str, str]]:
    heading, *lines = inspection_lines(choices)
    names = heading.split("\t")
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]


def test_the_lines_name_every_series_of_every_study_with_role_and_reason() -> None:
    rows = _plain(
        select_series(study(sagittal("1"), axial("2"))), select_series(study(sagittal("3", modality="CT")))
    )
    assert [(row["study"], row["series"], row["plane"], row["role"]) for row in rows] == [
        ("1", "1", "sagittal", "sagittal T2"),
        ("1", "2", "axial", "axial T2"),
        ("2", "1", "sagittal", "–"),
    ]
    assert rows[0]["slices"] == "13"
    assert rows[0]["reason"] == "13 slices, 0.70 mm pixels, TE 100 ms, TR 3500 ms"
    assert rows[2]["reason"] == "its modality is CT, not MR"
    assert rows[0]["folder"] == "/study"
    assert rows[0]["study_uid"] == select_series(study(sagittal("1"))).study.study_uid


def test_the_table_holds_what_the_lines_hold() -> None:
    choice = select_series(study(sagittal("1"), axial("2"), sagittal("3", count=2)))
    shown = _shown(choice)
    for row in _plain(choice):
        for name in ("plane", "slices", "description", "role", "reason"):
            assert row[name] in shown


def test_no_identifier_of_the_patient_is_shown() -> None:
    choice = select_series(study(sagittal("1", patient_id="SECRET"), axial("2", patient_id="SECRET")))
    assert "SECRET" not in _shown(choice)
    assert "SECRET" not in "".join(inspection_lines([choice]))


def test_brackets_in_a_description_are_not_markup() -> None:
    choice = select_series(study(sagittal("1", description="t2 [bold]sag[/red] [FS]")))
    assert "t2 [bold]sag[/red] [FS]" in _shown(choice)


def test_control_characters_of_a_description_do_not_reach_the_terminal() -> None:
    choice = select_series(study(sagittal("1", description="t2\x1b[2J\tsag\nnext\x9b31m")))
    (row,) = _plain(choice)
    assert row["description"] == "t2 [2J sag next 31m"
    assert "\x1b" not in _shown(choice)


def test_control_characters_of_a_folder_are_made_visible() -> None:
    header = replace(study(sagittal("1")), path="/in\x1b[2J/M\udcfcller\tx y")
    (row,) = _plain(select_series(header))
    assert row["folder"] == "/in\\x1b[2J/M\\udcfcller\\tx y"


def test_a_long_description_is_shortened() -> None:
    (row,) = _plain(select_series(study(sagittal("1", description="t2 " + "x" * 10_000))))
    assert len(row["description"]) == 64
    assert row["description"].endswith("…")


def test_no_study_gives_the_heading_alone() -> None:
    assert len(list(inspection_lines([]))) == 1
    assert _shown() == ""


def test_each_study_is_a_table_under_its_folder() -> None:
    one, other = study(sagittal("1")), replace(study(sagittal("2")), path="/other [red]\x1b[2J")
    titles = [
        line.strip()
        for line in _shown(select_series(one), select_series(other)).splitlines()
        if "Study" in line
    ]
    assert titles == ["Study 1: /study", "Study 2: /other [red]\\x1b[2J"]


def _problem(number: int, reason: str) -> Problem:
    return Problem(f"/in/{number}.txt", Stage.HEADER, reason, "Nothing to do.", harmless=True)


def test_many_files_with_one_reason_are_counted_and_few_are_named() -> None:
    problems = [_problem(k, "The file is not DICOM.") for k in range(20_000)]
    problems.append(_problem(20_000, "The file is empty."))
    assert list(problem_lines(problems)) == [
        "20000 files, the first /in/0.txt: The file is not DICOM. Nothing to do.",
        "/in/20000.txt: The file is empty. Nothing to do.",
    ]


def test_a_refused_study_has_the_reason_of_errors_csv_and_no_advice_to_inspect_it() -> None:
    choice = select_series(study(sagittal("1", modality="CT"), axial("2")))
    assert choice.problem is not None
    (line,) = study_lines([choice])
    assert line.startswith(f"Study 1: {choice.problem.reason} ")
    assert "inspect" not in line


def test_a_study_uid_shared_by_patients_is_shown_in_table_and_lines() -> None:
    choice = select_series(replace(study(sagittal("1"), axial("2")), warnings=("study_uid_shared",)))
    assert "study_uid_shared" in _shown(choice)
    assert [row["study_warnings"] for row in _plain(choice)] == ["study_uid_shared"] * 2
    assert choice.warnings == ("study_uid_shared",)


def test_a_study_that_cannot_be_graded_keeps_its_flags() -> None:
    choice = select_series(replace(study(axial("2")), warnings=("study_uid_shared",)))
    assert choice.problem is not None
    assert choice.warnings == ("study_uid_shared",)
