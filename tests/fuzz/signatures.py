"""Signatures and public keys: `Trust.verdict`, `read_public_key`. Nothing that was changed is vouched for."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from signing_keys import write_pair

from fuzz.harness import Target, main
from fuzz.mutation import mutated_bundle, mutated_bytes, mutated_json, packed, unpacked
from stenosis_trt.engine.errors import SignatureError
from stenosis_trt.engine.packs.keys import read_public_key
from stenosis_trt.engine.packs.signature import SignedFile, TrustedKeys, create_signature

_DATA = b'{"schema": 1}'


@cache
def _signed() -> tuple[bytes, bytes]:
    """A signature of `_DATA`, and the public key to it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        pair = write_pair(Path(folder))
        return create_signature(pair.key, SignedFile.PACK, _DATA), pair.public.read_bytes()


def seeds() -> list[bytes]:
    signature, key = _signed()
    return [packed({"signature": signature, "data": _DATA, "key": key})]


def check(data: bytes, folder: Path) -> None:
    files = unpacked(data) or {}
    signature, _ = _signed()
    path = folder / "key.pem"
    path.write_bytes(files.get("key", b""))
    trust = TrustedKeys((read_public_key(path),))
    content = files.get("data", b"")
    for kind in SignedFile:
        verdict = trust.verify_signature(kind, content, files.get("signature"))
        genuine = (kind, content, files.get("signature")) == (SignedFile.PACK, _DATA, signature)
        assert verdict.key is None or genuine, "a signature is taken that nobody made"


def mutate(rng: random.Random, data: bytes) -> bytes:
    return mutated_bundle(rng, data, rng.choice((mutated_bytes, mutated_json)))


TARGET = Target("signatures", (SignatureError,), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
