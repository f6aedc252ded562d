"""report.txt: what it says of a graded phantom, and how a site's own template is checked and confined."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from documented import quoted, read, rows
from report_samples import sample_report

from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.reports.study_report import CannotReport, ReportOptions, StudyReport
from stenosis_trt.engine.reports.text import report_text
from stenosis_trt.engine.reports.text.text_template import check_template, template_variables
from stenosis_trt.engine.reports.text.wording import level_sentence


def _text(report: StudyReport, template: Path | None = None) -> str:
    (content,) = report_text.make(report, ReportOptions(text_template=template)).values()
    return content.decode()


def _template(folder: Path, text: str) -> Path:
    path = folder / "site.j2"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_text_of_a_phantom_has_a_sentence_for_each_level_and_all_sections() -> None:
    report = sample_report()
    lines = _text(report).splitlines()
    for level in report.result.levels:
        assert level_sentence(level, with_cautions=False) in lines
    titles = [line for line in lines if line.isupper() and ":" not in line]
    assert titles == ["FINDINGS", "IMPRESSION", "NOT ASSESSED", "METHOD"]
    assert "" not in [line.strip() for line in (lines[0], lines[-1])]


def test_it_names_study_pack_and_version() -> None:
    report = sample_report()
    text = _text(report)
    told = report.provenance
    for words in (report.result.study_uid, told.pack_name, told.pack_version, told.software_version):
        assert words in text
    assert told.pack_sha256[:12] in text


def test_it_says_not_for_clinical_use_unless_the_pack_declares_it() -> None:
    report = sample_report()
    assert "Not for clinical use." in _text(report).splitlines()[1]
    declared = replace(report, provenance=replace(report.provenance, clinical_use=True))
    assert "clinical" not in _text(declared).splitlines()[1].lower()
    assert "Not for clinical use." not in _text(declared)


def test_the_patient_is_named_only_if_identifiers_are_kept() -> None:
    report = sample_report()
    assert "Patient" not in _text(report)
    assert "Patient ID A-17" in _text(replace(report, result=replace(report.result, patient_id="A-17")))


def test_warnings_stand_in_the_text() -> None:
    report = sample_report()
    level = replace(report.result.levels[0], warnings=("level_number_uncertain",))
    result = replace(report.result, levels=(level, *report.result.levels[1:]))
    text = _text(replace(report, result=result))
    assert "TAKE NOTE\n- Discs may be numbered one off: count them (C2/3)." in text


def test_control_characters_of_a_pack_do_not_reach_the_text() -> None:
    report = sample_report()
    odd = replace(report.provenance, pack_name="p\x1b[2J\x07", intended_use="one\ntwo\x1b[1m")
    text = _text(replace(report, provenance=odd))
    assert "p\\x1b[2J\\x07" in text
    assert "Intended use of the pack: one two\\x1b[1m" in text


def test_a_site_gives_its_own_template(tmp_path: Path) -> None:
    path = _template(tmp_path, "{% for level in levels %}\n{{ level.finding }}\n{% endfor %}\nGruß\n")
    check_template(path)
    report = sample_report()
    assert _text(report, path).splitlines() == [
        *(f"{level.level} Kang grade {level.grade}" for level in report.result.levels),
        "Gruß",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ levels", "not valid in line 1"),
        ("one\n{% for %}", "not valid in line 2"),
        ("{{ patient_name }}", "'patient_name' is undefined"),
        ("{{ levels[0].ratio }}", "no attribute 'ratio'"),
        ("{{ levels[0].compression_ratio * 2 }}", "fails: TypeError"),
        ("{{ ().__class__.__bases__ }}", "fails"),
        ("{{ levels.append(1) }}", "fails"),
        ("{% include '/etc/passwd' %}", "fails"),
    ],
)
def test_a_faulty_template_is_one_sentence_before_a_run_and_a_reason_for_a_study(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = _template(tmp_path, text)
    with pytest.raises(InputError, match="The template of the report text") as refused:
        check_template(path)
    assert reason in refused.value.reason
    assert "\n" not in str(refused.value)
    report = sample_report()
    bare = replace(report.result.levels[0], cord=None)
    report = replace(report, result=replace(report.result, levels=(bare,)))
    with pytest.raises(CannotReport, match="The template of the report text"):
        _text(report, path)


def test_a_template_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    large = tmp_path / "large"
    large.write_bytes(b" " * ((1 << 20) + 1))
    for path, reason in (
        (tmp_path / "absent", "is no file"),
        (tmp_path, "is no file"),
        (binary, "cannot be read"),
        (large, "larger than 1 MiB"),
    ):
        with pytest.raises(InputError, match=reason):
            check_template(path)


def test_the_template_of_the_package_passes_the_check() -> None:
    check_template(None)


def test_every_variable_is_explained_and_every_explained_one_is_there() -> None:
    page = read("docs/report-text.md")
    tables = [name for row in rows(page, "## Your own template") for name in quoted(row[0])]
    variables = template_variables(sample_report())
    assert set(tables) == {*variables, *variables["levels"][0]}
    assert [level["level"] for level in variables["levels"]] == list(LEVELS)


def test_without_jinja2_the_message_says_what_to_install() -> None:
    script = (
        "import sys\n"
        "sys.modules['jinja2'] = None\n"
        "from stenosis_trt.engine.errors import StenosisError\n"
        "from stenosis_trt.engine.reports.text.text_template import check_template\n"
        "try:\n"
        "    check_template(None)\n"
        "except StenosisError as error:\n"
        "    print(error)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [
        "The report text needs Jinja2, which is not installed. pip install 'stenosis-trt[report]'"
    ]
