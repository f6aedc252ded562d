"""Ed25519 signatures of packs and plans: creating, parsing and verifying them.

A signature covers `pack.json`, which holds the SHA-256 of every model, or a plan's sidecar, which holds that
of the plan. It is a JSON file beside the signed file, named like it with `.sig` appended, and names the key
by its fingerprint. The signed message is a line with the kind of the file, then the bytes of the file, so
that the signature of one kind of file is not valid for another kind.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from stenosis_trt.engine.packs.keys import PrivateKey, PublicKey
from stenosis_trt.engine.support.atomic_files import write_bytes_atomically

SIGNATURE_SUFFIX = ".sig"
MAXIMUM_SIGNATURE_BYTES = 4 << 10

_SCHEMA = 1
_ALGORITHM = "Ed25519"
_SIGN_ADVICE = (
    "Get it from who signs it, or vouch for it yourself, once you know that it is as its maker left it: "
    "stenosis-trt sign PACK --signing-key KEY"
)
_CHANGED_ADVICE = "Do not use it, and get it again from its maker."
_OTHER_KEY_ADVICE = "Give the public key of its signer if you trust them; otherwise do not use it."


class SignedFile(Enum):
    """Kind of a signed file. The value is part of the signed message."""

    PACK = "pack.json of a model pack"
    PLAN = "sidecar of a TensorRT plan"
    CPU_TABLE = "table of a pack's models on a CPU"


@dataclass(frozen=True)
class SignatureCheck:
    """Outcome of verifying a signature.

    Attributes:
        key: the trusted key that signed the file; None if none did.
        reason: why `key` is None, as the predicate of a sentence about the file: "is not signed".
        advice: what to do about it.
    """

    key: PublicKey | None
    reason: str = ""
    advice: str = ""


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys of which one must have signed each file that is used."""

    keys: tuple[PublicKey, ...]

    def verify_signature(self, kind: SignedFile, data: bytes, signature: bytes | None) -> SignatureCheck:
        """Find the key that signed `data`.

        Args:
            kind: kind of the signed file.
            data: content of the signed file, as it is used.
            signature: content of the signature file; None if there is none.

        Raises:
            SignatureError: `cryptography` is not installed.
        """
        if signature is None:
            return SignatureCheck(None, "is not signed", _SIGN_ADVICE)
        found = parse_signature(kind, signature)
        if found is None:
            return SignatureCheck(None, "has a signature that cannot be read", _CHANGED_ADVICE)
        for key in self.keys:
            if key.fingerprint == found.fingerprint:
                if key.verify(found.signature, signed_message(kind, data)):
                    return SignatureCheck(key)
                changed = f"is not what {key} signed: it or its signature was changed"
                return SignatureCheck(None, changed, _CHANGED_ADVICE)
        trusted = " or ".join(map(str, self.keys))
        return SignatureCheck(
            None, f"names {found.fingerprint} as its signer, and trusted is {trusted}", _OTHER_KEY_ADVICE
        )


@dataclass(frozen=True)
class Signature:
    """Content of a signature file, not verified: fingerprint of the key, and the 64 bytes it signed with."""

    fingerprint: str
    signature: bytes


def signed_message(kind: SignedFile, data: bytes) -> bytes:
    """Return the bytes to sign: a line with the kind of the file, then the file."""
    return f"stenosis-trt {_SCHEMA}: {kind.value}\n".encode() + data


def create_signature(key: PrivateKey, kind: SignedFile, data: bytes) -> bytes:
    """Sign `data` and return the content of its signature file."""
    return _serialise(kind, Signature(key.public.fingerprint, key.sign(signed_message(kind, data))))


def write_signature(file: Path, kind: SignedFile, data: bytes, key: PrivateKey) -> bytes:
    """Sign `data`, the content of `file`, and write the signature beside it.

    Returns:
        The content of the signature file.

    Raises:
        OSError: the signature cannot be written; an older one stays as it is.
    """
    text = create_signature(key, kind, data)
    write_bytes_atomically(signature_path(file), text)
    return text


def signature_path(file: Path) -> Path:
    """Return the path of the signature of a file."""
    return file.with_name(file.name + SIGNATURE_SUFFIX)


def parse_signature(kind: SignedFile, text: bytes) -> Signature | None:
    """Parse a signature file; None unless it is byte for byte what this release writes for `kind`."""
    try:
        content = json.loads(text.decode("ascii"))
        found = Signature(content["key"], base64.b64decode(content["signature"], validate=True))
        # The fingerprint is printed: it must not contain control characters.
        if not re.fullmatch(r"SHA256:[0-9a-f]{64}", found.fingerprint) or _serialise(kind, found) != text:
            return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found


def _serialise(kind: SignedFile, signature: Signature) -> bytes:
    content = {
        "schema": _SCHEMA,
        "algorithm": _ALGORITHM,
        "signs": kind.value,
        "key": signature.fingerprint,
        "signature": base64.b64encode(signature.signature).decode(),
    }
    return (json.dumps(content, indent=2) + "\n").encode()
