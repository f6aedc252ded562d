"""Parts of the GPU suite that need no GPU."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_factory import series
from stand_in import result
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.speed import gpu_suite
from stenosis_trt.bench.speed.suite import report
from stenosis_trt.bench.speed.suite.answers import BackendAgreement
from stenosis_trt.bench.speed.suite.copies import copy_studies
from stenosis_trt.bench.speed.suite.measurements import (
    EVENTS,
    WALL,
    Limit,
    Measurement,
    Repetition,
    ScenarioReport,
    ScenarioSkipped,
    median_measurement,
)
from stenosis_trt.bench.speed.suite.report import (
    FAILED,
    SKIPPED,
    Scenario,
    SuiteRun,
    markdown_summary,
    summary_lines,
)
from stenosis_trt.bench.speed.suite.system import SuiteOptions, SystemUnderTest
from stenosis_trt.bench.speed.suite.utilisation import GpuUtilisation
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.support.hardware import Gpu, NvidiaDriver


def test_a_limit_holds_up_to_itself_and_not_beyond() -> None:
    assert Limit(at_most=5).holds(5)
    assert not Limit(at_most=5).holds(5.001)
    assert Limit(at_least=60).holds(60)
    assert not Limit(at_least=60).holds(59.9)
    assert (str(Limit(at_most=5)), str(Limit(at_least=99.5))) == ("≤ 5", "≥ 99.5")


def test_the_figure_of_many_runs_is_their_median_with_percentiles() -> None:
    figure = median_measurement(
        "study", [float(value) for value in range(1, 102)], EVENTS, limit=Limit(at_most=50)
    )
    assert (figure.value, figure.p90, figure.p99, figure.runs) == (51.0, 91.0, 100.0, 101)
    assert figure.passed(simulated=False) is False


def test_a_simulated_gpu_is_judged_by_its_results_and_not_by_its_speed() -> None:
    slow = Measurement("study", 900.0, "ms", WALL, limit=Limit(at_most=5))
    wrong = Measurement("grades", 90.0, "%", limit=Limit(at_least=99.5), about_results=True)
    assert (slow.passed(False), slow.passed(True)) == (False, None)
    assert (wrong.passed(False), wrong.passed(True)) == (False, False)
    assert slow.record(simulated=True)["passed"] is None


def test_a_call_is_repeated_as_often_as_asked_for_or_as_time_allows() -> None:
    counter = itertools.count()
    assert Repetition(20, 60.0, warm_up=5).repeat(lambda: next(counter)) == list(range(5, 25))
    slow = Repetition(20, 0.05, warm_up=5).repeat(lambda: time.sleep(0.03))
    assert len(slow) == 2
    assert len(Repetition(1, 0.0, warm_up=0).repeat(lambda: None)) == 1


def test_gradings_that_are_the_same_agree_in_everything() -> None:
    agreement = BackendAgreement()
    agreement.add(result("1"), result("1"))
    figures = {figure.name: figure for figure in agreement.figures("fp16")}
    assert figures["fp16, identical grades"].value == 100.0
    assert figures["fp16, largest ratio difference"].value == 0.0
    assert figures["fp16, largest level shift"].value == 0.0
    assert all(figure.passed(simulated=False) in (True, None) for figure in figures.values())


def test_each_way_to_differ_from_the_cpu_breaks_a_limit_of_its_own() -> None:
    same = result("1")
    first, *others = same.levels
    assert first.cord is not None
    ways = {
        "identical grades": replace(first, grade=3),
        "points in one of them alone": replace(first, point=None),
        "ratios in one of them alone": replace(first, cord=None),
        "largest ratio difference": replace(first, cord=replace(first.cord, compression_ratio=0.5031)),
        "largest level shift": replace(first, point=(1.0, 2.0, 3.31)),
    }
    for broken, changed in ways.items():
        agreement = BackendAgreement()
        agreement.add(replace(same, levels=(changed, *others)), same)
        failed = [item.name for item in agreement.figures("fp16") if item.passed(simulated=True) is False]
        assert failed == [f"fp16, {broken}"]


def test_a_study_that_one_of_the_two_refuses_has_no_level_in_common() -> None:
    agreement = BackendAgreement()
    agreement.add(None, result("1"))
    agreement.add(None, None)
    assert (agreement.studies, agreement.levels, agreement.same_grades) == (2, 12, 6)


def test_int8_is_reported_without_limits() -> None:
    agreement = BackendAgreement()
    agreement.add(None, result("1"))
    assert all(figure.limit is None for figure in agreement.figures("int8"))


def test_copies_are_read_as_studies_of_their_own_with_the_same_pixels(tmp_path: Path) -> None:
    series(tmp_path / "in" / "study", 6)
    copy_studies(tmp_path / "in", tmp_path / "out", 3)
    with DicomReader() as reader:
        scan = reader.scan([tmp_path / "out"])
        assert not scan.problems
        assert len({study.study_uid for study in scan.studies}) == 3
        loaded = [reader.load(study.series[0].frames)[0] for study in scan.studies]
    uids = [item.frame.sop_instance_uid for slices in loaded for item in slices]
    assert len(set(uids)) == len(uids) == 18
    for slices in loaded[1:]:
        for one, other in zip(slices, loaded[0], strict=True):
            assert np.array_equal(one.stored, other.stored)
            assert one.pose == other.pose


_NVML = """
#include <string.h>
typedef struct { unsigned gpu, memory; } rates;
static int asked;
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetPCIBusId(char *bus, int size, int device) { strcpy(bus, "0000:3b:00.0"); return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
    *device = &asked;
    return strcmp(bus, "0000:3b:00.0") ? 6 : 0;
}
int nvmlDeviceGetUtilizationRates(void *device, rates *found) {
    if (device != &asked) return 2;
    found->gpu = COUNTED ? 70 + asked++ % 3 : 0;
    return COUNTED ? 0 : 3;
}
"""


def _nvml(folder: Path, counted: bool) -> str:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    (folder / "nvml.c").write_text(_NVML)
    command = ["cc", f"-DCOUNTED={int(counted)}", "-shared", "-fPIC", "-o", "nvml.so", "nvml.c"]
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "nvml.so")


def test_utilisation_is_sampled_with_nvml_for_the_gpu_of_this_process(tmp_path: Path) -> None:
    library = _nvml(tmp_path, counted=True)
    with GpuUtilisation(library, library) as utilisation:
        start = time.perf_counter()
        while len(utilisation.samples) < 5:
            assert time.perf_counter() < start + 20, "nothing was counted"
            time.sleep(0.01)
        end = time.perf_counter()
    assert utilisation.reason == ""
    assert utilisation.median(start, end) in (70.0, 71.0, 72.0)
    assert utilisation.median(end + 1, end + 2) is None


def test_without_utilisation_by_nvml_the_reason_is_given(tmp_path: Path) -> None:
    library = _nvml(tmp_path, counted=False)
    with GpuUtilisation(library, library) as utilisation:
        time.sleep(0.1)
    assert "error 3" in utilisation.reason
    assert utilisation.samples == []
    assert "no-such-library" in GpuUtilisation("no-such-library.so", library).reason


class _Driver(SystemUnderTest):
    """A system with a given GPU name, on which no scenario opens anything."""

    def __init__(self, options: SuiteOptions, gpu: str) -> None:
        super().__init__(options)
        self.driver = NvidiaDriver((13, 0), (Gpu(gpu, (9, 0), 80 << 30),), "")

    def make_studies(self, phantoms: bool = True, one_study: bool = True) -> None:
        assert not phantoms
        assert not one_study


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny").path


@pytest.fixture
def options(tmp_path: Path, pack: Path) -> SuiteOptions:
    return SuiteOptions(out=tmp_path, pack=pack, command="stenosis-trt bench gpu-suite")


def _fails(system: SystemUnderTest, sheet: ScenarioReport) -> None:
    sheet.add(Measurement("before it failed", 1.0, "s", WALL))
    raise RuntimeError("no such thing")


def _is_skipped(system: SystemUnderTest, sheet: ScenarioReport) -> None:
    raise ScenarioSkipped("There is no peer.")


def _is_wrong(system: SystemUnderTest, sheet: ScenarioReport) -> None:
    sheet.add(Measurement("identical grades", 90.0, "%", limit=Limit(at_least=99.5), about_results=True))


def _is_slow(system: SystemUnderTest, sheet: ScenarioReport) -> None:
    sheet.add(median_measurement("study", [9.0, 10.0, 11.0], EVENTS, limit=Limit(at_most=5)))


def _suite(
    monkeypatch: pytest.MonkeyPatch, options: SuiteOptions, *measures: Any, gpu: str = "NVIDIA H200"
) -> tuple[bool, list[str], dict[str, Any]]:
    scenarios = {measure.__name__.strip("_"): (measure, "About it.") for measure in measures}
    monkeypatch.setattr(gpu_suite, "SCENARIOS", scenarios)
    monkeypatch.setattr(gpu_suite, "SystemUnderTest", lambda given: _Driver(given, gpu))
    passed, table = gpu_suite.run_suite(options)
    (written,) = options.out.glob("gpu-suite-*.json")
    return passed, table, json.loads(written.read_text())


def test_a_scenario_that_fails_is_recorded_with_its_reason_and_the_others_still_run(
    monkeypatch: pytest.MonkeyPatch, options: SuiteOptions
) -> None:
    passed, table, record = _suite(monkeypatch, options, _fails, _is_skipped, _is_slow)
    assert not passed
    assert record["finished"]
    found = record["scenarios"]
    assert [item["status"] for item in found.values()] == [FAILED, SKIPPED, "measured"]
    assert found["fails"]["reason"] == "RuntimeError: no such thing"
    assert found["fails"]["figures"][0]["name"] == "before it failed"
    assert found["is_skipped"]["reason"] == "There is no peer."
    assert any("failed: RuntimeError: no such thing" in line for line in table)


def test_a_wrong_answer_fails_the_run_and_a_slow_one_does_not(
    monkeypatch: pytest.MonkeyPatch, options: SuiteOptions
) -> None:
    passed, table, record = _suite(monkeypatch, options, _is_slow)
    assert passed
    assert record["scenarios"]["is_slow"]["figures"][0]["passed"] is False
    assert any("FAILED" in line for line in table)
    next(options.out.glob("*.json")).unlink()
    assert not _suite(monkeypatch, options, _is_wrong)[0]


def test_a_wrong_answer_of_a_stand_in_fails_the_run_too_and_its_speed_is_not_judged(
    monkeypatch: pytest.MonkeyPatch, options: SuiteOptions
) -> None:
    passed, table, record = _suite(monkeypatch, options, _is_wrong, _is_slow, gpu="stand-in for a GPU")
    assert not passed
    assert record["stand_in"]
    assert report.STAND_IN in table
    assert record["scenarios"]["is_slow"]["figures"][0]["passed"] is None
    (summary,) = options.out.glob("*.md")
    assert f"**{report.STAND_IN}**" in summary.read_text()


def test_a_quick_run_skips_what_it_has_no_time_for_and_records_it(
    monkeypatch: pytest.MonkeyPatch, options: SuiteOptions
) -> None:
    monkeypatch.setattr(SystemUnderTest, "seconds_left", -1.0)
    _, _, record = _suite(monkeypatch, replace(options, quick=True), _is_slow)
    assert record["scenarios"]["is_slow"]["status"] == SKIPPED
    assert "240 s" in record["scenarios"]["is_slow"]["reason"]


def test_the_record_names_what_was_measured_and_with_what(
    monkeypatch: pytest.MonkeyPatch, options: SuiteOptions
) -> None:
    _, _, record = _suite(monkeypatch, options, _is_slow)
    assert record["gpu"]["name"] == "NVIDIA H200"
    assert record["gpu"]["driver_cuda"] == "13.0"
    assert "sm_90" in record["gpu"]["kernels"]
    assert record["pack"]["sha256"] == SystemUnderTest(options).pack.sha256
    assert {"numpy", "onnxruntime", "pycuda", "torch", "python"} <= set(record["versions"])
    assert record["command"] == "stenosis-trt bench gpu-suite"
    (figure,) = record["scenarios"]["is_slow"]["figures"]
    assert figure == {
        "name": "study",
        "value": 10.0,
        "unit": "ms",
        "clock": EVENTS,
        "runs": 3,
        "p90": 10.8,
        "p99": 10.98,
        "limit": "≤ 5",
        "passed": False,
    }


def test_the_summary_has_every_figure_with_its_clock_and_verdict(options: SuiteOptions) -> None:
    sheet = ScenarioReport(lambda text: None)
    _is_slow(SystemUnderTest(options), sheet)
    run = SuiteRun(_Driver(options, "NVIDIA H200"), "2026-01-01", [Scenario("device", "About it.", sheet)])
    content = report.suite_record(run)
    assert "| study | 10 ms | 10.8 | 10.98 | 3 | CUDA events | ≤ 5 | FAILED |" in markdown_summary(content)
    assert "The run did not finish." in markdown_summary(content)
    assert next(iter(summary_lines(content))).startswith("NVIDIA H200, CUDA 13.0, pack tiny")


def test_plans_are_built_in_a_copy_of_the_pack_and_studies_that_were_made_are_found_again(
    options: SuiteOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = SystemUnderTest(options)
    assert system.pack.path.parent == options.out / "work"
    (system.pack.path / "plans").mkdir()
    assert (SystemUnderTest(options).pack.path / "plans").is_dir()
    folder = options.out / "work" / "phantoms-515-100"
    folder.mkdir()
    with (folder / "truth.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["study_uid"])
        table.writerows([[str(number)] for number in range(100)])
    monkeypatch.setattr("stenosis_trt.bench.speed.suite.system.write_studies", None)
    assert SystemUnderTest(options).phantoms == folder
