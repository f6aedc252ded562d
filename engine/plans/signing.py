"""Sign a pack: pack.json and the sidecars of its plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stenosis_trt.engine.errors import PackError, PlanError
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.keys import PrivateKey
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.packs.signature import SignedFile, write_signature
from stenosis_trt.engine.plans.store import StoredPlan, iter_plans, read_plan, sign_plan


def sign_pack(pack: Pack, key: PrivateKey) -> None:
    """Sign the manifest of a loaded pack and replace an existing signature.

    Raises:
        PackError: the pack is a zip or not writable, or pack.json was modified since it was loaded.
    """
    if not pack.path.is_dir():
        raise PackError(
            f"{pack.path} is a zip, and a signature goes into a pack's folder.",
            f"Unpack it, sign the folder and pack that: python -m zipfile -e {pack.path} "
            f"{pack.path.with_suffix('')}",
        )
    try:
        write_signature(pack.path / MANIFEST, SignedFile.PACK, pack.read_manifest(), key)
    except OSError as error:
        raise _not_written(pack, error) from error


def sign_plans(pack: Pack, key: PrivateKey) -> Iterator[tuple[Path, str]]:
    """Sign the sidecar of each plan that is intact and matches the pack.

    Yields:
        Path of a plan, and why it was not signed; "" if it was.

    Raises:
        PackError: the pack is not writable.
    """
    # Existing signatures do not matter.
    unsigned = replace(pack, trust=None)
    for path, plan in iter_plans(pack):
        trouble = plan if isinstance(plan, str) else _trouble(unsigned, plan)
        if isinstance(plan, StoredPlan) and not trouble:
            try:
                sign_plan(plan, key)
            except OSError as error:
                raise _not_written(pack, error) from error
        yield path, trouble


def _trouble(pack: Pack, plan: StoredPlan) -> str:
    try:
        read_plan(pack, plan)
    except PlanError as error:
        return str(error)
    return ""


def _not_written(pack: Pack, error: OSError) -> PackError:
    return PackError(
        f"The signature cannot be written to {pack.path} ({error.strerror}).",
        "Copy the pack to a writable folder and sign the copy.",
    )
