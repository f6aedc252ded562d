"""The section `load`, with the product and LoadGen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from shared_phantoms import small_phantoms
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.load import section as load
from stenosis_trt.bench.load.idle import IdlePlan
from stenosis_trt.bench.load.library import Library
from stenosis_trt.bench.load.section import LoadOptions, measure
from stenosis_trt.bench.record.record import Section
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.bench.systems.studies import studies_in
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.packs.pack import Pack, reference_pack

_OPTIONS = LoadOptions(min_seconds=0.2, server_bound_seconds=60.0, idle=IdlePlan(((0.05, 2),)))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> BenchContext:
    studies = studies_in(small_phantoms(2, 71, 4)).folders
    pack = Pack.load(reference_pack())
    return BenchContext(pack, "cpu", "fp32", None, studies, tmp_path_factory.mktemp("work"), 60.0, print)


@pytest.fixture(scope="module")
def product(context: BenchContext) -> Iterator[Product]:
    with Product(context) as opened:
        yield opened


@pytest.fixture(scope="module")
def short(context: BenchContext) -> Section:
    """The section with so few queries that LoadGen cannot accept them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("P90_QUERIES", "P99_QUERIES", "SERVER_QUERIES"):
            patch.setattr(load, name, 3)
        one = replace(context, studies=context.studies[:1], seconds=600.0)
        return measure(one, _OPTIONS)


def test_every_scenario_is_measured_in_its_cuts(short: Section) -> None:
    assert short.name == "load"
    names = {figure.name for figure in short.figures}
    assert {
        "load.single_stream.image.p90",
        "load.single_stream.models.p90",
        "load.single_stream.device.p90",
        "load.single_stream.whole.p90",
        "load.offline.whole.throughput",
        "load.offline.device.throughput",
        "load.server.whole.p99",
        "load.multi_stream.models.p99",
        "load.multi_stream.device.p99",
        "load.idle.gap_0s",
        "load.idle.gap_0.05s",
        "load.idle.gap_0.05s.ratio",
    } <= names
    assert short.absences == ()
    assert [chart.kind for chart in short.charts] == ["cdf", "bars"]
    value = {figure.name: figure.value for figure in short.figures}
    assert value["load.single_stream.image.p50"] < value["load.single_stream.whole.p50"]


def test_the_record_has_what_repeats_each_run_and_loadgens_verdict(short: Section) -> None:
    run = short.details["single_stream.whole"]
    assert run["settings"]["min_queries"] == 3
    assert run["verdict"] == "INVALID"
    assert run["rules"]["Early stopping satisfied"] is False
    assert any("Result is : INVALID" in line for line in run["loadgen_summary"])
    assert len(run["latencies_ms"]) >= 3
    assert short.details["library"]["studies"] == 1
    assert short.valid is False
    assert any("single_stream.whole INVALID" in note for note in short.notes)
    assert any("0.2 s here; MLPerf's rules for a submission ask for 600 s" in note for note in short.notes)


def test_what_does_not_fit_into_the_time_is_absent_with_the_reason(context: BenchContext) -> None:
    section = measure(replace(context, studies=context.studies[:1], seconds=0.0), _OPTIONS)
    assert section.figures == ()
    assert section.valid is None
    absent = {absence.name: absence.reason for absence in section.absences}
    assert {"load.single_stream.whole", "load.idle"} <= set(absent)
    assert all("of the section's time are left." in reason for reason in absent.values())


def test_a_study_that_cannot_be_graded_is_absent_and_none_that_can_an_error(
    context: BenchContext, product: Product, tmp_path: Path
) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no image")
    library = Library(product, (tmp_path / "text", context.studies[0]))
    assert len(library.samples) == 1
    assert [absence.name for absence in library.absences] == ["load.study_1"]
    assert "no DICOM images" in library.absences[0].reason
    with pytest.raises(InputError, match=r"None of the 1 studies .*no DICOM images"):
        Library(product, (tmp_path / "text",))


def test_a_pack_that_finds_no_spine_is_an_error(context: BenchContext, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="None of the 2 studies can be graded: No cervical spine"):
        measure(replace(context, pack=write_tiny_pack(tmp_path / "tiny")))


def test_an_archive_grades_a_study_as_often_as_it_is_asked_for(
    context: BenchContext, product: Product
) -> None:
    library = Library(product, context.studies)
    done = [position for positions in library.archive([1, 0, 1]) for position in positions]
    assert sorted(done) == [0, 1, 2]


@pytest.mark.timing
def test_loadgen_accepts_the_runs_of_the_section(context: BenchContext) -> None:
    section = measure(replace(context, seconds=300.0), replace(_OPTIONS, min_seconds=5.0))
    assert section.valid, section.notes
    assert len(section.figures) >= 6
