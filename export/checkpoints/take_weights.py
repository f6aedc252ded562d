"""Extraction of weights from a pickle that `stenosis-trt export` refuses, without running its code.

    python -m stenosis_trt.export.checkpoints.take_weights FILE weights.pt

For pickled networks, or weights stored beside a configuration or enumeration. All classes and functions of
the file, except those that build tensors, are replaced by inert objects. Tensors, numbers and texts keep
their names.
"""

from __future__ import annotations

import argparse
import io
import pickle
import struct
import sys
import types
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stenosis_trt.engine.support.atomic_files import write_bytes_atomically
from stenosis_trt.export.checkpoints.plain_data import PickledArray, safe_global
from stenosis_trt.export.models.temperature import TEMPERATURE

_TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
_MAX_DEPTH = 64
"""Maximum nesting of objects."""


def _encode(text: str, encoding: str) -> bytes:
    """How pickles of Python 2's protocols store bytes."""
    if encoding != "latin1":
        raise ValueError("the encoding of its bytes is unknown")
    return text.encode(encoding)


_PLAIN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("_codecs", "encode"): _encode,
}
_RENAMED = {"__builtin__": "builtins"}
"""Python 2 names of modules in PyTorch's pickles."""


class InertObject:
    """Replacement for any class or function of the file: stores its state and does nothing."""

    def __new__(cls, *_: object, **__: object) -> InertObject:
        """Accept any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        self.items: dict[Any, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.items = dict(state) if isinstance(state, Mapping) else {}

    def __setitem__(self, key: object, value: object) -> None:
        vars(self).setdefault("items", {})[key] = value

    def append(self, _: object) -> None:
        """Ignore an element of a list."""

    def extend(self, _: object) -> None:
        """Ignore elements of a list."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if module == "torch._utils" and name in _TENSORS:
            return getattr(torch._utils, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        module = _RENAMED.get(module, module)
        if (module, name) in _PLAIN:
            return _PLAIN[module, name]
        return safe_global(module, name) or type(name, (InertObject,), {})


def read_inert(path: Path) -> Any:
    """Content of a `torch.save` file as mappings, lists, numbers, texts and tensors.

    Raises:
        ValueError: the file cannot be read.
    """
    module = types.ModuleType("inert")
    vars(module).update(vars(pickle), Unpickler=_Unpickler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)
        return _to_data(content, _MAX_DEPTH)
    except (
        *(RuntimeError, EOFError, OSError, LookupError, TypeError, AttributeError, ArithmeticError),
        *(AssertionError, struct.error, pickle.UnpicklingError, ValueError),
    ) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error


def _to_data(value: Any, depth: int) -> Any:
    """Plain data of a value: an object's state, or the full state dict of a network."""
    if depth == 0:
        raise ValueError("its objects nest too deep")
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, PickledArray):
        numbers = value.numbers()
        return None if numbers is None else torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("=")))
    if isinstance(value, argparse.Namespace):
        return _to_data(vars(value), depth - 1)
    if isinstance(value, InertObject):
        found = getattr(value, "items", {})
        return _state_dict(found, "", depth) if "_modules" in found else _to_data(found, depth - 1)
    if isinstance(value, Mapping):
        return {key: _to_data(item, depth - 1) for key, item in value.items() if isinstance(key, (str, int))}
    if isinstance(value, (list, tuple)):
        return [_to_data(item, depth - 1) for item in value]
    return value if isinstance(value, (str, int, float, bytes)) else None


def _state_dict(module: Mapping[Any, Any], prefix: str, depth: int) -> dict[str, Any]:
    """State dict of a pickled `torch.nn.Module`: parameters and persistent buffers, recursively.

    Floats with "temperature" in their name are included, so that `export` can report them.
    """
    if depth == 0:
        raise ValueError("its modules nest too deep")
    found: dict[str, Any] = {}
    passing = module.get("_non_persistent_buffers_set") or ()
    found |= {
        f"{prefix}{name}": value
        for name, value in module.items()
        if isinstance(value, float) and TEMPERATURE in str(name).lower()
    }
    for table in ("_parameters", "_buffers"):
        for name, value in dict(module.get(table) or {}).items():
            if isinstance(value, torch.Tensor) and not (table == "_buffers" and name in passing):
                found[f"{prefix}{name}"] = value.detach()
    for name, part in dict(module.get("_modules") or {}).items():
        if isinstance(part, InertObject):
            found |= _state_dict(getattr(part, "items", {}), f"{prefix}{name}.", depth - 1)
    return found


def main() -> None:
    """Extract the weights of a file."""
    parser = argparse.ArgumentParser(description="Take weights out of a pickle without running it.")
    parser.add_argument("file", type=Path, help="what torch.save wrote")
    parser.add_argument("out", type=Path, help="the new file, for stenosis-trt export")
    arguments = parser.parse_args()
    if arguments.out.exists():
        sys.exit(f"{arguments.out} is there already. Give a new file.")
    try:
        content = read_inert(arguments.file)
    except ValueError as error:
        sys.exit(str(error))
    written = io.BytesIO()
    torch.save(content, written)
    try:
        write_bytes_atomically(arguments.out, written.getvalue())
    except OSError as error:
        sys.exit(f"{arguments.out} cannot be written ({error.strerror}). Give a file in another folder.")
    print(f"{arguments.out} holds the weights of {arguments.file}, and nothing of it was run.")


if __name__ == "__main__":
    main()
