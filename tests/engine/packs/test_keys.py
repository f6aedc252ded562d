"""Keys: what is read from a PEM file, and what each refusal says."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from signing_keys import nobody, write_pair

from stenosis_trt.engine.errors import SignatureError
from stenosis_trt.engine.packs.keys import read_private_key, read_public_key

NEW_KEY_COMMAND = "openssl genpkey -algorithm ed25519 -out KEY.pem"


def test_a_public_key_verifies_what_its_private_key_signed(tmp_path: Path) -> None:
    pair, other = write_pair(tmp_path), write_pair(tmp_path, "other")
    signature = pair.key.sign(b"a message")
    assert pair.public_key.verify(signature, b"a message")
    assert not pair.public_key.verify(signature, b"another message")
    assert not pair.public_key.verify(signature[:-1], b"a message")
    assert not other.public_key.verify(signature, b"a message")


def test_a_fingerprint_is_the_hash_of_the_raw_key_and_that_of_both_halves(tmp_path: Path) -> None:
    pair = write_pair(tmp_path)
    raw = pair.public_key.raw
    assert len(raw) == 32
    assert pair.public_key.fingerprint == f"SHA256:{hashlib.sha256(raw).hexdigest()}"
    assert pair.key.public.fingerprint == pair.public_key.fingerprint
    assert str(pair.public) in str(pair.public_key)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_keys_are_read_as_openssl_writes_them(tmp_path: Path, passphrase: str) -> None:
    private, public = tmp_path / "KEY.pem", tmp_path / "PUB.pem"
    secret = ["-aes256", "-pass", f"pass:{passphrase}"] if passphrase else []
    give = ["-passin", f"pass:{passphrase}"] if passphrase else []
    subprocess.run([*NEW_KEY_COMMAND.replace("KEY.pem", str(private)).split(), *secret], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, *give, "-pubout", "-out", public], check=True)
    key = read_private_key(private, (lambda: passphrase) if passphrase else nobody)
    assert read_public_key(public).verify(key.sign(b"a message"), b"a message")
    assert not key.readable_by_others


def test_a_wrong_passphrase_is_reported(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, passphrase="correct horse")
    assert read_private_key(pair.private, lambda: "correct horse").public == pair.public_key
    for wrong in ("battery", ""):
        with pytest.raises(SignatureError, match=r"does not open.*STENOSIS_TRT_KEY_PASSPHRASE"):
            read_private_key(pair.private, lambda wrong=wrong: wrong)  # type: ignore[misc]


@pytest.mark.parametrize(("mode", "shared"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_private_key_that_others_can_read_says_so(tmp_path: Path, mode: int, shared: bool) -> None:
    pair = write_pair(tmp_path)
    pair.private.chmod(mode)
    assert pair.key.readable_by_others is shared


def test_a_key_of_another_kind_is_refused_with_the_command_that_makes_a_right_one(tmp_path: Path) -> None:
    for name, key in (
        ("RSA", rsa.generate_private_key(65537, 2048)),
        ("Ed448", ed448.Ed448PrivateKey.generate()),
    ):
        private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub.pem"
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        with pytest.raises(SignatureError, match=rf"another kind \({name}\)") as caught:
            read_private_key(private, nobody)
        assert NEW_KEY_COMMAND in caught.value.advice
        with pytest.raises(SignatureError, match=rf"another kind \({name}\)") as caught:
            read_public_key(public)
        assert "openssl pkey" in caught.value.advice


def test_the_halves_of_a_pair_are_not_taken_for_each_other(tmp_path: Path) -> None:
    pair = write_pair(tmp_path)
    with pytest.raises(SignatureError, match=r"holds a public key, and signing needs the private one"):
        read_private_key(pair.public, nobody)
    with pytest.raises(SignatureError, match=r"holds a private key.*keep the private key from"):
        read_public_key(pair.private)


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(SignatureError, match=r"is not a PEM file|holds a public key") as caught:
        read_private_key(path, nobody)
    assert NEW_KEY_COMMAND in caught.value.advice
    with pytest.raises(SignatureError, match="is not a PEM file with an Ed25519 key"):
        read_public_key(path)


def test_a_key_that_is_not_there_and_one_that_is_huge_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match=r"cannot be read \(No such file"):
        read_public_key(tmp_path / "absent")
    huge = tmp_path / "huge"
    with huge.open("wb") as stream:
        os.truncate(stream.fileno(), 1 << 40)
    with pytest.raises(SignatureError, match="over 65536 bytes"):
        read_private_key(huge, nobody)


def test_without_cryptography_the_error_names_the_extra_to_install(tmp_path: Path) -> None:
    pair = write_pair(tmp_path)
    script = (
        "import sys\n"
        "sys.modules['cryptography'] = None\n"
        "from pathlib import Path\n"
        "from stenosis_trt.engine.packs.keys import SignatureError, read_public_key\n"
        "try:\n    read_public_key(Path(sys.argv[1]))\n"
        "except SignatureError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(pair.public)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cryptography, which is not installed" in answer.stdout
    assert "pip install 'stenosis-trt[sign]'" in answer.stdout
