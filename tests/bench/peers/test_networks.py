"""Peers of the networks on a tiny pack: which there are, and how they are measured."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.peers import command_peers, loading
from stenosis_trt.bench.peers.catalogue import DEFAULT, find_peers
from stenosis_trt.bench.peers.gate import refused
from stenosis_trt.bench.peers.loading import NetworkOptions, load_peers
from stenosis_trt.bench.peers.model_files import model_file, write_models
from stenosis_trt.bench.peers.networks import ALL, BEST_OPENVINO, ONE, STUDY, measure_networks
from stenosis_trt.bench.peers.peer import Loaded, Peer, Workload, load_or_absent
from stenosis_trt.bench.peers.runtime_peers import load_onnxruntime
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.inputs import StudyInputs
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.backends.cpu.table import CpuTable
from stenosis_trt.engine.packs.models import ModelVariant
from stenosis_trt.engine.packs.pack import Pack

SIZES = {"levels": 3, "grader": 2, "cord": 4}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny")


@pytest.fixture(scope="module")
def product(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    work = tmp_path_factory.mktemp("work")
    with Product(BenchContext(pack, "cpu", "fp32", 1, (), work, 60.0, lambda _: None)) as opened:
        yield opened


@pytest.fixture(scope="module")
def inputs(pack: Pack) -> StudyInputs:
    rng = np.random.default_rng(0)
    return StudyInputs(
        {
            name: rng.random((count, *pack.models[name].input_shape), dtype=np.float32)
            for name, count in SIZES.items()
        }
    )


@pytest.fixture
def options(pack: Pack, tmp_path: Path) -> NetworkOptions:
    write_models(pack, tmp_path / "files")
    return NetworkOptions(pack, tmp_path / "files", tmp_path, 1, 0.5, lambda _: None)


def load_wrong(workload: Workload) -> Loaded:
    """A peer that computes something else."""
    right, output = load_or_absent(load_onnxruntime, workload)
    return Loaded(right.run, lambda: 1.0 - output)


def load_only_small(workload: Workload) -> Loaded:
    """A peer that fails on batches larger than one."""
    if len(workload.batch) > 1:
        raise MemoryError("too large")
    return load_onnxruntime(workload)


def _reasons(pack: Pack, on_gpu: bool = False) -> dict[str, str]:
    return {item.name: item.reason for item in find_peers(pack, on_gpu, "fp32")[1]}


def test_every_peer_is_found_or_absent_with_a_reason(pack: Pack) -> None:
    found, absent = find_peers(pack, False, "fp32")
    names = [f"peers.{peer.name}" for peer in found] + [item.name for item in absent]
    assert len(names) == len(set(names))
    assert {"peers.onnxruntime", "peers.openvino_bf16", "peers.torch_compile", "peers.trtexec"} <= set(names)
    assert all(item.reason.endswith(".") for item in absent)
    for precision in ("fp16", "fp32"):
        found, absent = find_peers(pack, True, precision)
        assert {f"peers.{peer.name}" for peer in found} | {item.name for item in absent} == set(names)


def test_a_package_that_is_missing_makes_its_peers_absent(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    missing = {"torch", "openvino"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in missing else find_spec(name, *rest)
    )
    found, _ = find_peers(pack, False, "fp32")
    assert [peer.name for peer in found] == [DEFAULT]
    assert _reasons(pack)["peers.torch_eager"] == "PyTorch is not installed."
    assert _reasons(pack)["peers.openvino_bf16"] == "OpenVINO is not installed."


def test_int8_is_a_peer_only_of_packs_with_models_that_passed(pack: Pack) -> None:
    assert _reasons(pack)["peers.openvino_int8"] == "The pack has no INT8 models that passed the gate."


def test_on_a_gpu_commands_and_providers_that_are_missing_are_named(
    pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_peers, "find", lambda name: None)
    reasons = _reasons(pack, True)
    assert reasons["peers.trtexec"] == "The command trtexec was not found."
    assert "TensorrtExecutionProvider" in reasons["peers.onnxruntime_tensorrt"]
    assert reasons["peers.openvino_fp32"].startswith("It is compared on a CPU")


def test_every_network_is_timed_at_both_batches_and_together(
    product: Product, inputs: StudyInputs, options: NetworkOptions, pack: Pack
) -> None:
    peers = [peer for peer in find_peers(pack, False, "fp32")[0] if not getattr(peer, "isolated", True)]
    times = measure_networks(product, inputs, peers, options)
    assert times.absences == []
    assert set(times.pairs) == {(model, batch) for model in (*SIZES, ALL) for batch in (STUDY, ONE)}
    for (model, _), pairs in times.pairs.items():
        assert {DEFAULT, "openvino_fp32"} <= set(pairs)
        assert (BEST_OPENVINO in pairs) == (model == ALL)
        assert all(item.ratio().pairs >= 3 for item in pairs.values())
    assert times.images[ALL, STUDY] == 9
    assert times.images[ALL, ONE] == 3
    assert times.best_openvino[STUDY].keys() == SIZES.keys()
    differences = times.differences[DEFAULT]
    assert all(item is not None and item < 1e-5 for by in differences.values() for item in by.values())


def test_pytorch_in_its_own_process_computes_the_same(
    product: Product, inputs: StudyInputs, options: NetworkOptions, pack: Pack
) -> None:
    peers = [peer for peer in find_peers(pack, False, "fp32")[0] if peer.name == "torch_eager"]
    with ExitStack() as stack:
        batches = {STUDY: inputs.batches}
        loaded, absent = load_peers(product, batches, peers, replace(options, seconds=60.0), stack)
        assert absent == []
        assert all(item is not None and item < 1e-5 for item in loaded[0].differences[STUDY].values())
        assert loaded[0].timer(tuple(SIZES), STUDY)() > 0.0


def test_a_peer_that_computes_something_else_is_absent(
    product: Product, inputs: StudyInputs, options: NetworkOptions
) -> None:
    with ExitStack() as stack:
        peers = [Peer("wrong", "Wrong", load_wrong)]
        loaded, absent = load_peers(product, {STUDY: inputs.batches}, peers, options, stack)
    assert loaded == []
    (only,) = absent
    assert only.name == "peers.wrong"
    assert "differ from the product's" in only.reason


def test_a_network_that_a_peer_cannot_run_is_absent_and_the_others_are_measured(
    product: Product, inputs: StudyInputs, options: NetworkOptions
) -> None:
    times = measure_networks(product, inputs, [Peer("small", "Small", load_only_small)], options)
    assert all(("small" in pairs) == (batch == ONE) for (_, batch), pairs in times.pairs.items())
    reasons = {item.name: item.reason for item in times.absences}
    assert reasons.keys() == {f"peers.models.{model}.{STUDY}.small" for model in SIZES}
    assert set(reasons.values()) == {"It cannot run this network: too large."}


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(loading.PeerAbsent, match="shape"):
        loading._difference(np.zeros((2, 4), np.float32), np.zeros((2, 5), np.float32))


def test_variants_are_written_and_used_only_if_they_passed(pack: Pack, tmp_path: Path) -> None:
    model = pack.models["cord"]
    failed = ModelVariant(model.file, model.sha256, {}, {"passed": False})
    changed = replace(pack, models={**pack.models, "cord": replace(model, variants={"int8": failed})})
    write_models(changed, tmp_path)
    assert model_file(changed, tmp_path, "cord", "int8") is None
    assert model_file(changed, tmp_path, "cord", "fp32") == tmp_path / model.file
    assert (tmp_path / model.file).read_bytes() == pack.read_model("cord")


def _table(alone: dict[str, dict[str, dict[str, bool]]]) -> CpuTable:
    return cast(CpuTable, SimpleNamespace(alone=alone))


def test_what_the_gate_of_this_machine_refused_is_no_opponent(
    product: Product, inputs: StudyInputs, options: NetworkOptions, pack: Pack
) -> None:
    outcomes = {"OpenVINO bf16": {"passed": False}, "OpenVINO int8": {"passed": True}}
    found = refused(_table({"grader": outcomes}))
    assert found == {"grader": frozenset({"openvino_bf16"})}
    assert refused(None) == {}
    peers = [peer for peer in find_peers(pack, False, "fp32")[0] if peer.name == "openvino_fp32"]
    allowed = measure_networks(product, inputs, peers, replace(options, refused=found))
    assert allowed.best_openvino[STUDY]["grader"] == "openvino_fp32"
    none_left = {"grader": frozenset({"openvino_fp32"})}
    times = measure_networks(product, inputs, peers, replace(options, refused=none_left))
    assert BEST_OPENVINO not in times.pairs[ALL, STUDY]
