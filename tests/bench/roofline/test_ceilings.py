"""Ceilings of this processor: probes, caches and bandwidths."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from stenosis_trt.bench.roofline import ceilings, probes
from stenosis_trt.bench.roofline.ceilings import cache_sizes, measure_ceilings, measure_memory
from stenosis_trt.bench.roofline.layer_work import multiply_adds
from stenosis_trt.bench.roofline.probes import Probe


def test_a_probe_has_the_multiply_adds_that_its_graph_has() -> None:
    for probe in probes.probes(int8=False):
        (counted,) = multiply_adds(onnx.load_model_from_string(probe.data)).values()
        # Counted for one input; the matrix product has no batch.
        batch = 1 if len(probe.shape) == 2 else probe.shape[0]
        rows = probe.shape[0] if len(probe.shape) == 2 else 1
        assert probe.multiply_adds == counted * batch * rows


def test_both_factors_of_an_int8_probe_are_dequantised() -> None:
    for probe in probes.probes(int8=True):
        graph = onnx.load_model_from_string(probe.data).graph
        dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        (product,) = [node for node in graph.node if node.op_type in ("Conv", "MatMul")]
        assert set(product.input) <= dequantised


def test_caches_are_read_from_the_system(tmp_path: Path) -> None:
    levels = ((1, "Data", "32K"), (1, "Instruction", "32K"), (2, "Unified", "1024K"), (3, "Unified", "32M"))
    for index, (level, kind, size) in enumerate(levels):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", str(level)), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n", encoding="ascii")
    (tmp_path / "index9").mkdir()
    assert cache_sizes(tmp_path) == {"L2": 1 << 20, "L3": 32 << 20}
    assert cache_sizes(tmp_path / "missing") == {}


def test_each_level_of_memory_has_a_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_MEMORY_BYTES", 8 << 20)
    monkeypatch.setattr(ceilings, "_PROBE_SECONDS", 0.005)
    monkeypatch.setattr(ceilings, "_PASS_BYTES", 1 << 20)
    levels = measure_memory(2, 2, {"L2": 1 << 18, "L3": 1 << 20})
    assert [(item.name, item.capacity) for item in levels] == [
        ("L2", 1 << 19),
        ("L3", 1 << 20),
        ("memory", None),
    ]
    for item in levels:
        # Between a tape drive and the registers.
        assert 1e8 < item.all_cores.best < 1e13
        assert len(item.one_core.rounds) == 2
        assert item.all_cores.by in ("copy", "add", "read")


def test_without_known_caches_main_memory_is_the_only_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_MEMORY_BYTES", 1 << 20)
    monkeypatch.setattr(ceilings, "_PROBE_SECONDS", 0.001)
    monkeypatch.setattr(ceilings, "_PASS_BYTES", 1 << 18)
    assert [item.name for item in measure_memory(1, 1, {})] == ["memory"]


def test_peaks_are_measured_in_each_precision_that_a_runtime_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(int8: bool) -> tuple[Probe, ...]:
        return (probes._convolution(probes._Convolution(1, 16, 16, 3), int8),)

    monkeypatch.setattr(ceilings, "probes", small)
    monkeypatch.setattr(ceilings, "_PROBE_SECONDS", 0.005)
    monkeypatch.setattr(ceilings, "measure_memory", lambda threads, rounds: ())
    found = measure_ceilings(2, 0.0)
    assert {"fp32", "int8"} <= set(found.peaks) <= {"fp32", "bf16", "int8"}
    for precision, rate in found.peaks.items():
        assert rate.best >= found.one_core_peaks[precision].best > 1e7
        assert "convolution 3×3, 16 channels, 1 × 16²" in rate.by
