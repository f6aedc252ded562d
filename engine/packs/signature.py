"""Signatures beside the files they vouch for: whose they are, and whether they have to be there.

`pack.json` holds the SHA-256 of every model of a pack, and a plan's sidecar that of the plan, so a signature
over either vouches for all. It lies beside the signed file, under its name and `.sig`: JSON that names the
key by its fingerprint. What is signed is a line that says what it is, then the bytes of the file: a signature
of one kind of file cannot be taken for that of another.
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
_SIGN = (
    "Get it from who signs it, or vouch for it yourself, once you know that it is as its maker left it: "
    "stenosis-trt sign PACK --key KEY"
)
_GET_AGAIN = "Do not use it, and get it again from its maker."
_GIVE_THAT_KEY = "Give the public key of its signer if you trust them; otherwise do not use it."


class SignedFile(Enum):
    """What a signature vouches for; the value is part of what is signed."""

    PACK = "pack.json of a model pack"
    PLAN = "sidecar of a TensorRT plan"


@dataclass(frozen=True)
class SignatureCheck:
    """Who vouches for a file.

    Attributes:
        key: None where nobody trusted does.
        reason: why, to go behind the file's name: "is not signed".
        advice: what to do about it.
    """

    key: PublicKey | None
    reason: str = ""
    advice: str = ""


@dataclass(frozen=True)
class TrustedKeys:
    """The keys of which one must have signed what is used."""

    keys: tuple[PublicKey, ...]

    def verify_signature(self, kind: SignedFile, data: bytes, signature: bytes | None) -> SignatureCheck:
        """Which of the keys vouches for `data`.

        Args:
            kind: what `data` is.
            data: the signed file: the very bytes that are used.
            signature: the file beside it; None where there is none.

        Raises:
            SignatureError: `cryptography` is not installed.
        """
        if signature is None:
            return SignatureCheck(None, "is not signed", _SIGN)
        found = parse_signature(kind, signature)
        if found is None:
            return SignatureCheck(None, "has a signature that cannot be read", _GET_AGAIN)
        for key in self.keys:
            if key.fingerprint == found.fingerprint:
                if key.verify(found.signature, signed_message(kind, data)):
                    return SignatureCheck(key)
                changed = f"is not what {key} signed: it or its signature was changed"
                return SignatureCheck(None, changed, _GET_AGAIN)
        trusted = " or ".join(map(str, self.keys))
        return SignatureCheck(
            None, f"names {found.fingerprint} as its signer, and trusted is {trusted}", _GIVE_THAT_KEY
        )


@dataclass(frozen=True)
class Signature:
    """A signature as its file tells: by the key of that fingerprint, if it is true."""

    fingerprint: str
    signature: bytes


def signed_message(kind: SignedFile, data: bytes) -> bytes:
    """The bytes that are signed: what the file is, and the file."""
    return f"stenosis-trt {_SCHEMA}: {kind.value}\n".encode() + data


def create_signature(key: PrivateKey, kind: SignedFile, data: bytes) -> bytes:
    """The file that vouches for `data`."""
    return _written(kind, Signature(key.public.fingerprint, key.sign(signed_message(kind, data))))


def write_signature(file: Path, kind: SignedFile, data: bytes, key: PrivateKey) -> bytes:
    """Sign `data`, the content of `file`, put the signature beside it, and give what was written.

    Raises:
        OSError: it cannot be written; a signature that was there stays.
    """
    text = create_signature(key, kind, data)
    write_bytes_atomically(signature_path(file), text)
    return text


def signature_path(file: Path) -> Path:
    """Where the signature of a file lies."""
    return file.with_name(file.name + SIGNATURE_SUFFIX)


def parse_signature(kind: SignedFile, text: bytes) -> Signature | None:
    """What a signature's file says; None if it is none of this kind and release, to the byte."""
    try:
        content = json.loads(text.decode("ascii"))
        found = Signature(content["key"], base64.b64decode(content["signature"], validate=True))
        # What is shown to a person holds nothing that a terminal obeys.
        if not re.fullmatch(r"SHA256:[0-9a-f]{64}", found.fingerprint) or _written(kind, found) != text:
            return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found


def _written(kind: SignedFile, signature: Signature) -> bytes:
    content = {
        "schema": _SCHEMA,
        "algorithm": _ALGORITHM,
        "signs": kind.value,
        "key": signature.fingerprint,
        "signature": base64.b64encode(signature.signature).decode(),
    }
    return (json.dumps(content, indent=2) + "\n").encode()
