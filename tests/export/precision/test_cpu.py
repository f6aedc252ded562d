"""The table of a CPU: what is fastest is taken where the gate finds the grades of FP32, model by model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from gpu_backend import grading
from made_study import made_study
from onnx import numpy_helper
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.base import Backend, Roi
from stenosis_trt.engine.backends.cpu.candidates import Arithmetic, Execution
from stenosis_trt.engine.backends.cpu.measure import arithmetics, executions, fastest, measure_model
from stenosis_trt.engine.backends.cpu.table import Timing
from stenosis_trt.engine.packs.crop import slice_roi
from stenosis_trt.engine.packs.models import ModelVariant
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LEVELS, CordMeasurement, LevelResult, LoadedStudy, StudyResult
from stenosis_trt.export.precision import cpu, gate
from stenosis_trt.export.precision.cpu import CpuBuild, CpuBuildOptions, build_cpu_table, timing_lines
from stenosis_trt.export.precision.gate_result import GateLimits, gate_report_lines
from stenosis_trt.export.precision.studies import StudyCollection

FEW = GateLimits(minimum_levels=6, minimum_patients=1)
INT8 = Arithmetic(precision="int8")


def _brighter(model: bytes) -> bytes:
    """The grader, whose classes lie elsewhere: it grades everything otherwise."""
    changed = onnx.load_model_from_string(model)
    for item in changed.graph.initializer:
        if item.name == "centres":
            values = numpy_helper.to_array(item)[:, ::-1].astype(np.float32)
            item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), item.name))
    return bytes(changed.SerializeToString())


def _with_int8(folder: Path, bad: bool) -> Pack:
    """A tiny pack whose "INT8" models are its own, but for a bad grader; pack.json says that they passed."""
    import hashlib

    pack = write_tiny_pack(folder)
    models = {}
    for name, model in pack.models.items():
        data = pack.read_model(name)
        data = _brighter(data) if bad and name == "grader" else data
        (folder / f"{name}.int8.onnx").write_bytes(data)
        variant = ModelVariant(f"{name}.int8.onnx", hashlib.sha256(data).hexdigest(), {}, {"passed": True})
        models[name] = replace(model, variants={"int8": variant})
    return replace(pack, models=models)


def _grade(study: LoadedStudy, pack: Pack, backend: Backend) -> StudyResult:
    """Grade six regions and measure six cords, in place of the pipeline: tiny packs find no levels."""
    loaded, (roi,) = backend.load(study), grading(study, pack)
    cord = pack.models["cord"].input
    axial = [Roi((k,), slice_roi(study.axial[k].pose, study.axial[k].pose.centre, cord)) for k in range(6)]
    loaded.locate([Roi((k,), roi.affine) for k in range(3)]).result()
    grades, cords = loaded.grade([roi] * 6).result(), loaded.measure(axial).result()
    levels = []
    found = zip(LEVELS, grades.probabilities, cords.keypoints.points, strict=True)
    for number, (name, row, points) in enumerate(found):
        p0, p1, p2, p3 = map(float, row)
        corners = tuple(tuple(map(float, point)) for point in points)
        ratio = 0.4 + 0.05 * number
        measured = CordMeasurement("1", corners, 10 * ratio, 10.0, ratio, 0.9)  # type: ignore[arg-type]
        # Kappa needs several grades.
        grade = (int(row.argmax()) + number) % 4
        levels.append(LevelResult(name, (0.0, 0.0, 0.0), grade, (p0, p1, p2, p3), measured, "1", 1.0))
    return StudyResult("1", "A", "1", "1", tuple(levels), ())


def _build(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> CpuBuild:
    """Build the table without OpenVINO, as if INT8 were always twice as fast."""

    def measure(
        pack: Pack, model: str, batch: int, ways: list[Arithmetic], threads: int, progress: object
    ) -> tuple[Timing, ...]:
        spread = Execution(1, threads, 4)
        times = {way: 0.5 if way == INT8 else 1.0 for way in ways}
        return tuple(Timing(way, spread, n, 1.0, times[way]) for way in ways for n in (1, batch))

    study = made_study()
    monkeypatch.setattr(cpu, "grade_study", _grade)
    monkeypatch.setattr(gate, "grade_study", _grade)
    monkeypatch.setattr(cpu, "measure_model", measure)
    monkeypatch.setattr(cpu, "has_openvino", lambda: False)
    monkeypatch.setattr(cpu, "loaded_studies", lambda studies, what: iter([study]))
    monkeypatch.setattr(cpu, "resolve_studies", lambda folder, otherwise: StudyCollection(Path(), "a study"))
    return build_cpu_table(pack, CpuBuildOptions(threads=1, limits=FEW))


def test_what_is_faster_and_passes_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = _build(_with_int8(tmp_path / "pack", bad=False), monkeypatch)
    choices = build.table.choices
    assert not build.outcomes["int8"].failures
    assert set(choices) == {"auto", "fp32", "int8"}
    assert {item.arithmetic for item in choices["auto"].models.values()} == {INT8}
    assert choices["int8"].passed
    assert choices["fp32"].gate is None
    record = choices["int8"].gate or {}
    assert record["arithmetic"].startswith("levels by ONNX Runtime int8; grader by ONNX Runtime int8; cord")
    assert not build.alone


def test_a_model_that_fails_the_gate_is_left_out_and_the_others_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = _build(_with_int8(tmp_path / "pack", bad=True), monkeypatch)
    assert not build.outcomes["int8"].passed
    assert not build.table.choices["int8"].passed
    assert "int8 FAILS the gate" in gate_report_lines(build.outcomes["int8"])[0]
    assert {name: results["ONNX Runtime int8"].passed for name, results in build.alone.items()} == {
        "levels": True,
        "grader": False,
        "cord": True,
    }
    auto = {name: item.arithmetic for name, item in build.table.choices["auto"].models.items()}
    assert auto == {"levels": INT8, "grader": Arithmetic(), "cord": INT8}
    assert build.table.choices["auto"].passed


def test_a_gain_within_the_noise_changes_nothing() -> None:
    spread = Execution(1, 1, 4)

    def timings(relative: float) -> list[Timing]:
        return [
            Timing(way, spread, count, 1.0, time)
            for way, time in ((Arithmetic(), 1.0), (INT8, relative))
            for count in (1, 6)
        ]

    assert fastest(timings(0.97), [Arithmetic(), INT8]).arithmetic == Arithmetic()
    assert fastest(timings(0.90), [Arithmetic(), INT8]).arithmetic == INT8
    assert fastest(timings(0.97), [INT8]).arithmetic == INT8


def test_each_way_is_measured_beside_fp32_in_the_same_rounds(tmp_path: Path) -> None:
    pack = _with_int8(tmp_path / "pack", bad=False)
    ways = arithmetics(pack, "cord", openvino=False, bfloat16=True)
    assert ways == [Arithmetic(), INT8]
    timings = measure_model(pack, "cord", 3, ways, 2)
    assert {item.batch for item in timings} == {1, 3}
    assert {item.execution for item in timings if item.batch == 3} == set(executions(2))
    assert all(item.milliseconds > 0 and item.relative > 0 for item in timings)


def test_openvino_is_measured_where_it_is_installed(tmp_path: Path) -> None:
    pack = _with_int8(tmp_path / "pack", bad=False)
    names = [str(way) for way in arithmetics(pack, "cord", openvino=True, bfloat16=True)]
    assert names == [
        *("ONNX Runtime fp32", "ONNX Runtime int8", "OpenVINO fp32", "OpenVINO bf16", "OpenVINO int8"),
        "OpenVINO int8 with bf16",
    ]
    assert not any("bf16" in str(way) for way in arithmetics(pack, "cord", openvino=True, bfloat16=False))


def test_more_cores_are_shared_out_in_more_ways() -> None:
    assert {(item.streams, item.threads) for item in executions(8)} == {(8, 1), (4, 2), (2, 4), (1, 8)}
    assert {(item.streams, item.threads) for item in executions(1)} == {(1, 1)}


def test_the_report_has_the_time_of_each_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = list(timing_lines(_build(_with_int8(tmp_path / "pack", bad=False), monkeypatch).table))
    assert any(line.startswith("grader, ") and line.endswith("inputs:") for line in lines)
    assert sum("ONNX Runtime int8" in line and "2.00 × the default's speed" in line for line in lines) == 6
