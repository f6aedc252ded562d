"""The section made of fixed measurements: every figure can be computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_ceilings import BLOCK, CEILINGS
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.record.record import Absence, Section
from stenosis_trt.bench.roofline.floors import NetworkPrecision
from stenosis_trt.bench.roofline.matching import assign_nodes
from stenosis_trt.bench.roofline.networks import NetworkProfile
from stenosis_trt.bench.roofline.profiles import NodeTime
from stenosis_trt.bench.roofline.summary import MeasuredStudy, cpu_section
from stenosis_trt.engine.backends.cpu.candidates import Execution

BATCHES = {"levels": 100, "grader": 10, "cord": 50}
COMPUTE_MS = 1e6 / 100e9 * 1e3
"""Floor of the block for one input."""


def _profile(name: str, milliseconds: float) -> NetworkProfile:
    runs = tuple((NodeTime("a", "Conv", milliseconds), NodeTime("stranger", "MatMul", 0.5)) for _ in range(3))
    fields = (name, "ONNX Runtime fp32", NetworkPrecision("fp32"), Execution(2, 1, 4), BATCHES[name])
    return NetworkProfile(*fields, (BLOCK,), assign_nodes(runs, (BLOCK,)), runs)


def _section(folder: Path, *profiles: NetworkProfile, absent: tuple[Absence, ...] = ()) -> Section:
    stages = {
        "preprocessing": (9.0, 9.0, 9.0),
        "levels": (5.0, 5.0, 5.0),
        "grader": (2.0, 2.0, 2.0),
        "cord": (3.0, 3.0, 3.0),
        "decoding": (1.0, 1.0, 1.0),
        "rest": (2.0, 2.0, 2.0),
    }
    # Half of preprocessing is done while networks run.
    shares = {**stages, "preprocessing": (4.5, 4.5, 4.5)}
    study = MeasuredStudy(BATCHES, (19.0, 20.0, 21.0), (30.0, 30.0, 30.0), stages, shares)
    pack = write_tiny_pack(folder / "tiny")
    return cpu_section(pack, [study], {item.name: item for item in profiles}, CEILINGS, absent, 1.0)


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    profiles = (_profile("levels", 4.0), _profile("grader", 2.0), _profile("cord", 2.5))
    return _section(tmp_path_factory.mktemp("pack"), *profiles)


def test_a_stage_has_its_time_its_floor_and_their_ratio(section: Section) -> None:
    figures = {figure.name: figure for figure in section.figures}
    assert figures["roofline.levels.time"].value == 5.0
    assert figures["roofline.levels.floor"].value == pytest.approx(100 * COMPUTE_MS)
    assert figures["roofline.levels.floor"].source == "computed"
    assert figures["roofline.levels.ratio"].value == pytest.approx(5.0 / (100 * COMPUTE_MS))
    assert figures["roofline.rest.time"].value == 2.0
    assert "roofline.rest.ratio" not in figures
    assert figures["roofline.peak.fp32"].value == 100.0
    assert figures["roofline.bandwidth.memory.one_core"].value == 10.0


def test_the_floor_of_a_study_is_the_sum_of_its_stages(section: Section) -> None:
    figures = {figure.name: figure for figure in section.figures}
    stages = ("preprocessing", "levels", "grader", "cord", "decoding")
    floor = sum(figures[f"roofline.{stage}.floor"].value for stage in stages)
    assert figures["roofline.study.floor"].value == pytest.approx(floor)
    # 30 ms of processor time on two cores.
    assert figures["roofline.study.processor_ratio"].value == pytest.approx(15.0 / floor)
    ratio = figures["roofline.study.ratio"]
    assert ratio.value == pytest.approx(20.0 / floor)
    assert (ratio.target, ratio.target_met) == (1.3, False)
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low <= ratio.value <= ratio.high


def test_a_missed_target_names_the_places_that_miss_it(section: Section) -> None:
    note = next(note for note in section.notes if "not 1.3" in note)
    # Nine milliseconds of preprocessing are more than any block is above its floor.
    assert "above the floor: preprocessing" in note
    places = [item["place"] for item in section.details["above_floor_ms"]]
    assert places[0] == "preprocessing"
    assert {"levels block", "levels, outside of its nodes"} <= set(places)


def test_nodes_that_no_block_was_found_for_are_named(section: Section) -> None:
    assert any("Nodes of levels" in note and "stranger" in note for note in section.notes)
    assert section.details["networks"]["levels"]["unassigned_ms"] == {"stranger": 0.5}


def test_the_charts_hold_a_point_for_each_block_below_the_ceilings(section: Section) -> None:
    roofline = next(chart for chart in section.charts if chart.kind == "roofline")
    ceilings = [series.name for series in roofline.series if series.name.startswith("ceiling")]
    assert ceilings == ["ceiling FP32", "ceiling BF16", "ceiling INT8", "ceiling L2", "ceiling memory"]
    (levels,) = [series for series in roofline.series if series.name.startswith("levels")]
    # Two operations for each of 1e8 multiply-adds in 4 ms.
    assert levels.y == (pytest.approx(2e8 / 4e-3 / 1e9),)
    assert levels.labels == ("block",)
    waterfall = next(chart for chart in section.charts if chart.kind == "waterfall")
    drawn = dict(zip(waterfall.series[0].x, waterfall.series[0].y, strict=True))
    assert (drawn["preprocessing"], drawn["levels"], drawn["rest"]) == (4.5, 5.0, 2.0)


def test_without_the_profile_of_a_network_a_study_has_no_floor(tmp_path: Path) -> None:
    absent = Absence("roofline.cord", "The first study has no inputs of this network.")
    section = _section(tmp_path, _profile("levels", 4.0), _profile("grader", 2.0), absent=(absent,))
    names = {figure.name for figure in section.figures}
    assert "roofline.study.time" in names
    assert not {"roofline.study.floor", "roofline.study.ratio", "roofline.cord.floor"} & names
    assert absent in section.absences
