"""The model pack: a folder, or one zip of it, that carries everything a run needs, and nothing from a pickle.

`pack.json` names each model's file with its SHA-256, what its input looks like and what comes out. A file is
read only after its hash was found right.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.external_data import OnnxEncodingError, has_external_data
from stenosis_trt.engine.packs.files import (
    MANIFEST,
    MAXIMUM_MANIFEST_BYTES,
    MAXIMUM_MODEL_BYTES,
    read_file,
    read_optional_file,
)
from stenosis_trt.engine.packs.manifest import read_manifest, read_schema_and_models
from stenosis_trt.engine.packs.models import (
    MODEL_NAMES,
    ModelSpec,
)
from stenosis_trt.engine.packs.signature import (
    MAXIMUM_SIGNATURE_BYTES,
    SIGNATURE_SUFFIX,
    SignedFile,
    TrustedKeys,
)
from stenosis_trt.engine.support.json_schema import JsonError

SCHEMA = 1
"""Version of pack.json's layout that this release reads and writes."""

REFERENCE = "reference"
PRECISIONS = ("fp32", "fp16", "int8")
"""What a pack's models can be had in: "fp32" is each model's own file, the others are its variants."""


@dataclass(frozen=True)
class Pack:
    """A pack whose files were found to be what its manifest says.

    Attributes:
        sha256: of pack.json, which holds the hashes of all models: it identifies the pack.
        trust: whose signatures are required, of the pack and of its plans; None for nobody's.
        signed_by: fingerprint of the one of these keys that signed the pack; "" where none is required.
    """

    path: Path
    sha256: str
    name: str
    version: str
    licence: str
    intended_use: str
    card: Mapping[str, Any]
    models: Mapping[str, ModelSpec]
    trust: TrustedKeys | None = None
    signed_by: str = ""

    @classmethod
    def load(cls, path: Path, trust: TrustedKeys | None = None) -> Pack:
        """Read a pack and check every file's hash.

        Args:
            path: a pack's folder, or a zip of the folder or of what lies in it.
            trust: whose signature is required; it is checked before anything is made of pack.json.

        Raises:
            PackError: nothing there, not a pack, a schema of another version, a missing model, one that is
                not what the pipe needs, a name that leaves the pack, or a file whose hash differs; or nobody
                who is trusted signed it.
        """
        manifest = read_file(path, MANIFEST, MAXIMUM_MANIFEST_BYTES)
        signed_by = "" if trust is None else _signer(path, manifest, trust)
        pack = _parse(path, manifest)
        pack = replace(pack, trust=trust, signed_by=signed_by)
        for model in pack.models.values():
            pack.read_model(model.name)
            for precision in model.variants:
                pack.read_variant(model.name, precision)
        return pack

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those of `PRECISIONS` that every model can be had in."""
        models = self.models.values()
        return (PRECISIONS[0], *(p for p in PRECISIONS[1:] if all(p in m.variants for m in models)))

    def in_precision(self, precision: str) -> Pack:
        """The pack with each model's variant in the model's place; "fp32" is the pack as it is.

        Raises:
            PackError: there is no such precision, a model has no such variant, or one that did not pass
                its gate.
        """
        if precision not in PRECISIONS:
            raise PackError(f"There is no precision {precision!r}.", f"Give one of {', '.join(PRECISIONS)}.")
        if precision == PRECISIONS[0]:
            return self
        if precision not in self.precisions:
            raise PackError(
                f"The pack {self.name} has no {precision} models that passed the gate.",
                f"Grade in one of {', '.join(self.precisions)}, or try: "
                f"stenosis-trt quantise {self.path} --out NEW --precision {precision}",
            )
        chosen = {}
        for name, model in self.models.items():
            variant = model.variants[precision]
            if not variant.passed:
                raise PackError(
                    f"{variant.file} of pack {self.name} did not pass the gate.",
                    "Do not grade with it; make it again with stenosis-trt quantise.",
                )
            chosen[name] = replace(model, file=variant.file, sha256=variant.sha256, precision=precision)
        return replace(self, models=chosen)

    def read_manifest(self) -> bytes:
        """pack.json, read again and found to be the one that was loaded.

        Raises:
            PackError: it is missing or was changed.
        """
        data = read_file(self.path, MANIFEST, MAXIMUM_MANIFEST_BYTES)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise PackError(
                f"{MANIFEST} of {self.path} was changed while it was in use.",
                "Try again once nobody writes to the pack.",
            )
        return data

    def read_model(self, name: str) -> bytes:
        """The model's file, read once and checked against its hash.

        Raises:
            PackError: the file is missing or was changed.
        """
        return self._checked(self.models[name].file, self.models[name].sha256)

    def read_variant(self, name: str, precision: str) -> bytes:
        """The file of a model's variant, as `read_model`."""
        variant = self.models[name].variants[precision]
        return self._checked(variant.file, variant.sha256)

    def _checked(self, file: str, sha256: str) -> bytes:
        data = read_file(self.path, file, MAXIMUM_MODEL_BYTES)
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise PackError(
                f"{file} of pack {self.name} is not the file its manifest names "
                f"(SHA-256 {found[:12]}…, not {sha256[:12]}…).",
                "Get the pack again from its maker; do not edit its files.",
            )
        try:
            elsewhere = has_external_data(data)
        except OnnxEncodingError as error:
            raise PackError(
                f"{file} of pack {self.name} is not encoded as an ONNX model is: {error}. Whether it keeps "
                "weights in other files cannot be told.",
                "Export the model again, with the package onnx or PyTorch.",
            ) from error
        if elsewhere:
            raise PackError(
                f"{file} of pack {self.name} keeps weights in other files, which no hash vouches for.",
                "Export the model with its weights in the file itself.",
            )
        return data


def open_pack(pack: str | os.PathLike[str] | None = None, trust: TrustedKeys | None = None) -> Pack:
    """Load a pack by its path.

    Args:
        pack: a folder or a zip; None or "reference" for the pack that comes with this package, unless there
            is a file or folder of that name.
        trust: see `Pack.load`.

    Raises:
        PackError: see `Pack.load`.
    """
    if pack is None or (str(pack) == REFERENCE and not os.path.lexists(REFERENCE)):
        pack = reference_pack()
    return Pack.load(Path(pack), trust)


def reference_pack() -> Path:
    """The pack that comes with this package: trained on synthetic data, for trying and measuring.

    Raises:
        PackError: the package was built without it.
    """
    path = Path(__file__).parent / "reference"
    if not (path / MANIFEST).is_file():
        raise PackError(
            "This installation has no reference pack.",
            "Give one with --pack, or make it with: python -m stenosis_trt.export.training.train",
        )
    return path


def _parse(path: Path, manifest: bytes) -> Pack:
    try:
        schema, models = read_schema_and_models(manifest)
        if schema != SCHEMA:
            raise PackError(
                f"The pack {path} has layout {schema}, and this release reads {SCHEMA}.",
                "Use a pack and a release that go together.",
            )
        missing = [name for name in MODEL_NAMES if name not in models]
        if missing:
            raise PackError(f"The pack {path} lacks the models {', '.join(missing)}.", "Use a whole pack.")
        content = read_manifest(manifest)
    except JsonError as error:
        fault = f"does not say what it has to ({error})" if error.is_json else f"is not JSON ({error})"
        raise PackError(f"{MANIFEST} of {path} {fault}.", "Get the pack again from its maker.") from error
    return Pack(
        path=path,
        sha256=hashlib.sha256(manifest).hexdigest(),
        name=content.name,
        version=content.version,
        licence=content.licence,
        intended_use=content.intended_use,
        card=content.card,
        models={name: getattr(content.models, name).to_spec(name) for name in MODEL_NAMES},
    )


def _signer(path: Path, manifest: bytes, trust: TrustedKeys) -> str:
    """Fingerprint of the trusted key that signed a pack's manifest."""
    signature = read_optional_file(path, MANIFEST + SIGNATURE_SUFFIX, MAXIMUM_SIGNATURE_BYTES)
    verdict = trust.verify_signature(SignedFile.PACK, manifest, signature)
    if verdict.key is None:
        raise PackError(f"{MANIFEST} of the pack {path} {verdict.reason}.", verdict.advice)
    return verdict.key.fingerprint
