"""Table of how the models of a pack run fastest on a machine's CPU, measured there and checked by the gate.

`stenosis-trt build --device cpu` writes it to PACK/cpu/<machine>.json, or to the user's cache for the
reference pack, a zip, or a folder that is not writable. It holds for one processor, number of threads, pack
and set of versions. Where the pack must be signed, so must the table be: it says which arithmetic passed the
gate.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from stenosis_trt.engine import packs
from stenosis_trt.engine.backends.cpu.candidates import Arithmetic, Execution, ModelChoice
from stenosis_trt.engine.packs.files import read_regular_file
from stenosis_trt.engine.packs.keys import PrivateKey
from stenosis_trt.engine.packs.models import MODEL_NAMES
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.packs.signature import (
    MAXIMUM_SIGNATURE_BYTES,
    SignedFile,
    signature_path,
    write_signature,
)
from stenosis_trt.engine.support.atomic_files import write_bytes_atomically
from stenosis_trt.engine.support.hardware import arithmetic_features, processor_name, usable_cores
from stenosis_trt.engine.support.json_schema import STRICT_CONFIG, JsonError, JsonObject, read_json
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.kernels.binaries import cache_folder

FOLDER = "cpu"
"""Folder of the tables in a pack and in the user's cache."""

AUTO, FP32, BF16, INT8 = "auto", "fp32", "bf16", "int8"
TABLE_PRECISIONS = (AUTO, FP32, BF16, INT8)
"""Precisions that a table may have a choice for; "auto" is the fastest of all that passed, by model."""

_INSTALLED_PACKS = Path(packs.__file__).parent.resolve()
_SCHEMA = 1
_MAX_BYTES = 4 << 20
_PACKAGES = ("stenosis-trt", "numpy", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Machine:
    """What a table holds for besides the pack.

    Attributes:
        processor: name of the processor.
        features: its instruction sets that matter for networks, such as "avx512_bf16".
        threads: cores that the models use.
        versions: versions of this program and of the packages that compute.
    """

    processor: str
    features: tuple[str, ...]
    threads: int
    versions: Mapping[str, str]

    __pydantic_config__ = STRICT_CONFIG

    @property
    def key(self) -> str:
        """File name of the machine's tables, without suffix; it does not depend on versions."""
        content = f"{self.processor}\n{' '.join(self.features)}\n{self.threads}"
        name = re.sub(r"[^a-z0-9]+", "-", self.processor.lower()).strip("-")[:40] or "cpu"
        return f"{name}-{self.threads}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def this_machine(threads: int | None = None) -> Machine:
    """Describe this machine. `threads`: cores to use; None for all that are available to this process."""
    return Machine(
        processor_name(),
        arithmetic_features(),
        threads or usable_cores(),
        {name: package_version(name) for name in _PACKAGES},
    )


@dataclass(frozen=True)
class Timing:
    """Time of one way to run a model.

    Attributes:
        arithmetic, execution: the way.
        batch: number of inputs.
        milliseconds: median of the rounds.
        relative: median ratio of its time to that of `default_choice` in FP32, which runs in each round too.
    """

    arithmetic: Arithmetic
    execution: Execution
    batch: int
    milliseconds: float
    relative: float

    __pydantic_config__ = STRICT_CONFIG


@dataclass(frozen=True)
class PrecisionChoice:
    """How the models run in one precision, and whether they may.

    Attributes:
        models: by name.
        gate: record of the gate, as in pack.json; None where everything is FP32 by ONNX Runtime, which the
            gate compares with.
    """

    models: Mapping[str, ModelChoice]
    gate: JsonObject | None = None

    __pydantic_config__ = STRICT_CONFIG

    @property
    def passed(self) -> bool:
        """True if the models may be used."""
        return self.gate is None or self.gate.get("passed") is True


@dataclass(frozen=True)
class CpuTable:
    """Content of a table.

    Attributes:
        schema_version: 1.
        pack_sha256: the pack.
        machine: the machine that it was measured on.
        choices: by precision; one of "bf16" or "int8" is absent where the machine or the pack lacks it.
        alone: for each model the record of the gate with that model alone in another arithmetic, by its name;
            made where all models together failed.
        measured: what was measured, by model.
    """

    schema_version: int
    pack_sha256: str
    machine: Machine
    choices: Mapping[str, PrecisionChoice]
    alone: Mapping[str, Mapping[str, JsonObject]]
    measured: Mapping[str, tuple[Timing, ...]]

    __pydantic_config__ = STRICT_CONFIG

    def __post_init__(self) -> None:
        if self.schema_version != _SCHEMA:
            raise ValueError(f"it has layout {self.schema_version}, and this release reads {_SCHEMA}")
        if not {AUTO, FP32} <= set(self.choices) <= set(TABLE_PRECISIONS):
            raise ValueError("its choices are not those of the precisions of a CPU")
        if any(set(choice.models) != set(MODEL_NAMES) for choice in self.choices.values()):
            raise ValueError("a choice lacks a model")

    def stale_reason(self, pack: Pack, here: Machine) -> str:
        """Why the table does not hold here, as the predicate of a sentence; "" if it does."""
        if self.pack_sha256 != pack.sha256:
            return "was made for another pack"
        for name, version in here.versions.items():
            made_with = self.machine.versions.get(name, "not installed")
            if made_with != version:
                return f"was made with {name} {made_with}, and here is {version}"
        there = (self.machine.processor, self.machine.features, self.machine.threads)
        if there != (here.processor, here.features, here.threads):
            return f"was made on {self.machine.processor} with {self.machine.threads} threads"
        return ""


@dataclass(frozen=True)
class FoundTable:
    """A table that holds here, or why there is none.

    Attributes:
        table: None if there is none.
        path: file of the table, or of the one that cannot be used; None if there is no file.
        reason: why there is none, as the predicate of a sentence about `path`; "" without a file.
    """

    table: CpuTable | None = None
    path: Path | None = None
    reason: str = ""


_TABLE = TypeAdapter(CpuTable)


def new_table(
    pack: Pack,
    machine: Machine,
    choices: Mapping[str, PrecisionChoice],
    alone: Mapping[str, Mapping[str, JsonObject]],
    measured: Mapping[str, tuple[Timing, ...]],
) -> CpuTable:
    """Create the table of a pack; see `CpuTable`."""
    return CpuTable(_SCHEMA, pack.sha256, machine, choices, alone, measured)


def is_bundled(pack: Pack) -> bool:
    """True if a pack lies in this program's own folder, as the reference pack does."""
    return pack.path.parent.resolve() == _INSTALLED_PACKS


def find_table(pack: Pack, here: Machine) -> FoundTable:
    """Find the table of a pack for a machine: the one in the pack, else the one in the user's cache."""
    first = FoundTable()
    for path in _places(pack, here):
        found = _read(path, pack, here)
        if found.table is not None:
            return found
        if first.path is None:
            first = found
    return first


def write_table(pack: Pack, table: CpuTable, key: PrivateKey | None = None) -> Path:
    """Write a table into the pack, or into the user's cache where that is not possible.

    Args:
        pack: the pack.
        table: the table.
        key: signs it.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written to either.
    """
    data = _TABLE.dump_json(table, indent=1)
    *in_pack, in_cache = _places(pack, table.machine)
    for path in in_pack:
        # If the pack is not writable, the cache is: the caller is told by the path.
        with suppress(OSError):
            return _write(path, data, key)
    return _write(in_cache, data, key)


def record_of(choice: ModelChoice) -> dict[str, object]:
    """Return how a model is run as JSON data, for run.json."""
    return {**asdict(choice.arithmetic), "single": asdict(choice.single), "several": asdict(choice.several)}


def _places(pack: Pack, here: Machine) -> list[Path]:
    """Where a table may lie, in the order in which it is looked for."""
    name = f"{here.key}.json"
    in_cache = cache_folder() / FOLDER / pack.sha256 / name
    # Folders of installed packages are not to be written to.
    in_folder = pack.path.is_dir() and not is_bundled(pack)
    return [pack.path / FOLDER / name, in_cache] if in_folder else [in_cache]


def _read(path: Path, pack: Pack, here: Machine) -> FoundTable:
    try:
        data = read_regular_file(path, _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return FoundTable()
    except OSError as error:
        return FoundTable(None, path, f"cannot be read ({error.strerror or error})")
    if len(data) > _MAX_BYTES:
        return FoundTable(None, path, "is too large")
    if pack.trust is not None:
        check = pack.trust.verify_signature(SignedFile.CPU_TABLE, data, _signature(path))
        if check.key is None:
            return FoundTable(None, path, check.reason)
    try:
        table = read_json(_TABLE, data)
    except JsonError as error:
        return FoundTable(None, path, f"does not say what it has to ({error})")
    reason = table.stale_reason(pack, here)
    return FoundTable(None if reason else table, path, reason)


def _signature(path: Path) -> bytes | None:
    try:
        return read_regular_file(signature_path(path), MAXIMUM_SIGNATURE_BYTES)
    except OSError:
        return None


def _write(path: Path, data: bytes, key: PrivateKey | None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    signature_path(path).unlink(missing_ok=True)
    write_bytes_atomically(path, data)
    if key is not None:
        write_signature(path, SignedFile.CPU_TABLE, data, key)
    return path
