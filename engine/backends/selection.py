"""Which backend a run takes, and why."""

from __future__ import annotations

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


def check_device(device: str) -> None:
    """Refuse a device that no machine has.

    Raises:
        DeviceError: it is not one of `DEVICES`.
    """
    if device not in DEVICES:
        raise DeviceError(f"There is no device {device!r}.", f"Give one of {', '.join(DEVICES)}.")


def decide(device: str) -> Decision:
    """Choose a backend for `device`, one of `DEVICES`.

    Raises:
        DeviceError: "gpu" was asked for, which never falls back to the CPU, or there is no such device.
    """
    check_device(device)
    if device == "gpu":
        raise DeviceError(
            "This release has no GPU backend yet; it grades on the CPU.",
            "Give --device cpu or --device auto.",
        )
    reason = "the CPU was asked for" if device == "cpu" else "this release has no GPU backend yet"
    return Decision("onnxruntime", reason)


def open_backend(pack: Pack, decision: Decision, threads: int | None = None) -> Backend:
    """Make the backend that was decided on."""
    from stenosis_trt.engine.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(pack, threads)
