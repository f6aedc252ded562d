"""The section on real studies: curves of networks and files, processes, and what is absent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from shared_phantoms import small_phantoms
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.scaling import flight, memory, networks, section
from stenosis_trt.bench.scaling.child import ChildRequest, peak_bytes
from stenosis_trt.bench.scaling.children import ChildFailed, Children, child_request
from stenosis_trt.bench.scaling.files import copy_curve, file_curve, syntax_curve, worker_curve
from stenosis_trt.bench.scaling.networks import SizeIsFixed, network_at_size, size_curve, with_free_size
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.studies import studies_in
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import default_choice
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.packs.pack import Pack, reference_pack


@pytest.fixture
def context(tmp_path: Path) -> BenchContext:
    folders = studies_in(small_phantoms(2, 71, 4)).folders
    pack = Pack.load(reference_pack())
    work = tmp_path / "work"
    work.mkdir()
    return BenchContext(pack, "cpu", "fp32", None, folders, work, 1.0, lambda _: None)


@pytest.fixture(scope="module")
def backend() -> Iterator[CpuBackend]:
    opened = CpuBackend(Pack.load(reference_pack()))
    yield opened
    opened.close()


def test_reading_is_measured_by_processes_files_and_copies(context: BenchContext) -> None:
    assert list(worker_curve(context, 0.0).times) == [1, 2, 4]
    files = file_curve(context, 0.0)
    counts = [sum(path.is_file() for path in folder.rglob("*")) for folder in context.studies]
    assert list(files.times) == [counts[0], sum(counts)]
    assert list(copy_curve(context, 0.0).times) == [1, 2, 4]
    assert list(context.work.glob("*")) == []


def test_each_transfer_syntax_is_read_and_its_size_is_told(
    context: BenchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stenosis_trt.bench.scaling import files

    small = {name: files.TRANSFER_SYNTAXES[name] for name in ("explicit", "rle")}
    monkeypatch.setattr(files, "TRANSFER_SYNTAXES", small)
    curve, sizes = syntax_curve(context, 0.0)
    assert list(curve.times) == ["explicit", "rle"]
    assert sizes["rle"] < sizes["explicit"]


def test_a_folder_without_a_study_is_refused(context: BenchContext, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="does not hold one study"):
        worker_curve(replace(context, studies=(tmp_path / "empty",)), 0.0)


def test_the_grader_runs_at_sizes_that_its_pack_does_not_have(
    backend: CpuBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "SIZES", (64, 96))
    curve = size_curve(backend, 0.0)
    assert list(curve.times) == [64, 96]
    assert "ONNX Runtime" in curve.note


def test_a_network_with_one_size_says_that_it_has_one(backend: CpuBackend) -> None:
    """A matrix product over all pixels, as some networks end with."""
    pixels = 3 * 128 * 128
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "fixed",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 128, 128])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(np.ones((pixels, 5), np.float32), "weights")],
    )
    data = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()
    model = backend.pack.models["grader"]
    network_at_size(model, data, default_choice("fp32", 1), 128)()
    with pytest.raises(SizeIsFixed, match="cannot be run on 96 × 96"):
        network_at_size(model, data, default_choice("fp32", 1), 96)


def test_the_size_of_what_is_no_image_cannot_be_freed() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "flat",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
    )
    with pytest.raises(SizeIsFixed, match="has 2 dimensions"):
        with_free_size(helper.make_model(graph).SerializeToString())


def test_processes_work_as_often_as_asked_and_tell_their_memory(context: BenchContext) -> None:
    request = replace(child_request(context, "scan"), studies=tuple(map(str, context.studies)))
    with Children([request]) as children:
        first, second = children.work(), children.work()
    for (result,) in (first, second):
        assert result.seconds > 0.0
        # Of a process with NumPy, and not of the one that started it.
        assert 20 << 20 < result.peak_bytes < 8 << 30
    assert peak_bytes() > 20 << 20


def test_a_process_that_fails_says_why(context: BenchContext, tmp_path: Path) -> None:
    request = ChildRequest("open", str(tmp_path / "no-pack"), "cpu", "fp32", None)
    with pytest.raises(ChildFailed, match="no-pack"):
        Children([request])
    found = memory._curve("open", "models opened", {1: request})
    assert not isinstance(found, memory.MemoryCurve)
    assert found.name == "scaling.memory.open"


@pytest.mark.timing
def test_the_section_measures_everything(context: BenchContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "BATCHES", (1, 2))
    monkeypatch.setattr(networks, "SIZES", (64, 96))
    monkeypatch.setattr(memory, "_BATCHES", (1, 2))
    monkeypatch.setattr(memory, "_SIZES", (64, 96))
    monkeypatch.setattr(flight, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(section, "_SHARES", dict.fromkeys(section._SHARES, 0.0001))
    found = section.measure(replace(context, seconds=600.0))
    assert found.absences == ()
    names = {figure.name for figure in found.figures}
    assert {
        "scaling.batch.grader.2",
        "scaling.size.grader.96",
        "scaling.workers.4",
        "scaling.compression.jpeg-ls",
        "scaling.flight.read ahead",
        "scaling.processes.1",
        "scaling.threads.1",
        "scaling.memory.open.1",
        "scaling.memory.studies.2",
        "scaling.memory.size.grader.96",
    } <= names
    assert all(figure.value > 0.0 for figure in found.figures)
    assert {chart.kind for chart in found.charts} == {"lines", "bars"}


def test_what_the_time_does_not_suffice_for_is_absent(context: BenchContext, tmp_path: Path) -> None:
    pack = write_tiny_pack(tmp_path / "tiny")
    found = section.measure(replace(context, pack=pack, seconds=0.0))
    assert found.figures == ()
    assert {item.name for item in found.absences} == {
        f"scaling.{name}"
        for name in (
            *("batch", "size", "workers", "files", "copies", "compression", "flight", "threads", "memory"),
        )
    }
