"""The page of a record: one file without requests, with everything that the record says."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bench_records import figure, full_record, record

from stenosis_trt.bench.record.axes import Axis, axis_over
from stenosis_trt.bench.record.charts import NARROW, WIDE, draw_chart
from stenosis_trt.bench.record.page import record_page, write_page
from stenosis_trt.bench.record.record import Absence, Chart, Section, Series

NASTY = "<script>alert('x')</script> & \"quoted\""


class _Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.styles = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.styles += name == "style"
            if name == "id":
                self.ids.append(value or "")
            elif name in ("aria-labelledby", "href"):
                self.references.append((value or "").removeprefix("#"))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page() -> str:
    return record_page(full_record())


def test_the_page_shows_every_figure_absence_and_note(page: str) -> None:
    words = _Page(page).words
    made = full_record()
    for one in made.figures().values():
        assert one.text in words
        assert one.name in words
        assert one.note in words
    for section in made.sections:
        for absence in section.absences:
            assert absence.reason in words
        for note in section.notes:
            assert note in words
        for chart in section.charts:
            assert chart.title in words
    for said in ("Targets: 3 of 5 met", "Busy machine.", "Sections that failed", made.command, "1.32.0"):
        assert said in words


def test_the_page_asks_no_host_and_runs_only_its_own_script(page: str) -> None:
    assert not re.search(r"https?://|url\(|@import|\bsrc=|<link", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;")
    for tag in ("style", "script"):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert inline is not None
        digest = base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy[1]
    # The policy forbids attributes of style.
    assert _Page(page).styles == 0


def test_ids_are_unique_and_every_reference_has_its_target(page: str) -> None:
    parsed = _Page(page)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert set(parsed.references) <= set(parsed.ids)
    assert parsed.tags.count("h1") == 1


def test_text_of_a_record_cannot_become_markup() -> None:
    section = Section(
        "load",
        NASTY,
        (figure("load.a", 1.0, text=NASTY, note=NASTY),),
        (Absence(NASTY, NASTY),),
        (NASTY,),
        tuple(
            Chart(
                kind, NASTY, NASTY, NASTY, (Series(NASTY, (1.0, 2.0), (0.5, 1.0), labels=(NASTY, NASTY)),) * 2
            )
            for kind in ("cdf", "lines", "roofline", "bars", "waterfall")
        ),
    )
    made = replace(record(), machine={"processor": NASTY}, command=NASTY, sections=(section,))
    parsed = _Page(record_page(made))
    assert parsed.tags.count("script") == 1
    assert NASTY in parsed.words


def test_a_section_of_many_figures_shows_its_targets_and_folds_the_others() -> None:
    figures = [figure(f"load.f{index}", 1.0, target=2.0 if index == 40 else None) for index in range(50)]
    page = record_page(record(*figures))
    shown, _, folded = page.partition("<summary>30 more figures</summary>")
    assert shown.count("<code>load.f") == 20
    assert folded.count("<code>load.f") == 30
    assert "<code>load.f40</code>" in shown


def test_an_empty_record_has_a_page(tmp_path: Path) -> None:
    empty = replace(record(), machine={}, product={}, studies={}, busy={}, versions={})
    write_page(tmp_path / "a.html", empty)
    assert "nothing" in (tmp_path / "a.html").read_text(encoding="utf-8")


ODD = (
    Series("one point", (1.0,), (2.0,)),
    Series("equal", (1.0, 1.0), (0.0, 0.0)),
    Series("huge", (1e-12, 1e15), (1e-9, 1e12)),
    Series("negative", (-5.0, 5.0), (-1.0, 1.0), (-2.0, 0.5), (0.0, 1.5)),
    Series("names", ("a", "b"), (1.0, 2.0)),
    Series(
        "many",
        tuple(float(index) for index in range(1, 3000)),
        tuple(index / 3000 for index in range(1, 3000)),
    ),
)


def _named(series: Series) -> bool:
    return any(isinstance(x, str) for x in series.x)


def _positive(series: Series) -> bool:
    return all(y > 0 for y in series.y) and (_named(series) or all(float(x) > 0 for x in series.x))


def _odd_charts() -> list[tuple[str, Series]]:
    """Series that each kind of chart may be given: curves have no names, logarithms only positive values."""
    return [
        *((kind, series) for kind in ("lines", "bars", "waterfall") for series in ODD[:-1]),
        *(("cdf", series) for series in ODD if not _named(series)),
        *(("roofline", series) for series in ODD if not _named(series) and _positive(series)),
        ("lines", ODD[-1]),
    ]


@pytest.mark.parametrize(("kind", "series"), _odd_charts(), ids=lambda item: getattr(item, "name", item))
def test_every_chart_stays_within_its_frame(kind: str, series: Series) -> None:
    named, positive = _named(series), _positive(series)
    for width in (WIDE, NARROW):
        for log in (False, True) if positive and kind in ("lines", "bars") else (False,):
            chart = Chart(kind, "t", "x", "y", (series,), log and not named, log)  # type: ignore[arg-type]
            drawn = draw_chart(chart, width, "id")
            assert "nan" not in drawn
            height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', drawn)[1])  # type: ignore[index]
            limits = {
                "x": width,
                "x1": width,
                "x2": width,
                "cx": width,
                "y": height,
                "y1": height,
                "cy": height,
            }
            for name, value in re.findall(r' (x|x1|x2|cx|y|y1|cy)="(-?[\d.]+)"', drawn):
                assert -2 <= float(value) <= limits[name] + 2, name


def test_positions_grow_with_values_and_logarithms() -> None:
    assert Axis(0.0, 10.0, 100.0, 200.0).position(2.5) == 125.0
    assert Axis(1.0, 100.0, 0.0, 100.0, log=True).position(10.0) == pytest.approx(50.0)
    assert Axis(0.0, 10.0, 200.0, 100.0).position(99.0) == 100.0


@pytest.mark.parametrize("log", [False, True])
def test_ticks_are_few_and_round_and_within_the_axis(log: bool) -> None:
    for low, high in ((0.003, 0.0091), (1.0, 2.0), (3.0, 1700.0), (0.1, 1e6), (1e-9, 1e9)):
        axis = axis_over((low, high), 0.0, 500.0, log)
        ticks = axis.ticks(6)
        assert 1 <= len(ticks) <= 16
        assert all(axis.low <= tick <= axis.high for tick in ticks)
        assert all(
            len(f"{tick:.6g}".strip("0.").replace(".", "").split("e")[0].strip("0")) <= 3 for tick in ticks
        )
