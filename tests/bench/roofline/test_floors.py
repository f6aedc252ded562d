"""Floors of blocks at given ceilings, and ceilings that no measurement exceeds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_ceilings import BLOCK, CEILINGS, made_rate

from stenosis_trt.bench.roofline.floors import NetworkPrecision, block_floor, moved_floor, network_precision
from stenosis_trt.bench.roofline.matching import assign_nodes
from stenosis_trt.bench.roofline.networks import NetworkProfile, block_points, raise_peaks
from stenosis_trt.bench.roofline.profiles import NodeTime
from stenosis_trt.engine.backends.cpu.candidates import Arithmetic, Execution


def test_a_block_that_computes_takes_its_multiply_adds_over_the_peak() -> None:
    floor = block_floor(BLOCK, 4, NetworkPrecision("fp32"), CEILINGS)
    assert floor.floor_ms == floor.compute_ms == pytest.approx(4e6 / 100e9 * 1e3)
    assert floor.limit == "compute"
    assert floor.moved_bytes == 4 * (1000 + 4 * 10_000)
    # The ReLU alone reads and writes its activations in the cache.
    assert floor.layered_ms == pytest.approx(floor.compute_ms + 4 * 4 * 10_000 / 100e9 * 1e3)


def test_a_block_that_moves_takes_its_bytes_over_the_bandwidth_of_what_holds_them() -> None:
    moving = replace(BLOCK, layers=BLOCK.layers[1:])
    small = block_floor(moving, 1, NetworkPrecision("bf16"), CEILINGS)
    assert small.floor_ms == pytest.approx(2 * 10_000 / 100e9 * 1e3)
    large = block_floor(moving, 100, NetworkPrecision("fp32"), CEILINGS)
    assert large.floor_ms == pytest.approx(100 * 4 * 10_000 / 20e9 * 1e3)
    assert large.limit == "memory"
    assert moved_floor("preprocessing", 10**6, 20e9).floor_ms == pytest.approx(0.05)


def test_what_int8_leaves_unquantised_runs_at_the_rate_of_the_rest() -> None:
    precision = network_precision(Arithmetic("openvino", "int8", "bf16"), 0.5)
    assert precision == NetworkPrecision("int8", "bf16", 0.5)
    assert precision.seconds(1e9, CEILINGS) == pytest.approx(0.5e9 / 400e9 + 0.5e9 / 200e9)
    assert network_precision(Arithmetic("onnxruntime", "int8"), None) == NetworkPrecision("int8", "fp32", 1.0)
    assert network_precision(Arithmetic("openvino", "fp32", "bf16"), None).name == "bf16"


def test_a_precision_without_a_peak_is_computed_in_fp32() -> None:
    assert NetworkPrecision("fp16").seconds(1e9, CEILINGS) == pytest.approx(1e9 / 100e9)


def test_a_larger_level_is_never_taken_for_faster_than_a_smaller_one() -> None:
    l2, memory = CEILINGS.memory
    odd = replace(CEILINGS, memory=(replace(l2, all_cores=made_rate(5e9)), memory))
    assert odd.bandwidth(1000) == 20e9


def _profile(milliseconds: float) -> NetworkProfile:
    runs = ((NodeTime("a", "Conv", milliseconds),), (NodeTime("a", "Conv", 2 * milliseconds),))
    fields = ("levels", "ONNX Runtime fp32", NetworkPrecision("fp32"), Execution(2, 1, 4), 1000)
    return NetworkProfile(*fields, (BLOCK,), assign_nodes(runs, (BLOCK,)), runs)


def test_a_block_that_ran_faster_than_the_probes_raises_the_peak() -> None:
    """1e9 multiply-adds in 5 ms are 200e9 a second."""
    raised = raise_peaks(CEILINGS, [_profile(5.0)])
    assert raised.peaks["fp32"].best == pytest.approx(200e9)
    assert "block of levels" in raised.peaks["fp32"].by
    (point,) = block_points(_profile(5.0), raised)
    assert point.ratio >= 1.0
    assert raise_peaks(CEILINGS, [_profile(50.0)]).peaks == CEILINGS.peaks


def test_a_time_too_short_to_trust_raises_nothing() -> None:
    assert raise_peaks(CEILINGS, [_profile(0.001)]).peaks == CEILINGS.peaks
