"""Model packs: pack.json, and zips of packs. Models are looked for and their hashes compared."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from contextlib import suppress
from pathlib import Path

from fuzz.harness import Target, main
from fuzz.mutation import mutated_bytes, mutated_json
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.models import MODEL_NAMES
from stenosis_trt.engine.packs.pack import SHARED_WEIGHTS_SCHEMA, Pack, reference_pack

_ZIP = b"PK"
_MODEL = b"\x08\x0a"
"""A ModelProto whose ir_version is 10."""


def seeds() -> list[bytes]:
    content = json.loads((reference_pack() / MANIFEST).read_bytes())
    # The card is text that nothing reads.
    content["card"] = {}
    content["schema"] = SHARED_WEIGHTS_SCHEMA
    for model in content["models"].values():
        model["sha256"] = hashlib.sha256(_MODEL).hexdigest()
        model["weights"] = {"file": model["file"], "sha256": model["sha256"]}
        gate = {"passed": True, "worst": {"agreement": 0.99}}
        model["variants"] = {"fp16": {"file": model["file"], "sha256": model["sha256"], "gate": gate}}
    manifest = json.dumps(content).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"pack/{MANIFEST}", manifest)
        for name in MODEL_NAMES:
            archive.writestr(f"pack/{name}.onnx", _MODEL)
    return [manifest, stream.getvalue()]


def check(data: bytes, folder: Path) -> None:
    if data.startswith(_ZIP):
        path = folder / "pack.zip"
        path.write_bytes(data)
    else:
        path = folder
        (path / MANIFEST).write_bytes(data)
        for name in MODEL_NAMES:
            (path / f"{name}.onnx").write_bytes(_MODEL)
    pack = Pack.load(path)
    assert pack.precisions
    for name in pack.models:
        for precision in pack.models[name].variants:
            with suppress(PackError):
                pack.read_variant(name, precision)
    for precision in pack.precisions:
        pack.in_precision(precision)


def mutate(rng: random.Random, data: bytes) -> bytes:
    return mutated_bytes(rng, data) if data.startswith(_ZIP) else mutated_json(rng, data)


TARGET = Target("packs", (PackError,), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
