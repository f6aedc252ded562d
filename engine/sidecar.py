"""What is recorded beside a plan, and whether a machine may load such a plan."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from stenosis_trt.engine.tensorrt_flavours import Capability, dotted, parse_capability

_SCHEMA = 2
_CHECKSUM = "content_sha256"
_OPTION = re.compile(r"--[a-z0-9-]+( [A-Za-z0-9.,-]+)?")
"""They are printed as a command to be typed, and a sidecar may come from anybody."""
_LISTS = ("compute_capabilities", "batches", "settings")


@dataclass(frozen=True)
class Here:
    """What would load a plan: a flavour and its version, and the GPU."""

    flavour: str
    version: str
    gpu_name: str
    compute_capability: Capability


@dataclass(frozen=True)
class Sidecar:
    """What is recorded of a plan.

    Attributes:
        model, precision: of which file of the pack; its hash is `onnx_sha256`.
        spec_sha256: of what the pack says of the model's input and output.
        pack_sha256: of pack.json when the plan was built, for the record: a pack that got another precision
            since is still this plan's.
        flavour, version: that built it, and that loads it.
        compute_capabilities: that it runs on, "8.7"; with `newer_than` also those beyond that one.
        gpu_name: of the GPU it was timed on, and is for unless the settings say more; None if on none.
        driver: newest CUDA of that GPU's driver; None likewise.
        batches: a profile each, in this order.
        settings: what was not the default, as options of `stenosis-trt build`.
        version_compatible, hardware_compatible, dla_core: those of the settings that decide who may load it.
        layers: as TensorRT parsed them.
        build_seconds, built_with: by which release of this program.
        variant_gate: what pack.json said, when the plan was built, of comparing its ONNX file with FP32: on
            what, the figures, and that it passed; None for the model itself, which is compared with.
        measured: outcome of comparing the plan's own answers on a GPU; None while that was not done.
    """

    model: str
    precision: str
    plan_sha256: str
    plan_bytes: int
    onnx_sha256: str
    spec_sha256: str
    pack_sha256: str
    flavour: str
    version: str
    compute_capabilities: tuple[str, ...]
    newer_than: str | None
    gpu_name: str | None
    driver: str | None
    batches: tuple[int, ...]
    settings: tuple[str, ...]
    version_compatible: bool
    hardware_compatible: str
    dla_core: int | None
    layers: Mapping[str, int]
    build_seconds: float
    built_with: str
    variant_gate: Mapping[str, Any] | None = None
    measured: Mapping[str, Any] | None = None
    schema: int = field(default=_SCHEMA)

    def text(self) -> str:
        """The sidecar as its file holds it, with a checksum over all of it."""
        content = asdict(self)
        return json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str) -> Sidecar:
        """A sidecar from its JSON.

        Raises:
            ValueError: it is none of this release, or was changed since it was written.
        """
        content = json.loads(text)
        names = {item.name for item in fields(cls)}
        if (
            not isinstance(content, dict)
            or content.get("schema") != _SCHEMA
            or set(content) != {*names, _CHECKSUM}
            or not all(isinstance(content[name], list) for name in _LISTS)
        ):
            raise ValueError("it is no sidecar of this release")
        if content.pop(_CHECKSUM) != _checksum(content):
            raise ValueError("the sidecar was changed since it was written")
        for capability in content["compute_capabilities"]:
            parse_capability(capability)
        if not all(_OPTION.fullmatch(option) for option in content["settings"]):
            raise ValueError("the sidecar's settings are none of stenosis-trt build")
        return cls(**{**content, **{name: tuple(content[name]) for name in _LISTS}})

    def refusal(self, here: Here) -> str:
        """Why this plan cannot be loaded there, or ""."""
        if self.flavour != here.flavour:
            return f"it is for {self.flavour}, not {here.flavour}"
        if self.version != here.version and not (
            self.version_compatible and _numbers(self.version) <= _numbers(here.version)
        ):
            return f"it was built by {self.flavour} {self.version}, and here is {here.version}"
        capability = here.compute_capability
        listed = [parse_capability(item) for item in self.compute_capabilities]
        newer = self.newer_than is not None and capability > parse_capability(self.newer_than)
        if self.hardware_compatible == "ampere-plus":
            newer = capability >= (8, 0)
        if capability not in listed and not newer:
            return (
                f"it runs on compute capability {', '.join(self.compute_capabilities)}"
                f"{f' and beyond {self.newer_than}' if self.newer_than else ''}, and {here.gpu_name} has "
                f"{dotted(capability)}"
            )
        if self.gpu_name not in (None, here.gpu_name) and not self.hardware_compatible:
            return f"it was built on {self.gpu_name} for such GPUs, and here is {here.gpu_name}"
        return ""


def _checksum(content: Mapping[str, Any]) -> str:
    """Against damage and edits by hand; who means harm makes it anew, and is what signatures are for."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
