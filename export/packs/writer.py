"""Writing of model packs: ONNX files and pack.json with their hashes, completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.keys import PrivateKey
from stenosis_trt.engine.packs.models import MODEL_NAMES, InputSpec, OutputSpec
from stenosis_trt.engine.packs.pack import SCHEMA, Pack
from stenosis_trt.engine.plans.signing import sign_pack
from stenosis_trt.engine.support.atomic_files import (
    recover_directory,
    replace_directory,
    staged_directory,
    write_bytes_atomically,
    write_text_atomically,
)


@dataclass(frozen=True)
class ModelContent:
    """One model of a pack."""

    data: bytes
    precision: str
    input: InputSpec
    output: OutputSpec
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PackContent:
    """Contents of a pack.

    Attributes:
        card: model card: training data, figures, limits.
        clinical_use: the pack is for clinical use; reports then do not say that it is not.
    """

    name: str
    version: str
    licence: str
    intended_use: str
    card: Mapping[str, Any]
    models: Mapping[str, ModelContent]
    clinical_use: bool = False


def write_pack(
    out: Path, content: PackContent, key: PrivateKey | None = None, replacing: bool = True
) -> Pack:
    """Write a pack to the folder `out` and load it.

    Args:
        out: the folder.
        content: contents of the pack.
        key: signs the pack.
        replacing: replace an existing pack with its signature and plans. Otherwise `out` must be new or
            empty.

    Raises:
        ValueError: a model is missing.
        PackError: the written pack does not load.
        OSError: the pack cannot be written. The old pack is unchanged then; if the program is killed, either
            the old or the new pack is there.
    """
    missing = [name for name in MODEL_NAMES if name not in content.models]
    if missing:
        raise ValueError(f"The pack lacks the models {', '.join(missing)}.")
    # If `out` is a link, the new folder is staged beside its target.
    out = out.resolve() if out.is_symlink() else out
    recover_directory(out)
    with staged_directory(out) as part:
        part.mkdir()
        _write_files(part, content)
        made = Pack.load(part)
        if key is not None:
            sign_pack(made, key)
        if replacing and out.is_dir():
            replace_directory(part, out)
        else:
            os.replace(part, out)
    return Pack.load(out)


def _write_files(folder: Path, content: PackContent) -> None:
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "name": content.name,
        "version": content.version,
        "licence": content.licence,
        "intended_use": content.intended_use,
        # Absent means False.
        **({"clinical_use": True} if content.clinical_use else {}),
        "card": dict(content.card),
        "models": {},
    }
    for name in MODEL_NAMES:
        model = content.models[name]
        file = f"{name}.onnx"
        write_bytes_atomically(folder / file, model.data)
        manifest["models"][name] = {
            "file": file,
            "sha256": hashlib.sha256(model.data).hexdigest(),
            "precision": model.precision,
            "input": asdict(model.input),
            "output": model.output.to_dict(),
            "metrics": dict(model.metrics),
        }
    write_text_atomically(folder / MANIFEST, manifest_text(manifest))


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """Return the text of pack.json."""
    return json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
