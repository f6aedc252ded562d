"""What a plan holds: an ONNX file, what goes in and out for each profile, and what it was built with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

MAGIC = b"stand-in for a TensorRT plan\0"


@dataclass(frozen=True)
class Tensor:
    """Name, type by TensorRT's name, shape as the network declares it (-1 is open) and in each profile."""

    name: str
    dtype: str
    declared: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Plan:
    """See above. `flags` are names of builder flags."""

    module: str
    version: str
    flags: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    onnx: bytes

    def to_bytes(self) -> bytes:
        head = asdict(self)
        del head["onnx"]
        return MAGIC + json.dumps(head).encode() + b"\0" + self.onnx

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Raises ValueError: it is none."""
        if not data.startswith(MAGIC):
            raise ValueError("the serialised engine has a wrong magic")
        head, zero, onnx = data[len(MAGIC) :].partition(b"\0")
        if not zero:
            raise ValueError("the serialised engine is cut short")
        fields = json.loads(head)
        inputs, outputs = (tuple(map(_tensor, fields.pop(key))) for key in ("inputs", "outputs"))
        fields["flags"] = tuple(fields["flags"])
        return cls(**fields, inputs=inputs, outputs=outputs, onnx=onnx)


def _tensor(fields: dict) -> Tensor:
    shapes = tuple(map(tuple, fields["shapes"]))
    return Tensor(fields["name"], fields["dtype"], tuple(fields["declared"]), shapes)
