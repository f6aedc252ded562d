"""Text of a picture beside its images: the numbers of a level, the table of all levels, notes, the legend."""

from __future__ import annotations

from stenosis_trt.engine.records import LevelResult
from stenosis_trt.engine.reports.pictures.drawing import DIM, LIGHT, Canvas, text_width, wrapped
from stenosis_trt.engine.reports.pictures.grade_colours import GRADE_STYLES, GREYS, INK_LEVELS
from stenosis_trt.engine.reports.text.wording import NO_GRADE, NO_RATIO, probability_words, reasons

MARGIN = 14
"""Distance of everything from the edge of a picture, in pixels."""


def numbers(area: Canvas, level: LevelResult) -> float:
    """Write what was found at a level: grade, probabilities as bars, ratio; return where the text ends."""
    area.text(0, 13, level.level, 24)
    area.chip((area.width - 18, 17), level.grade, 13)
    y = 44.0
    if level.grade is None:
        for line in wrapped(
            f"Not graded: {reasons(level.warnings, NO_GRADE) or 'no reason given'}", 15, area.width
        ):
            area.text(0, y, line, 15)
            y += 20
    else:
        area.text(0, y, f"Kang {level.grade}, {GRADE_STYLES[level.grade].name}", 15)
        y += 24
    if level.probabilities:
        area.text(0, y, "Probability", 14, LIGHT)
        y += 22
    for grade, probability in enumerate(level.probabilities or ()):
        _bar(area, round(y), grade, probability)
        y += 22
    y += 10
    cord = level.cord
    if cord is not None:
        area.text(0, y, "Compression ratio", 14, LIGHT)
        area.text(0, y + 25, f"{cord.compression_ratio:.2f}", 26)
        area.text(0, y + 52, "AP / transverse", 14, LIGHT)
        area.text(0, y + 71, f"{cord.ap_mm:.1f} / {cord.transverse_mm:.1f} mm", 16)
        y += 100
    return y


def _bar(area: Canvas, y: int, grade: int, probability: float) -> None:
    area.chip((12, y), grade, 8)
    length = area.width - 84
    area.box(28, y - 5, length, 10, DIM // 2)
    ink = GREYS + (grade + 1) * INK_LEVELS - 1
    area.box(28, y - 5, round(length * probability), 10, ink)
    area.text(34 + length, y, probability_words(probability)[2:], 14)


def table(area: Canvas, levels: tuple[LevelResult, ...]) -> None:
    columns = (0, 74, 160, 290, 380, 452)
    heads = ("Level", "Kang", "Probability", "Ratio", "AP mm", "Transv. mm")
    for x, head in zip(columns, heads, strict=True):
        area.text(x, 12, head, 14, LIGHT)
    for row, level in enumerate(levels):
        area.box(0, 28 * (row + 1) - 2, area.width, 1, DIM // 2)
        y = 28 * (row + 1) + 12
        area.text(columns[0], y, level.level, 15)
        area.chip((columns[1] + 16, y), level.grade, 9)
        if level.grade is None:
            why = reasons(level.warnings, NO_GRADE) or "no reason given"
            _reason(area, columns[2] - 46, y, why, (area.width if level.cord is None else columns[3]) - 12)
            if level.cord is None:
                continue
        elif level.probabilities is not None:
            area.text(columns[2], y, probability_words(level.probabilities[level.grade])[2:], 15)
        if level.cord is None:
            _reason(area, columns[3], y, reasons(level.warnings, NO_RATIO) or "not measured", area.width)
            continue
        values = (level.cord.compression_ratio, 2), (level.cord.ap_mm, 1), (level.cord.transverse_mm, 1)
        for x, (value, digits) in zip(columns[3:], values, strict=True):
            area.text(x, y, f"{value:.{digits}f}", 15)


def _reason(area: Canvas, x: int, y: int, text: str, right: int) -> None:
    """Write why a value is missing into a row of the table, on two lines where one is not enough."""
    if text_width(text, 14) <= right - x:
        area.text(x, y, text, 14, LIGHT)
        return
    lines = wrapped(text, 12, right - x)
    if len(lines) > 2:
        lines[1:] = [f"{lines[1]} ..."]
    for line, below in zip(lines, (-6, 7), strict=False):
        area.text(x, y + below, line, 12, LIGHT)


def notes(area: Canvas, sentences: list[str]) -> None:
    lines = [line for sentence in sentences for line in wrapped(sentence, 13, area.width)]
    room = area.height // 18
    if len(lines) > room:
        lines = [*lines[: room - 1], "Further notes are in the report."]
    for k, line in enumerate(lines):
        area.text(0, 10 + 18 * k, line, 13, LIGHT)


def legend(area: Canvas) -> None:
    x, y = MARGIN + 9, area.height // 2
    for style in GRADE_STYLES:
        area.chip((x, y), style.grade, 9)
        x += 18 + area.text(x + 14, y, style.name, 14) + 22
    area.chip((x, y), None, 9)
    area.text(x + 14, y, "not graded", 14)
    area.text(
        area.width - MARGIN,
        y,
        "Kang grade on sagittal T2; diameters of the cord on axial T2",
        13,
        LIGHT,
        "right",
    )
