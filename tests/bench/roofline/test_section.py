"""The section on real studies, a pack and a backend; ceilings are given."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from made_ceilings import CEILINGS
from shared_phantoms import small_phantoms

from stenosis_trt.bench.roofline import gpu, section
from stenosis_trt.bench.speed.devices import GPU_SPECS
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.bench.systems.studies import studies_in
from stenosis_trt.engine.packs.pack import Pack, reference_pack


@pytest.fixture
def context(tmp_path: Path) -> BenchContext:
    folders = studies_in(small_phantoms(2, 71, 4)).folders
    pack = Pack.load(reference_pack())
    return BenchContext(pack, "cpu", "fp32", 2, folders[:1], tmp_path, 2.0, lambda _: None)


def test_a_study_its_stages_and_its_blocks_are_measured(
    context: BenchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = replace(CEILINGS, threads=2)
    monkeypatch.setattr(section, "measure_ceilings", lambda threads, seconds: made)
    found = section.measure(context)
    assert found.name == "roofline"
    assert found.absences == ()
    figures = {figure.name: figure for figure in found.figures}
    for stage in ("study", "preprocessing", "levels", "grader", "cord", "decoding"):
        floor, ratio = figures[f"roofline.{stage}.floor"].value, figures[f"roofline.{stage}.ratio"].value
        assert floor > 0.0
        assert ratio > 0.0
    assert figures["roofline.study.time"].runs >= 3
    blocks = found.details["networks"]["grader"]["blocks"]
    assert [block["name"] for block in blocks][1] == "features.1.0"
    # Peaks are raised where a block exceeds them, so that no run is below its floor.
    assert all(block["milliseconds"] >= 0.99 * block["floor_ms"] for block in blocks if block["ratio"] > 0.5)
    assert list(context.work.iterdir()) == []


def test_without_onnx_the_section_is_absent(context: BenchContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = section.measure(context)
    assert found.figures == ()
    assert "onnx" in found.absences[0].reason


class _OnGpu:
    """A product whose backend is not that of a CPU."""

    precision = "fp16"

    def __init__(self, backend: object = None) -> None:
        self.grader = SimpleNamespace(opened_backend=backend)

    def load(self, folder: Path) -> str:
        return folder.name

    def inputs(self, study: str) -> Any:
        return SimpleNamespace(batches={"levels": [0] * 15, "grader": [0] * 6, "cord": [0] * 30})

    def device(self, study: str) -> None:
        sum(range(100))


def test_on_an_unknown_gpu_a_study_is_timed_and_its_floor_is_absent(context: BenchContext) -> None:
    found = gpu.gpu_section(context, cast(Product, _OnGpu()), 0.0)
    assert [figure.name for figure in found.figures] == ["roofline.study.time"]
    assert [item.name for item in found.absences] == ["roofline.blocks", "roofline.study.ratio"]


def test_on_a_known_gpu_a_study_is_held_against_its_computed_bound(
    context: BenchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    l4 = next(item for item in GPU_SPECS if item.name == "L4")
    backend = SimpleNamespace(device=SimpleNamespace(name="NVIDIA L4"))
    monkeypatch.setattr(gpu, "TensorRtBackend", SimpleNamespace)
    monkeypatch.setattr(gpu, "measure_copy_bandwidth", lambda device: 250.0)
    found = gpu.gpu_section(context, cast(Product, _OnGpu(backend)), 0.0)
    figures = {figure.name: figure for figure in found.figures}
    assert figures["roofline.bandwidth.memory"].value == 250.0
    floor = figures["roofline.study.floor"].value
    # 26.2e9 multiply-adds at 121e12 operations a second; the bytes take longer in places.
    assert 0.43 < floor < 1.0
    stages = ("kernels", "levels", "grader", "cord")
    assert floor == pytest.approx(sum(figures[f"roofline.{name}.floor"].value for name in stages))
    ratio = figures["roofline.study.ratio"]
    assert ratio.value == pytest.approx(figures["roofline.study.time"].value / floor, rel=0.2)
    assert l4.name in ratio.note
