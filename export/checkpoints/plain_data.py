"""Data types allowed beside weights in a pickle: NumPy scalars and arrays, paths, dates, sets.

PyTorch's `weights_only` refuses them by default. NumPy's own functions are not allowed either, because a
pickle could give them an inconsistent dtype. The replacements here check their arguments, keep the bytes and
run no NumPy unpickling.
"""

from __future__ import annotations

import argparse
import datetime
import pickle
import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

_NUMBER = re.compile(r"[biufc]\d{1,2}")


class PickledDtype:
    """NumPy dtype in a pickle, such as "f8" with byte order "<"."""

    def __init__(self, text: object = "", *_: object) -> None:
        if not isinstance(text, str):
            raise pickle.UnpicklingError("A dtype has no name.")
        self.text, self.order = text, "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = str(state[1])

    @property
    def is_float(self) -> bool:
        """True for real and complex floating-point types."""
        return self.text[:1] in ("f", "c")


class PickledArray:
    """NumPy array in a pickle.

    Attributes:
        dtype: as pickled.
        items: elements of an object array.
    """

    dtype = PickledDtype()
    items: tuple[Any, ...] = ()
    _shape: Any = ()
    _by_columns: Any = False
    _data: Any = None

    def numbers(self) -> npt.NDArray[Any] | None:
        """The array, if its dtype is numeric.

        Raises:
            ValueError, TypeError: dtype, shape and bytes are inconsistent.
        """
        if not (_NUMBER.fullmatch(self.dtype.text) and isinstance(self._data, bytes)):
            return None
        values: npt.NDArray[Any] = np.frombuffer(self._data, np.dtype(self.dtype.order + self.dtype.text))
        return np.array(values.reshape(self._shape, order="F" if self._by_columns else "C"))

    def __setstate__(self, state: object) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], PickledDtype)):
            raise pickle.UnpicklingError("The state of an array is invalid.")
        _, self._shape, self.dtype, self._by_columns, self._data = state
        if _NUMBER.fullmatch(self.dtype.text) and not isinstance(self._data, bytes):
            raise pickle.UnpicklingError("An array has no bytes.")
        if isinstance(state[4], list):
            self.items = tuple(state[4])


def _array(*_: object) -> PickledArray:
    return PickledArray()


def _scalar(dtype: object, data: object = b"") -> Any:
    """NumPy scalar as a Python number; text and times as an array of their dtype."""
    if not isinstance(dtype, PickledDtype):
        raise pickle.UnpicklingError("A scalar has no dtype.")
    if _NUMBER.fullmatch(dtype.text):
        if not isinstance(data, bytes):
            raise pickle.UnpicklingError("A scalar has no bytes.")
        return np.frombuffer(data, np.dtype(dtype.order + dtype.text), count=1)[0].item()
    found = PickledArray()
    found.dtype = dtype
    return found


def _path(*parts: object) -> PurePosixPath:
    if not all(isinstance(part, str) for part in parts):
        raise pickle.UnpicklingError("A path has parts that are not text.")
    return PurePosixPath(*map(str, parts))


def _defaultdict(*_: object) -> dict[Any, Any]:
    return {}


def _deque(items: Iterable[Any] = (), *_: object) -> list[Any]:
    return list(items)


def _kind(*_: object) -> None:
    """A type that a pickle may name but not call, such as the factory of a defaultdict."""
    raise pickle.UnpicklingError("A type is called.")


_KINDS = (
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
    *(f"numpy.{name}" for name in ("bool", "bool_", "float16", "float32", "float64")),
    *(f"numpy.{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)

SAFE_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    # timm stores its command line in checkpoints; a Namespace only holds values.
    argparse.Namespace,
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
    frozenset,
    (_defaultdict, "collections.defaultdict"),
    (_deque, "collections.deque"),
    (PickledDtype, "numpy.dtype"),
    (PickledArray, "numpy.ndarray"),
    *(
        (stand_in, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name, stand_in in (("scalar", _scalar), ("_reconstruct", _array))
    ),
    *(
        (_path, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    ),
    *((_kind, name) for name in _KINDS),
]
"""For `torch.serialization.safe_globals`: each callable, with its name in pickles."""


def safe_global(module: str, name: str) -> Callable[..., Any] | None:
    """Replacement for a name in a pickle; None if the name is not allowed."""
    return _BY_NAME.get(f"{module}.{name}")


_BY_NAME = {
    (entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"): (
        entry[0] if isinstance(entry, tuple) else entry
    )
    for entry in SAFE_GLOBALS
}
