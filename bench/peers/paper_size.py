"""The grader at 456 × 456 pixels, the size of torchvision's EfficientNet_B5, which the paper names.

A fully convolutional grader takes images of any size: the pack's ONNX file gets another input size. Its
grades would mean nothing at this size; its time is that of a grader trained for it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.bench.peers import runtime_peers, torch_peers
from stenosis_trt.bench.peers.catalogue import DEFAULT
from stenosis_trt.bench.peers.opened import open_peer
from stenosis_trt.bench.peers.pairing import PairedTimes, Timer, measure_pairs, timed
from stenosis_trt.bench.peers.peer import Peer, PeerAbsent, Workload, one_line
from stenosis_trt.bench.record.record import Absence
from stenosis_trt.engine.backends.selection import open_backend
from stenosis_trt.engine.backends.stepwise import StepwiseBackend
from stenosis_trt.engine.errors import StenosisError
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack

SIZE = 456
"""Pixels along each side of EfficientNet_B5's images in torchvision."""

_GRADER = "grader"
_LOADING_SHARE = 0.4

PEERS = (
    (Peer(DEFAULT, "ONNX Runtime, defaults", runtime_peers.load_onnxruntime), "onnxruntime"),
    (Peer("openvino_fp32", "OpenVINO float32", runtime_peers.load_openvino_fp32), "openvino"),
    (Peer("openvino_bf16", "OpenVINO bfloat16", runtime_peers.load_openvino_bf16), "openvino"),
    (Peer("torch_eager", "PyTorch eager", torch_peers.load_torch_eager, isolated=True), "torch"),
    (
        Peer("torchvision", "torchvision's EfficientNet_B5", torch_peers.load_torchvision, isolated=True),
        "torchvision",
    ),
)
"""Peers, each with the package that it needs."""


def resized_pack(files: Path, out: Path) -> Pack:
    """Write a pack whose grader takes images of `SIZE`, and load it.

    Args:
        files: folder that `write_models` wrote.
        out: folder of the new pack.

    Raises:
        PeerAbsent: the package onnx is not installed, or the grader's file cannot be changed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise PeerAbsent("The package onnx is not installed.")
    import onnx

    out.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((files / MANIFEST).read_bytes())
    for name, model in manifest["models"].items():
        data = (files / model["file"]).read_bytes()
        if name == _GRADER:
            network = onnx.load_model_from_string(data)
            del network.graph.value_info[:]
            for axis in network.graph.input[0].type.tensor_type.shape.dim[2:]:
                axis.dim_value = SIZE
            data = network.SerializeToString()
            model["input"] |= {"height": SIZE, "width": SIZE}
            model["sha256"] = hashlib.sha256(data).hexdigest()
        model.pop("variants", None)
        (out / model["file"]).write_bytes(data)
    (out / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    try:
        return Pack.load(out)
    except StenosisError as error:
        raise PeerAbsent(f"The grader cannot be given another size: {error.reason}") from error


def measure_paper_size(
    files: Path, work: Path, threads: int | None, seconds: float, say: Callable[[str], None]
) -> tuple[dict[str, PairedTimes], list[Absence]]:
    """Time one image of `SIZE` on the CPU: the product's backend against peers.

    Args:
        files: folder that `write_models` wrote.
        work: folder for temporary files.
        threads: threads; None for each one's default.
        seconds: how long to load and to measure, about.
        say: prints a line of progress.

    Returns:
        Times in pairs by peer, and what is absent.

    Raises:
        PeerAbsent: the grader cannot be run at this size.
    """
    pack = resized_pack(files, work / f"pack-{SIZE}")
    spec = pack.models[_GRADER]
    image = np.random.default_rng(0).standard_normal((1, *spec.input_shape)).astype(np.float32)
    workload = Workload(pack.path / spec.file, image, threads)
    absent: list[Absence] = []
    with ExitStack() as stack:
        ours = _product_timer(pack, image, threads, stack)
        timers: dict[str, Timer] = {}
        for peer, package in PEERS:
            say(f"peers: loading {peer.label} at {SIZE}²")
            try:
                timers[peer.name] = _open(peer, package, workload, _LOADING_SHARE * seconds, stack)
            except PeerAbsent as error:
                absent.append(Absence(f"peers.size_{SIZE}.{peer.name}", str(error)))
        say(f"peers: timing at {SIZE}²")
        pairs, gone = measure_pairs(ours, timers, (1.0 - _LOADING_SHARE) * seconds, PeerAbsent)
    absent += [Absence(f"peers.size_{SIZE}.{name}", str(error)) for name, error in gone.items()]
    return pairs, absent


def _product_timer(pack: Pack, image: Any, threads: int | None, stack: ExitStack) -> Timer:
    try:
        backend, _ = open_backend(pack, "cpu", "auto", threads)
        stack.enter_context(closing(backend))
        assert isinstance(backend, StepwiseBackend)
        backend.infer(_GRADER, image)
    except StenosisError as error:
        raise PeerAbsent(f"The grader cannot be run at {SIZE}²: {one_line(error)}") from error
    return timed(lambda: backend.infer(_GRADER, image))


def _open(peer: Peer, package: str, workload: Workload, seconds: float, stack: ExitStack) -> Timer:
    if importlib.util.find_spec(package) is None:
        raise PeerAbsent(f"{package} is not installed.")
    opened = stack.enter_context(closing(open_peer(peer, workload.model.parent)))
    opened.load(_GRADER, workload, seconds)
    return lambda: opened.time((_GRADER,))
