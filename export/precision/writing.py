"""Results of a quantisation, and the writing of packs with the precisions that passed the gate."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.keys import PrivateKey
from stenosis_trt.engine.packs.pack import SCHEMA, SHARED_WEIGHTS_SCHEMA, Pack
from stenosis_trt.engine.plans.signing import sign_pack
from stenosis_trt.engine.support.atomic_files import check_writable, staged_directory, write_bytes_atomically
from stenosis_trt.export.packs.shared_weights import share_weights
from stenosis_trt.export.packs.writer import manifest_text
from stenosis_trt.export.precision.candidates import variant_file
from stenosis_trt.export.precision.convert import ConvertedModel
from stenosis_trt.export.precision.gate_result import GateResult

ConvertedModels = dict[str, ConvertedModel]
"""Models of a pack in one precision, by name."""


@dataclass(frozen=True)
class QuantisationResult:
    """Result of `quantise_pack`.

    Attributes:
        pack: the new pack, or the original one before it is written.
        outcomes: gate result per precision.
        by_model: for each failed precision, the gate result of each model alone.
        without_rewrites: precisions that pass only without the graph rewrites.
        search: record of the search as JSON data; None without one.
    """

    pack: Pack
    outcomes: Mapping[str, GateResult]
    by_model: Mapping[str, Mapping[str, GateResult]]
    without_rewrites: tuple[str, ...] = ()
    search: Mapping[str, Any] | None = None


def refuse_existing(out: Path) -> None:
    """Raise OSError if `out` exists or its folder cannot be written."""
    if out.exists():
        raise FileExistsError(errno.EEXIST, "is there already; give a new folder with --out", str(out))
    check_writable(out)


def write_variants(
    out: Path,
    found: QuantisationResult,
    made: Mapping[str, ConvertedModels],
    how: Mapping[str, Any],
    key: PrivateKey | None = None,
) -> Pack:
    """Write a pack to a new folder, with the precisions that passed as variants of its models.

    Failed precisions are recorded under "refused" in pack.json. Plans and the signature are not copied: they
    belong to the original pack.

    Args:
        out: folder that must not exist.
        found: original pack and gate results. Its variants in other precisions are kept.
        made: models per precision.
        how: conversion record, stored under "quantised".
        key: signs the pack.

    Returns:
        The new pack.

    Raises:
        OSError: `out` exists or cannot be written.
        PackError: the written pack does not load.
    """
    refuse_existing(out)
    pack, outcomes = found.pack, found.outcomes
    manifest = json.loads(pack.read_manifest())
    refused = {name: entry for name, entry in manifest.get("refused", {}).items() if name not in made}
    with staged_directory(out) as part:
        for name in pack.models:
            entry = manifest["models"][name]
            variants = {key: value for key, value in entry.get("variants", {}).items() if key not in made}
            files = {pack.models[name].file: pack.read_model(name)}
            files |= {pack.models[name].variants[key].file: pack.read_variant(name, key) for key in variants}
            for precision, models in made.items():
                if outcomes[precision].passed:
                    file = variant_file(name, precision)
                    variants[precision] = _variant_entry(file, models[name], outcomes[precision])
                    files[file] = models[name].data
            entry["variants"] = variants
            _write_models(part, f"{name}.weights", entry, files)
        for precision, by_model in found.by_model.items():
            refused[precision] = {
                **outcomes[precision].to_dict(),
                "by_model": {name: outcome.to_dict() for name, outcome in by_model.items()},
            }
        shared = any("weights" in entry for entry in manifest["models"].values())
        manifest["schema"] = SHARED_WEIGHTS_SCHEMA if shared else SCHEMA
        manifest |= {"refused": refused, "quantised": dict(how)}
        _write_file(part / MANIFEST, manifest_text(manifest).encode())
        written = Pack.load(part)
        if key is not None:
            sign_pack(written, key)
        os.replace(part, out)
    return Pack.load(out)


def _variant_entry(file: str, converted: ConvertedModel, outcome: GateResult) -> dict[str, Any]:
    """Entry of a variant in pack.json."""
    return {
        "file": file,
        "sha256": hashlib.sha256(converted.data).hexdigest(),
        "metrics": converted.metrics,
        "gate": outcome.to_dict(),
    }


def _write_models(folder: Path, location: str, entry: dict[str, Any], files: Mapping[str, bytes]) -> None:
    """Write the models of one role, with equal weights once, and name the file of weights in `entry`.

    Models in folders of their own are written whole.
    """
    flat = all(Path(file).parent == Path() for file in files)
    shared, weights = share_weights(files, location) if flat else (files, b"")
    for file, data in shared.items():
        _write_file(folder / file, data)
    entry.pop("weights", None)
    if weights:
        _write_file(folder / location, weights)
        entry["weights"] = {"file": location, "sha256": hashlib.sha256(weights).hexdigest()}


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, data)
