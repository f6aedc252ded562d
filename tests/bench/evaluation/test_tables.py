"""Tables of results, truth and readers: what is read, and what is refused with one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from reader_tables import Rows, result_rows, truth_rows, write_case, write_table

from stenosis_trt.bench.evaluation.cohort import make_cohort
from stenosis_trt.bench.evaluation.csv_tables import read_csv
from stenosis_trt.bench.evaluation.raters import read_readers, read_results, read_truth
from stenosis_trt.bench.evaluation.symptoms import read_scores
from stenosis_trt.engine.errors import InputError


def _text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_for_a_spreadsheet_reads_as_one_for_programs(tmp_path: Path) -> None:
    """As `grade --csv-for-excel comma` writes it: byte order mark, semicolons, decimal commas."""
    rows = result_rows(truth_rows(2))
    plain = read_results(write_table(tmp_path / "plain.csv", rows))
    excel = read_results(write_table(tmp_path / "excel.csv", rows, separator=";"))
    assert (tmp_path / "excel.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert b"0,85" in (tmp_path / "excel.csv").read_bytes()
    assert plain.levels == excel.levels
    assert len(plain.levels) == 12


def test_a_folder_of_grade_and_its_results_csv_are_the_same(tmp_path: Path) -> None:
    results, _ = write_case(tmp_path, 2)
    assert read_results(results) == read_results(results / "results.csv")


def test_a_level_may_be_written_in_other_ways(tmp_path: Path) -> None:
    table = _text(
        tmp_path / "t.csv", "study_uid,level,kang_grade\n1,C5-6,1\n1,c4/C5,2\n1,C7-T1,3.0\n1,C23,\n"
    )
    levels = read_truth(table).levels
    assert {key[1]: reading.grade for key, reading in levels.items()} == {
        "C5/6": 1,
        "C4/5": 2,
        "C7/T1": 3,
        "C2/3": None,
    }


def test_the_review_of_the_html_report_is_a_reader_and_a_rejected_level_has_no_grade(tmp_path: Path) -> None:
    head = "study_number,study_uid,level,kang_grade,decision,note\n"
    path = _text(
        tmp_path / "review.csv",
        f'{head}1,1.2.0,C2/3,0,accept,\n1,1.2.0,C3/4,2,regrade,"a, note"\n1,1.2.0,C4/5,1,reject,\n'
        "1,1.2.0,C5/6,,artefact,motion\n",
    )
    (reader,) = read_readers([path])
    assert reader.name == "review"
    assert [reading.grade for reading in reader.levels.values()] == [0, 2, None, None]


def test_a_review_with_the_models_grades_in_sight_is_noted(tmp_path: Path) -> None:
    """The columns of the report's review.csv, with a note of two lines."""
    head = "study_number,study_uid,level,kang_grade,decision,note,reviewed_at,computed_grade,blinded\r\n"
    lines = [
        f'{patient + 1},1.2.{patient},C2/3,0,accept,"\'=first\r\nsecond, third",2026-01-01T00:00:00Z,0,no\r\n'
        for patient in range(11)
    ]
    lines.append('12,1.2.11,C2/3,,,"only a note",2026-01-01T00:00:00Z,0,yes\r\n')
    path = tmp_path / "review.csv"
    path.write_bytes("".join([head, *lines]).encode())
    results, truth = write_case(tmp_path)
    readers = read_readers([path])
    assert [reading.grade for reading in readers[0].levels.values()] == [0] * 11 + [None]
    cohort = make_cohort(read_results(results), read_truth(truth), readers, few_patients=False)
    assert cohort.notes == (
        "review saw the model's grade of 11 levels before grading them: agreement with the model is biased "
        "upwards.",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "t.csv is empty."),
        (",,,\n", "t.csv is empty."),
        ("study_uid,level,kang_grade\n1,C2/3,0_3\n", "t.csv, line 2: kang_grade is not 0, 1, 2 or 3."),
        ("\n \n", "t.csv is empty."),
        ("study_uid,level,kang_grade\n", "t.csv has no rows below its header line."),
        ("study_uid,level\n1,C2/3\n", "t.csv has no column kang_grade."),
        ("study_uid,level,level,kang_grade\n1,C2/3,,1\n", "t.csv has the column level twice."),
        ("study_uid,level,kang_grade\n1,C2/3,4\n", "t.csv, line 2: kang_grade is not 0, 1, 2 or 3."),
        ("study_uid,level,kang_grade\n1,C2/3,-1\n", "t.csv, line 2: kang_grade is not 0, 1, 2 or 3."),
        ("study_uid,level,kang_grade\n1,C2/3,1.5\n", "t.csv, line 2: kang_grade is not 0, 1, 2 or 3."),
        ("study_uid,level,kang_grade\n1,C2/3,mild\n", "t.csv, line 2: kang_grade is not 0, 1, 2 or 3."),
        ("study_uid,level,kang_grade\n1,C2/3,nan\n", "t.csv, line 2: kang_grade is not 0, 1, 2 or 3."),
        ("study_uid,level,kang_grade\n\n1,L4/5,1\n", "t.csv, line 3: level is none of C2/3, C3/4, "),
        ("study_uid,level,kang_grade\n1,C3/5,1\n", "t.csv, line 2: level is none of C2/3, C3/4, "),
        ("study_uid,level,kang_grade\n,C3/4,1\n", "t.csv, line 2: study_uid is empty."),
        ("study_uid,level,kang_grade\n1,C3/4,1\n1,C3-4,1\n", "t.csv, lines 2 and 3 are of the same study"),
        ("study_uid,level,kang_grade\n1,C3/4,1,7\n", "t.csv, line 2: there are more cells than columns"),
        ('study_uid,level,kang_grade\n1,C3/4,"1\n', "t.csv is not a CSV file (unexpected end of data)."),
        (
            "study_uid,level,kang_grade,compression_ratio\n1,C3/4,1,wide\n",
            "t.csv, line 2: compression_ratio is not a number from 0 to 10.",
        ),
        ("study_uid,level,kang_grade,ap_mm\n1,C3/4,1,-2\n", "t.csv, line 2: ap_mm is not a number."),
        (
            "study_uid,level,kang_grade,patient_id\n1,C3/4,1,A\n1,C4/5,1,B\n",
            "t.csv, line 3: the study has another patient_id in an earlier row.",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        read_truth(_text(tmp_path / "t.csv", text))
    assert error.value.reason.startswith(reason)
    assert error.value.advice


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("study_uid,level,kang_grade\nM\xfcller,C2/3,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_csv(path)


def test_results_of_another_version_are_refused(tmp_path: Path) -> None:
    old = [{key: row[key] for key in row if key not in ("p2", "p3")} for row in result_rows(truth_rows(1))]
    with pytest.raises(InputError, match=r"no column p2\. Give the results of this version"):
        read_results(write_table(tmp_path / "results.csv", old))


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no results\.csv"):
        read_results(tmp_path)


def test_two_readers_with_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_table(tmp_path / folder / "reader.csv", truth_rows(1))
    with pytest.raises(InputError, match="cannot be called reader"):
        read_readers([tmp_path / "a" / "reader.csv", tmp_path / "b" / "reader.csv"])
    with pytest.raises(InputError, match="cannot be called truth"):
        read_readers([write_table(tmp_path / "truth.csv", truth_rows(1))])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("study_uid\n1\n", "s.csv has no column of a score."),
        ("name,mJOA\n1,12\n", "s.csv has neither patient_id nor study_uid."),
        ("study_uid,mJOA\n1,good\n", "s.csv, line 2: mJOA is not a number."),
        ("study_uid,mJOA\n1,12\n1,13\n", "s.csv, lines 2 and 3 have the same study_uid."),
        ("study_uid,mJOA\n,12\n", "s.csv, line 2: study_uid is empty."),
    ],
)
def test_scores_that_cannot_be_used_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        read_scores(_text(tmp_path / "s.csv", text))
    assert error.value.reason == reason


def _drop_levels(results: Rows, truth: Rows) -> None:
    del truth[3:5]


def _drop_grades(results: Rows, truth: Rows) -> None:
    for row in truth:
        row["kang_grade"] = ""


def _rename(results: Rows, truth: Rows) -> None:
    for row in truth:
        row["study_uid"] = f"9.{row['study_uid']}"


@pytest.mark.parametrize(
    ("patients", "change", "reason"),
    [
        (
            12,
            _drop_levels,
            "The truth has no row for C5/6 of study 1.2.0 and 1 other levels that the results",
        ),
        (12, _drop_grades, "The truth has no grade at all."),
        (12, _rename, "The results and the truth have no study in common."),
        (9, None, "The truth and model have graded levels of 9 patients in common, fewer than 10"),
    ],
)
def test_a_truth_that_does_not_fit_the_results_is_refused(
    tmp_path: Path, patients: int, change: Callable[[Rows, Rows], None] | None, reason: str
) -> None:
    results, truth = write_case(tmp_path, patients, change)
    with pytest.raises(InputError) as error:
        make_cohort(read_results(results), read_truth(truth), (), few_patients=False)
    assert error.value.reason.startswith(reason)


def test_a_level_without_a_true_grade_may_have_a_row_and_no_grade(tmp_path: Path) -> None:
    def change(results: Rows, truth: Rows) -> None:
        truth[0]["kang_grade"] = ""

    results, truth = write_case(tmp_path, 12, change)
    cohort = make_cohort(read_results(results), read_truth(truth), (), few_patients=False)
    assert cohort.truth.graded.sum() == 71
    assert cohort.model.graded.sum() == 72


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    def change(results: Rows, truth: Rows) -> None:
        del truth[-6:], results[:6]
        for row in truth:
            del row["patient_id"]

    results, truth = write_case(tmp_path, 13, change)
    extra = write_table(tmp_path / "ann.csv", truth_rows(14))
    readers = read_readers([extra])
    cohort = make_cohort(read_results(results), read_truth(truth), readers, few_patients=False)
    assert cohort.notes == (
        "1 study of the results not in the truth: left out.",
        "1 study of the truth not in the results: the levels count as not graded.",
        "12 levels of ann not in the truth: left out.",
        "No table has patient_id: each study counts as a patient.",
    )


def test_studies_of_a_patient_are_one_patient(tmp_path: Path) -> None:
    def change(results: Rows, truth: Rows) -> None:
        for row in truth:
            row["patient_id"] = "P0" if row["study_uid"] in ("1.2.0", "1.2.1") else row["patient_id"]

    results, truth = write_case(tmp_path, 12, change)
    cohort = make_cohort(read_results(results), read_truth(truth), (), few_patients=False)
    assert (cohort.patient_count, len(cohort.studies)) == (11, 12)
