"""The base class of objects that are used in a `with` block."""

from __future__ import annotations

from typing import TypeVar

_T = TypeVar("_T", bound="Closeable")


class Closeable:
    """Base class of objects with a `close()` that the end of a `with` block calls."""

    def __enter__(self: _T) -> _T:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the object holds. Further calls do nothing."""
        raise NotImplementedError
