"""A pack with other models in place of its own, before it is known whether they may be published."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stenosis_trt.engine.packs.pack import Pack


def variant_file(model: str, precision: str) -> str:
    """Name of a variant's file in a pack."""
    return f"{model}.{precision}.onnx"


def write_candidate(pack: Pack, folder: Path, precision: str, models: Mapping[str, bytes]) -> Pack:
    """The pack with `models` in place of its own, by name; the others stay as they are.

    Args:
        pack: the pack.
        folder: for the files of all models; made where absent.
        precision: what the models are in.
        models: ONNX files by the names of the models.
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
    """The pack with one model of the candidate in it, by that model: which of them is to blame."""
    return {
        name: write_candidate(
            pack, candidate.path / f"only_{name}", precision, {name: candidate.read_model(name)}
        )
        for name in candidate.models
    }
