"""What `grade` prints at its end, and studies.csv, which has a row for every study."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import stand_in
from documented import quoted, read, rows

from stenosis_trt.engine.records import FrameHeader, Problem, SeriesHeader, Stage, StudyHeader
from stenosis_trt.engine.reports.warning_meanings import WARNING_MEANINGS
from stenosis_trt.engine.runs.outputs import ResultStore
from stenosis_trt.engine.runs.summary import RunSummary, summary_lines
from stenosis_trt.engine.runs.table_files import CsvFormat

COLUMNS = 80


def _study(uid: str) -> StudyHeader:
    frames = (FrameHeader(Path("/study/a.dcm"), 0, f"{uid}.1", None),)
    return StudyHeader(uid, f"/in/{uid}", (SeriesHeader(uid, f"{uid}.9", "MR", frames),))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _outcome(**changes: object) -> RunSummary:
    nothing = RunSummary(
        studies=0, graded=0, skipped=0, failed=0, lost_files=0, problems=0, out=Path("R"), display_path="R"
    )
    return replace(nothing, **changes)  # type: ignore[arg-type]


def test_every_study_that_goes_in_has_a_row(tmp_path: Path) -> None:
    """Graded, not graded, and not reached by a run that was stopped; then one of an earlier run."""
    whole = stand_in.result("1.1")
    worse = replace(whole.levels[2], grade=3, probabilities=(0.0, 0.0, 0.1, 0.9))
    result = replace(whole, levels=(*whole.levels[:2], worse, *whole.levels[3:]))
    with ResultStore(tmp_path, {}, resume=False) as store:
        store.add(_study("1.1"), result, [])
        lost = Problem("/in/1.2/x", Stage.PIXELS, "Broken.", "Send again.", "1.2")
        failed = Problem("/in/1.2", Stage.LEVELS, "cannot grade: nothing.", "Look.", "1.2")
        store.add_failed(_study("1.2"), [lost, failed])
        store.add(_study("1.9"), stand_in.result("1.9"), [])
        tables = store.write_tables(["1.1", "1.2", "1.3"], [])
    assert (tables.graded, tables.failed) == (1, 1)
    assert tables.worst_grades == {3: 1}
    assert tables.warnings == {"sagittal_slice_gap": 1, "level_not_found": 1}
    first, second, third, earlier = _rows(tmp_path / "studies.csv")
    assert first == {
        "study_number": "1",
        "study_uid": "1.1",
        "path": "/in/1.1",
        "status": "graded",
        "reason": "",
        "sagittal_series_uid": "1.1",
        "axial_series_uid": "1.2",
        "grade_0": "0",
        "grade_1": "0",
        "grade_2": "1",
        "grade_3": "1",
        "ungraded": "4",
        "worst_grade": "3",
        "worst_level": "C4/5",
        "warning_count": "2",
        "reports": "",
    }
    assert (second["status"], second["reason"]) == ("failed", "cannot grade: nothing.")
    assert (third["status"], third["study_uid"], third["study_number"]) == ("open", "1.3", "3")
    assert (earlier["study_number"], earlier["study_uid"], earlier["status"]) == ("4", "1.9", "graded")


def test_frame_numbers_stand_beside_uids(tmp_path: Path) -> None:
    whole = stand_in.result("1.1")
    cord = whole.levels[0].cord
    assert cord is not None
    level = replace(whole.levels[0], sagittal_frame_number=7, cord=replace(cord, frame_number=12))
    with ResultStore(tmp_path, {}, resume=False) as store:
        store.add(_study("1.1"), replace(whole, levels=(level, *whole.levels[1:])), [])
        store.write_tables(["1.1"], [])
    rows = _rows(tmp_path / "results.csv")
    assert (rows[0]["sagittal_frame_number"], rows[0]["axial_frame_number"]) == ("7", "12")
    assert (rows[1]["sagittal_frame_number"], rows[1]["axial_frame_number"]) == ("", "")


def test_nothing_that_a_spreadsheet_runs_or_a_terminal_obeys_reaches_a_table(tmp_path: Path) -> None:
    hostile = replace(_study("1.1"), path="/in/\x1b[2J\u202e")
    problems = [Problem("=cmd|'/C calc'!A0\n", Stage.FIND, "@SUM\x9b", "-1", "1.1")]
    with ResultStore(tmp_path, {}, resume=False, csv_format=CsvFormat(",")) as store:
        store.add(hostile, replace(stand_in.result("1.1"), patient_id="+1\r"), problems)
        store.write_tables(["1.1"], [Problem("\t=1\x00", Stage.FIND, "Odd.", "None.")])
    for path in tmp_path.rglob("*.*"):
        assert not set("\x1b\x9b\x00\u202e") & set(path.read_text(encoding="utf-8"))
    with (tmp_path / "errors.csv").open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream, delimiter=";"))
    assert [row["path"] for row in rows] == [r"\t=1\x00", r"'=cmd|'/C calc'!A0\n"]
    assert (rows[1]["reason"], rows[1]["what_to_do"]) == (r"'@SUM\x9b", "'-1")
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8-sig") as stream:
        row = next(csv.DictReader(stream, delimiter=";"))
    assert (row["patient_id"], row["x_mm"], row["compression_ratio"]) == (r"'+1\r", "1,0", "0,5")


def test_a_summary_has_the_worst_grades_first_and_the_most_frequent_flags() -> None:
    warnings = dict.fromkeys(("level_not_found", "low_contrast", "thin_slices", "edge_of_stack"), 2)
    outcome = _outcome(
        studies=9,
        graded=7,
        failed=2,
        problems=3,
        worst_grades={0: 4, 3: 1, None: 1, 2: 1},
        warnings={**warnings, "no_axial_series": 5, "of_tomorrow": 1, "fat_suppressed": 1},
    )
    assert list(summary_lines(outcome)) == [
        "Studies by worst grade:",
        "  grade 3                       1",
        "  grade 2                       1",
        "  grade 0                       4",
        "  no level graded               1",
        "Most frequent warnings, by studies:",
        "  no_axial_series               5  no axial T2 series: no compression ratio",
        "  edge_of_stack                 2  a neighbouring slice is missing",
        "  level_not_found               2  a disc was not recognised",
        "  low_contrast                  2  the region is nearly flat",
        "  thin_slices                   2  slices are closer than 2 mm",
        "  fat_suppressed                1  fat is suppressed in the images",
        "  and 1 more; see studies.csv and docs/results.md",
        "7 of 9 studies graded, 2 could not be graded, 3 problems in errors.csv.",
        "Results: R",
    ]


def test_a_run_without_a_study_says_so_and_where_its_tables_are() -> None:
    assert list(summary_lines(_outcome())) == ["No study was found.", "Results: R"]


def test_each_warning_of_the_documents_has_a_few_words_that_fit() -> None:
    documented = {name for row in rows(read("docs/results.md"), "## Warnings") for name in quoted(row[0])}
    assert documented == set(WARNING_MEANINGS)
    lines = summary_lines(_outcome(warnings=dict.fromkeys(WARNING_MEANINGS, 1)))
    assert all(len(line) <= COLUMNS for line in lines)
    for warning in WARNING_MEANINGS:
        _, line, *_ = summary_lines(_outcome(warnings={warning: 123_456}))
        assert len(line) <= COLUMNS
        assert WARNING_MEANINGS[warning] in line
