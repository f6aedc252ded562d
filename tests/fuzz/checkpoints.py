"""Checkpoints of PyTorch and safetensors: `read_checkpoint` and `find_weights`."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save

from fuzz.harness import Target, main
from fuzz.mutation import mutated_bytes, mutated_json
from stenosis_trt.export.checkpoints.files import CheckpointError, read_checkpoint
from stenosis_trt.export.checkpoints.read import KEYPOINT_ANCHOR, find_weights

_ZIP = b"PK"
_OLD = b"\x80\x02"
_ANCHOR = KEYPOINT_ANCHOR


def _tensors() -> dict[str, torch.Tensor]:
    return {
        _ANCHOR: torch.ones(2, 1, 3, 3),
        "stages.0.0.0.bias": torch.zeros(2),
        "temperature": torch.ones(1),
    }


def seeds() -> list[bytes]:
    found = []
    for content, new in (
        (_tensors(), True),
        ({"state_dict": _tensors(), "epoch": 3, "args": {"lr": 0.1}}, True),
        (_tensors(), False),
    ):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=new)
        found.append(stream.getvalue())
    return [*found, save(_tensors())]


def check(data: bytes, folder: Path) -> None:
    ending = ".pt" if data.startswith((_ZIP, _OLD)) else ".safetensors"
    path = folder / f"weights{ending}"
    path.write_bytes(data)
    content = read_checkpoint(path)
    find_weights(path, content, [_ANCHOR], None)


def mutate(rng: random.Random, data: bytes) -> bytes:
    if data.startswith(_ZIP) and rng.random() < 0.9:
        return _mutated_zip(rng, data)
    if not data.startswith((_ZIP, _OLD)) and rng.random() < 0.8:
        return _mutated_safetensors(rng, data)
    return mutated_bytes(rng, data)


def _mutated_zip(rng: random.Random, data: bytes) -> bytes:
    """One entry changed, with a checksum that is right again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError):
        return mutated_bytes(rng, data)
    # Most of what can go wrong lies in the pickle.
    pickles = [name for name in entries if name.endswith("data.pkl")]
    name = rng.choice(pickles if pickles and rng.random() < 0.8 else list(entries))
    entries[name] = (
        _mutated_pickle(rng, entries[name]) if name in pickles else mutated_bytes(rng, entries[name])
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    return stream.getvalue()


def _mutated_pickle(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.2:
        value = rng.choice(([], 3, "text", None, {1: 2}, {"a": {"b": {}}}, (), {"conv.weight": "no tensor"}))
        return pickle.dumps(value, protocol=2)
    content = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        # Opcodes stay opcodes more often than not: one is exchanged for another.
        content[rng.randrange(len(content))] = rng.choice(
            b"(.0123BCDEFGHIJKLMNQRSTUVX\\]abcdeghijloqrstu}\x80\x85\x86\x87\x88"
        )
    return bytes(content)


def _mutated_safetensors(rng: random.Random, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8:
        return mutated_bytes(rng, data)
    header = mutated_json(rng, data[8 : 8 + size].rstrip())
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


TARGET = Target("checkpoints", (CheckpointError,), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
