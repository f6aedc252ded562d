"""Sidecars: the metadata beside a plan, and whether a machine can load the plan."""

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
"""An option of `stenosis-trt build`. Restricted because a sidecar is untrusted and options are printed as a
command."""
_Version = Annotated[str, StringConstraints(max_length=64, pattern=r"^[0-9A-Za-z.+_-]+$")]
_Capability = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}\.[0-9]$")]
_MAX_PLAN_BYTES = 4 << 30
_Distance = Annotated[str, StringConstraints(pattern=f"^({'|'.join(HARDWARE_COMPATIBILITY_LEVELS)})?$")]
_Batch = Annotated[int, Field(ge=1, le=LARGEST_BATCH)]


def _rising(batches: tuple[int, ...]) -> tuple[int, ...]:
    if list(batches) != sorted(set(batches)):
        raise ValueError("batches must ascend")
    return batches


@dataclass(frozen=True)
class RuntimeTarget:
    """The flavour and version of TensorRT and the GPU that would load a plan."""

    flavour: str
    version: str
    gpu_name: str
    compute_capability: Capability


@dataclass(frozen=True)
class Sidecar:
    """Metadata of a plan.

    Attributes:
        model, precision: ONNX file of the pack that it was built from, with hash `onnx_sha256`.
        spec_sha256: hash of the input and output of the model in pack.json.
        pack_sha256: hash of pack.json at build time, for the record only: it may change without making the
            plan stale.
        flavour, version: flavour and version of TensorRT that built it.
        compute_capabilities: capabilities that it runs on, such as "8.7"; with `newer_than` also higher ones
            than that.
        gpu_name: GPU that it was built on, and is limited to unless the settings say otherwise; None if
            built without a GPU.
        driver: CUDA version of the driver of that GPU; None if built without a GPU.
        batches: batch size of each profile, in order.
        settings: options of `stenosis-trt build` that were not the default.
        version_compatible, hardware_compatible, dla_core: settings that decide where it can be loaded.
        layers: `ParsedNetwork.layer_counts`.
        build_seconds: duration of the build.
        built_with: release of this program.
        variant_gate: record in pack.json, at build time, of the comparison of the ONNX file with FP32; None
            for the model itself.
        measured: record of the comparison of this plan's own results with FP32 on a GPU; None if not done.
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
        """Serialise to the JSON of the file, with a checksum over the content."""
        content = asdict(self)
        return json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str) -> Sidecar:
        """Parse a sidecar.

        Raises:
            ValueError: it is not a sidecar of this release, or was modified.
        """
        try:
            table = read_json(_TABLE, text)
        except JsonError as error:
            raise ValueError(f"the sidecar is not a JSON object ({error})") from error
        content, names = dict(table), {item.name for item in fields(cls)}
        if content.get("schema") != _SCHEMA or set(content) != {*names, _CHECKSUM}:
            raise ValueError("it is not a sidecar of this release")
        if content.pop(_CHECKSUM) != _checksum(content):
            raise ValueError("the sidecar was modified")
        try:
            return read_json(_SIDECAR, json.dumps(content))
        except JsonError as error:
            if error.entry.startswith("settings"):
                raise ValueError("the sidecar's settings are not options of stenosis-trt build") from error
            raise ValueError(f"the sidecar is invalid ({error})") from error

    def load_blocker(self, here: RuntimeTarget) -> str:
        """Why this plan cannot be loaded on a machine; "" if it can."""
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
    """Checksum against damage and manual edits. It does not authenticate: signatures do."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
