"""Tables of the figures: CSV, JSON, and Markdown for the model card."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from stenosis_trt.bench.robustness.declared import DeclaredRange
from stenosis_trt.bench.robustness.figures import Figures
from stenosis_trt.bench.robustness.plan import ORDINARY_NAME

_DIGITS = 4


def csv_text(figures: Sequence[Figures]) -> str:
    """One row a condition, strength and source; counts of warnings as `name:count`, with semicolons."""
    stream = io.StringIO()
    table = csv.DictWriter(stream, [item.name for item in fields(Figures)], lineterminator="\n")
    table.writeheader()
    for item in figures:
        row = {name: _cell(value) for name, value in asdict(item).items()}
        row["warnings"] = ";".join(f"{name}:{count}" for name, count in item.warnings.items())
        table.writerow(row)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    return "" if value is None else value


def json_text(
    figures: Sequence[Figures], declared: Sequence[DeclaredRange], setting: Mapping[str, Any]
) -> str:
    """The setting, the declared range of each condition by name, and the figures."""
    content = {
        "setting": setting,
        "declared": {item.condition: asdict(item) for item in declared},
        "figures": [asdict(item) for item in figures],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def markdown_text(figures: Sequence[Figures], declared: Sequence[DeclaredRange]) -> str:
    """Two tables: the declared ranges, and the figures of all sources together."""
    lines = [
        "| condition | tested | declared | silent changes, most | graded, least |",
        "|---|---|---|---|---|",
    ]
    for found in declared:
        tested = _span(found.tested_low, found.tested_high, found.unit)
        inside = "none" if found.low == found.high else _span(found.low, found.high, found.unit)
        if found.refused and inside != "none":
            inside += ", operated levels refused"
        shares = percent(found.most_silent_changes), percent(found.least_graded)
        lines.append(f"| {words(found.condition)} | {tested} | {inside} | {' | '.join(shares)} |")
    units = {item.condition: item.unit for item in declared}
    lines += [
        "",
        "| condition | strength | levels | graded | accuracy | kappa | ratio error | ratio bias | not found "
        "| refused | flagged | silent changes | misnumbered, flagged + not | operated, graded |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for item in figures:
        if item.source == "all":
            cells = _cells(item, units.get(item.condition, ""))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(item: Figures, unit: str) -> list[str]:
    plain = item.condition == ORDINARY_NAME
    return [
        words(item.condition),
        "" if plain else f"{item.strength:g}{_unit(unit)}",
        str(item.levels),
        percent(item.graded / item.levels if item.levels else None),
        percent(item.accuracy),
        _number(item.kappa, "{:.3f}"),
        _number(item.ratio_mean_absolute_error, "{:.3f}"),
        _number(item.ratio_bias, "{:+.3f}"),
        percent(item.not_found),
        percent(item.refused),
        percent(item.flagged),
        "–" if plain else percent(item.silent_changes),
        f"{item.misnumbered_flagged} + {item.misnumbered_unflagged}",
        f"{item.operated}, {item.operated_graded}" if item.operated else "–",
    ]


def words(name: str) -> str:
    """Name of a condition in words."""
    return "field of view" if name == "field_mm" else name.replace("_", " ")


def percent(value: float | None) -> str:
    """A share in percent; a dash where it is not known."""
    return _number(None if value is None else 100.0 * value, "{:.1f} %")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _unit(unit: str) -> str:
    if unit == "°":
        return unit
    return f" {unit}" if unit else ""


def _span(low: float, high: float, unit: str) -> str:
    return f"{low:g} to {high:g}{_unit(unit)}"
