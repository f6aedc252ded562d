"""Reading and writing of checkpoint files. The format is told from the content; no file may run code."""

from __future__ import annotations

import pickle
import re
import shlex
import struct
import tarfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from stenosis_trt.engine.support.atomic_files import write_bytes_atomically
from stenosis_trt.export.checkpoints.plain_data import SAFE_GLOBALS
from stenosis_trt.export.errors import ExportError

SUFFIX = ".safetensors"

_HEADER = struct.Struct("<Q")
"""Size of the JSON header at the beginning of a safetensors file."""
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_SIGNATURES = (
    (b"\x89HDF\r\n", "HDF5, as Keras writes it"),
    (b"\x1f\x8b", "compressed by gzip: unpack it with gunzip"),
    (b"BZh", "compressed by bzip2: unpack it with bunzip2"),
    (b"\xfd7zXZ", "compressed by xz: unpack it with unxz"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself: git lfs pull"),
    (b"<", "a text, such as a page that was downloaded in the file's place"),
)
"""Signatures of files that are often given by mistake."""
_STATE_DICT = "torch.save(network.state_dict(), 'weights.pt')"


class CheckpointError(ExportError):
    """A checkpoint that cannot be used. The message names the file, the problem and its solution."""


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a file into a mapping, with tensors on the CPU.

    Args:
        path: safetensors, or a file of `torch.save` under any name, which is read with `weights_only`.

    Raises:
        CheckpointError: the file is missing, has another format, or is a pickle that calls code.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}.", "Give a file.")
    try:
        with path.open("rb") as stream:
            beginning = stream.read(64)
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}).", "Give a file that can."
        ) from error
    if path.suffix.lower() == SUFFIX or _is_safetensors(beginning, size):
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError, OverflowError) as error:
            raise CheckpointError(
                f"{path} cannot be read as safetensors ({error}).", "Save it again."
            ) from error
    for mark, what in _SIGNATURES:
        if beginning.startswith(mark):
            raise CheckpointError(f"{path} is not a PyTorch checkpoint: it is {what}.")
    content = _unpickle(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__} and no weights by name.", f"Save them: {_STATE_DICT}."
        )
    return content


def write_checkpoint(path: Path, network: nn.Module) -> None:
    """Write a network's weights as .safetensors, atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_bytes_atomically(path, save(tensors))


def take_weights_command(path: Path) -> str:
    """Command that extracts the weights from a pickle of other objects."""
    given = shlex.quote(str(path))
    return f"python -m stenosis_trt.export.checkpoints.take_weights {given} weights.pt"


def _is_safetensors(beginning: bytes, size: int) -> bool:
    if len(beginning) <= _HEADER.size or beginning[_HEADER.size : _HEADER.size + 1] != b"{":
        return False
    return int(_HEADER.unpack_from(beginning)[0]) <= size


def _unpickle(path: Path) -> Any:
    try:
        # PyTorch warns about old pickle protocols, whether it can read them or not.
        with torch.serialization.safe_globals(SAFE_GLOBALS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unpickling_error(path, error) from error
    # PyTorch's unpickler lets through whatever exception a damaged file causes.
    except (
        *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError),
        *(ArithmeticError, AssertionError, ImportError, MemoryError, struct.error, tarfile.TarError),
    ) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path} is TorchScript, which is a program.",
                "Save the weights: torch.save(torch.jit.load(file).state_dict(), 'weights.pt').",
            ) from error
        if tarfile.is_tarfile(path):
            raise CheckpointError(
                f"{path} is an archive of files.",
                f"Unpack it, and give the checkpoint in it: tar -xf {shlex.quote(str(path))}",
            ) from error
        raise CheckpointError(
            f"{path} cannot be read as a PyTorch checkpoint ({type(error).__name__}).", "Save it again."
        ) from error


def _unpickling_error(path: Path, error: Exception) -> CheckpointError:
    wanted = _GLOBAL.search(str(error))
    if wanted is None:
        return CheckpointError(
            (
                f"{path} cannot be read as a PyTorch checkpoint: it is damaged, or a pickle of other "
                "things than weights."
            ),
            f"Save the weights alone: {_STATE_DICT}.",
        )
    return CheckpointError(
        (f"{path} is a pickle that wants to run code (it calls for {wanted[1]}), and was not loaded."),
        (
            f"Where it was trained, save the weights alone: {_STATE_DICT}; or take them out here, "
            f"which runs nothing of the file: {take_weights_command(path)}"
        ),
    )
