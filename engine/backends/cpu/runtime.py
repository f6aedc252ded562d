"""Interface of a runtime that runs one model on the CPU."""

from __future__ import annotations

from typing import Protocol

from stenosis_trt.engine.backends.base import Float32Array

_LONGEST_QUOTE = 200


class ModelRuntime(Protocol):
    """One opened model. Its tensors have been checked against its specification."""

    def run(self, batch: Float32Array) -> Float32Array:
        """Run the model on (N, C, H, W), N ≥ 1. May be called by several threads at the same time.

        Returns:
            The output, float32 (N, …), not checked.

        Raises:
            ModelRuntimeError: the library fails.
        """
        ...

    def close(self) -> None:
        """Release the model."""
        ...


class ModelRuntimeError(Exception):
    """The library of a runtime cannot run a model. The message is one line, about "it"."""


def quoted(error: Exception) -> str:
    """Return a library's message on one line, truncated: some contain the graph."""
    return " ".join(str(error).split())[:_LONGEST_QUOTE]
