"""Comparison of files and plans with FP32 by Polygraphy; ONNX Runtime stands in for a GPU."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from time_limits import time_limit
from tiny_pack import write_tiny_pack
from typed_models import NO_GPU, needs_rtx
from typer.testing import CliRunner

from stenosis_trt.bench.roofline.layer_work import fold_fp16_weights
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.cli.app import app
from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.packs.signature import signature_path
from stenosis_trt.engine.plans.build import BuildRequest, build_plans
from stenosis_trt.engine.plans.sidecar import RuntimeTarget
from stenosis_trt.engine.plans.store import StoredPlan, iter_readable_plans
from stenosis_trt.engine.support.hardware import Gpu, NvidiaDriver, query_nvidia_driver
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.trt.api import TensorRT, installed_flavours
from stenosis_trt.engine.trt.flavours import FLAVOURS, BuildSettings
from stenosis_trt.export.onnx.comparator import (
    ComparatorError,
    OutputChange,
    onnx_runner,
    onnx_summary,
    output_changes,
    run_inputs,
)
from stenosis_trt.export.onnx.graphs import cpu_session
from stenosis_trt.export.precision import parity
from stenosis_trt.export.precision.parity import (
    PARITY_LIMITS,
    ParityResult,
    compare_files,
    compare_plan,
    parity_lines,
    parity_record,
)

RTX = FLAVOURS["tensorrt-rtx"]
ADA = NvidiaDriver((13, 0), (Gpu("NVIDIA RTX 4090", (8, 9), 24 << 30),), "")
HERE = RuntimeTarget("tensorrt-rtx", "1.7.1.116", "NVIDIA RTX 4090", (8, 9))


def _shuffled(data: bytes) -> bytes:
    """The network with the weights of each layer in another order: as many, as large, and nonsense."""
    model = fold_fp16_weights(onnx.load_model_from_string(data))
    rng = np.random.default_rng(0)
    for item in model.graph.initializer:
        values = numpy_helper.to_array(item)
        if values.dtype == np.float32 and values.size >= 64:
            mixed = rng.permutation(values.reshape(-1)).reshape(values.shape)
            item.CopyFrom(numpy_helper.from_array(mixed, item.name))
    return bytes(model.SerializeToString())


def _with_variant(pack: Pack, folder: Path, data: bytes) -> Pack:
    """A copy of the pack in which `data` is the cord's FP16."""
    shutil.copytree(pack.path, folder, ignore=shutil.ignore_patterns("plans"))
    (folder / "cord.fp16.onnx").write_bytes(data)
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    entry = {"file": "cord.fp16.onnx", "sha256": hashlib.sha256(data).hexdigest(), "gate": {"passed": True}}
    for model in content["models"].values():
        model["variants"] = {}
    content["models"]["cord"]["variants"] = {"fp16": entry}
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    return Pack.load(folder)


@pytest.mark.slow
def test_fp16_and_int8_of_the_reference_pack_are_the_networks_they_are_taken_for(
    quantised: Pack, inputs: dict[str, Float32Array]
) -> None:
    found = list(compare_files(quantised, inputs))
    assert [item.subject for item in found] == [
        f"{model}.{precision}.onnx" for model in quantised.models for precision in ("fp16", "int8")
    ]
    for item in found:
        (change,) = item.changes
        assert item.passed
        assert 0 < change.mean < change.largest
        assert np.isfinite(change.snr_db)
        assert item.subject in next(iter(parity_lines(item)))
    half, coarse = (
        [item for item in found if item.limit == PARITY_LIMITS[name]] for name in ("fp16", "int8")
    )
    for fine, rough in zip(half, coarse, strict=True):
        assert fine.changes[0].snr_db > rough.changes[0].snr_db + 6


@pytest.mark.parametrize("name", ["levels", "grader", "cord"])
def test_a_network_with_other_weights_has_no_signal_left(
    pack: Pack, inputs: dict[str, Float32Array], name: str
) -> None:
    data = pack.read_model(name)
    expected = run_inputs(onnx_runner(data), inputs[name], 4)
    (change,) = output_changes(expected, run_inputs(onnx_runner(_shuffled(data)), inputs[name], 4))
    assert change.snr_db < 3
    (same,) = output_changes(expected, run_inputs(onnx_runner(data), inputs[name], 4))
    assert (same.largest, same.mean, same.snr_db) == (0.0, 0.0, float("inf"))


def test_the_figures_are_those_of_all_inputs_at_once_whatever_the_batch(
    pack: Pack, inputs: dict[str, Float32Array]
) -> None:
    data, other, images = pack.read_model("cord"), _shuffled(pack.read_model("cord")), inputs["cord"][:5]
    expected, given = (cpu_session(item).run(None, {"image": images})[0] for item in (data, other))
    error = np.abs(expected - given)
    for batch in (1, 3, 8):
        (change,) = output_changes(
            run_inputs(onnx_runner(data), images, 2), run_inputs(onnx_runner(other), images, batch)
        )
        assert change.largest == pytest.approx(error.max(), rel=1e-4)
        assert change.mean == pytest.approx(error.mean(), rel=1e-4)
        snr = 20 * np.log10(np.linalg.norm(expected) / np.linalg.norm(expected - given))
        assert change.snr_db == pytest.approx(snr, abs=1e-3)


def test_an_interrupt_while_polygraphy_would_import_pytorch_ends_the_comparison(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    metadata = tmp_path / "torch-2.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0\n", encoding="utf-8")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.modules.pop('torch', None)\n"
        "import numpy as np\n"
        "from stenosis_trt.engine.packs.pack import Pack, reference_pack\n"
        "from stenosis_trt.export.onnx.comparator import onnx_runner, run_inputs\n"
        "data = Pack.load(reference_pack()).read_model('cord')\n"
        "try:\n"
        "    run_inputs(onnx_runner(data), np.zeros((1, 1, 128, 128), np.float32), 1)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=time_limit(100))
    assert answer.stdout.splitlines()[-1:] == ["interrupted"], answer.stderr


def test_outputs_of_other_names_are_not_taken_for_one_another(
    pack: Pack, inputs: dict[str, Float32Array]
) -> None:
    model = onnx.load_model_from_string(pack.read_model("cord"))
    for node in model.graph.node:
        node.output[:] = ["points" if name == "heatmaps" else name for name in node.output]
    model.graph.output[0].name = "points"
    images = inputs["cord"][:1]
    renamed = run_inputs(onnx_runner(model.SerializeToString()), images, 1)
    with pytest.raises(ComparatorError, match="outputs are points, and those of the model in FP32 heatmaps"):
        output_changes(run_inputs(onnx_runner(pack.read_model("cord")), images, 1), renamed)


def test_what_is_no_number_does_not_pass_and_goes_to_the_sidecar_as_none() -> None:
    nothing = ParityResult(
        "x", 1, 1, (OutputChange("heatmaps", float("nan"), float("nan"), float("nan")),), 40.0
    )
    assert not nothing.passed
    assert not ParityResult("x", 1, 1, (), 40.0).passed
    kept = parity_record([nothing], "phantoms", HERE)
    assert kept["passed"] is False
    assert kept["batches"][0]["changes"][0]["snr_db"] is None
    json.dumps(kept, allow_nan=False)
    assert parity_record([], "phantoms", HERE)["passed"] is False


def test_a_file_that_is_another_network_fails_verify(
    pack: Pack, inputs: dict[str, Float32Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "parity_inputs", lambda pack, studies: (inputs, "one phantom"))
    sound = _with_variant(pack, tmp_path / "sound", pack.read_model("cord"))
    answer = CliRunner().invoke(app, ["verify", str(sound.path), "--parity"])
    assert answer.exit_code == 0, answer.output
    assert "Compared with FP32 in ONNX Runtime, on inputs from one phantom:" in answer.output
    assert "cord.fp16.onnx: heatmaps changes by 0 at most" in answer.output
    wrong = _with_variant(pack, tmp_path / "wrong", _shuffled(pack.read_model("cord")))
    answer = CliRunner().invoke(app, ["verify", str(wrong.path), "--parity"])
    assert answer.exit_code == 1
    assert "DIFFERS" in answer.output


def test_a_pack_of_fp32_alone_has_nothing_to_compare(tmp_path: Path) -> None:
    tiny = write_tiny_pack(tmp_path / "tiny")
    answer = CliRunner().invoke(app, ["verify", str(tiny.path), "--parity"])
    assert answer.exit_code == 0
    assert "nothing to compare" in answer.output.lower()


# Plans. `plan_runner` is what a GPU would have to be for: ONNX Runtime answers in its place.


class _StandIn:
    """TensorRT that deserialises to what it was given. `engines` are the plans that were asked for."""

    def __init__(self) -> None:
        self.flavour, self.engines = RTX, list[bytes]()

    def deserialise(self, plan: bytes, host_code: bool = False) -> bytes:
        self.engines.append(plan)
        return plan


@pytest.fixture(scope="module")
def built_once(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    made = _with_variant(pack, tmp_path_factory.mktemp("parity") / "pack", pack.read_model("cord"))
    settings = BuildSettings((1, 3))
    request = BuildRequest("tensorrt-rtx", ("fp32",), ("cord",), settings)
    assert all(item.plan for item in build_plans(made, request, NO_GPU, show_progress))
    return made


@pytest.fixture
def built(built_once: Pack, tmp_path: Path) -> Pack:
    """A pack of its own with a plan of its cord in FP32, for batches of 1 and 3."""
    return Pack.load(shutil.copytree(built_once.path, tmp_path / "pack"))


def _answering(data: bytes, sizes: list[int]) -> Any:
    """In place of `plan_runner`: ONNX Runtime with `data`, which notes the size of each batch."""

    class Session:
        def __init__(self) -> None:
            self._session = cpu_session(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

        def run(self, names: None, feed: dict[str, Float32Array]) -> list[Float32Array]:
            sizes.extend(len(batch) for batch in feed.values())
            return list(self._session.run(names, feed))

    def runner(tensorrt: object, engine: bytes, profile: int) -> Any:
        from polygraphy.backend.onnxrt import OnnxrtRunner

        return OnnxrtRunner(Session())

    return runner


@needs_rtx
def test_a_plan_is_compared_in_each_of_its_batches_and_given_no_other(
    built: Pack, inputs: dict[str, Float32Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(parity, "plan_runner", _answering(built.read_model("cord"), sizes))
    (plan,) = iter_readable_plans(built)
    tensorrt: Any = _StandIn()
    found = list(compare_plan(built, plan, tensorrt, inputs["cord"][:4]))
    assert tensorrt.engines == [plan.path.read_bytes()]
    assert [(item.batch, item.inputs, item.passed) for item in found] == [(1, 4, True), (3, 4, True)]
    assert sizes == [1, 1, 1, 1, 3, 3]
    assert found[0].subject.endswith("-any-fp32/cord.plan")
    assert "in batches of 3: heatmaps changes by" in next(iter(parity_lines(found[1])))


@needs_rtx
def test_a_plan_that_was_changed_is_not_deserialised(built: Pack, inputs: dict[str, Float32Array]) -> None:
    (plan,) = iter_readable_plans(built)
    plan.path.write_bytes(plan.path.read_bytes()[::-1])
    tensorrt: Any = _StandIn()
    with pytest.raises(TensorRTError, match="is not the plan that its sidecar names"):
        next(iter(compare_plan(built, plan, tensorrt, inputs["cord"])))
    assert tensorrt.engines == []


@pytest.fixture
def on_a_gpu(
    built: Pack, inputs: dict[str, Float32Array], monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """`verify --parity` as on a machine with a GPU, where plans answer as FP32 does."""
    monkeypatch.setattr(parity, "parity_inputs", lambda pack, studies: (inputs, "one phantom"))
    monkeypatch.setattr(parity, "plan_runner", _answering(built.read_model("cord"), []))
    monkeypatch.setattr("stenosis_trt.engine.support.hardware.query_nvidia_driver", lambda: ADA)
    monkeypatch.setattr(TensorRT, "deserialise", lambda self, plan, host_code=False: plan)
    return monkeypatch


def _plan(pack: Pack) -> StoredPlan:
    (plan,) = iter_readable_plans(pack)
    return plan


@needs_rtx
def test_what_was_found_of_a_plan_is_recorded_in_its_sidecar(
    built: Pack, on_a_gpu: pytest.MonkeyPatch
) -> None:
    answer = CliRunner().invoke(app, ["verify", str(built.path), "--parity"])
    assert answer.exit_code == 0, answer.output
    measured = _plan(built).sidecar.measured
    assert measured is not None
    assert measured["passed"] is True
    assert (measured["gpu"], measured["compared_on"]) == ("NVIDIA RTX 4090", "one phantom")
    assert [item["batch"] for item in measured["batches"]] == [1, 3]
    answer = CliRunner().invoke(app, ["verify", str(built.path)])
    assert "compared with FP32 on NVIDIA RTX 4090; can be loaded here" in answer.output
    assert answer.exit_code == 0


@needs_rtx
def test_a_plan_that_answers_otherwise_fails_verify_and_is_not_loaded_from_then_on(
    built: Pack, on_a_gpu: pytest.MonkeyPatch
) -> None:
    on_a_gpu.setattr(parity, "plan_runner", _answering(_shuffled(built.read_model("cord")), []))
    answer = CliRunner().invoke(app, ["verify", str(built.path), "--parity"])
    assert answer.exit_code == 1
    assert "DIFFERS" in answer.output
    answer = CliRunner().invoke(app, ["verify", str(built.path)])
    assert "STALE: its own answers differed too far from FP32's on NVIDIA RTX 4090" in answer.output
    assert answer.exit_code == 1


@needs_rtx
def test_a_plan_that_cannot_be_run_is_named_and_nothing_is_recorded(
    built: Pack, on_a_gpu: pytest.MonkeyPatch
) -> None:
    def refuse(self: TensorRT, plan: bytes, host_code: bool = False) -> None:
        raise TensorRTError("tensorrt-rtx does not take the plan: out of memory.", "End other programs.")

    on_a_gpu.setattr(TensorRT, "deserialise", refuse)
    answer = CliRunner().invoke(app, ["verify", str(built.path), "--parity"])
    assert answer.exit_code == 1
    assert "cord.plan: not compared. tensorrt-rtx does not take the plan: out of memory." in answer.output
    assert _plan(built).sidecar.measured is None


@needs_rtx
def test_a_signed_sidecar_is_left_as_it_was_signed(built: Pack, on_a_gpu: pytest.MonkeyPatch) -> None:
    signature_path(_plan(built).path.with_suffix(".json")).write_text("whoever signed it", encoding="utf-8")
    before = _plan(built).sidecar_bytes
    answer = CliRunner().invoke(app, ["verify", str(built.path), "--parity"])
    assert answer.exit_code == 0, answer.output
    assert "Not recorded: its sidecar is signed" in answer.output
    assert _plan(built).sidecar_bytes == before


@needs_rtx
@pytest.mark.skipif(bool(query_nvidia_driver().gpus), reason="there is a GPU")
def test_without_a_gpu_a_plan_is_refused_in_the_librarys_words(
    built: Pack, inputs: dict[str, Float32Array]
) -> None:
    with pytest.raises(TensorRTError, match="rejects the plan"):
        next(iter(compare_plan(built, _plan(built), TensorRT(RTX), inputs["cord"])))


@pytest.mark.gpu
@needs_rtx
def test_plans_answer_on_this_gpu_as_their_models_do(
    quantised: Pack, inputs: dict[str, Float32Array], tmp_path: Path
) -> None:
    gpus = query_nvidia_driver().gpus
    if not gpus or not RTX.runs_on(gpus[0].compute_capability):
        pytest.skip("no GPU that TensorRT-RTX runs on")
    pack = replace(quantised, path=Path(shutil.copytree(quantised.path, tmp_path / "pack")))
    request = BuildRequest(RTX.name, settings=BuildSettings((1, 8)), force=True)
    for item in build_plans(pack, request, NO_GPU, show_progress):
        assert item.plan is not None, item.reason
        for found in compare_plan(pack, item.plan, TensorRT(RTX), inputs[item.model]):
            assert found.passed, list(parity_lines(found))


# Polygraphy itself.


def test_the_summary_names_what_goes_in_and_comes_out(pack: Pack) -> None:
    text = onnx_summary(pack.read_model("grader"))
    assert "image [dtype=float32, shape=('batch', 3, 128, 128)]" in text
    assert "probabilities [dtype=float32, shape=('batch', 5)]" in text
    answer = CliRunner().invoke(app, ["verify", str(pack.path), "--inspect"])
    assert answer.exit_code == 0
    files = sum(1 + len(model.variants) for model in pack.models.values())
    assert answer.output.count("Graph Input(s)") == files


def test_a_missing_polygraphy_is_one_line_that_says_what_to_install(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "polygraphy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    with pytest.raises(ComparatorError, match=r"pip install 'stenosis-trt\[export\]'"):
        onnx_summary(pack.read_model("cord"))
    answer = CliRunner().invoke(app, ["verify", str(pack.path), "--inspect"])
    assert answer.exit_code == 2
    assert "Polygraphy, which is not installed" in answer.output.splitlines()[-1]


def test_a_missing_cuda_runtime_is_one_line_that_says_where_to_get_it(
    inputs: dict[str, Float32Array],
) -> None:
    class Runner:
        def __enter__(self) -> None:
            raise OSError("libcudart.so: cannot open shared object file: No such file or directory")

        def __exit__(self, *_: object) -> None: ...

    with pytest.raises(
        ComparatorError, match=r"CUDA runtime \(libcudart.so.*pip install nvidia-cuda-runtime"
    ):
        run_inputs(Runner(), inputs["cord"], 1)


_RUNNER = """
from stenosis_trt.engine.trt.api import TensorRT
from stenosis_trt.engine.trt.flavours import FLAVOURS
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.export.onnx.comparator import ComparatorError, onnx_runner, plan_runner

onnx_runner(Pack.load(reference_pack()).read_model("cord"))
TensorRT.execution_context = lambda self, engine: engine
try:
    runner = plan_runner(TensorRT(FLAVOURS["tensorrt-rtx"]), object(), 0)
except ComparatorError as error:
    print(error)
else:
    from polygraphy.backend.trt import util
    print(type(runner).__name__, util.trt.__version__)
"""


def _runner(**environment: str) -> str:
    """What `_RUNNER` prints, in a process in which Polygraphy was not imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=time_limit(120),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_rtx
@pytest.mark.skipif(installed_flavours() != (RTX.name,), reason="TensorRT is installed too")
def test_polygraphy_takes_the_flavour_that_is_installed() -> None:
    assert _runner() == f"TrtRunner {TensorRT(RTX).version}"


@needs_rtx
def test_polygraphy_set_to_the_other_flavour_says_how_to_set_it() -> None:
    said = _runner(POLYGRAPHY_USE_TENSORRT_RTX="0")
    assert "takes one at a time. Call again with POLYGRAPHY_USE_TENSORRT_RTX=1 in the environment" in said
