"""Share of a network's multiply-adds that run in INT8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.export.precision.gate_result import GateResult

QUANTISED_SHARE = "quantised_share"
"""Metric of an INT8 model: share of the multiply-adds whose two factors are INT8."""


def int8_shares(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Shares of the models that have one among their metrics, by model."""
    return {name: found[QUANTISED_SHARE] for name, found in metrics.items() if QUANTISED_SHARE in found}


def stored_int8_share(pack: Pack) -> dict[str, float]:
    """Shares of the INT8 variants of a pack, by model."""
    variants = {name: model.variants.get("int8") for name, model in pack.models.items()}
    return int8_shares({name: item.metrics for name, item in variants.items() if item is not None})


def with_int8_share(outcome: GateResult, shares: Mapping[str, float]) -> GateResult:
    """Return a result with the shares, if it is one of INT8."""
    return replace(outcome, int8_share=shares) if outcome.precision == "int8" else outcome
