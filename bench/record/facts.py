"""Short texts about a benchmark run, for the head of a table or a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stenosis_trt.bench.record.record import BenchRecord


def machine_text(machine: Mapping[str, Any]) -> str:
    """Return "AMD EPYC 9R14, 2 cores, 25.3 GB, NVIDIA L4, 24 GB"; what is not known is left out."""
    cores = machine.get("cores")
    parts = [
        machine.get("board") or machine.get("processor"),
        f"{cores} core{'' if cores == 1 else 's'}" if cores else None,
        f"{machine['memory_gb']} GB" if machine.get("memory_gb") else None,
        *machine.get("gpus", ()),
        f"power mode {machine['power_mode']}" if machine.get("power_mode") else None,
    ]
    return ", ".join(str(part) for part in parts if part)


def product_text(product: Mapping[str, Any]) -> str:
    """Return "pack reference 1.0, backend cpu, precision fp32"."""
    parts = [
        f"{name} {product[key]}"
        for key, name in (("pack", "pack"), ("backend", "backend"), ("precision", "precision"))
        if product.get(key)
    ]
    threads = product.get("threads")
    return ", ".join([*parts, f"{threads} thread{'' if threads == 1 else 's'}"] if threads else parts)


def models_text(product: Mapping[str, Any]) -> str:
    """Return what runs each model: "levels by openvino bf16, …"; "" if it is not known."""
    models = product.get("model_runs_by")
    return ", ".join(f"{name} by {value}" for name, value in models.items()) if models else ""


def studies_text(studies: Mapping[str, Any]) -> str:
    """Return "20 phantoms of seed 7, 826 files, 210 MB"."""
    count = studies.get("studies")
    if count is None:
        return ""
    seed = studies.get("seed")
    kind = (
        "stud" + ("y" if count == 1 else "ies") if seed is None else "phantom" + ("" if count == 1 else "s")
    )
    parts = [f"{count} {kind}" + ("" if seed is None else f" of seed {seed}")]
    if studies.get("files"):
        parts.append(f"{studies['files']} files")
    if studies.get("bytes"):
        parts.append(f"{studies['bytes'] / 1e6:.0f} MB")
    return ", ".join(parts)


def busy_text(record: BenchRecord) -> str:
    """Return the sentence about other load; "" if the run was not disturbed."""
    return str(record.busy.get("sentence") or "")


def target_counts(record: BenchRecord) -> tuple[int, int]:
    """Return the number of targets that are met, and of all targets."""
    met = [figure.target_met for figure in record.figures().values() if figure.target is not None]
    return sum(map(bool, met)), len(met)
