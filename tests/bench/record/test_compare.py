"""What counts as moved between two records, and what does not."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from bench_records import figure, full_record, quiet, record

from stenosis_trt.bench.record.compare import compare_records
from stenosis_trt.bench.record.record import Absence, BenchRecord, Section
from stenosis_trt.bench.record.table import summary_lines
from stenosis_trt.bench.record.wording import change_words, number_text


def _verdicts(before: BenchRecord, after: BenchRecord, **options: Any) -> dict[str, str]:
    changes = compare_records(before, after, **options).changes
    return {change.after.name: change.verdict for change in changes}


def test_a_record_has_not_moved_against_itself() -> None:
    found = compare_records(full_record(), full_record())
    assert {change.verdict for change in found.changes} == {"same", "not judged"}
    assert found.differences == found.only_before == found.only_after == ()
    assert next(summary_lines(found)) == "Nothing moved beyond the noise, of 10 figures."


@pytest.mark.parametrize(
    ("unit", "better", "factor", "verdict"),
    [
        ("ms", "lower", 1.3, "worse"),
        ("ms", "lower", 0.7, "better"),
        ("studies/s", "higher", 1.3, "better"),
        ("studies/s", "higher", 0.7, "worse"),
        ("MB", "neither", 1.3, "changed"),
    ],
)
def test_a_figure_moves_in_the_direction_that_it_says_is_better(
    unit: str, better: str, factor: float, verdict: str
) -> None:
    old = figure("load.a", 10.0, unit, better=better)
    new = figure("load.a", 10.0 * factor, unit, better=better)
    assert _verdicts(record(old), record(new)) == {"load.a": verdict}


def test_overlapping_intervals_and_small_changes_do_not_count() -> None:
    old = record(figure("load.a", 10.0, spread=0.2), figure("load.b", 10.0, spread=0.001))
    new = record(figure("load.a", 13.0, spread=0.2), figure("load.b", 10.3, spread=0.001))
    assert _verdicts(old, new) == {"load.a": "same", "load.b": "same"}
    assert _verdicts(old, new, minimum_effect=0.01) == {"load.a": "same", "load.b": "worse"}


def test_the_half_of_an_interval_that_faces_the_other_value_decides() -> None:
    """A latency whose interval reaches far up, and not down, is told from a lower one."""
    old = replace(figure("load.a", 10.0), low=9.9, high=10.1)
    new = replace(figure("load.a", 11.0), low=10.7, high=30.0)
    assert _verdicts(record(old), record(new)) == {"load.a": "worse"}
    assert _verdicts(record(new), record(old)) == {"load.a": "better"}


def test_what_other_processes_explain_does_not_count() -> None:
    old, new = record(figure("load.a", 1000.0)), record(figure("load.a", 1600.0), busy=quiet(0.5))
    assert _verdicts(old, new) == {"load.a": "contention"}
    assert _verdicts(new, old) == {"load.a": "contention"}
    assert _verdicts(old, replace(new, busy=quiet(0.3))) == {"load.a": "worse"}
    said = " ".join(summary_lines(compare_records(old, new)))
    assert "Nothing moved beyond the noise" in said
    assert "Repeat the runs on a quiet machine" in said


def _waiting(waited: float, turn_ms: float, disturbed: bool = True) -> dict[str, Any]:
    load = {"others_share_high": 0.9, "waited_high": waited, "turn_ms": turn_ms, "disturbed": disturbed}
    return {"during": {"load": load}}


def test_measured_waiting_explains_more_of_a_short_latency() -> None:
    """A study of 200 ms that waits as long as it runs takes 400 ms; one of 2 ms may meet slices of 20 ms."""
    old = record(figure("load.long", 200.0), figure("load.short", 2.0), figure("load.rate", 5.0, "studies/s"))
    new = record(
        figure("load.long", 500.0), figure("load.short", 20.0), figure("load.rate", 2.0, "studies/s")
    )
    busy = replace(new, busy=_waiting(1.0, 1.0))
    assert _verdicts(old, busy) == {"load.long": "worse", "load.short": "contention", "load.rate": "worse"}
    assert set(_verdicts(old, replace(new, busy=_waiting(2.0, 1.0))).values()) == {"contention"}
    # Threads of the run itself wait for each other, also on a quiet machine.
    assert set(_verdicts(old, replace(new, busy=_waiting(2.0, 1.0, False))).values()) == {"worse"}


def test_figures_without_an_interval_or_in_another_unit_are_not_judged() -> None:
    old = record(figure("load.a", 10.0, spread=0.0), figure("load.b", 10.0, "ms"))
    new = record(figure("load.a", 30.0, spread=0.0), figure("load.b", 0.01, "s"))
    assert set(_verdicts(old, new).values()) == {"not judged"}


def test_a_computed_figure_has_no_noise() -> None:
    old = record(figure("roofline.a", 10.0, spread=0.0, source="computed"))
    new = record(figure("roofline.a", 12.0, spread=0.0, source="computed"), busy=quiet(0.9))
    assert _verdicts(old, new) == {"roofline.a": "worse"}


def test_a_value_that_was_or_becomes_zero_moves() -> None:
    old, new = figure("load.a", 0.0), replace(figure("load.a", 2.0), low=1.5, high=2.5)
    for one, other, verdict in ((old, new, "worse"), (new, old, "better")):
        assert _verdicts(record(one), record(other)) == {"load.a": verdict}
    assert change_words(old, new) == "slower by 2 ms"


def test_a_hundred_figures_of_one_build_are_seldom_flagged() -> None:
    """Of 200 pairs of runs with 100 figures each, 5 % may have one; without a correction most would.

    The noise is as large as the smallest effect that counts, so that only the statistics hold it back.
    """
    draw = np.random.default_rng(11)
    error = 0.05

    def run() -> BenchRecord:
        values = 100 * (1 + error * draw.standard_normal(100))
        half = 1.96 * error * 100
        return record(
            *(
                replace(figure(f"load.{index}", value), low=value - half, high=value + half)
                for index, value in enumerate(values)
            )
        )

    flagged = sum(
        any(change.verdict in ("worse", "better") for change in compare_records(run(), run()).changes)
        for _ in range(60)
    )
    assert flagged <= 8


def test_machine_versions_product_and_settings_that_differ_are_named() -> None:
    old = record(figure("load.a", 1.0))
    new = replace(
        old,
        machine={**old.machine, "cores": 4},
        versions={"stenosis-trt": "0.2.0", "openvino": "2026.4"},
        product={**old.product, "precision": "int8"},
        settings={"quick": True},
        sections=tuple(replace(section, valid=False) for section in old.sections),
    )
    found = compare_records(old, new)
    assert found.other_machine
    assert {(item.group, item.name, item.before, item.after) for item in found.differences} == {
        ("machine", "cores", "2", "4"),
        ("versions", "stenosis-trt", "0.1.0", "0.2.0"),
        ("versions", "onnxruntime", "1.32.0", "absent"),
        ("versions", "openvino", "absent", "2026.4"),
        ("product", "precision", "fp32", "int8"),
        ("settings", "quick", "absent", "yes"),
        ("valid", "load", "none", "no"),
    }
    same = replace(old, machine={**old.machine, "clocks_mhz": 2000, "system": "Linux 7"})
    assert not compare_records(old, same).other_machine
    assert [item.name for item in compare_records(old, same).differences] == ["system"]


def test_figures_of_one_record_are_listed_with_the_reason_that_the_other_gives() -> None:
    load = Section("load", "Load", (), (Absence("load.server", "There was no time left."),))
    old = record(figure("load.server.p99", 1.0), figure("load.a", 1.0), figure("peers.a", 1.0))
    new = replace(old, sections=(load,), failures=(Absence("peers", "It failed."),))
    found = compare_records(old, new)
    assert found.only_before == (
        ("load.server.p99", "There was no time left."),
        ("load.a", ""),
        ("peers.a", "It failed."),
    )
    assert [name for name, _ in compare_records(new, old).only_after] == [
        name for name, _ in found.only_before
    ]


@pytest.mark.parametrize(
    ("old", "new", "unit", "better", "words"),
    [
        (10.0, 14.2, "ms", "lower", "42 % slower"),
        (14.2, 10.0, "ms", "lower", "42 % faster"),
        (10.0, 25.0, "studies/s", "higher", "2.50 times faster"),
        (25.0, 10.0, "studies/s", "higher", "2.50 times slower"),
        (100.0, 150.0, "MB", "lower", "50 % higher, worse"),
        (2.0, 2.5, "", "higher", "25 % higher, better"),
        (2.0, 1.0, "levels", "neither", "2 times lower"),
        (2.0, 2.0, "ms", "lower", "equal"),
    ],
)
def test_a_change_is_said_in_the_words_of_its_unit(
    old: float, new: float, unit: str, better: str, words: str
) -> None:
    one, other = (figure("load.a", value, unit, better=better) for value in (old, new))
    assert change_words(one, other) == words


def test_numbers_have_three_significant_digits() -> None:
    shown = {
        0.0: "0",
        0.01234: "0.0123",
        4.5: "4.50",
        99.96: "100",
        999.4: "999",
        1234.5: "1,234",
        -3.2: "-3.20",
    }
    assert {value: number_text(value) for value in shown} == shown
    for digits, power in product((1.0, 2.345, 9.996), range(-9, 12)):
        value = digits * 10.0**power
        assert float(number_text(value).replace(",", "")) == pytest.approx(value, rel=0.006)
