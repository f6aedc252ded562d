"""Specs of networks to export, in TOML: `read_spec`."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz.harness import Target, main
from fuzz.mutation import mutated_bytes
from stenosis_trt.export.spec_file import SpecError, read_spec, reference_spec

_VALUES = (
    *(b"0", b"-1", b"1e999", b"inf", b"nan", b"9223372036854775808", b"1" + b"0" * 400, b"true", b'""'),
    *(b'"\\u0000"', b'"../x"', b"[]", b"[[]]", b"{}", b"{a = 1}", b"1979-05-27", b"07:32:00", b'[1, "a"]'),
    b"[" * 5000 + b"]" * 5000,
)


def seeds() -> list[bytes]:
    return [reference_spec().read_bytes()]


def check(data: bytes, folder: Path) -> None:
    path = folder / "spec.toml"
    path.write_bytes(data)
    read_spec(path)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Lines with another value, removed, doubled or elsewhere; now and then bytes changed."""
    lines = data.split(b"\n")
    if rng.random() < 0.15 or len(lines) < 2:
        return mutated_bytes(rng, data)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(lines))
        key, equals, _ = lines[place].partition(b"=")
        match rng.randrange(6):
            case 0:
                del lines[place]
            case 1:
                lines.insert(rng.randrange(len(lines) + 1), lines[place])
            case 2:
                lines[place] = mutated_bytes(rng, lines[place])
            case _ if equals:
                lines[place] = key + b"= " + rng.choice(_VALUES)
            case _:
                lines[place] = lines[place].replace(b"[", b"[x.", 1)
        lines = lines or [b""]
    return b"\n".join(lines)


TARGET = Target("specs", (SpecError,), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
