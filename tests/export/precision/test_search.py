"""Mixed-precision search: halving, ranking, resuming from the log, and the time limit."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from shared_phantoms import phantoms
from typer.testing import CliRunner

from stenosis_trt.bench.roofline.layer_work import fold_fp16_weights
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.cli.app import app
from stenosis_trt.engine.cli.quantise import int8_advice, search_lines
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.export.onnx.graphs import activation_percentiles, quantised_share, set_activation_scales
from stenosis_trt.export.precision.blocks import quantised_blocks
from stenosis_trt.export.precision.calibration import CalibrationSet
from stenosis_trt.export.precision.candidates import single_model_candidates, write_candidate
from stenosis_trt.export.precision.convert import ConvertedModel, Int8Options, to_int8
from stenosis_trt.export.precision.evaluation import BlockId, OutOfTime, SearchTask
from stenosis_trt.export.precision.gate import Gate
from stenosis_trt.export.precision.gate_result import GateLimits
from stenosis_trt.export.precision.quantise import QuantiseOptions, search_failed_int8
from stenosis_trt.export.precision.search import (
    SearchOptions,
    SearchResult,
    grow_passing,
    largest_passing,
    search_mixed_precision,
)
from stenosis_trt.export.precision.search_log import SEARCH_LOG_FILE, SearchLog
from stenosis_trt.export.precision.studies import StudyCollection, loaded_studies
from stenosis_trt.export.precision.writing import QuantisationResult, write_variants

FEW = GateLimits(minimum_levels=6, minimum_patients=1, maximum_level_shift_mm=2.0)
ITEMS: list[BlockId] = [("m", str(k)) for k in range(16)]


class _Oracle:
    """Passes what holds none of some items, or whatever it is told; counts what it is asked."""

    def __init__(self, bad: set[str], tries: int = 1000) -> None:
        self.bad, self.tries = bad, tries
        self.asked: list[frozenset[BlockId]] = []

    def __call__(self, some: frozenset[BlockId]) -> bool:
        if len(self.asked) >= self.tries:
            raise OutOfTime
        self.asked.append(some)
        return not {name for _, name in some} & self.bad


def _size(some: frozenset[BlockId]) -> float:
    return float(len(some))


@pytest.mark.parametrize("bad", [{"15"}, {"0"}, {"3", "9"}, {"5", "6", "7"}])
def test_everything_but_the_culprits_is_taken(bad: set[str]) -> None:
    best, in_time = largest_passing(ITEMS, _Oracle(bad), _size)
    assert {name for _, name in best} == {name for _, name in ITEMS} - bad
    assert in_time


def test_halving_asks_little_where_one_block_is_to_blame() -> None:
    oracle = _Oracle({"15"})
    *_, (best, settled) = grow_passing(frozenset(), ITEMS, oracle)
    assert len(best) == 15
    assert settled == 16
    assert len(oracle.asked) <= 8


def test_where_the_gate_is_not_monotone_leaving_the_worst_out_is_tried_as_well() -> None:
    """Small sets fail here, as where a level jumps on a change that another takes back."""

    def passes(some: frozenset[BlockId]) -> bool:
        return len(some) == 1 or len(some) == 13

    best, _ = largest_passing(ITEMS, passes, _size)
    assert best == frozenset(ITEMS[:13])


def test_when_the_time_is_over_the_best_so_far_is_taken() -> None:
    best, in_time = largest_passing(ITEMS, _Oracle({"15"}, tries=3), _size)
    assert best == frozenset(ITEMS[:12])
    assert not in_time
    assert largest_passing(ITEMS, _Oracle({"0"}, tries=1), _size) == (frozenset(), False)


def test_where_nothing_passes_nothing_is_taken() -> None:
    everything = {name for _, name in ITEMS}
    assert largest_passing(ITEMS, _Oracle(everything), _size) == (frozenset(), True)
    assert largest_passing(ITEMS[:1], _Oracle(everything), _size) == (frozenset(), True)


def _saturated(pack: Pack, converted: ConvertedModel, inputs: Float32Array, block: str) -> ConvertedModel:
    """A calibration gone wrong in one block: its activations are cut off at a hundredth of their range."""
    model = onnx.load_model_from_string(converted.data)
    blocks = {item.name: set(item.nodes) for item in quantised_blocks(model)}
    takers = [node for node in model.graph.node if node.output[0] in blocks[block]]
    makers = {node.output[0]: node for node in model.graph.node}
    wanted = {
        makers[makers[name].input[0]].input[0]
        for node in takers
        for name in node.input
        if name in makers and makers[name].op_type == "DequantizeLinear" and makers[name].input[0] in makers
    }
    plain = fold_fp16_weights(onnx.load_model_from_string(pack.read_model("cord")))
    largest = activation_percentiles(plain, model, inputs, 100.0)
    set_activation_scales(model, {name: largest[name] / 100 for name in wanted})
    return replace(converted, data=bytes(model.SerializeToString()))


@pytest.fixture(scope="module")
def patients() -> StudyCollection:
    """Of one patient alone there is no kappa that the gate would take."""
    return StudyCollection(phantoms(2, 4712), "two phantoms")


@pytest.fixture(scope="module")
def seen(patients: StudyCollection) -> list[LoadedStudy]:
    return list(loaded_studies(patients, "Reading"))


@pytest.fixture(scope="module")
def sound(pack: Pack, inputs: dict[str, Float32Array]) -> ConvertedModel:
    return to_int8(pack.read_model("cord"), inputs["cord"], Int8Options("max", high_precision_dtype="fp32"))


@pytest.fixture(scope="module")
def broken(pack: Pack, inputs: dict[str, Float32Array], sound: ConvertedModel) -> ConvertedModel:
    return _saturated(pack, sound, inputs["cord"], "smooth.1")


@pytest.fixture(scope="module")
def task(
    pack: Pack,
    inputs: dict[str, Float32Array],
    seen: list[LoadedStudy],
    broken: ConvertedModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> SearchTask:
    """INT8 of which the cord is to blame; the other models are FP32, which does not matter here."""
    folder = tmp_path_factory.mktemp("task")
    whole = {"quantised_share": 1.0}
    models = {
        name: broken if name == "cord" else ConvertedModel(pack.read_model(name), whole)
        for name in pack.models
    }
    candidate = write_candidate(pack, folder, "int8", {name: model.data for name, model in models.items()})
    gate = Gate(pack, lambda _: seen, "two phantoms", FEW)
    failed = gate.measure({"int8": candidate})["int8"]
    by_model = gate.measure(single_model_candidates(pack, candidate, "int8"))
    return SearchTask("int8", pack, models, failed, by_model, CalibrationSet(inputs, "two phantoms", "key"))


def _search(
    task: SearchTask, patients: StudyCollection, log_folder: Path, minutes: float = 10.0
) -> SearchResult:
    return search_mixed_precision(task, patients, patients, FEW, SearchOptions(log_folder, minutes))


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search_log")


@pytest.fixture(scope="module")
def result(task: SearchTask, patients: StudyCollection, log_folder: Path) -> SearchResult:
    return _search(task, patients, log_folder)


@pytest.mark.slow
def test_the_search_leaves_out_the_block_that_is_to_blame(task: SearchTask, result: SearchResult) -> None:
    assert [name for name, outcome in task.by_model.items() if not outcome.passed] == ["cord"]
    assert result.record["found"] is True
    assert result.record["in_time"] is True
    assert "smooth.1" in result.record["left_out"]["cord"]
    assert set(result.record["left_out"]) == {"cord"}
    assert result.outcome is not None
    assert result.outcome.passed


@pytest.mark.slow
def test_what_is_found_has_its_share_and_stays_int8_elsewhere(task: SearchTask, result: SearchResult) -> None:
    assert result.models is not None
    cord = result.models["cord"]
    share = quantised_share(onnx.load_model_from_string(cord.data))
    assert cord.metrics["quantised_share"] == result.record["quantised_share"]["cord"] == share
    assert 0.5 < share < task.models["cord"].metrics["quantised_share"]
    assert cord.metrics["blocks_left_out"] == len(result.record["left_out"]["cord"])
    assert result.models["levels"] is task.models["levels"]


@pytest.mark.slow
def test_the_log_holds_blocks_trials_and_result(
    task: SearchTask, result: SearchResult, log_folder: Path
) -> None:
    content = json.loads((log_folder / SEARCH_LOG_FILE).read_text())
    assert set(content["sensitivity"]) == {"cord"}
    blocks = content["sensitivity"]["cord"]
    assert sum(block["share"] for block in blocks) == pytest.approx(1.0)
    worst = max(blocks, key=lambda block: float(block["relative_rms"]))
    assert worst["block"] == "smooth.1"
    assert worst["nodes"]
    whole, *alone = content["trials"][:4]
    assert whole["unquantised"] == {name: [] for name in task.models}
    assert [trial["passed"] for trial in alone] == [task.by_model[name].passed for name in task.by_model]
    assert all(set(trial["failed"]) for trial in content["trials"] if not trial["passed"])
    assert content["result"] == result.record
    assert result.record["candidates_on_validation"] == len(content["trials"])
    assert (log_folder / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_killed_search_resumes(
    task: SearchTask, patients: StudyCollection, result: SearchResult, log_folder: Path, tmp_path: Path
) -> None:
    content = json.loads((log_folder / SEARCH_LOG_FILE).read_text())
    kept = {**content, "trials": content["trials"][:-1], "result": None}
    (tmp_path / SEARCH_LOG_FILE).write_text(json.dumps(kept))
    again = _search(task, patients, tmp_path)
    assert again.record == result.record
    trials = json.loads((tmp_path / SEARCH_LOG_FILE).read_text())["trials"]
    assert trials[: len(kept["trials"])] == kept["trials"]
    assert len(trials) == len(content["trials"])


@pytest.mark.slow
def test_a_pack_is_written_with_what_the_search_found(
    task: SearchTask, patients: StudyCollection, result: SearchResult, log_folder: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "search_log"
    shutil.copytree(log_folder, kept)
    options = QuantiseOptions(("int8",), limits=FEW, search=SearchOptions(kept))
    failed = QuantisationResult(task.pack, {"int8": task.failed}, {"int8": task.by_model})
    made = {"int8": dict(task.models)}
    found, models = search_failed_int8(failed, made, task.calibration, (patients, patients), options)
    assert found.outcomes["int8"].passed
    assert not found.by_model
    pack = write_variants(tmp_path / "pack", found, models, {"search": found.search})
    assert "int8" in pack.precisions
    manifest = json.loads((pack.path / "pack.json").read_text())
    assert manifest["quantised"]["search"] == result.record
    share = result.record["quantised_share"]["cord"]
    assert pack.models["cord"].variants["int8"].metrics["quantised_share"] == share
    first, *lines = search_lines(found.search, kept)
    assert "candidates were compared with FP32 on the validation studies" in first
    assert result.record["elsewhere"] == {"on": "two phantoms", "levels": 12, "failed": {}}
    assert any("which the search did not use, nothing fails" in line for line in lines)
    assert any(f"cord: {share:.1%}" in line and "smooth.1" in line for line in lines)


@pytest.mark.slow
def test_what_fails_on_other_studies_is_said(result: SearchResult, log_folder: Path) -> None:
    elsewhere = {"on": "other studies", "levels": 48, "failed": {"largest level shift in mm": 0.25}}
    lines = list(search_lines({**result.record, "elsewhere": elsewhere}, log_folder))
    said = next(line for line in lines if "other studies" in line)
    assert "largest level shift in mm fails by 0.25: it may have passed by chance" in said


@pytest.mark.slow
def test_a_search_that_found_nothing_says_why(result: SearchResult, log_folder: Path) -> None:
    nothing = {**result.record, "found": False, "left_out": {}, "quantised_share": {}}
    del nothing["elsewhere"]
    assert "no candidate passed" in next(search_lines(nothing, log_folder))
    assert "none was found in time" in next(search_lines({**nothing, "in_time": False}, log_folder))
    assert "passes as it is" in next(search_lines(None, log_folder))


@pytest.mark.slow
def test_the_log_of_another_search_is_renamed_and_not_resumed(
    result: SearchResult, log_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(log_folder / SEARCH_LOG_FILE, tmp_path)
    content = json.loads((tmp_path / SEARCH_LOG_FILE).read_text())
    assert result.record["trail"] == content["key"]
    about = content["about"]
    assert SearchLog(tmp_path, about).trials
    other = SearchLog(tmp_path, {**about, "limits": {**about["limits"], "maximum_level_shift_mm": 3.0}})
    assert not other.trials
    assert json.loads((tmp_path / f"sensitivity.{content['key'][:12]}.json").read_text()) == content


def test_without_time_nothing_is_found_and_that_is_said(
    task: SearchTask, patients: StudyCollection, tmp_path: Path
) -> None:
    begun = time.monotonic()
    found = _search(task, patients, tmp_path, minutes=1e-6)
    assert time.monotonic() - begun < 30
    assert (found.models, found.outcome) == (None, None)
    assert found.record["found"] is False
    assert found.record["in_time"] is False
    assert not (tmp_path / "sensitivity.png").exists()


def test_a_damaged_log_is_renamed(tmp_path: Path) -> None:
    (tmp_path / SEARCH_LOG_FILE).write_text("{")
    assert not SearchLog(tmp_path, {"a": 1}).trials
    assert (tmp_path / "sensitivity.damaged.json").read_text() == "{"


def test_a_candidate_that_is_lost_is_left_off_and_its_study_comes_first_next_time(
    pack: Pack, seen: list[LoadedStudy], task: SearchTask, tmp_path: Path
) -> None:
    """The same study three times, of which only the last is graded otherwise by FP32, as it is told here."""
    several = [seen[0]] * 3
    gate = Gate(pack, lambda _: several, "three studies", replace(FEW, maximum_level_shift_mm=0.5))
    gate.grade_reference("")
    moved = gate._expected[2]
    assert moved is not None
    levels = [
        level if level.point is None else replace(level, point=(level.point[0] + 9.0, *level.point[1:]))
        for level in moved.levels
    ]
    gate._expected[2] = replace(moved, levels=tuple(levels))
    same = write_candidate(pack, tmp_path / "same", "int8", {})
    first = gate.measure_until_failure("int8", same)
    assert first.validated_on == "three studies"
    assert not first.passed
    second = gate.measure_until_failure("int8", same)
    assert second.validated_on == "1 of 3 studies (three studies), then left off"
    assert [check.figure for check in second.failures].count("largest level shift in mm") == 1


def test_the_gate_says_the_same_whether_it_knows_the_models_or_not(
    pack: Pack, seen: list[LoadedStudy], task: SearchTask, tmp_path: Path
) -> None:
    """Answers are kept when a model is met a second time, and taken from there the third time."""
    candidate = write_candidate(pack, tmp_path, "int8", {"cord": task.models["cord"].data})
    gate = Gate(pack, lambda _: seen[:1], "one phantom", FEW)
    outcomes = [gate.measure({"int8": candidate})["int8"] for _ in range(3)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0].figures.ratio.bias != 0.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--search-log", "T"], "Give --search as well"),
        (["--search", "--precision", "fp16"], "Only INT8 is searched"),
        (["--search", "--search-minutes", "0"], "cannot take 0 minutes"),
    ],
)
def test_wrong_options_of_a_search_are_one_line(
    pack: Pack, tmp_path: Path, arguments: list[str], words: str
) -> None:
    command = ["quantise", str(pack.path), "--out", str(tmp_path / "new"), *arguments]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 2
    assert words in answer.output
    assert len(answer.output.splitlines()) == 1


def test_int8_that_was_refused_is_told_what_to_try_next() -> None:
    assert "--search" in int8_advice(searched=False)
    assert "--search" not in int8_advice(searched=True)
    assert all("--as-int8" in int8_advice(searched) for searched in (False, True))
