"""The roofline: peaks match vendors' figures, times follow from counts, no measurement beats its bound."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from time_limits import time_limit
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.speed.devices import GPU_SPECS, PRECISIONS, GpuSpec
from stenosis_trt.bench.speed.kernel_workloads import (
    AXIAL_SLICES,
    LEVEL_COUNT,
    SAGITTAL_SLICES,
    preprocess_workload,
    study_input_batches,
    study_pixels,
)
from stenosis_trt.bench.speed.roofline import (
    LayerWork,
    ModelWork,
    StudyWork,
    compare_with_measured,
    kernel_bytes,
    roofline_record,
    stage_times,
    study_time,
    time_lines,
)
from stenosis_trt.engine.packs.pack import Pack, reference_pack

ROOT = Path(__file__).resolve().parents[3]
MEASURED = ROOT / "bench" / "results" / "kernels-nvidia-h200.json"


def _device(name: str) -> GpuSpec:
    (found,) = [device for device in GPU_SPECS if device.name == name]
    return found


def _study(*models: ModelWork) -> StudyWork:
    return StudyWork("made up", models, dict.fromkeys(PRECISIONS, 0))


def _call(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = "from stenosis_trt.engine.cli.app import main; main()"
    command = [sys.executable, "-c", script, "bench", "roofline", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=time_limit(120))


@pytest.mark.parametrize("device", GPU_SPECS, ids=lambda device: device.name)
def test_a_peak_is_what_the_maker_states_of_dense_operations(device: GpuSpec) -> None:
    for precision, stated in device.stated_tera_operations.items():
        assert device.peak(precision) / 1e12 == pytest.approx(stated, rel=0.03)
    assert device.source


def test_every_jetson_that_runs_the_product_is_there() -> None:
    names = " ".join(device.name for device in GPU_SPECS)
    for name in ("Orin Nano 8GB", "Orin NX 16GB", "AGX Orin 64GB", "AGX Thor"):
        assert name in names


def test_a_network_that_only_computes_takes_its_operations_over_the_peak() -> None:
    device = _device("Jetson AGX Orin 64GB, MAXN")
    layer = LayerWork("a", "Conv", 10**12, 0, 0, 0)
    study = _study(ModelWork("levels", 3, 0, 0, (layer,)))
    for precision in PRECISIONS:
        (_, time) = stage_times(study, device, precision)
        assert time.at_least_ms == pytest.approx(6e15 / device.peak(precision))
        assert time.limit == "compute"


def test_a_network_that_only_moves_takes_its_bytes_over_the_bandwidth() -> None:
    """Weights once, and what goes in and out for each input; activations between count when unfused."""
    device = _device("L4")
    layers = (LayerWork("a", "Conv", 0, 10**9, 10**6, 10**8), LayerWork("b", "Relu", 0, 0, 10**8, 10**6))
    study = _study(ModelWork("levels", 4, 10**6, 10**6, layers))
    for precision, width, edge in (("fp32", 4, 4), ("fp16", 2, 2), ("int8", 1, 2)):
        (_, time) = stage_times(study, device, precision)
        assert time.at_least_ms == pytest.approx((width * 1e9 + 4 * edge * 2e6) / 300e9 * 1e3)
        assert time.unfused_ms == pytest.approx(width * (1e9 + 4 * 2.02e8) / 300e9 * 1e3)
        assert time.limit == "memory"


def test_what_a_pack_leaves_in_fp16_is_not_counted_as_int8() -> None:
    device = _device("L4")
    work = ModelWork("levels", 1, 0, 0, (LayerWork("a", "Conv", 10**12, 0, 0, 0),), int8_share=0.5)
    (_, half) = stage_times(_study(work), device, "int8")
    expected = 1e12 / device.peak("int8") + 1e12 / device.peak("fp16")
    assert half.at_least_ms == pytest.approx(expected * 1e3)
    (_, whole) = stage_times(_study(replace(work, int8_share=None)), device, "int8")
    assert whole.at_least_ms == pytest.approx(2e12 / device.peak("int8") * 1e3)


def test_the_table_says_where_int8_is_assumed() -> None:
    layer = LayerWork("a", "Conv", 10**9, 0, 0, 0)
    assumed = "\n".join(time_lines(_study(ModelWork("cord", 1, 1, 1, (layer,)))))
    assert "INT8*" in assumed
    assert "has no INT8 of cord" in assumed
    assert "INT8*" not in "\n".join(time_lines(_study(ModelWork("cord", 1, 1, 1, (layer,), 0.9))))


def test_kernel_bytes_are_those_that_the_kernel_benchmark_counts() -> None:
    import numpy as np

    pack = Pack.load(reference_pack())
    pixels = study_pixels(np.random.default_rng(0))
    cut = sum(preprocess_workload(item, pixels, np.float16).moved_bytes for item in study_input_batches(pack))
    maps = len(pack.models["levels"].output.names)
    heatmaps = 2 * (SAGITTAL_SLICES * maps * 64 * 64 + AXIAL_SLICES * 4 * 64 * 64)
    moved = kernel_bytes(pack, {"levels": SAGITTAL_SLICES, "grader": LEVEL_COUNT, "cord": AXIAL_SLICES})
    assert moved["fp16"] == moved["int8"] == cut + heatmaps
    assert moved["fp32"] > moved["fp16"]


def test_no_measured_kernel_is_faster_than_what_was_computed() -> None:
    device, figures = compare_with_measured(json.loads(MEASURED.read_text(encoding="utf-8")))
    assert device.name == "H200 SXM"
    assert len(figures) >= 5
    assert all(0 < item.computed_us < item.measured_us for item in figures)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no record"),
        ('{"figures": []}', "no record"),
        ('{"machine": {"cores": 2}, "figures": []}', "holds no figures of a GPU"),
        ('{"machine": {"gpu": "Orin"}, "figures": []}', "measured on Orin"),
    ],
)
def test_a_record_that_cannot_be_compared_is_refused_with_the_reason(
    tmp_path: Path, content: str, reason: str
) -> None:
    path = tmp_path / "record.json"
    path.write_text(content, encoding="utf-8")
    answer = _call("--compare-with", path)
    assert answer.returncode == 2
    assert reason in answer.stderr
    assert "Traceback" not in answer.stderr


def test_the_command_prints_a_table_that_says_it_is_computed(tmp_path: Path) -> None:
    out = tmp_path / "roofline.json"
    answer = _call("--json", out, "--compare-with", MEASURED, "--sources")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("Computed, not measured.")
    for device in GPU_SPECS:
        assert device.name in answer.stdout
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["notice"] == "Computed, not measured."
    assert {item["name"] for item in content["devices"]} == {device.name for device in GPU_SPECS}
    assert content["measured"][0]["device"] == "H200 SXM"
    by_name = {model["name"]: model for model in content["models"]}
    assert {name: model["batch"] for name, model in by_name.items()} == {
        "levels": 15,
        "grader": 6,
        "cord": 30,
    }
    assert by_name["grader"]["weights"] == pytest.approx(28.3e6, rel=0.01)


def test_more_slices_cost_more_and_one_device_shows_its_stages(tmp_path: Path) -> None:
    def levels_fp16(slices: int) -> float:
        out = tmp_path / f"{slices}.json"
        answer = _call("--sagittal-slices", slices, "--device", "agx orin", "--json", out)
        assert answer.returncode == 0, answer.stderr
        assert "  grader " in answer.stdout
        assert "Thor" not in answer.stdout
        (device,) = [d for d in json.loads(out.read_text())["devices"] if "AGX Orin 64GB, MAXN" in d["name"]]
        (time,) = [stage for stage in device["stages"]["fp16"] if stage["stage"] == "levels"]
        return float(time["at_least_ms"])

    assert levels_fp16(30) == pytest.approx(2 * levels_fp16(15))


def test_a_device_that_is_not_known_is_refused_with_those_that_are() -> None:
    answer = _call("--device", "Xavier")
    assert answer.returncode == 2
    assert "Jetson AGX Thor" in answer.stderr


def test_the_command_without_onnx_says_what_to_install() -> None:
    script = (
        "import sys\n"
        "sys.modules['onnx'] = None\n"
        "sys.argv = ['stenosis-trt', 'bench', 'roofline']\n"
        "from stenosis_trt.engine.cli.app import main\n"
        "main()"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "pip install onnx" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_pack_without_a_convolution_is_counted_too(tmp_path: Path) -> None:
    answer = _call("--pack", write_tiny_pack(tmp_path / "tiny").path)
    assert answer.returncode == 0, answer.stderr
    assert "Pack tiny 1" in answer.stdout


def test_one_study_is_the_sum_of_its_stages() -> None:
    layer = LayerWork("a", "Conv", 10**9, 10**6, 10**6, 10**6)
    study = StudyWork(
        "made up", (ModelWork("levels", 2, 10, 10, (layer,)),), dict.fromkeys(PRECISIONS, 10**9)
    )
    stages = stage_times(study, GPU_SPECS[0], "fp16")
    whole = study_time(stages)
    assert whole.at_least_ms == pytest.approx(sum(stage.at_least_ms for stage in stages))
    assert whole.limit == "memory"
    content = roofline_record(study, [])
    assert content["devices"][0]["stages"]["fp16"][0]["at_least_ms"] == stages[0].at_least_ms
