"""The section "peers": its figures, targets and absences."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from shared_phantoms import small_phantoms
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.peers import section
from stenosis_trt.bench.peers.model_files import write_models
from stenosis_trt.bench.peers.networks import ALL, BEST_OPENVINO, ONE, STUDY, NetworkTimes
from stenosis_trt.bench.peers.pairing import PairedTimes
from stenosis_trt.bench.peers.paper_size import SIZE, measure_paper_size, resized_pack
from stenosis_trt.bench.peers.peer import PeerAbsent
from stenosis_trt.bench.record.record import Figure
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.packs.pack import Pack, reference_pack

LABELS = {"onnxruntime": "ONNX Runtime", BEST_OPENVINO: "OpenVINO, best", "openvino_fp32": "OpenVINO"}


def _context(pack: Pack, work: Path, seconds: float = 1.0) -> BenchContext:
    studies = (small_phantoms(2, 71, 4) / "study_0001",)
    return BenchContext(pack, "cpu", "fp32", None, studies, work, seconds, lambda _: None)


def _figures(times: NetworkTimes) -> dict[str, Figure]:
    content = section._Content()
    section._add_networks(content, times, LABELS)
    json.dumps(content.details, allow_nan=False)
    assert [len(chart.series) for chart in content.charts] == [2, 1]
    return {item.name: item for item in content.figures}


def test_figures_of_networks_have_ratios_times_and_the_targets_of_the_project() -> None:
    pairs = PairedTimes((1.0, 1.1, 1.0, 1.0), (2.3, 2.4, 2.3, 2.3))
    times = NetworkTimes(
        pairs={
            (ALL, STUDY): {"onnxruntime": pairs, BEST_OPENVINO: pairs},
            (ALL, ONE): {"onnxruntime": pairs},
        },
        images={(ALL, STUDY): 49, (ALL, ONE): 3},
    )
    figures = _figures(times)
    ratio = figures[f"peers.models.all.{STUDY}.onnxruntime.ratio"]
    assert (ratio.value, ratio.unit, ratio.better, ratio.target) == (2.3, "", "higher", 2.2)
    assert ratio.target_met
    assert ratio.low is not None
    assert ratio.runs == 4
    assert figures[f"peers.models.all.{STUDY}.{BEST_OPENVINO}.ratio"].target == 1.0
    assert figures[f"peers.models.all.{ONE}.onnxruntime.ratio"].target == 1.0
    assert figures[f"peers.models.all.{STUDY}.onnxruntime.ms"].value == pytest.approx(2300.0)
    ours = figures[f"peers.models.all.{STUDY}.product.ms"]
    assert (ours.value, ours.better, ours.runs) == (1000.0, "lower", 8)


def test_a_busy_machine_is_noted_at_the_figure() -> None:
    pairs = PairedTimes((1.0, 1.0, 4.0, 1.0, 5.0, 1.0), (2.0,) * 6)
    assert "2 of 6 pairs were disturbed" in section._disturbance(pairs)
    assert section._disturbance(PairedTimes((1.0,) * 6, (2.0,) * 6)) == ""


def test_a_section_needs_a_study_that_can_be_graded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No cervical spine"):
        section.measure(_context(write_tiny_pack(tmp_path / "tiny"), tmp_path))


def test_the_grader_gets_the_size_of_the_paper(tmp_path: Path) -> None:
    write_models(write_tiny_pack(tmp_path / "tiny"), tmp_path / "files")
    pack = resized_pack(tmp_path / "files", tmp_path / "large")
    assert pack.models["grader"].input_shape == (3, SIZE, SIZE)
    assert pack.models["cord"].input_shape == (1, 128, 128)
    pairs, absent = measure_paper_size(tmp_path / "files", tmp_path, 1, 0.0, lambda _: None)
    assert {"onnxruntime", "openvino_fp32"} <= set(pairs)
    assert f"peers.size_{SIZE}.torch_eager" in {item.name for item in absent}


def test_a_grader_that_takes_no_other_size_is_absent(tmp_path: Path) -> None:
    write_models(write_tiny_pack(tmp_path / "tiny"), tmp_path / "files")
    file = tmp_path / "files" / "grader.onnx"
    network = onnx.load(file)
    shape = onnx.numpy_helper.from_array(np.array([-1, 3 * 64 * 64]), "shape64")
    network.graph.initializer.append(shape)
    node = onnx.helper.make_node("Reshape", ["image", "shape64"], ["flat64"])
    network.graph.node.insert(0, node)
    onnx.save(network, file)
    with pytest.raises(PeerAbsent, match=f"cannot be run at {SIZE}²"):
        measure_paper_size(tmp_path / "files", tmp_path, 1, 0.0, lambda _: None)


@pytest.mark.timing
def test_the_section_of_the_reference_pack_has_every_figure(tmp_path: Path) -> None:
    found = section.measure(_context(Pack.load(reference_pack()), tmp_path, 60.0))
    figures = {item.name: item for item in found.figures}
    assert figures["peers.whole.user_script"].target == 6.0
    for name in ("peers.whole.user_script", f"peers.models.all.{STUDY}.onnxruntime.ratio"):
        assert figures[name].low is not None
        assert figures[name].value > 0.0
    assert f"peers.size_{SIZE}.onnxruntime.ratio" in figures
    assert len(figures) == len(found.figures)
    assert found.details["whole"]["share_with_the_same_grade"] >= 0.8
    assert len(found.charts) == 3
    json.dumps(asdict(found), allow_nan=False)
