"""OpenVINO answers like ONNX Runtime, refuses the same models, and keeps what it compiled."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cpu_tables import OPENVINO_BF16, everything
from time_limits import time_limit
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.cpu import backend as cpu_backend
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import OPENVINO, Arithmetic, Execution
from stenosis_trt.engine.backends.model_checks import ModelOutputError
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.pack import Pack, open_pack
from stenosis_trt.engine.support.openvino_library import import_openvino

if importlib.util.find_spec("openvino") is None:
    pytest.skip("needs OpenVINO", allow_module_level=True)
openvino = import_openvino()
from stenosis_trt.engine.backends.cpu.openvino import OpenVinoModel  # noqa: E402

OPENVINO_FP32 = Arithmetic(OPENVINO)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return write_tiny_pack(tmp_path / "pack")


def _noise(pack: Pack, model: str, count: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, *pack.models[model].input_shape), dtype=np.float32)


def test_openvino_answers_like_onnx_runtime(pack: Pack) -> None:
    with (
        closing(CpuBackend(pack, 1)) as onnx_runtime,
        closing(CpuBackend(pack, choices=everything(OPENVINO_FP32))) as other,
    ):
        assert (onnx_runtime.name, other.name) == ("onnxruntime", "openvino")
        for model in pack.models:
            batch = _noise(pack, model, 9)
            found = other.infer(model, batch)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, onnx_runtime.infer(model, batch), atol=1e-5)


def test_bfloat16_of_the_reference_packs_cord_is_near_fp32_and_not_equal() -> None:
    whole = open_pack()
    pack = replace(whole, models={"cord": whole.models["cord"]})
    batch = _noise(pack, "cord", 3)
    with (
        closing(CpuBackend(pack, 1)) as fp32,
        closing(CpuBackend(pack, choices=everything(OPENVINO_BF16))) as bf16,
    ):
        error = np.abs(bf16.infer("cord", batch) - fp32.infer("cord", batch)).max()
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert 1e-5 < error < 0.05
    else:
        assert error < 0.05


def test_an_answer_is_not_overwritten_by_the_next(pack: Pack) -> None:
    model = OpenVinoModel(pack.models["cord"], lambda: pack.read_model("cord"), Execution(1, 1, 4), "f32")
    first = model.run(np.full((1, 1, 128, 128), 0.5, np.float32))
    model.run(np.full((1, 1, 128, 128), 0.9, np.float32))
    assert first.max() == pytest.approx(0.5)
    model.close()


def test_invalid_values_are_refused_as_with_onnx_runtime(tmp_path: Path) -> None:
    pack = write_tiny_pack(tmp_path / "pack", invalid="cord")
    with (
        closing(CpuBackend(pack, choices=everything(OPENVINO_FP32))) as backend,
        pytest.raises(ModelOutputError, match="not finite"),
    ):
        backend.infer("cord", np.zeros((1, 1, 128, 128), np.float32))


def test_a_file_that_openvino_cannot_load_is_refused_in_one_line(pack: Pack) -> None:
    with pytest.raises(PackError, match=r"cord\.onnx cannot be used .* OpenVINO cannot load it") as caught:
        OpenVinoModel(pack.models["cord"], lambda: b"\x08\x09no model", Execution(1, 1, 4), "f32")
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_of_another_output_than_the_packs_is_refused(pack: Pack) -> None:
    with pytest.raises(PackError, match=r"levels\.onnx cannot be used"):
        OpenVinoModel(pack.models["levels"], lambda: pack.read_model("grader"), Execution(1, 1, 4), "f32")


def _open_kept(pack: Pack) -> np.ndarray:
    with closing(CpuBackend(pack, choices=everything(OPENVINO_FP32), keep_compiled=True)) as backend:
        return backend.infer("cord", _noise(pack, "cord", 2))


def test_compiled_models_are_kept_and_used_unless_they_are_damaged(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_backend, "cache_folder", lambda: tmp_path / "cache")
    first = _open_kept(pack)
    kept = sorted((tmp_path / "cache" / "openvino").glob("*.blob"))
    assert len(kept) == 3

    def refuse(self: Pack, name: str) -> bytes:
        raise AssertionError(f"{name} was read again")

    with monkeypatch.context() as patch:
        patch.setattr(Pack, "read_model", refuse)
        np.testing.assert_array_equal(_open_kept(pack), first)
    before = [path.read_bytes() for path in kept]
    kept[0].write_bytes(before[0][:-7] + b"damaged")
    np.testing.assert_array_equal(_open_kept(pack), first)
    assert kept[0].read_bytes() != before[0][:-7] + b"damaged"


def test_nothing_unsigned_is_kept_where_packs_have_to_be_signed(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stenosis_trt.engine.packs.signature import TrustedKeys

    monkeypatch.setattr(cpu_backend, "cache_folder", lambda: tmp_path / "cache")
    _open_kept(replace(pack, trust=TrustedKeys(())))
    assert not (tmp_path / "cache").exists()


_WATCHED = """
import sys

def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        print(event, arguments)

sys.addaudithook(watch)
from dataclasses import replace
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.cpu.candidates import OPENVINO, Arithmetic, Execution, ModelChoice
from stenosis_trt.engine.packs.pack import open_pack
pack = open_pack()
cord = replace(pack, models={"cord": pack.models["cord"]})
execution = Execution(1, 1, 4)
CpuBackend(cord, choices={"cord": ModelChoice(Arithmetic(OPENVINO), execution, execution)}).close()
"""


def test_openvino_sends_nothing_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    """A plain `import openvino` would do both, by openvino-telemetry."""
    found = subprocess.run(
        [sys.executable, "-c", _WATCHED],
        env={**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        check=True,
        capture_output=True,
        text=True,
        timeout=time_limit(60),
    )
    assert found.stdout == ""
    assert not list(tmp_path.iterdir())
