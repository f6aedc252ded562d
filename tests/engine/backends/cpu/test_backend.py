"""Models that are not what their pack says are found when the pack is opened, not study by study."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from time_limits import time_limit
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.model_checks import ModelOutputError
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import Stage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_pack(tmp_path / "pack").path


def _open(folder: Path) -> CpuBackend:
    return CpuBackend(Pack.load(folder), threads=1)


def _replace(folder: Path, name: str, data: bytes) -> None:
    """Put another file in the place of a model, with its hash in the manifest."""
    (folder / f"{name}.onnx").write_bytes(data)
    manifest = json.loads((folder / "pack.json").read_text())
    manifest["models"][name]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "pack.json").write_text(json.dumps(manifest))


def _specify(folder: Path, name: str, part: str, **values: Any) -> None:
    manifest = json.loads((folder / "pack.json").read_text())
    manifest["models"][name][part].update(values)
    (folder / "pack.json").write_text(json.dumps(manifest))


def _ends_with(
    operator: str,
    constant: np.ndarray,
    shape: tuple[object, ...] = ("batch", 4),
    source: tuple[object, ...] = ("batch", 3, 64, 64),
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """A grader that answers its mean brightness, a column, with an operator and a constant applied."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node(operator, ["column", "constant"], ["out"]),
    ]
    constants = {"axes": np.array([1, 2, 3]), "last": np.array([1]), "constant": constant}
    graph = helper.make_graph(
        nodes,
        "grader",
        [helper.make_tensor_value_info("image", kind, source)],
        [helper.make_tensor_value_info("out", kind, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


_ROW = np.zeros((1, 4), np.float32)


def test_a_pack_whose_models_fit_is_opened_and_closed(folder: Path) -> None:
    with closing(_open(folder)) as backend:
        assert backend.infer("grader", np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 4)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_ends_with("Add", _ROW, source=("batch", 3, 32, 64)), "its input is batch × 3 × 32 × 64, not batch"),
        (_ends_with("Add", _ROW, source=("batch", 1, 64, 64)), "its input is batch × 1 × 64 × 64"),
        (_ends_with("Add", _ROW[:, :3], ("batch", 3)), "its output is batch × 3, not batch × 4"),
        (_ends_with("Add", _ROW, (1, 4), (1, 3, 64, 64)), "the batch of its input is fixed at 1"),
        (_ends_with("Add", _ROW.astype(np.float16), kind=TensorProto.FLOAT16), "its input is not float32"),
        (_ends_with("Mul", _ROW + 8.0), "has to lie between 0 and 1"),
        (_ends_with("Mul", _ROW), "do not add up to 1"),
        (_ends_with("Div", _ROW), "is not finite"),
        (b"no model", "is not encoded as an ONNX model is"),
        (_ends_with("Own", _ROW), "ONNX Runtime cannot load it"),
    ],
)
def test_a_model_that_is_not_what_the_pack_says_is_refused_when_opened(
    folder: Path, model: bytes, words: str
) -> None:
    _replace(folder, "grader", model)
    with pytest.raises(PackError, match=words) as caught:
        _open(folder)
    assert "grader.onnx" in caught.value.reason
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_that_fails_when_it_runs_is_refused_when_opened(folder: Path) -> None:
    data = _ends_with("Reshape", np.array([-1, 4]))
    _replace(folder, "grader", data)
    with pytest.raises(PackError, match="cannot run it"):
        _open(folder)


def test_a_model_with_a_second_output_is_refused(folder: Path) -> None:
    model = onnx.load_model_from_string(_ends_with("Add", _ROW))
    model.graph.output.append(helper.make_tensor_value_info("column", TensorProto.FLOAT, ("batch", 1)))
    _replace(folder, "grader", model.SerializeToString())
    with pytest.raises(PackError, match="1 inputs and 2 outputs"):
        _open(folder)


def test_heatmaps_of_another_stride_than_the_packs_are_refused(folder: Path) -> None:
    _specify(folder, "levels", "output", stride=8)
    with pytest.raises(PackError, match="its output is 2 × 6 × 64 × 64, not 2 × 6 × 32 × 32"):
        _open(folder)


@pytest.fixture
def backend(folder: Path) -> Iterator[CpuBackend]:
    opened = _open(folder)
    yield opened
    opened.close()


def test_heatmaps_of_a_study_that_leave_their_range_are_told_with_the_model_and_its_stage(
    backend: CpuBackend,
) -> None:
    """The tiny pack's heatmaps are its input."""
    with pytest.raises(ModelOutputError, match="reaches from 0 to 3") as raised:
        backend.infer("levels", np.full((1, 1, 256, 256), 3.0, np.float32))
    assert raised.value.stage is Stage.LEVELS
    assert "The model levels (levels.onnx) cannot be used for this study" in raised.value.reason
    assert not raised.value.reason.endswith("..")


def test_an_input_that_is_not_finite_is_not_the_packs_fault(backend: CpuBackend) -> None:
    with pytest.raises(ValueError, match="input of the model levels is not finite"):
        backend.infer("levels", np.full((1, 1, 256, 256), np.nan, np.float32))


@pytest.mark.parametrize(
    "script",
    [
        "from stenosis_trt.engine.cli.app import main; import sys; sys.argv[1:] = ['verify']; main()",
        "from stenosis_trt.export.onnx.graphs import run_model\n"
        "from stenosis_trt.engine.packs.pack import Pack, reference_pack\n"
        "import numpy as np\n"
        "run_model(Pack.load(reference_pack()).read_model('cord'), np.zeros((1, 1, 128, 128), np.float32))",
    ],
)
def test_onnx_runtime_gathers_nothing_to_be_sent_away(script: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        timeout=time_limit(100),
        env=environment,
    )
    assert not [path for path in tmp_path.rglob("*") if path.name == "Microsoft"]
