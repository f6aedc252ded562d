"""The words of a report: a finding, a sentence for each level, the impression, what was not assessed.

Every format takes its words from here. All functions are pure; text is plain English in Unicode (a negative
z-score has U+2212 as its minus sign).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from stenosis_trt.engine.records import LEVELS, LevelResult, StudyResult
from stenosis_trt.engine.reports.warning_meanings import WARNING_MEANINGS

NOT_FOR_CLINICAL_USE = "Not for clinical use."
"""Shown wherever `Provenance.clinical_use` is False."""

KANG_MEANINGS = (
    "no stenosis",
    "mild stenosis without cord deformation",
    "moderate stenosis with cord deformation",
    "severe stenosis with raised T2 signal in the cord",
)
"""What each Kang grade means (Kang et al., AJR 2011)."""

NO_GRADE = ("level_not_found", "level_implausible", "level_out_of_view", "out_of_distribution", "signal_void")
"""Warnings that say why a level has no grade."""

NO_RATIO = (
    "no_axial_series",
    "axial_unmatched",
    "no_axial_slice",
    "cord_not_measured",
    "cord_low_confidence",
    "cord_axes_not_crossing",
    "cord_axes_not_orthogonal",
    "cord_size_implausible",
    "slice_too_oblique",
)
"""Warnings that say why a level has no compression ratio, if it has none."""

_MAX_NAMED_RUN = 2
"""Of more neighbouring levels only the first and the last are named."""

_NEVER_ASSESSED = (
    "Neural foramina, nerve roots and facet joints.",
    "The levels above C2/3 and below C7/T1, and the cord between the disc levels.",
    "Causes of raised cord signal other than compression at a disc level.",
    "Alignment, fractures, tumours, infection, and every other finding in the images.",
)


def finding(level: LevelResult) -> str:
    """Return the finding of a level as a label, such as "C5/6 Kang grade 2" or "C7/T1 not graded"."""
    if level.grade is None:
        return f"{level.level} not graded"
    return f"{level.level} Kang grade {level.grade}"


def level_sentence(level: LevelResult, *, with_cautions: bool = True) -> str:
    """Return what is known of a level as one line.

    Example: "C5/6: moderate stenosis with cord deformation (Kang 2, p 0.91); compression ratio 0.41, z −2.3."

    Args:
        level: the level.
        with_cautions: append a note with the level's warnings that do not explain a missing value, such as
            that discs may be numbered one off. Without it, show `cautions` of the study.
    """
    parts = [_grade_words(level)]
    if level.cord is not None:
        parts.append(_ratio_words(level))
    elif level.point is not None:
        why = reasons(level.warnings, NO_RATIO)
        parts.append(f"compression ratio not measured ({why})" if why else "compression ratio not measured")
    if level.mscc is not None:
        one_sided = level.mscc_reference in ("above", "below")
        against = f" against the cord {level.mscc_reference} alone" if one_sided else ""
        parts.append(f"MSCC {_number(level.mscc)}{against}")
    sentence = f"{level.level}: {'; '.join(parts)}."
    notes = [meaning(warning) for warning in _cautions_of(level)] if with_cautions else []
    return f"{sentence} Note: {'; '.join(notes)}." if notes else sentence


def impression(result: StudyResult) -> list[str]:
    """Return the impression: the levels by grade, the worst first, the lowest ratio, the ungraded levels.

    The first sentence says so if discs may be numbered one off.
    """
    graded = [level for level in result.levels if level.grade is not None]
    sentences = []
    if any("level_number_uncertain" in level.warnings for level in graded):
        sentences.append(f"{_capital(meaning('level_number_uncertain'))}.")
    if not graded:
        return [*sentences, "No level was graded."]
    for grade in sorted({level.grade for level in graded if level.grade is not None}, reverse=True):
        names = [level.level for level in graded if level.grade == grade]
        sentences.append(f"{_capital(KANG_MEANINGS[grade])} at {join_levels(names)} (Kang {grade}).")
    measured = [level for level in result.levels if level.cord is not None]
    if measured:
        lowest = min(measured, key=lambda level: level.cord.compression_ratio if level.cord else 0.0)
        ratio, _, z = _ratio_words(lowest).partition(", ")
        sentences.append(f"Lowest {ratio}{f' ({z})' if z else ''}, at {lowest.level}.")
    ungraded = [level.level for level in result.levels if level.grade is None]
    if ungraded:
        sentences.append(f"Not graded: {join_levels(ungraded)}.")
    return sentences


def cautions(result: StudyResult) -> list[str]:
    """Return the warnings that a reader has to know: a sentence each, with the levels they concern.

    Warnings that explain a missing grade or ratio are left out; `not_assessed` has them.
    """
    levels_by_warning: dict[str, list[str]] = {}
    for level in result.levels:
        for warning in _cautions_of(level):
            levels_by_warning.setdefault(warning, []).append(level.level)
    of_levels = [
        f"{_capital(meaning(warning))} ({join_levels(names)})."
        for warning, names in levels_by_warning.items()
        if warning not in result.warnings
    ]
    explaining = {warning for level in result.levels for warning in level.warnings} - {*levels_by_warning}
    of_study = [
        f"{_capital(meaning(warning))}."
        for warning in dict.fromkeys(result.warnings)
        if warning not in explaining
    ]
    return [*of_levels, *of_study]


def not_assessed(result: StudyResult) -> list[str]:
    """Return what was not assessed, a sentence each: levels, ratios, comparisons, and other findings."""
    by_name = {level.level: level for level in result.levels}
    ungraded = [
        (name, by_name[name].warnings if name in by_name else ())
        for name in LEVELS
        if name not in by_name or by_name[name].grade is None
    ]
    # `point` is None where the level was not found: a ratio is not to be expected there.
    unmeasured = [
        (level.level, level.warnings)
        for level in result.levels
        if level.cord is None and level.point is not None
    ]
    sentences = [*_missing("Grade", ungraded, NO_GRADE), *_missing("Compression ratio", unmeasured, NO_RATIO)]
    uncompared = [
        level.level for level in result.levels if level.cord is not None and _ratio_z(level) is None
    ]
    if uncompared:
        sentences.append(f"Compression ratio against healthy adults at {join_levels(uncompared)}.")
    return [*sentences, *_NEVER_ASSESSED]


def meaning(warning: str) -> str:
    """Return the words of a warning; its name in words if it has none."""
    return WARNING_MEANINGS.get(warning, warning.replace("_", " "))


def reasons(warnings: Iterable[str], explaining: Sequence[str]) -> str:
    """Return the words of those warnings that explain a missing value, separated by commas; "" if none do.

    Args:
        warnings: names of warnings.
        explaining: the warnings that count: NO_GRADE or NO_RATIO.
    """
    # "no axial T2 series: no compression ratio" gives the reason before its colon.
    return ", ".join(
        meaning(name).partition(":")[0] for name in dict.fromkeys(warnings) if name in explaining
    )


def join_levels(levels: Sequence[str]) -> str:
    """Return levels in words: "C3/4", "C3/4 and C6/7", "C2/3 to C5/6", or "C2/3 to C4/5 and C6/7".

    Args:
        levels: some of LEVELS, in their order. Three or more neighbours are joined by "to".
    """
    runs: list[list[str]] = []
    for level in levels:
        follows = bool(runs) and LEVELS.index(level) == LEVELS.index(runs[-1][-1]) + 1
        if follows:
            runs[-1].append(level)
        else:
            runs.append([level])
    words = [
        word for run in runs for word in ([f"{run[0]} to {run[-1]}"] if len(run) > _MAX_NAMED_RUN else run)
    ]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def probability_words(value: float) -> str:
    """Return a probability as "p 0.91". Values that would round to 1 or 0 are "p > 0.99" and "p < 0.01"."""
    if value > 0.995:
        return "p > 0.99"
    return "p < 0.01" if value < 0.005 else f"p {value:.2f}"


def _grade_words(level: LevelResult) -> str:
    if level.grade is None:
        why = reasons(level.warnings, NO_GRADE)
        return f"not graded ({why})" if why else "not graded"
    known = f"Kang {level.grade}"
    if level.probabilities is not None:
        known += f", {probability_words(level.probabilities[level.grade])}"
    return f"{KANG_MEANINGS[level.grade]} ({known})"


def _ratio_words(level: LevelResult) -> str:
    assert level.cord is not None
    z = _ratio_z(level)
    words = f"compression ratio {_number(level.cord.compression_ratio)}"
    return words if z is None else f"{words}, z {_number(z, 1)}"


def _ratio_z(level: LevelResult) -> float | None:
    return None if level.healthy is None else level.healthy.compression_ratio_z


def _number(value: float, digits: int = 2) -> str:
    """Return the rounded number with U+2212 as its minus sign; never "−0.0"."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def _cautions_of(level: LevelResult) -> list[str]:
    """Return the warnings of a level that do not explain a missing value."""
    explained = (
        *(NO_GRADE if level.grade is None else ()),
        *(NO_RATIO if level.cord is None and level.point is not None else ()),
    )
    return [warning for warning in dict.fromkeys(level.warnings) if warning not in explained]


def _missing(
    value: str, levels: Iterable[tuple[str, tuple[str, ...]]], explaining: Sequence[str]
) -> Iterator[str]:
    """Yield a sentence for each reason for which levels lack a value."""
    names_by_reason: dict[str, list[str]] = {}
    for name, warnings in levels:
        names_by_reason.setdefault(reasons(warnings, explaining), []).append(name)
    for why, names in names_by_reason.items():
        yield f"{value} at {join_levels(names)}{f' ({why})' if why else ''}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
