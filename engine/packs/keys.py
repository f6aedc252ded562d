"""Ed25519 keys in PEM files, as OpenSSL writes them. The only module that imports `cryptography`, lazily.

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
"""Environment variable with the passphrase of a private key, for unattended runs."""

_MAX_KEY_BYTES = 64 << 10
_NEW_PAIR_ADVICE = f"Make a pair of keys: {NEW_KEY_COMMAND} && {PUBLIC_KEY_COMMAND}"
_PUBLIC_KEY_ADVICE = f"Ask the signer for theirs, which is made with: {PUBLIC_KEY_COMMAND}"


@dataclass(frozen=True)
class PublicKey:
    """A public key: its 32 bytes, and the file it was read from, for messages."""

    raw: bytes
    file: str = field(default="", compare=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the 32 bytes, as "SHA256:" and 64 hexadecimal digits."""
        return f"SHA256:{hashlib.sha256(self.raw).hexdigest()}"

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.file})" if self.file else self.fingerprint

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Return True if `signature` verifies for `message`.

        Raises:
            SignatureError: `cryptography` is not installed.
        """
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
    """A private key. `readable_by_others` is True if other users may read its file."""

    public: PublicKey
    readable_by_others: bool
    _key: Ed25519PrivateKey = field(repr=False, compare=False)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of `message`, 64 bytes."""
        return self._key.sign(message)


def read_private_key(path: Path, ask_passphrase: Callable[[], str]) -> PrivateKey:
    """Read a private key from a PEM file (PKCS #8).

    Args:
        path: the file.
        ask_passphrase: returns the passphrase; called only if the file is encrypted.

    Raises:
        SignatureError: `cryptography` is not installed, the file cannot be read or contains no Ed25519
            private key (the advice has the command that makes one), or the passphrase is wrong.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data, mode = _read(path, _NEW_PAIR_ADVICE)
    if b"PUBLIC KEY" in data and b"PRIVATE KEY" not in data:
        raise SignatureError(
            f"{path} holds a public key, and signing needs the private one.", _NEW_PAIR_ADVICE
        )
    password = ask_passphrase().encode() if b"ENCRYPTED" in data else None
    key = _load(path, _NEW_PAIR_ADVICE, serialization.load_pem_private_key, data, password)
    if not isinstance(key, Ed25519PrivateKey):
        raise _wrong_algorithm(path, key, _NEW_PAIR_ADVICE)
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    shared = bool(mode & (stat.S_IRWXG | stat.S_IRWXO))
    return PrivateKey(PublicKey(raw, str(path)), shared, key)


def read_public_key(path: Path) -> PublicKey:
    """Read a public key from a PEM file (SubjectPublicKeyInfo).

    Raises:
        SignatureError: `cryptography` is not installed, or the file cannot be read or contains no Ed25519
            public key (the advice has the command that makes one).
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    data, _ = _read(path, _PUBLIC_KEY_ADVICE)
    if b"PRIVATE KEY" in data:
        raise SignatureError(
            f"{path} holds a private key, and what is signed is checked with the public one.",
            f"Take it out, and keep the private key from whoever only checks: {PUBLIC_KEY_COMMAND}",
        )
    key = _load(path, _PUBLIC_KEY_ADVICE, serialization.load_pem_public_key, data)
    if not isinstance(key, Ed25519PublicKey):
        raise _wrong_algorithm(path, key, _PUBLIC_KEY_ADVICE)
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
    """Read a key file; return its content and its mode, both of the same open file."""
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            data = stream.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        raise SignatureError(f"The key {path} cannot be read ({error.strerror}).", advice) from error
    if len(data) > _MAX_KEY_BYTES:
        raise SignatureError(f"{path} is no key: it has over {_MAX_KEY_BYTES} bytes.", advice)
    return data, mode


def _load(path: Path, advice: str, load: Callable[..., Any], data: bytes, *password: bytes | None) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load(data, *password)
    # An empty passphrase raises TypeError.
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if password and password[0] is not None:
            raise SignatureError(
                f"{path} does not open with this passphrase.",
                f"Give the one it was made with, when asked or in the environment variable "
                f"{PASSPHRASE_VARIABLE}.",
            ) from error
        raise SignatureError(f"{path} is not a PEM file with an Ed25519 key.", advice) from error


def _wrong_algorithm(path: Path, key: object, advice: str) -> SignatureError:
    kind = type(key).__name__.removeprefix("_").removesuffix("PublicKey").removesuffix("PrivateKey")
    return SignatureError(
        f"{path} holds a key of another kind ({kind}), and packs are signed with Ed25519.", advice
    )
