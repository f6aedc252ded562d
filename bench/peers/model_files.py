"""The files of a pack in a folder, for peers that read files."""

from __future__ import annotations

from pathlib import Path

from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack


def write_models(pack: Pack, folder: Path) -> None:
    """Write pack.json, the models and their variants that passed the gate, with their hashes verified."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_bytes(pack.read_manifest())
    for name, model in pack.models.items():
        (folder / model.file).write_bytes(pack.read_model(name))
        for precision, variant in model.variants.items():
            if variant.passed:
                (folder / variant.file).write_bytes(pack.read_variant(name, precision))


def model_file(pack: Pack, folder: Path, name: str, precision: str) -> Path | None:
    """Return the file of a model that `write_models` wrote; None if it has no variant that passed."""
    model = pack.models[name]
    if precision == model.precision:
        return folder / model.file
    variant = model.variants.get(precision)
    return folder / variant.file if variant is not None and variant.passed else None
