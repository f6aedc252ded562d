"""The content of run.json: what produced the results of a run, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from stenosis_trt.engine.dicom.limits import ReadLimits


@dataclass(frozen=True)
class PackRecord:
    """The model pack.

    Attributes:
        name, version: as the pack states them.
        sha256: SHA-256 of its pack.json, which contains the hashes of all models.
        signed_by: fingerprint of the key whose signature was required and verified; None if none was
            required.
        intended_use: as the pack states it.
        clinical_use: the pack declares that it is for clinical use.
    """

    name: str
    version: str
    sha256: str
    signed_by: str | None
    intended_use: str
    clinical_use: bool


@dataclass(frozen=True)
class PlanRecord:
    """The TensorRT plan of a model.

    Attributes:
        file: path of the plan.
        sha256: its SHA-256.
        precision: precision of the model in it.
    """

    file: str
    sha256: str
    precision: str


@dataclass(frozen=True)
class GpuFields:
    """Fields of the backend's record that are there on a GPU only.

    Attributes:
        flavour, version: "tensorrt" or "tensorrt-rtx", and its version.
        plans: plan of each model.
        gpu: name of the GPU.
        compute_capability: such as "8.6".
        driver_cuda: CUDA version of the driver, 13000 for 13.0.
        memory_bytes: reserved bytes by purpose.
        warm_up_seconds: time to open and warm up the GPU.
        graphs: number of captured CUDA graphs.
        kept_warm: number of times that work was repeated to keep the GPU from resting.
        copies: number of copies to the GPU.
        reads_mapped_memory: kernels read the memory of the host, without copies.
        copied_ms, mapped_ms: on an integrated GPU: time of a study with copies, and without.
        notes: what is slower or different than intended.
    """

    flavour: str | None = None
    version: str | None = None
    plans: dict[str, PlanRecord] | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    driver_cuda: int | None = None
    memory_bytes: dict[str, int] | None = None
    warm_up_seconds: float | None = None
    graphs: int | None = None
    kept_warm: int | None = None
    copies: int | None = None
    reads_mapped_memory: bool | None = None
    copied_ms: float | None = None
    mapped_ms: float | None = None
    notes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ExecutionRecord:
    """How a batch is spread over the cores.

    Attributes:
        streams: calls that run at the same time.
        threads: threads of each call.
        part: largest number of inputs of a call.
    """

    streams: int
    threads: int
    part: int


@dataclass(frozen=True)
class ModelRunRecord:
    """How a model is run on a CPU.

    Attributes:
        runtime: "onnxruntime" or "openvino".
        precision: precision of the pack's file.
        floats: type of what the file leaves in floating point, "f32" or "bf16".
        single: for fewer inputs than `several` has streams.
        several: for more.
    """

    runtime: str
    precision: str
    floats: str
    single: ExecutionRecord
    several: ExecutionRecord


@dataclass(frozen=True)
class CpuFields:
    """Fields of the backend's record that are there on a CPU only.

    Attributes:
        models_run_by: how each model is run, by its name.
    """

    models_run_by: dict[str, ModelRunRecord] | None = None


@dataclass(frozen=True)
class BackendRecord:
    """The backend.

    Attributes:
        backend: its name, "onnxruntime", "openvino" or "tensorrt".
        reason: why it was chosen.
        gpu_failures: the error of each study that was graded on the CPU because the GPU failed.
        fields: what the backend tells of itself; on a GPU the fields of `GpuFields`, on a CPU those of
            `CpuFields`. In JSON they stand beside the others.
    """

    backend: str
    reason: str
    gpu_failures: tuple[str, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the object in run.json."""
        return {
            "backend": self.backend,
            "reason": self.reason,
            **self.fields,
            "gpu_failures": list(self.gpu_failures),
        }


@dataclass(frozen=True)
class OptionsRecord:
    """Options of the run.

    Attributes:
        device: as requested.
        precision: precision that the models ran in; "mixed" if they differ.
        workers: processes that read files.
        threads: threads of the CPU backend; None for all cores.
        resume: the run could continue an earlier one.
        keep_identifiers: the results have the PatientID.
        no_paths: the results have numbers and hashes instead of paths.
        formats: formats that the output folder has.
        limits: limits of reading.
    """

    device: str
    precision: str
    workers: int
    threads: int | None
    resume: bool
    keep_identifiers: bool
    no_paths: bool
    formats: tuple[str, ...]
    limits: ReadLimits


@dataclass(frozen=True)
class MachineRecord:
    """The machine, without its name.

    Attributes:
        cpu: processor.
        cores: cores that the process may use.
        memory_bytes: memory of the machine.
        system: operating system.
        machine: architecture, such as "x86_64".
    """

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    machine: str


@dataclass(frozen=True)
class CountsRecord:
    """Counts of the run.

    Attributes:
        files: files that were looked at.
        studies: studies that were found.
        graded: studies that this run graded.
        skipped: studies that an earlier run had graded.
        failed: studies that could not be graded.
        lost_files: files that may have held an image and could not be read.
        problems: rows of errors.csv.
        failed_reports: studies of which a report that was asked for could not be made.
    """

    files: int
    studies: int
    graded: int
    skipped: int
    failed: int
    lost_files: int
    problems: int
    failed_reports: int


@dataclass(frozen=True)
class StageSeconds:
    """Seconds of a stage, over the studies.

    Attributes:
        sum, median, maximum: of the studies' seconds.
    """

    sum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class SecondsRecord:
    """Times.

    Attributes:
        total: seconds from begin to end of the run.
        stages: sum, median and maximum over the studies, by stage.
    """

    total: float
    stages: dict[str, StageSeconds]


@dataclass(frozen=True)
class MemoryRecord:
    """Peak memory.

    Attributes:
        process: of the program, in bytes.
        reading: of the largest reading process, in bytes; None where it is unknown.
    """

    process: int
    reading: int | None


@dataclass(frozen=True)
class RunRecord:
    """Content of run.json without the records of earlier runs.

    Attributes:
        started: begin of the run, UTC, ISO 8601.
        finished: the run reached its end.
        versions: versions of Python and of every package that can change a result.
        pack: the model pack.
        models: SHA-256 of each model.
        backend: which backend computed, and why.
        options: options of the run.
        machine: processor, cores, memory and system.
        counts: files, studies and problems.
        seconds: times.
        peak_memory_bytes: peak memory.
    """

    started: str
    finished: bool
    versions: dict[str, str]
    pack: PackRecord
    models: dict[str, str]
    backend: BackendRecord
    options: OptionsRecord
    machine: MachineRecord
    counts: CountsRecord
    seconds: SecondsRecord
    peak_memory_bytes: MemoryRecord

    def to_dict(self, earlier: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Return the content of run.json. `earlier`: the records of the runs that this one resumed."""
        return {**asdict(self), "backend": self.backend.to_dict(), "earlier": list(earlier)}
