"""Robustness: which studies are made, what is counted, and what is declared from it."""

from __future__ import annotations

import csv
import io
import json
import sys
import xml.etree.ElementTree as xml
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import made_level, made_record, shifted

from stenosis_trt.bench.phantom.conditions import CONDITION_RANGES, ORDINARY
from stenosis_trt.bench.robustness import __main__ as command
from stenosis_trt.bench.robustness.declared import declared_range
from stenosis_trt.bench.robustness.figures import Figures, figures_of
from stenosis_trt.bench.robustness.plan import Plan, condition_at
from stenosis_trt.bench.robustness.plot import draw
from stenosis_trt.bench.robustness.tables import csv_text, json_text, markdown_text

_POINT = ("noise", 0.06)
_UNCERTAIN = "level_number_uncertain"


def test_every_strength_has_the_same_patients_in_the_same_order() -> None:
    plan = Plan(3, 2, 2, ("a", "b"), Path("volumes"), ("noise", "yaw"))
    patients = [(item.source, item.seed, item.index) for item in plan.ordinary()]
    assert patients == [("phantom", 3, 0), ("phantom", 3, 1), ("a", 3, 0), ("b", 3, 1)]
    assert plan.points() == [
        *(("noise", x) for x in CONDITION_RANGES["noise"].strengths),
        *(("yaw", x) for x in CONDITION_RANGES["yaw"].strengths),
    ]
    for name, strength in plan.points():
        studies = plan.studies(name, strength)
        assert [(item.source, item.seed, item.index) for item in studies] == patients
        assert {str(item.conditions.differences()) for item in studies} == {str({name: strength})}
    keys = [item.key for item in plan.requests()]
    assert len(set(keys)) == len(keys) == 4 * (1 + 3 + 4)


def test_a_plan_with_few_strengths_has_the_first_and_the_last() -> None:
    plan = Plan(3, 1, conditions=("axial_tilt", "fat_suppression"), strengths=2)
    assert plan.points() == [
        ("axial_tilt", -30.0),
        ("axial_tilt", 30.0),
        ("fat_suppression", 0.5),
        ("fat_suppression", 1.0),
    ]


def test_the_neck_lies_at_either_end_and_in_the_middle_of_tall_fields() -> None:
    assert [condition_at("field_mm", 600.0, k).field_place for k in range(4)] == [-1.0, 0.0, 1.0, -1.0]
    assert condition_at("field_mm", 160.0, 0) == replace(ORDINARY, field_mm=160.0)


def test_a_grade_that_changes_counts_as_silent_unless_a_warning_speaks_of_it() -> None:
    plain = made_record()
    study = made_record(
        [
            made_level(0, 0, 1),
            made_level(1, 0, 1, "cord_low_confidence"),
            made_level(2, 0, 1, _UNCERTAIN),
            made_level(3, 0, None, "out_of_distribution"),
        ]
    )
    found = figures_of(_POINT, "all", [study], [plain])
    assert (found.levels, found.graded, found.compared, found.silent) == (6, 5, 5, 2)
    assert found.silent_changes == pytest.approx(0.4)
    assert found.silent_low is not None
    assert found.silent_high is not None
    assert found.silent_low < 0.4 < found.silent_high
    assert found.accuracy == pytest.approx(0.4)
    assert found.wrong_unflagged == pytest.approx(0.4)
    assert found.flagged == found.ratio_flagged == pytest.approx(0.2)
    assert (found.refused, found.not_found) == (pytest.approx(1 / 6), 0.0)
    assert found.warnings == {"cord_low_confidence": 1, _UNCERTAIN: 1, "out_of_distribution": 1}


def test_where_the_condition_changes_the_true_grade_the_true_one_is_expected() -> None:
    plain = made_record([made_level(0, 2, 2), made_level(1, 2, 3), made_level(2, 2, 2)])
    study = made_record([made_level(0, 3, 3), made_level(1, 3, 3), made_level(2, 3, 2)])
    found = figures_of(_POINT, "all", [study], [plain])
    assert (found.compared, found.silent) == (6, 1)


def test_a_grade_that_was_wrong_before_is_no_change() -> None:
    plain, study = made_record([made_level(0, 0, 1)]), made_record([made_level(0, 0, 1)])
    found = figures_of(_POINT, "all", [study], [plain])
    assert (found.silent, found.wrong_unflagged) == (0, pytest.approx(1 / 6))


def test_levels_at_other_discs_are_misnumbered_with_and_without_the_warning() -> None:
    plain = made_record()
    one_off = shifted(plain, 1.0)
    flagged = replace(
        one_off, levels=tuple(replace(level, warnings=(_UNCERTAIN,)) for level in one_off.levels)
    )
    # Half a disc off is at no disc at all.
    found = figures_of(_POINT, "all", [one_off, flagged, shifted(plain, 0.5)], [plain] * 3)
    assert (found.misnumbered_flagged, found.misnumbered_unflagged) == (6, 6)


def test_levels_out_of_view_count_neither_as_refused_nor_as_not_found() -> None:
    hidden = replace(made_level(5), shown=False, point=None, grade=None, ratio=None)
    lost = replace(made_level(4), point=None, grade=None, ratio=None)
    found = figures_of(_POINT, "all", [made_record([hidden, lost])], [made_record()])
    assert (found.levels, found.not_found, found.refused) == (5, pytest.approx(0.2), 0.0)


def test_the_levels_of_a_study_without_a_result_are_refused() -> None:
    nothing = [
        replace(level, point=None, grade=None, ratio=None, warnings=()) for level in made_record().levels
    ]
    study = replace(made_record(nothing), refused="C2 is not shown.")
    found = figures_of(_POINT, "all", [study], [made_record()])
    assert (found.studies_refused, found.refused, found.not_found) == (1, 1.0, 0.0)
    assert found.accuracy is found.kappa is found.silent_changes is found.ratio_bias is None


def test_operated_levels_are_counted_apart() -> None:
    study = made_record(
        [
            made_level(0, None, None, "out_of_distribution"),
            made_level(1, None, 2),
            made_level(2, None, 2, _UNCERTAIN),
        ]
    )
    found = figures_of(("metal", 5.0), "all", [study], [made_record()])
    assert (found.operated, found.operated_graded, found.operated_unflagged) == (3, 2, 1)
    assert (found.levels, found.compared, found.accuracy) == (3, 3, 1.0)


def _figures(condition: str, shares: dict[float, float | None], **changes: int) -> list[Figures]:
    plain = figures_of(("ordinary", 0.0), "all", [made_record()], [made_record()])
    return [
        replace(plain, condition=condition, strength=strength, silent_changes=value, **changes)
        for strength, value in shares.items()
    ]


def test_the_declared_range_ends_before_the_first_strength_beyond_the_limit_on_either_side() -> None:
    shares = {-30.0: 0.0, -20.0: 0.06, -10.0: 0.05, 10.0: 0.0, 20.0: None, 30.0: 0.2}
    found = declared_range("axial_tilt", _figures("axial_tilt", shares))
    assert (found.low, found.high, found.most_silent_changes) == (-10.0, 20.0, 0.05)
    assert (found.tested_low, found.tested_high) == (-30.0, 30.0)
    assert found.beyond == ((-30.0, 0.0), (-20.0, 0.06), (30.0, 0.2))


def test_a_factor_is_declared_around_1_and_a_field_around_the_ordinary_ones() -> None:
    found = declared_range("cord_depth", _figures("cord_depth", {0.85: 0.3, 0.92: 0.0, 1.08: 0.1}))
    assert (found.low, found.high) == (0.92, 1.0)
    field = declared_range("field_mm", _figures("field_mm", {160.0: 0.1, 200.0: 0.0, 300.0: 0.0}))
    assert (field.low, field.high) == (200.0, 300.0)


def test_metal_is_declared_only_where_operated_levels_are_not_graded_without_a_flag() -> None:
    shares: dict[float, float | None] = {2.0: 0.0, 5.0: 0.0}
    graded = _figures("metal", shares, operated=10, operated_graded=1, operated_unflagged=1)
    assert declared_range("metal", graded).high == 0.0
    refused = _figures("metal", shares, operated=40, operated_graded=3, operated_unflagged=2)
    assert declared_range("metal", refused).high == 5.0


def _whole() -> tuple[Figures, list[Figures], list[str]]:
    ordinary = figures_of(("ordinary", 0.0), "all", [made_record()], [made_record()])
    names = ["noise", "field_mm", "metal"]
    figures = [
        *_figures("noise", {0.03: 0.0, 0.06: 0.08}),
        *_figures("field_mm", {160.0: 0.5, 200.0: 0.0, 300.0: None}),
        *_figures("metal", {2.0: 0.0}, operated=2),
    ]
    return ordinary, figures, names


def test_the_tables_hold_every_strength_and_the_declared_ranges() -> None:
    ordinary, figures, names = _whole()
    declared = [declared_range(name, [x for x in figures if x.condition == name]) for name in names]
    rows = list(csv.DictReader(io.StringIO(csv_text([ordinary, *figures]))))
    assert [(row["condition"], float(row["strength"])) for row in rows] == [
        (item.condition, item.strength) for item in [ordinary, *figures]
    ]
    assert rows[2]["silent_changes"] == "0.08"
    content = json.loads(json_text([ordinary, *figures], declared, {"pack": "tiny"}))
    assert content["declared"]["noise"]["high"] == 0.03
    assert content["declared"]["noise"]["beyond"] == [[0.06, 0.08]]
    assert len(content["figures"]) == len(rows)
    lines = markdown_text([ordinary, *figures], declared).splitlines()
    assert "| noise | 0 to 0.06 | 0 to 0.03 | 0.0 % | 100.0 % |" in lines
    assert sum(line.startswith("| field of view | ") for line in lines) == 4
    tables = "\n".join(lines).split("\n\n")
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_plot_names_every_condition_and_is_the_same_for_the_same_figures() -> None:
    ordinary, figures, names = _whole()
    declared = [declared_range(name, [x for x in figures if x.condition == name]) for name in names]
    first, second = (draw(figures, ordinary, declared, "a pack") for _ in range(2))
    assert first == second
    assert first["png"].startswith(b"\x89PNG")
    root = xml.fromstring(first["svg"])
    assert root.tag.endswith("svg")
    # Texts are drawn as paths, each after a comment that has its words.
    for text in ("a pack", "noise", "field of view (mm)", "metal (mm)", "declared range"):
        assert f"<!-- {text} -->".encode() in first["svg"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--studies", "0"], "Ask for at least 1"),
        (["--studies", "-1"], "Ask for at least 1"),
        (["--semisynthetic", "2"], "Give --volumes"),
        (["--subject", "errsm_11"], "Give --volumes"),
        (["--workers", "0"], "Give at least 1"),
        (["--volumes", "nowhere"], "No such file"),
        (["--volumes", "nowhere", "--subject", "nobody"], "Subject nobody is not known"),
        (["--pack", "nowhere"], "nowhere"),
    ],
)
def test_wrong_options_end_with_2_and_a_sentence(
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["robustness", "--out", "out", *options])
    assert command.main() == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "studies").exists()


def test_a_condition_that_is_not_known_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["robustness", "--out", "out", "--condition", "weather"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "bias_field" in capsys.readouterr().err
