"""Candidate packs: copies of a pack with some models replaced, written to a folder for measurement."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stenosis_trt.engine.packs.pack import Pack


def variant_file(model: str, precision: str) -> str:
    """File name of a model's variant within a pack."""
    return f"{model}.{precision}.onnx"


def write_candidate(pack: Pack, folder: Path, precision: str, models: Mapping[str, bytes]) -> Pack:
    """Write a copy of the pack in which `models` replace its own; other models are copied unchanged.

    Args:
        pack: the original pack.
        folder: receives the files of all models; created if absent.
        precision: precision of the replacing models.
        models: ONNX files by model name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    specs = {}
    for name, model in pack.models.items():
        specs[name] = model
        data = models.get(name)
        if data is not None:
            digest = hashlib.sha256(data).hexdigest()
            file = variant_file(name, precision)
            specs[name] = replace(model, file=file, sha256=digest, precision=precision)
        (folder / specs[name].file).write_bytes(pack.read_model(name) if data is None else data)
    return replace(pack, path=folder, models=specs)


def single_model_candidates(pack: Pack, candidate: Pack, precision: str) -> dict[str, Pack]:
    """Candidates that each contain one model of `candidate`, to find the model that fails the gate."""
    return {
        name: write_candidate(
            pack, candidate.path / f"only_{name}", precision, {name: candidate.read_model(name)}
        )
        for name in candidate.models
    }
