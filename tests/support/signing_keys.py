"""Pairs of Ed25519 keys in PEM files, in the forms that OpenSSL writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from stenosis_trt.engine.packs.keys import PrivateKey, PublicKey, read_private_key, read_public_key
from stenosis_trt.engine.packs.signature import TrustedKeys


@dataclass(frozen=True)
class Pair:
    """The files of a private and a public key."""

    private: Path
    public: Path

    @property
    def key(self) -> PrivateKey:
        """The private key."""
        return read_private_key(self.private, nobody)

    @property
    def trust(self) -> TrustedKeys:
        """That what this key signed is to be trusted, and nothing else."""
        return TrustedKeys((self.public_key,))

    @property
    def public_key(self) -> PublicKey:
        """The public key."""
        return read_public_key(self.public)


def nobody() -> str:
    """Asked for a passphrase where there is none."""
    raise AssertionError("a passphrase was asked for")


def write_pair(folder: Path, name: str = "key", passphrase: str = "") -> Pair:
    """A new pair of keys in `folder`; the private one is readable by its owner alone."""
    key = Ed25519PrivateKey.generate()
    cipher = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.pub.pem")
    pair.private.touch(0o600)
    pair.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher))
    pair.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return pair
