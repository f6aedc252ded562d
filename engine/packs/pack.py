"""The model pack: a folder or a zip with `pack.json` and the ONNX models, and no pickle.

`pack.json` has the file, the SHA-256, the input and the output of each model. The content of a file is used
only after its hash was verified. The models of a role in several precisions may share a file of weights.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

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
from stenosis_trt.engine.packs.models import MODEL_NAMES, ModelSpec, WeightsFile
from stenosis_trt.engine.packs.shared_weights import SharedWeightsError, embed_weights
from stenosis_trt.engine.packs.signature import (
    MAXIMUM_SIGNATURE_BYTES,
    SIGNATURE_SUFFIX,
    SignedFile,
    TrustedKeys,
)
from stenosis_trt.engine.support.json_schema import JsonError

SCHEMA, SHARED_WEIGHTS_SCHEMA = 1, 2
"""Versions of the layout of pack.json: models hold their weights; the files of some models share weights."""
SCHEMAS = (SCHEMA, SHARED_WEIGHTS_SCHEMA)
"""Versions that this release reads."""

REFERENCE = "reference"
PRECISIONS = ("fp32", "fp16", "int8")
"""Precisions of models: "fp32" is the file of the model itself, the others are its variants."""


@dataclass(frozen=True)
class Pack:
    """A model pack whose files have the hashes that its manifest states.

    Attributes:
        path: the pack's folder or zip.
        sha256: hash of pack.json, which contains the hashes of all models: it identifies the pack.
        clinical_use: the pack declares that it is for clinical use. Otherwise every report says that it is
            not.
        card: model card facts, not interpreted.
        models: specifications by name; see `MODEL_NAMES`.
        trust: keys of which one must have signed the pack and each plan; None if no signature is required.
        signed_by: fingerprint of the key in `trust` that signed the pack; "" if none is required.
    """

    path: Path
    sha256: str
    name: str
    version: str
    licence: str
    intended_use: str
    card: Mapping[str, Any]
    models: Mapping[str, ModelSpec]
    clinical_use: bool = False
    trust: TrustedKeys | None = None
    signed_by: str = ""
    _verified: set[tuple[str, str]] = field(default_factory=set, repr=False, compare=False)
    """Files that were read and had the hash that the manifest states, which is the second item."""

    @classmethod
    def load(cls, path: Path, trust: TrustedKeys | None = None, verify: bool = True) -> Pack:
        """Read a pack and verify the hash of every model.

        Args:
            path: a pack's folder, or a zip of the folder or of its contents.
            trust: keys of which one must have signed the pack, verified before pack.json is parsed.
            verify: False to verify a file when it is read, and the others by `verify_files`: a backend reads
                the models that it opens, so that each file is read once.

        Raises:
            PackError: there is no pack, its schema is of another version, a model is missing or not usable,
                a name points outside the pack, a hash differs, or no trusted key signed the pack.
        """
        manifest = read_file(path, MANIFEST, MAXIMUM_MANIFEST_BYTES)
        signed_by = "" if trust is None else _signer(path, manifest, trust)
        pack = _parse(path, manifest)
        pack = replace(pack, trust=trust, signed_by=signed_by)
        if verify:
            pack.verify_files()
        return pack

    def verify_files(self, variants: bool = True) -> None:
        """Verify the hash of every model that was not read since the pack was loaded.

        Args:
            variants: verify the variants and the files of weights as well. A model that is read is verified
                in any case, with the weights that it uses.

        Raises:
            PackError: a file is missing or was changed.
        """
        for model in self.models.values():
            files = [(model.file, model.sha256)]
            weights = None
            if variants:
                files += [(variant.file, variant.sha256) for variant in model.variants.values()]
                if model.weights is not None:
                    weights = self._verify_weights(model.weights)
            for file, sha256 in files:
                if (file, sha256) not in self._verified:
                    weights = self._read_verified(model, file, sha256, weights).weights

    @property
    def precisions(self) -> tuple[str, ...]:
        """The items of `PRECISIONS` in which every model is available."""
        models = self.models.values()
        return (PRECISIONS[0], *(p for p in PRECISIONS[1:] if all(p in m.variants for m in models)))

    def in_precision(self, precision: str) -> Pack:
        """Return the pack with each model replaced by its variant; for "fp32" the pack itself.

        Raises:
            PackError: the precision is unknown, or a model has no such variant or one that failed the gate.
        """
        if precision not in PRECISIONS:
            raise PackError(f"There is no precision {precision!r}.", f"Give one of {', '.join(PRECISIONS)}.")
        if precision != PRECISIONS[0] and precision not in self.precisions:
            raise PackError(
                f"The pack {self.name} has no {precision} models that passed the gate.",
                f"Grade in one of {', '.join(self.precisions)}, or try: "
                f"stenosis-trt quantise {self.path} --out NEW --precision {precision}",
            )
        return self.in_precisions(dict.fromkeys(self.models, precision))

    def in_precisions(self, precisions: Mapping[str, str]) -> Pack:
        """Return the pack with some models replaced by their variants.

        Args:
            precisions: precision by name of the model; "fp32" for the model itself.

        Raises:
            PackError: a model has no such variant, or one that failed the gate.
        """
        chosen = dict(self.models)
        for name, precision in precisions.items():
            if precision == PRECISIONS[0]:
                continue
            variant = self.models[name].variants.get(precision)
            if variant is None:
                raise PackError(
                    f"The pack {self.name} has no {precision} model {name}.",
                    f"Grade in one of {', '.join(self.precisions)}.",
                )
            if not variant.passed:
                raise PackError(
                    f"{variant.file} of pack {self.name} did not pass the gate.",
                    "Do not grade with it; make it again with stenosis-trt quantise.",
                )
            chosen[name] = replace(
                self.models[name],
                file=variant.file,
                sha256=variant.sha256,
                precision=precision,
                variant_of=self.models[name].fp32_sha256,
            )
        return self if chosen == self.models else replace(self, models=chosen)

    def read_manifest(self) -> bytes:
        """Read pack.json again.

        Raises:
            PackError: the file is missing or was changed since the pack was loaded.
        """
        data = read_file(self.path, MANIFEST, MAXIMUM_MANIFEST_BYTES)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise PackError(
                f"{MANIFEST} of {self.path} was changed while it was in use.",
                "Try again once nobody writes to the pack.",
            )
        return data

    def read_model(self, name: str) -> bytes:
        """Read a model as ONNX, with all its weights in it, and verify its hash.

        Raises:
            PackError: a file is missing or was changed.
        """
        model = self.models[name]
        return self._read_verified(model, model.file, model.sha256).data

    def read_variant(self, name: str, precision: str) -> bytes:
        """Read a variant of a model as `read_model` does."""
        variant = self.models[name].variants[precision]
        return self._read_verified(self.models[name], variant.file, variant.sha256).data

    def _read_verified(
        self, model: ModelSpec, file: str, sha256: str, weights: bytes | None = None
    ) -> _ReadModel:
        """Read a model or a variant of it.

        Args:
            model: the model.
            file, sha256: of the model or the variant.
            weights: content of its file of weights, if it was read before.
        """
        data = read_file(self.path, file, MAXIMUM_MODEL_BYTES)
        found = hashlib.sha256(data).hexdigest()
        if found != sha256 and model.weights is not None:
            if weights is None:
                weights = read_file(self.path, model.weights.file, MAXIMUM_MODEL_BYTES)
            try:
                data = embed_weights(data, weights, _location(model.weights, file), MAXIMUM_MODEL_BYTES)
            except (OnnxEncodingError, SharedWeightsError) as error:
                raise self._changed(file, str(error)) from error
            found = hashlib.sha256(data).hexdigest()
            if found != sha256:
                # Names the file of weights if that was changed.
                self._verify_weights(model.weights)
        if found != sha256:
            raise self._changed(file, f"SHA-256 {found[:12]}…, not {sha256[:12]}…")
        try:
            external = has_external_data(data)
        except OnnxEncodingError as error:
            raise PackError(
                f"{file} of pack {self.name} is not encoded as an ONNX model is: {error}. Whether it keeps "
                "weights in other files cannot be told.",
                "Export the model again, with the package onnx or PyTorch.",
            ) from error
        if external:
            raise PackError(
                f"{file} of pack {self.name} keeps weights in other files, which no hash vouches for.",
                "Export the model with its weights in the file itself.",
            )
        self._verified.add((file, sha256))
        return _ReadModel(data, weights)

    def _verify_weights(self, weights: WeightsFile) -> bytes:
        """Read a file of weights and verify its own hash."""
        data = read_file(self.path, weights.file, MAXIMUM_MODEL_BYTES)
        found = hashlib.sha256(data).hexdigest()
        if found != weights.sha256:
            raise self._changed(weights.file, f"SHA-256 {found[:12]}…, not {weights.sha256[:12]}…")
        return data

    def _changed(self, file: str, detail: str) -> PackError:
        return PackError(
            f"{file} of pack {self.name} is not the file its manifest names ({detail}).",
            "Get the pack again from its maker; do not edit its files.",
        )


class _ReadModel(NamedTuple):
    """A model with its weights in it, and the content of the file of weights if that was read."""

    data: bytes
    weights: bytes | None


def _location(weights: WeightsFile, file: str) -> str:
    """Return how the ONNX file `file` has to name a file of weights, which lies in the same folder."""
    return PurePosixPath(weights.file).name if _folder(weights.file) == _folder(file) else ""


def _folder(file: str) -> str:
    return str(PurePosixPath(file).parent)


def open_pack(
    pack: str | os.PathLike[str] | None = None, trust: TrustedKeys | None = None, verify: bool = True
) -> Pack:
    """Load a pack by its path.

    Args:
        pack: a folder or a zip. None or "reference" (if no such file exists) is the reference pack.
        trust, verify: see `Pack.load`.

    Raises:
        PackError: see `Pack.load`.
    """
    if pack is None or (str(pack) == REFERENCE and not os.path.lexists(REFERENCE)):
        pack = reference_pack()
    return Pack.load(Path(pack), trust, verify)


def reference_pack() -> Path:
    """Return the path of the reference pack: trained on synthetic data, for tests and measurements.

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
        if schema not in SCHEMAS:
            known = " and ".join(map(str, SCHEMAS))
            raise PackError(
                f"The pack {path} has layout {schema}, and this release reads {known}.",
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
        clinical_use=content.clinical_use,
        models={name: getattr(content.models, name).to_spec(name) for name in MODEL_NAMES},
    )


def _signer(path: Path, manifest: bytes, trust: TrustedKeys) -> str:
    """Return the fingerprint of the trusted key that signed a manifest, or raise PackError."""
    signature = read_optional_file(path, MANIFEST + SIGNATURE_SUFFIX, MAXIMUM_SIGNATURE_BYTES)
    check = trust.verify_signature(SignedFile.PACK, manifest, signature)
    if check.key is None:
        raise PackError(f"{MANIFEST} of the pack {path} {check.reason}.", check.advice)
    return check.key.fingerprint
