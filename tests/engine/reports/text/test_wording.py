"""The words of a report: each value once, what is missing with its reason, doubts where they are read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stenosis_trt.engine.records import LEVELS, CordMeasurement, HealthyComparison, LevelResult, StudyResult
from stenosis_trt.engine.reports.text.wording import (
    KANG_MEANINGS,
    NO_GRADE,
    NO_RATIO,
    cautions,
    finding,
    impression,
    join_levels,
    level_sentence,
    not_assessed,
    probability_words,
)
from stenosis_trt.engine.reports.warning_meanings import WARNING_MEANINGS

_POINT = (0.0, 0.0, 0.0)
_CORD = CordMeasurement("1.2", (_POINT,) * 4, 5.3, 12.9, 0.411, 0.9)
_C56 = LevelResult("C5/6", _POINT, 2, (0.02, 0.05, 0.91, 0.02), _CORD, "1.3", 0.9)
_Z = HealthyComparison(compression_ratio_z=-2.31)


def _study(*levels: LevelResult, warnings: tuple[str, ...] = ()) -> StudyResult:
    return StudyResult("1.2.3", "", "1.4", "1.5", levels, (), warnings)


def _graded(*grades: int | None) -> StudyResult:
    """A study whose levels have these grades from C2/3 on; a level without one was not found."""
    return _study(
        *(
            replace(_C56, level=level, grade=grade)
            if grade is not None
            else LevelResult(level, None, None, None, None, "", 0.1, ("level_not_found",))
            for level, grade in zip(LEVELS, grades, strict=True)
        )
    )


def test_a_sentence_has_meaning_grade_probability_ratio_and_z() -> None:
    assert level_sentence(replace(_C56, healthy=_Z)) == (
        "C5/6: moderate stenosis with cord deformation (Kang 2, p 0.91); compression ratio 0.41, z −2.3."
    )


def test_without_a_comparison_and_without_mscc_the_sentence_says_nothing_of_them() -> None:
    plain = "C5/6: moderate stenosis with cord deformation (Kang 2, p 0.91); compression ratio 0.41{}."
    assert level_sentence(_C56) == plain.format("")
    assert level_sentence(replace(_C56, healthy=HealthyComparison(ap_z=-1.0))) == plain.format("")
    both = replace(_C56, mscc=0.304, mscc_reference="above and below")
    assert level_sentence(both) == plain.format("; MSCC 0.30")
    one = replace(_C56, mscc=-0.05, mscc_reference="above")
    assert level_sentence(one) == plain.format("; MSCC −0.05 against the cord above alone")


@pytest.mark.parametrize(
    ("value", "words"), [(0.994, "p 0.99"), (0.996, "p > 0.99"), (1.0, "p > 0.99"), (0.004, "p < 0.01")]
)
def test_no_probability_is_rounded_to_certainty(value: float, words: str) -> None:
    assert probability_words(value) == words


def test_a_small_negative_z_is_not_minus_zero() -> None:
    assert level_sentence(replace(_C56, healthy=HealthyComparison(-0.04))).endswith("z 0.0.")


@pytest.mark.parametrize("warning", NO_GRADE)
def test_a_level_without_a_grade_says_why_in_the_words_of_its_warning(warning: str) -> None:
    level = LevelResult("C7/T1", None, None, None, None, "", 0.1, (warning,))
    assert level_sentence(level) == f"C7/T1: not graded ({WARNING_MEANINGS[warning]})."
    assert finding(level) == "C7/T1 not graded"
    assert finding(_C56) == "C5/6 Kang grade 2"


@pytest.mark.parametrize("warning", NO_RATIO)
def test_a_level_without_a_ratio_says_why(warning: str) -> None:
    sentence = level_sentence(replace(_C56, cord=None, warnings=(warning,)))
    assert f"; compression ratio not measured ({WARNING_MEANINGS[warning].partition(':')[0]})." in sentence
    assert "Note" not in sentence


def test_doubts_follow_the_sentence_or_are_left_to_the_study() -> None:
    level = replace(_C56, warnings=("level_number_uncertain", "axial_slice_gap"))
    assert level_sentence(level).endswith(
        "0.41. Note: discs may be numbered one off: count them; the nearest axial slice is over 4 mm away."
    )
    assert level_sentence(level, with_cautions=False) == level_sentence(_C56)


def test_a_measured_cord_with_a_doubt_is_a_caution_and_not_a_missing_ratio() -> None:
    level = replace(_C56, warnings=("cord_low_confidence",))
    assert cautions(_study(level)) == ["The cord's outline is uncertain (C5/6)."]
    assert not any("Compression ratio at" in sentence for sentence in not_assessed(_study(level)))


def test_no_warning_is_lost() -> None:
    """Each one of a level and of a study is in the sentences, the cautions or what was not assessed."""
    for warning, words in WARNING_MEANINGS.items():
        words = words.partition(":")[0]
        bare = LevelResult("C5/6", None, None, None, None, "", 0.1, (warning,))
        unmeasured = replace(_C56, cord=None, warnings=(warning,))
        for level in (bare, unmeasured, replace(_C56, warnings=(warning,))):
            study = _study(level)
            told = " ".join([*cautions(study), *not_assessed(study)]).lower()
            assert words.lower() in told, (warning, told)
        assert words.lower() in " ".join(cautions(_study(_C56, warnings=(warning,)))).lower()


def test_the_impression_has_the_worst_grade_first_and_the_levels_without_a_grade_last() -> None:
    study = _graded(0, 0, 1, 3, 1, None)
    assert impression(study) == [
        "Severe stenosis with raised T2 signal in the cord at C5/6 (Kang 3).",
        "Mild stenosis without cord deformation at C4/5 and C6/7 (Kang 1).",
        "No stenosis at C2/3 and C3/4 (Kang 0).",
        "Lowest compression ratio 0.41, at C2/3.",
        "Not graded: C7/T1.",
    ]


def test_the_impression_names_the_level_of_the_lowest_ratio_with_its_z() -> None:
    low = replace(_C56, cord=replace(_CORD, compression_ratio=0.3), healthy=_Z)
    study = _study(replace(_C56, level="C2/3"), low)
    assert "Lowest compression ratio 0.30 (z −2.3), at C5/6." in impression(study)


def test_the_impression_begins_with_a_doubtful_numbering() -> None:
    study = _study(replace(_C56, warnings=("level_number_uncertain",)))
    assert impression(study)[0] == "Discs may be numbered one off: count them."
    assert cautions(study) == ["Discs may be numbered one off: count them (C5/6)."]


def test_a_study_without_a_grade_says_so() -> None:
    assert impression(_graded(*(None,) * 6)) == ["No level was graded."]
    assert not_assessed(_graded(*(None,) * 6))[0] == "Grade at C2/3 to C7/T1 (a disc was not recognised)."


def test_what_was_not_assessed_names_levels_ratios_comparisons_and_other_findings() -> None:
    unmeasured = replace(_C56, level="C4/5", cord=None, warnings=("no_axial_series",))
    told = not_assessed(_study(unmeasured, _C56))
    assert told[:3] == [
        "Grade at C2/3, C3/4, C6/7 and C7/T1.",
        "Compression ratio at C4/5 (no axial T2 series).",
        "Compression ratio against healthy adults at C5/6.",
    ]
    assert any("foramina" in sentence for sentence in told)
    compared = not_assessed(_study(replace(_C56, healthy=_Z)))
    assert not any("healthy" in sentence for sentence in compared)


def test_a_caution_of_the_study_stands_once_though_levels_have_it_too() -> None:
    study = _study(replace(_C56, warnings=("lossy_compression",)), warnings=("lossy_compression",))
    assert cautions(study) == ["Images were compressed with loss."]


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ((), ""),
        (("C3/4",), "C3/4"),
        (("C3/4", "C4/5"), "C3/4 and C4/5"),
        (("C2/3", "C3/4", "C4/5", "C6/7"), "C2/3 to C4/5 and C6/7"),
        (("C2/3", "C4/5", "C6/7"), "C2/3, C4/5 and C6/7"),
        (LEVELS, "C2/3 to C7/T1"),
    ],
)
def test_neighbouring_levels_are_joined(levels: tuple[str, ...], words: str) -> None:
    assert join_levels(levels) == words


def test_each_grade_has_its_own_meaning() -> None:
    assert len(set(KANG_MEANINGS)) == 4
