"""Write the ranges within which a pack holds into its model card.

    python -m stenosis_trt.export.packs.declare PACK ROBUSTNESS/robustness.json

`bench.robustness` evaluates a pack under each condition of a study, and finds the range of strengths within
which grades do not change silently. They become `declared_ranges` of the card. The hash of the pack changes,
those of its models do not.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from stenosis_trt.engine.errors import PackError, StenosisError
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.packs.signature import signature_path
from stenosis_trt.engine.support.atomic_files import write_text_atomically
from stenosis_trt.export.packs.writer import manifest_text

DECLARED = "declared_ranges"
"""Entry of the card: unit, low and high of each condition of `bench.phantom.conditions`."""


def declare_ranges(pack: Path, robustness: Path) -> Pack:
    """Write the declared ranges of `robustness.json` into the card of the pack that it was made with.

    Args:
        pack: folder of an unsigned pack.
        robustness: as written by `bench.robustness`.

    Raises:
        PackError: the pack is signed, or the ranges were found with another one.
        OSError: a file cannot be read or written.
        ValueError: `robustness` is not such a file.
    """
    opened = Pack.load(pack)
    if signature_path(pack / MANIFEST).exists():
        raise PackError("The pack is signed, so its card cannot be changed.", "Sign it afterwards.")
    found = json.loads(robustness.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not {"declared", "setting"} <= found.keys():
        raise ValueError(f"{robustness} was not written by bench.robustness.")
    if found["setting"]["pack_sha256"] != opened.sha256:
        raise PackError(
            f"{robustness} was made with another pack.", f"Run bench.robustness with --pack {pack}."
        )
    manifest: dict[str, Any] = json.loads((pack / MANIFEST).read_text(encoding="utf-8"))
    manifest["card"][DECLARED] = {
        name: {key: item[key] for key in ("unit", "low", "high")} for name, item in found["declared"].items()
    }
    write_text_atomically(pack / MANIFEST, manifest_text(manifest))
    return Pack.load(pack)


def main() -> None:
    """Write the ranges, and print the new hash of the pack."""
    parser = argparse.ArgumentParser(description="Write the declared ranges of a pack into its card.")
    parser.add_argument("pack", type=Path, help="folder of the pack")
    parser.add_argument("robustness", type=Path, help="robustness.json of this pack")
    arguments = parser.parse_args()
    try:
        made = declare_ranges(arguments.pack, arguments.robustness)
    except (StenosisError, OSError, ValueError) as error:
        sys.exit(str(error))
    print(f"{made.path}: pack {made.name} {made.version}, SHA-256 {made.sha256}")


if __name__ == "__main__":
    main()
