"""Profiles of ONNX Runtime and OpenVINO, and the blocks that their nodes are assigned to."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stenosis_trt.bench.roofline.blocks import BlockWork, network_blocks
from stenosis_trt.bench.roofline.matching import assign_nodes, block_of_node
from stenosis_trt.bench.roofline.profiles import (
    NodeTime,
    ProfiledInputs,
    Run,
    onnxruntime_runs,
    profile_onnxruntime,
    profile_openvino,
)
from stenosis_trt.engine.backends.cpu.candidates import Execution
from stenosis_trt.engine.packs.pack import Pack, reference_pack

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None


def _call(start: int, thread: int, nodes: dict[str, int]) -> list[dict[str, Any]]:
    """A call of a session, and its nodes with their durations in µs."""
    events: list[dict[str, Any]] = []
    at = start
    for name, duration in nodes.items():
        args = {"op_name": "Conv"}
        event = {"cat": "Node", "name": f"{name}_kernel_time", "ts": at, "dur": duration, "tid": thread}
        events.append({**event, "args": args})
        at += duration
    return [
        *events,
        {"cat": "Session", "name": "model_run", "ts": start, "dur": at - start, "tid": thread},
        {"cat": "Session", "name": "SequentialExecutor::Execute", "ts": start, "dur": 1, "tid": thread},
    ]


def test_nodes_are_given_to_the_call_of_their_thread() -> None:
    """Two streams run at the same time: a node's time counts half of its wall time."""
    events = [
        *_call(1000, 8, {"b": 3000}),
        *_call(0, 7, {"a": 2000, "b": 4000}),
        *_call(9000, 7, {"a": 6000}),
        *_call(9500, 8, {"a": 8000}),
    ]
    first, second = onnxruntime_runs(events, parts=2, streams=2)
    assert [(node.name, node.milliseconds) for node in first] == [("a", 1.0), ("b", 2.0), ("b", 1.5)]
    assert [(node.name, node.milliseconds) for node in second] == [("a", 3.0), ("a", 4.0)]
    assert first[0].operator == "Conv"


def _block(name: str, *aliases: str) -> BlockWork:
    return BlockWork(name, (), frozenset(aliases), 0, 0)


BLOCKS = (_block("one", "node_conv", "relu"), _block("two", "node_silu_2", "mul_2"))


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("relu_nchwc", "one"),
        ("node_conv/WithoutBiases", "one"),
        ("image_f32_abcd_bf16_acdb_node_conv/WithoutBiases", "one"),
        ("node_silu_2/QuickGeluFusion/", "two"),
        ("ReorderOutput_token_7", None),
        ("conv", None),
    ],
)
def test_a_node_is_known_by_the_names_of_the_graph_in_its_name(name: str, block: str | None) -> None:
    names = {alias: item.name for item in BLOCKS for alias in item.aliases}
    assert block_of_node(NodeTime(name, "Conv", 1.0), names) == block


def test_layout_changes_go_with_the_block_before_them_and_other_unknown_nodes_are_listed() -> None:
    run: Run = (
        NodeTime("relu_nchwc", "Conv", 4.0),
        NodeTime("ReorderOutput_token_1", "ReorderOutput", 1.0),
        NodeTime("node_silu_2", "QuickGelu", 2.0),
        NodeTime("something", "MatMul", 3.0),
    )
    found = assign_nodes([run, run], BLOCKS)
    assert [(item.name, item.milliseconds) for item in found.blocks] == [
        ("one", (5.0, 5.0)),
        ("two", (2.0, 2.0)),
    ]
    assert found.unassigned == {"something": (3.0, 3.0)}
    assert found.by_order == pytest.approx(0.1)
    assert found.blocks[0].operators == {"Conv": 8.0, "ReorderOutput": 2.0}


def _inputs(pack: Pack, name: str, streams: int) -> ProfiledInputs:
    batch = np.random.default_rng(0).random((1, *pack.models[name].input_shape), dtype=np.float32)
    return ProfiledInputs((batch, batch), Execution(streams, 1, 1), 1, 60.0)


def test_every_node_of_onnx_runtime_finds_its_block(tmp_path: Path) -> None:
    pack, name = Pack.load(reference_pack()), "grader"
    runs = profile_onnxruntime(pack.read_model(name), _inputs(pack, name, 2), tmp_path)
    assert len(runs) == 1
    found = assign_nodes(runs, network_blocks(pack, name))
    assert found.unassigned == {}
    assert found.by_order < 0.5
    assert all(block.milliseconds[0] > 0.0 for block in found.blocks)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not HAS_OPENVINO, reason="OpenVINO is not installed")
def test_every_node_of_openvino_finds_its_block() -> None:
    pack, name = Pack.load(reference_pack()), "grader"
    runs = profile_openvino(pack.read_model(name), _inputs(pack, name, 1), "f32")
    found = assign_nodes(runs, network_blocks(pack, name))
    assert found.unassigned == {}
    assert sum(block.milliseconds[0] > 0.0 for block in found.blocks) > len(found.blocks) / 2
