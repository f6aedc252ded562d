"""The command `stenosis-trt sign`, and reading keys and reporting signatures for other commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stenosis_trt.engine.cli.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, exit_on_error

if TYPE_CHECKING:
    from stenosis_trt.engine.packs.keys import PrivateKey
    from stenosis_trt.engine.packs.pack import Pack
    from stenosis_trt.engine.packs.signature import TrustedKeys


def sign(
    pack: Annotated[Path, typer.Argument(help="Model pack's folder.", show_default=False)],
    signing_key: Annotated[Path, typer.Option(metavar="KEY", help="Private key (Ed25519, PEM).")],
) -> None:
    """Sign a pack and its plans after every hash was verified.

    Sign only what comes from a source that you trust: with the signature you vouch for it.
    Exit code 0: all is signed; 1: a plan does not match the pack or its sidecar; 2: no such key or pack.
    """
    from stenosis_trt.engine.packs.files import MANIFEST
    from stenosis_trt.engine.packs.pack import Pack
    from stenosis_trt.engine.plans.signing import sign_pack, sign_plans

    left = 0
    with exit_on_error():
        private = read_signing_key(signing_key)
        found = Pack.load(pack)
        sign_pack(found, private)
        typer.echo(f"{MANIFEST} of {found.name} {found.version}: signed by {private.public.fingerprint}")
        for path, trouble in sign_plans(found, private):
            typer.echo(f"{path}: {f'not signed: {trouble}' if trouble else 'signed'}", err=bool(trouble))
            left += bool(trouble)
    raise typer.Exit(EXIT_INCOMPLETE if left else 0)


def read_signing_key(path: Path) -> PrivateKey:
    """Read a private key, with the passphrase from the environment or a prompt.

    Raises:
        SignatureError: see `read_private_key`; or there is no terminal to ask for the passphrase.
    """
    from stenosis_trt.engine.packs.keys import read_private_key

    key = read_private_key(path, lambda: _passphrase(path))
    if key.readable_by_others:
        typer.echo(f"stenosis-trt: other users can read the private key: chmod 600 {path}", err=True)
    return key


def read_trusted_keys(paths: list[Path] | None) -> TrustedKeys | None:
    """Read the public keys of which one must have signed a pack; None if no signature is required.

    Raises:
        SignatureError: see `read_public_key`.
    """
    if not paths:
        return None
    from stenosis_trt.engine.packs.keys import read_public_key
    from stenosis_trt.engine.packs.signature import TrustedKeys

    return TrustedKeys(tuple(dict.fromkeys(read_public_key(path) for path in paths)))


def signed_by_line(key: PrivateKey) -> str:
    """Return the line that reports the key of a new signature."""
    return f"Signed by {key.public.fingerprint}"


def signature_line(pack: Pack) -> str:
    """Return the line that reports who signed a pack, and whether the signature was verified."""
    from stenosis_trt.engine.packs.files import MANIFEST, read_optional_file
    from stenosis_trt.engine.packs.signature import (
        MAXIMUM_SIGNATURE_BYTES,
        SIGNATURE_SUFFIX,
        SignedFile,
        parse_signature,
    )

    if pack.trust is not None:
        (signer,) = (key for key in pack.trust.keys if key.fingerprint == pack.signed_by)
        return f"Signed by {signer}"
    text = read_optional_file(pack.path, MANIFEST + SIGNATURE_SUFFIX, MAXIMUM_SIGNATURE_BYTES)
    if text is None:
        return "Not signed"
    found = parse_signature(SignedFile.PACK, text)
    named = "in a form that cannot be read" if found is None else f"by {found.fingerprint}, as it says"
    return f"Signed {named}; not checked: give --trusted-key with the public key"


def _passphrase(path: Path) -> str:
    from stenosis_trt.engine.errors import SignatureError
    from stenosis_trt.engine.packs.keys import PASSPHRASE_VARIABLE

    known = os.environ.get(PASSPHRASE_VARIABLE)
    if known is not None:
        return known
    if not sys.stdin.isatty():
        raise SignatureError(
            f"{path} has a passphrase, and there is nobody to ask.",
            f"Give it in the environment variable {PASSPHRASE_VARIABLE}.",
        )
    try:
        return str(typer.prompt(f"Passphrase of {path}", hide_input=True, err=True))
    except typer.Abort:
        typer.echo("Interrupted. Nothing was signed.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
