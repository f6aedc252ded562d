"""Interface of a runtime that runs one model on the CPU."""

from __future__ import annotations

from typing import Protocol

from stenosis_trt.engine.backends.base import Float32Array, Pending


class ModelRuntime(Protocol):
    """One opened model, checked against its specification.

    Attributes:
        name: name of the runtime, such as "onnxruntime".
    """

    name: str

    def submit(self, batch: Float32Array) -> Pending[Float32Array]:
        """Start to run the model on (N, C, H, W), N ≥ 1. The array must not change until the result is there.

        The result is float32 (N, …) and not checked. Waiting for it raises `ModelRuntimeError` where the
        library fails.
        """
        ...

    def close(self) -> None:
        """Release the model. Results that were not waited for are lost."""
        ...


class ModelRuntimeError(Exception):
    """The library of a runtime cannot load or run a model.

    The message is one line, to follow the name of the model's file.
    """


LONGEST_QUOTE = 200
"""Characters of a library's message that are quoted: some contain the graph."""


def quoted(error: Exception) -> str:
    """Return the message of a library's error on one line, truncated."""
    return " ".join(str(error).split())[:LONGEST_QUOTE]
