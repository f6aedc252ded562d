"""Ed25519 keys in PEM files, as OpenSSL makes them. The one module that imports `cryptography`, when called.

openssl genpkey -algorithm ed25519 -out KEY.pem         (with -aes256 under a passphrase)
openssl pkey -in KEY.pem -pubout -out PUB.pem
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stenosis_trt.engine.errors import SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NEW_KEY_COMMAND = "openssl genpkey -algorithm ed25519 -out KEY.pem"
PUBLIC_KEY_COMMAND = "openssl pkey -in KEY.pem -pubout -out PUB.pem"
PASSPHRASE_VARIABLE = "STENOSIS_TRT_KEY_PASSPHRASE"
"""Environment variable with the passphrase of a private key, for runs that nobody sits at."""

_MAX_KEY_BYTES = 64 << 10
_MAKE_PAIR = f"Make a pair of keys: {NEW_KEY_COMMAND} && {PUBLIC_KEY_COMMAND}"
_ASK_SIGNER = f"Ask the signer for theirs, which is made with: {PUBLIC_KEY_COMMAND}"


@dataclass(frozen=True)
class PublicKey:
    """A public key: its 32 bytes, and the file it came from, for messages."""

    raw: bytes
    file: str = field(default="", compare=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the 32 bytes, "SHA256:" and 64 hexadecimal digits."""
        return f"SHA256:{hashlib.sha256(self.raw).hexdigest()}"

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.file})" if self.file else self.fingerprint

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is this key's over the message."""
        _require_cryptography()
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A key to sign with. `readable_by_others` says that its file can be read by other users."""

    public: PublicKey
    readable_by_others: bool
    _key: Ed25519PrivateKey = field(repr=False, compare=False)

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._key.sign(message)


def read_private_key(path: Path, ask_passphrase: Callable[[], str]) -> PrivateKey:
    """A private key from a PEM file (PKCS #8).

    Args:
        path: the file.
        ask_passphrase: called for the passphrase, where the file has one.

    Raises:
        SignatureError: `cryptography` is not installed, the file cannot be read or holds no such key (the
            advice has the command that makes one), or the passphrase is wrong.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data, mode = _read(path, _MAKE_PAIR)
    if b"PUBLIC KEY" in data and b"PRIVATE KEY" not in data:
        raise SignatureError(f"{path} holds a public key, and signing needs the private one.", _MAKE_PAIR)
    password = ask_passphrase().encode() if b"ENCRYPTED" in data else None
    key = _parsed(path, _MAKE_PAIR, serialization.load_pem_private_key, data, password)
    if not isinstance(key, Ed25519PrivateKey):
        raise _other_kind(path, key, _MAKE_PAIR)
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    shared = bool(mode & (stat.S_IRWXG | stat.S_IRWXO))
    return PrivateKey(PublicKey(raw, str(path)), shared, key)


def read_public_key(path: Path) -> PublicKey:
    """A public key from a PEM file (SubjectPublicKeyInfo).

    Raises:
        SignatureError: `cryptography` is not installed, or the file cannot be read or holds no such key (the
            advice has the command that makes one).
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    data, _ = _read(path, _ASK_SIGNER)
    if b"PRIVATE KEY" in data:
        raise SignatureError(
            f"{path} holds a private key, and what is signed is checked with the public one.",
            f"Take it out, and keep the private key from whoever only checks: {PUBLIC_KEY_COMMAND}",
        )
    key = _parsed(path, _ASK_SIGNER, serialization.load_pem_public_key, data)
    if not isinstance(key, Ed25519PublicKey):
        raise _other_kind(path, key, _ASK_SIGNER)
    return PublicKey(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw), str(path))


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise SignatureError(
            "Signatures need the package cryptography, which is not installed.",
            "Install it: pip install 'stenosis-trt[sign]'",
        ) from error


def _read(path: Path, advice: str) -> tuple[bytes, int]:
    """A key's file and its mode, both of the one file that was opened."""
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            data = stream.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        raise SignatureError(f"The key {path} cannot be read ({error.strerror}).", advice) from error
    if len(data) > _MAX_KEY_BYTES:
        raise SignatureError(f"{path} is no key: it has over {_MAX_KEY_BYTES} bytes.", advice)
    return data, mode


def _parsed(path: Path, advice: str, load: Callable[..., Any], data: bytes, *password: bytes | None) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load(data, *password)
    # A TypeError is what comes of a passphrase that is empty.
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if password and password[0] is not None:
            raise SignatureError(
                f"{path} does not open with this passphrase.",
                f"Give the one it was made with, when asked or in the environment variable "
                f"{PASSPHRASE_VARIABLE}.",
            ) from error
        raise SignatureError(f"{path} is not a PEM file with an Ed25519 key.", advice) from error


def _other_kind(path: Path, key: object, advice: str) -> SignatureError:
    kind = type(key).__name__.removeprefix("_").removesuffix("PublicKey").removesuffix("PrivateKey")
    return SignatureError(
        f"{path} holds a key of another kind ({kind}), and packs are signed with Ed25519.", advice
    )
