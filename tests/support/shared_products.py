"""Folders that several test files need, made once: shared by the processes of a test run and by later runs.

    folder = shared_product("phantoms", make, 1, 4711)

calls `make` with an empty folder unless an earlier call, in any process, left a product of the same name and
parameters by the same code: the project's packages as they are imported, the helpers in this folder, the file
that defines `make`, Python and every installed distribution. Whoever comes while it is made waits.

Products are not to be changed: a test that writes works on a copy. A changed product is an error.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache
from importlib import import_module, metadata
from pathlib import Path

_HERE = Path(__file__).resolve().parent
FOLDER = _HERE.parents[1] / ".pytest_cache" / "d" / "products"
"""Where `pytest --cache-clear` deletes it."""
_PACKAGES = ("engine", "export", "kernels", "bench")
_KEPT = 2
"""Products of one name and parameters, by different code, that stay on disk."""
_checked: set[Path] = set()


class ChangedProductError(Exception):
    """A product is not what was made."""


def shared_product(
    name: str, make: Callable[[Path], object], *parameters: object, folder: Path = FOLDER
) -> Path:
    """Return the folder with what `make` wrote, which is called where there is none yet.

    Args:
        name: of the product, fit for a file name.
        make: writes into the empty folder that it is given. Its result depends on nothing but the parameters
            and the code.
        parameters: what the product is made of; compared by their `repr`.
        folder: where products lie.

    Raises:
        ChangedProductError: a test changed the product.
    """
    of_call = f"{name}-{_digest([repr(parameters).encode()])}"
    source = Path(inspect.getfile(inspect.unwrap(make)))
    product = folder / f"{of_call}-{_digest([code_fingerprint().encode(), source.read_bytes()])}"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{of_call}.lock"):
        record = product.with_name(f"{product.name}.content")
        if not (product.exists() and record.exists()):
            unfinished = product.with_name(f"{product.name}.part")
            for left in (unfinished, product):
                shutil.rmtree(left, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(product)
            record.write_text(_content(product), encoding="ascii")
            _remove_old(folder, of_call)
        elif product not in _checked and record.read_text(encoding="ascii") != _content(product):
            raise ChangedProductError(
                f"{product} was changed since it was made. Have the test that did it work on a copy, "
                "and run pytest with --cache-clear."
            )
    _checked.add(product)
    return product


@cache
def code_fingerprint() -> str:
    """Hash of the project's packages, of these helpers, of Python and of all installed distributions."""
    folders = [Path(import_module(f"stenosis_trt.{name}").__path__[0]) for name in _PACKAGES]
    folders += [_HERE, _HERE.parent / "kernels"]
    installed = sorted(f"{item.name} {item.version}" for item in metadata.distributions())
    parts = [sys.version, *installed, *(_content(folder) for folder in folders)]
    return _digest(part.encode() for part in parts)


def _content(folder: Path) -> str:
    """Hash of the names and bytes of all files below a folder, without bytecode and plans of packs."""
    parts = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and "__pycache__" not in path.parts and not fnmatch(name, "packs/*/plans/*"):
            parts += [name.encode(), path.read_bytes()]
    return _digest(parts)


def _digest(parts: Iterable[bytes]) -> str:
    found = hashlib.blake2b(digest_size=12)
    for part in parts:
        found.update(hashlib.blake2b(part).digest())
    return found.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that a process gives back when it ends, however it ends."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _remove_old(folder: Path, of_call: str) -> None:
    records = sorted(folder.glob(f"{of_call}-*.content"), key=os.path.getmtime)
    for record in records[:-_KEPT]:
        record.unlink()
        shutil.rmtree(record.with_suffix(""))
