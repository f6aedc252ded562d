"""What is recorded beside a plan, and whether a machine may load such a plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter

from stenosis_trt.engine.support.json_schema import (
    STRICT_CONFIG,
    JsonError,
    JsonObject,
    Sha256,
    SingleLine,
    read_json,
)
from stenosis_trt.engine.trt.flavours import (
    HARDWARE_COMPATIBILITY_LEVELS,
    LARGEST_BATCH,
    Capability,
    format_capability,
    parse_capability,
)

_SCHEMA = 2
_CHECKSUM = "content_sha256"

_Option = Annotated[str, StringConstraints(max_length=400, pattern=r"^--[a-z0-9-]+( [A-Za-z0-9.,-]+)?$")]
"""An option of `stenosis-trt build`. It is printed as a command to be typed, and a sidecar may come from
anybody."""
_Version = Annotated[str, StringConstraints(max_length=64, pattern=r"^[0-9A-Za-z.+_-]+$")]
_Capability = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}\.[0-9]$")]
_MAX_PLAN_BYTES = 4 << 30
_Distance = Annotated[str, StringConstraints(pattern=f"^({'|'.join(HARDWARE_COMPATIBILITY_LEVELS)})?$")]
_Batch = Annotated[int, Field(ge=1, le=LARGEST_BATCH)]


def _rising(batches: tuple[int, ...]) -> tuple[int, ...]:
    if list(batches) != sorted(set(batches)):
        raise ValueError("batches have to rise")
    return batches


@dataclass(frozen=True)
class RuntimeTarget:
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

    model: SingleLine
    precision: SingleLine
    plan_sha256: Sha256
    plan_bytes: Annotated[int, Field(ge=0, le=_MAX_PLAN_BYTES)]
    onnx_sha256: Sha256
    spec_sha256: Sha256
    pack_sha256: Sha256
    flavour: SingleLine
    version: _Version
    compute_capabilities: Annotated[tuple[_Capability, ...], Field(max_length=64)]
    newer_than: _Capability | None
    gpu_name: SingleLine | None
    driver: SingleLine | None
    batches: Annotated[tuple[_Batch, ...], Field(min_length=1, max_length=64), AfterValidator(_rising)]
    settings: Annotated[tuple[_Option, ...], Field(max_length=64)]
    version_compatible: bool
    hardware_compatible: _Distance
    dla_core: Annotated[int, Field(ge=0, le=64)] | None
    layers: Annotated[Mapping[SingleLine, int], Field(max_length=10_000)]
    build_seconds: float
    built_with: SingleLine
    variant_gate: JsonObject | None = None
    measured: JsonObject | None = None
    schema: Annotated[int, Field(ge=_SCHEMA, le=_SCHEMA)] = field(default=_SCHEMA)

    __pydantic_config__: ClassVar[ConfigDict] = STRICT_CONFIG

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
        try:
            table = read_json(_TABLE, text)
        except JsonError as error:
            raise ValueError(f"the sidecar is no JSON object ({error})") from error
        content, names = dict(table), {item.name for item in fields(cls)}
        if content.get("schema") != _SCHEMA or set(content) != {*names, _CHECKSUM}:
            raise ValueError("it is no sidecar of this release")
        if content.pop(_CHECKSUM) != _checksum(content):
            raise ValueError("the sidecar was changed since it was written")
        try:
            return read_json(_SIDECAR, json.dumps(content))
        except JsonError as error:
            if error.entry.startswith("settings"):
                raise ValueError("the sidecar's settings are none of stenosis-trt build") from error
            raise ValueError(f"the sidecar does not say what it has to ({error})") from error

    def load_blocker(self, here: RuntimeTarget) -> str:
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
                f"{format_capability(capability)}"
            )
        if self.gpu_name not in (None, here.gpu_name) and not self.hardware_compatible:
            return f"it was built on {self.gpu_name} for such GPUs, and here is {here.gpu_name}"
        return ""


_TABLE: TypeAdapter[Mapping[str, Any]] = TypeAdapter(JsonObject)
_SIDECAR = TypeAdapter(Sidecar)


def _checksum(content: Mapping[str, Any]) -> str:
    """Against damage and edits by hand; who means harm makes it anew, and is what signatures are for."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
