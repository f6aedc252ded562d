"""Which peers there are, and which of them this machine has."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from stenosis_trt.bench.peers import command_peers, runtime_peers, torch_peers
from stenosis_trt.bench.peers.peer import AnyPeer, CommandPeer, Peer
from stenosis_trt.bench.record.record import Absence
from stenosis_trt.engine.packs.pack import Pack

DEFAULT = "onnxruntime"
"""The peer that most users would take on a CPU."""

_TORCH = ("torch", "onnx")

_CPU: tuple[tuple[AnyPeer, tuple[str, ...]], ...] = (
    (Peer(DEFAULT, "ONNX Runtime, defaults", runtime_peers.load_onnxruntime), ("onnxruntime",)),
    (Peer("openvino_fp32", "OpenVINO float32", runtime_peers.load_openvino_fp32), ("openvino",)),
    (Peer("openvino_bf16", "OpenVINO bfloat16", runtime_peers.load_openvino_bf16), ("openvino",)),
    (Peer("openvino_int8", "OpenVINO INT8", runtime_peers.load_openvino_fp32, "int8"), ("openvino",)),
    (
        Peer("openvino_int8_bf16", "OpenVINO INT8, rest bfloat16", runtime_peers.load_openvino_bf16, "int8"),
        ("openvino",),
    ),
    (Peer("torch_eager", "PyTorch eager", torch_peers.load_torch_eager, isolated=True), _TORCH),
    (Peer("torch_compile", "torch.compile", torch_peers.load_torch_compiled, "fp32", True, True), _TORCH),
)
"""Peers on a CPU, each with the packages that it needs."""

OPENVINO = tuple(peer.name for peer, needs in _CPU if "openvino" in needs)


def _gpu(precision: str) -> tuple[tuple[AnyPeer, tuple[str, ...]], ...]:
    """Peers on a GPU. Those of TensorRT and ONNX Runtime get the files in the product's own precision."""
    file = precision if precision in ("fp16", "int8") else "fp32"
    cuda, tensorrt = runtime_peers.load_onnxruntime_cuda, runtime_peers.load_onnxruntime_tensorrt
    eager, compiled = torch_peers.load_torch_eager_cuda, torch_peers.load_torch_compiled_cuda
    amp = torch_peers.load_torch_amp_cuda
    return (
        (Peer("torch_eager", "PyTorch eager", eager, isolated=True), _TORCH),
        (Peer("torch_compile", "torch.compile", compiled, "fp32", True, True), _TORCH),
        (Peer("torch_amp", "PyTorch channels last, AMP", amp, isolated=True), _TORCH),
        (Peer("onnxruntime_cuda", "ONNX Runtime, CUDA", cuda, file, True), ("onnxruntime",)),
        (
            Peer("onnxruntime_tensorrt", "ONNX Runtime, TensorRT", tensorrt, file, True, True),
            ("onnxruntime",),
        ),
        (CommandPeer("trtexec", "trtexec", command_peers.open_trtexec, file), ()),
        (CommandPeer("polygraphy", "Polygraphy, TensorRT", command_peers.open_polygraphy, file), ()),
    )


_PROVIDERS = {
    "onnxruntime_cuda": "CUDAExecutionProvider",
    "onnxruntime_tensorrt": "TensorrtExecutionProvider",
}

_PACKAGES: Mapping[str, str] = {
    "torch": "PyTorch",
    "onnx": "The package onnx",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
}


def find_peers(pack: Pack, on_gpu: bool, precision: str) -> tuple[list[AnyPeer], list[Absence]]:
    """Return the peers that this machine has, and what is absent with the reason.

    Args:
        pack: the pack under test.
        on_gpu: the product computes on a GPU. It is compared with peers on the same device.
        precision: the product's own precision.
    """
    here, elsewhere = (_gpu(precision), _CPU) if on_gpu else (_CPU, _gpu(precision))
    found, absent = [], []
    for peer, packages in here:
        reason = _reason_to_lack(peer, packages, pack)
        if reason:
            absent.append(Absence(f"peers.{peer.name}", reason))
        else:
            found.append(peer)
    known = {peer.name for peer, _ in here}
    device = "the GPU" if on_gpu else "a CPU"
    reason = f"It is compared on a {'CPU' if on_gpu else 'GPU'}, and the product computes on {device} here."
    absent += [Absence(f"peers.{peer.name}", reason) for peer, _ in elsewhere if peer.name not in known]
    return found, absent


def _reason_to_lack(peer: AnyPeer, packages: tuple[str, ...], pack: Pack) -> str:
    """Return why a peer cannot be measured, or ""."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            return f"{_PACKAGES[package]} is not installed."
    if peer.name in command_peers.COMMANDS and command_peers.find(peer.name) is None:
        return f"The command {peer.name} was not found."
    provider = _PROVIDERS.get(peer.name)
    if provider is not None:
        import onnxruntime

        if provider not in onnxruntime.get_available_providers():
            return f"The ONNX Runtime that is installed has no {provider}."
    variants = [model.variants.get(peer.precision) for model in pack.models.values()]
    if peer.precision != "fp32" and not any(item is not None and item.passed for item in variants):
        return f"The pack has no {peer.precision.upper()} models that passed the gate."
    return ""
