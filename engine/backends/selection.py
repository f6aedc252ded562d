"""Which backend a run takes, and why."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.pack import Pack

DEVICES = ("auto", "cpu", "gpu")


class DeviceError(Exception):
    """The device that was asked for cannot be had. `advice` says what to install or to ask for."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason} {advice}")
        self.reason, self.advice = reason, advice


@dataclass(frozen=True)
class Decision:
    """The backend's name, and why it and no better one."""

    backend: str
    reason: str


def decide(device: str) -> Decision:
    """Choose a backend for `device`, one of `DEVICES`.

    Raises:
        DeviceError: "gpu" was asked for; it never falls back to the CPU.
    """
    if device not in DEVICES:
        raise DeviceError(f"There is no device {device!r}.", f"Give one of {', '.join(DEVICES)}.")
    missing = missing_for_gpu()
    if device == "gpu":
        raise DeviceError(
            "This release has no GPU backend yet; it grades on the CPU.",
            "Give --device cpu or --device auto.",
        )
    if device == "cpu":
        return Decision("onnxruntime", "the CPU was asked for")
    reason = f"no GPU can be used: {'; '.join(missing)}" if missing else "this release has no GPU backend yet"
    return Decision("onnxruntime", reason)


def missing_for_gpu() -> list[str]:
    """What a GPU backend would need and this installation lacks, one phrase each."""
    missing = []
    if importlib.util.find_spec("pycuda") is None:
        missing.append("PyCUDA is not installed (pip install 'stenosis-trt[gpu]')")
    flavours = ("tensorrt", "tensorrt_rtx_bindings")
    if not any(importlib.util.find_spec(name) for name in flavours):
        missing.append("neither TensorRT nor TensorRT-RTX is installed (pip install 'stenosis-trt[rtx]')")
    return missing


def open_backend(pack: Pack, decision: Decision, threads: int | None = None) -> Backend:
    """Make the backend that was decided on."""
    from stenosis_trt.engine.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(pack, threads)
