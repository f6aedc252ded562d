"""Sidecars of plans: which plans a pack has, and why one is not loaded.

A checksum is made anew for what was changed: it is against damage, and who means harm does the same.
"""

from __future__ import annotations

import hashlib
import json
import random
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from fuzz.harness import Target, main
from fuzz.mutation import mutated_json
from stenosis_trt.engine.errors import PackError, PlanError
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.plans.sidecar import RuntimeTarget, Sidecar
from stenosis_trt.engine.plans.store import (
    PLANS_FOLDER,
    find_plan,
    iter_readable_plans,
    load_blocker,
    spec_sha256,
)

_CHECKSUM = "content_sha256"
_HERE = (
    RuntimeTarget("tensorrt", "10.3.0", "Orin", (8, 7)),
    RuntimeTarget("tensorrt", "11.4.0", "NVIDIA H200", (9, 0)),
    RuntimeTarget("tensorrt-rtx", "1.7.1.116", "NVIDIA GeForce RTX 4090", (8, 9)),
)


@cache
def _reference() -> Pack:
    return Pack.load(reference_pack())


def seeds() -> list[bytes]:
    grader = _reference().models["grader"]
    sidecar = Sidecar(
        model="grader",
        precision="fp32",
        plan_sha256="0" * 64,
        plan_bytes=1,
        onnx_sha256=grader.sha256,
        spec_sha256=spec_sha256(grader),
        pack_sha256="0" * 64,
        flavour="tensorrt",
        version="10.3.0",
        compute_capabilities=("8.7",),
        newer_than=None,
        gpu_name=None,
        driver=None,
        batches=(1, 6),
        settings=("--tf32",),
        version_compatible=True,
        hardware_compatible="",
        dla_core=None,
        layers={"FLOAT": 3},
        build_seconds=1.0,
        built_with="0.1.0",
    )
    ahead = replace(sidecar, flavour="tensorrt-rtx", newer_than="12.0", variant_gate={"passed": True})
    return [item.text().encode() for item in (sidecar, ahead)]


def check(data: bytes, folder: Path) -> None:
    place = folder / PLANS_FOLDER / "tensorrt-10.3.0-any-fp32"
    place.mkdir(parents=True)
    (place / "grader.json").write_bytes(data)
    (place / "grader.plan").write_bytes(b"p")
    pack = replace(_reference(), path=folder)
    for plan in iter_readable_plans(pack):
        for here in _HERE:
            load_blocker(pack, plan, here)
            plan.sidecar.load_blocker(here)
    for here in _HERE:
        with suppress(PlanError):
            find_plan(pack, "grader", "fp32", here)


def mutate(rng: random.Random, data: bytes) -> bytes:
    changed = mutated_json(rng, data)
    try:
        content = json.loads(changed)
        if rng.random() < 0.9 and isinstance(content, dict):
            content.pop(_CHECKSUM, None)
            whole = json.dumps(content, sort_keys=True).encode()
            content[_CHECKSUM] = hashlib.sha256(whole).hexdigest()
            return json.dumps(content).encode()
    except (ValueError, RecursionError):
        pass
    return changed


TARGET = Target("sidecars", (PackError, PlanError), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
