"""Words and numbers of tables, pages and comparisons of benchmark records."""

from __future__ import annotations

import math

from stenosis_trt.bench.record.record import Figure

_SECONDS = {"ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_DIGITS = 3
_GROUPED_FROM = 1000.0


def number_text(value: float) -> str:
    """Return a number with three significant digits: "0.0123", "4.56", "1,235"."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= _GROUPED_FROM - 0.5:
        return f"{value:,.0f}"
    text = f"{value:.{_DIGITS}g}"
    if "e" in text:
        return f"{value:.{_DIGITS - 1}e}" if abs(value) < 1e-4 and value else f"{value:.0f}"
    digits = len(text.lstrip("-0.").replace(".", ""))
    # "4.5" has lost a zero that was measured. Whole numbers stay whole.
    if value != int(value) and digits < _DIGITS:
        text += ("" if "." in text else ".") + "0" * (_DIGITS - digits)
    return text


def round_text(value: float) -> str:
    """Return a number that is exact, such as a tick or a target, without zeros at its end: "0.1", "2.2"."""
    return f"{value:,.0f}" if abs(value) >= _GROUPED_FROM else f"{value:.6g}"


def value_text(figure: Figure) -> str:
    """Return the value with its unit."""
    return f"{number_text(figure.value)} {figure.unit}".rstrip()


def interval_text(figure: Figure) -> str:
    """Return the 95 % interval, "4.10–4.90"; "" if there is none."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{number_text(figure.low)}–{number_text(figure.high)}"


def target_text(figure: Figure) -> str:
    """Return the target and whether it is met: "≤ 1.2, met"; "" without one."""
    if figure.target is None:
        return ""
    sign = "≤" if figure.better == "lower" else "≥"
    return f"{sign} {round_text(figure.target)}, {'met' if figure.target_met else 'missed'}"


def seconds_of(figure: Figure) -> float | None:
    """Return the time that a figure is, or the time of one item if it is a rate; None for anything else."""
    first, _, last = figure.unit.partition("/")
    if not last and first in _SECONDS:
        return figure.value * _SECONDS[first] if figure.value > 0 else None
    if last in _SECONDS:
        return _SECONDS[last] / figure.value if figure.value > 0 else None
    return None


def _is_speed(unit: str) -> bool:
    """Return True for a time, "ms" or "ms/file", and for a rate, "studies/s"."""
    first, _, last = unit.partition("/")
    return first in _SECONDS or last in _SECONDS


def change_words(before: Figure, after: Figure) -> str:
    """Return what happened to a figure in words, such as "1.42 times slower"; "equal" if nothing did."""
    old, new = before.value, after.value
    if old == new:
        return "equal"
    word = _direction(after, new > old)
    if old <= 0 or new <= 0:
        return f"{word} by {number_text(abs(new - old))} {after.unit}".rstrip()
    times = max(new / old, old / new)
    if times < 2.0:
        # Of the smaller value, so that both directions of one change read the same.
        percent = (times - 1) * 100
        return f"{percent:.0f} % {word}" if percent >= 10 else f"{percent:.1f} % {word}"
    return f"{number_text(times)} times {word}"


def _direction(figure: Figure, rose: bool) -> str:
    if figure.better == "neither":
        return "higher" if rose else "lower"
    improved = rose == (figure.better == "higher")
    if _is_speed(figure.unit):
        return "faster" if improved else "slower"
    return f"{'higher' if rose else 'lower'}, {'better' if improved else 'worse'}"
