"""GPU backend: the kernels and TensorRT. Pixels are uploaded once; only results are downloaded.

All computation runs on one stream. The host waits twice per study: for the levels, from which the regions of
grades and cord follow, and for those. The parts of the backend are in `backends/gpu`.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from stenosis_trt.engine.backends.base import Cords, Grades, Peaks, ReadingMemory, Roi
from stenosis_trt.engine.backends.gpu.arena import Arena, PlacedStudy
from stenosis_trt.engine.backends.gpu.inputs import PlacedSlice, describe_inputs
from stenosis_trt.engine.backends.gpu.keep_warm import KeepWarm
from stenosis_trt.engine.backends.gpu.memory import MemoryBudget
from stenosis_trt.engine.backends.gpu.noise import central_roi, copy_into_memory, noise_study
from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.backends.gpu.results import BatchArrays, to_cords, to_grades, to_peaks
from stenosis_trt.engine.backends.gpu.stage import ModelStage, PendingBatch, StageResources
from stenosis_trt.engine.backends.model_checks import ModelOutputError, check_output
from stenosis_trt.engine.cuda.device import Device, Stream
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.cuda.module import Module
from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.packs.models import ModelSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.store import read_plan
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.engine.trt.api import TensorRT
from stenosis_trt.engine.trt.engine import LoadedPlan
from stenosis_trt.engine.trt.flavours import FLAVOURS
from stenosis_trt.kernels.binaries import BinaryError, load_kernel_image
from stenosis_trt.kernels.launches import statistics_blocks

_LOG = logging.getLogger(__name__)

_FINE_SPACING_MM = 0.5
"""Pixel spacing that the blocks of the statistics are chosen for; finer images take longer."""
_FIRST_RUNS = 2
"""Runs after which a batch is fast: one without a graph, one with it."""
_TRIALS = 5

_T = TypeVar("_T")


class TensorRtBackend:
    """Runs the plans of a pack on a GPU.

    The constructor loads every plan, checks it against the pack and runs every batch size on noise, so that
    an unusable plan is found before the first study, and grading allocates nothing.

    Attributes:
        name: "tensorrt" for both flavours.
        notes: messages about what is slower or different than intended.
        warm_up_seconds: duration of the constructor.
        device, stream: device and stream of the computation.
        arena, budget: device memory.
    """

    name = "tensorrt"
    locates_in_parts = False

    @property
    def reading_bytes(self) -> int:
        """See `Backend.reading_bytes`."""
        return self._slot_bytes

    def __init__(self, pack: Pack, chosen: ChosenPlans, options: GpuOptions | None = None) -> None:
        """Open the GPU and warm up.

        Raises:
            CudaError: the GPU, PyCUDA or the kernels cannot be used, or memory is short.
            TensorRTError: a plan cannot be used, or gives invalid output.
        """
        start = time.perf_counter()
        options = options or GpuOptions()
        self.pack, self.notes = pack, list[str]()
        self._slot_bytes = options.slot_bytes
        self._integrated: dict[str, float] = {}
        self._keep_warm: KeepWarm | None = None
        with ExitStack() as stack:
            self.device = stack.enter_context(Device())
            self._stages = self._open(stack, pack, chosen, options)
            self._warm_up(noise_study(pack))
            if options.keep_warm_seconds is not None:
                work = self._stages["levels"].replay_last
                self._keep_warm = KeepWarm(options.keep_warm_seconds, work, self._not_kept_warm)
                stack.callback(self._keep_warm.close)
            self._resources = stack.pop_all()
        self.warm_up_seconds = time.perf_counter() - start

    def load(self, study: LoadedStudy) -> GpuStudy:
        """See `Backend.load`.

        Raises:
            CudaError: memory is short, or the GPU is lost.
        """
        if self._keep_warm is not None:
            self._keep_warm.gpu_lock.acquire()
        before = self.arena.growth_count
        try:
            try:
                placed = self.arena.load(study)
            finally:
                if self.arena.growth_count > before:
                    for stage in self._stages.values():
                        stage.invalidate_graphs()
        except BaseException:
            self.release_gpu()
            raise
        if self.arena.growth_count > before:
            self.note("A study was larger than its slot: the slots were enlarged.")
        return GpuStudy(self, placed)

    def set_reading_memory(self, memory: ReadingMemory) -> None:
        """See `Backend.set_reading_memory`.

        If the GPU shares the memory of the host, kernels read it in place if that is measured to be faster.
        If it cannot be page-locked, a note says so, and copies are slower.

        Raises:
            CudaError: the GPU is lost.
        """
        with self._holding_gpu():
            try:
                self.arena.set_reading_memory(memory)
            except CudaError as error:
                if error.device_lost:
                    raise
                reason = error.reason.rstrip(".")
                self.note(f"The reading memory cannot be page-locked ({reason}): copies are slower.")
                return
            if self.device.integrated:
                study = copy_into_memory(memory, noise_study(self.pack))
                copied_ms = self._milliseconds(study, mapped=False)
                mapped_ms = self._milliseconds(study, mapped=True)
                self.arena.mapped = mapped_ms < copied_ms
                self._integrated = {"copied_ms": copied_ms, "mapped_ms": mapped_ms}
                if self.arena.mapped:
                    # Graphs for the address of the arena were captured by the constructor.
                    self._warm_up(study)

    def prefetch(self, study: LoadedStudy) -> None:
        """See `Backend.prefetch`.

        Raises:
            CudaError: a driver call failed.
        """
        self.arena.prefetch(study)

    def close(self) -> None:
        """See `Backend.close`."""
        try:
            self._resources.close()
        except CudaError as error:
            # The loss of the GPU was raised where it was used.
            if not error.device_lost:
                raise

    def note(self, text: str) -> None:
        """Add a message for the user, and log it once."""
        if text not in self.notes:
            self.notes.append(text)
            _LOG.warning("%s", text)

    def record(self) -> dict[str, Any]:
        """See `Backend.record`."""
        return {
            "gpu": self.device.name,
            "compute_capability": "{}.{}".format(*self.device.compute_capability),
            "driver_cuda": self.device.driver_version,
            "memory_bytes": dict(self.budget.bytes_by_purpose),
            "warm_up_seconds": round(self.warm_up_seconds, 3),
            "graphs": sum(stage.graph_count for stage in self._stages.values()),
            "kept_warm": self._keep_warm.count if self._keep_warm else 0,
            "copies": self.arena.copies,
            "reads_mapped_memory": self.arena.mapped,
            **self._integrated,
            "notes": list(self.notes),
        }

    def stage(self, model: str) -> ModelStage:
        """Stage of a model."""
        return self._stages[model]

    def release_gpu(self) -> None:
        """Release the GPU after a study was closed or could not be loaded."""
        if self._keep_warm is not None:
            self._keep_warm.restart_timer()
            self._keep_warm.gpu_lock.release()

    @contextmanager
    def _holding_gpu(self) -> Iterator[None]:
        """Context manager in which the GPU is not kept warm by dummy work."""
        if self._keep_warm is not None:
            self._keep_warm.gpu_lock.acquire()
        try:
            yield
        finally:
            self.release_gpu()

    def _not_kept_warm(self, error: Exception) -> None:
        self.note(f"The GPU is not kept warm any more: {error}")

    def _open(
        self, stack: ExitStack, pack: Pack, chosen: ChosenPlans, options: GpuOptions
    ) -> dict[str, ModelStage]:
        device = self.device
        try:
            image = load_kernel_image(device.compute_capability, device.driver_version).data
        except BinaryError as error:
            raise CudaError(str(error), "") from error
        module = stack.enter_context(Module(device, image))
        self.stream = stack.enter_context(Stream(device, options.high_priority))
        self.budget = MemoryBudget(device, options.memory_ceiling_bytes)
        self.arena = Arena(device, self.budget, options.slot_bytes)
        stack.callback(self.arena.close)
        tensorrt = TensorRT(FLAVOURS[chosen.target.flavour])
        plans: dict[str, LoadedPlan] = {}
        with device.current():
            for name, plan in chosen.plans.items():
                data = read_plan(pack, plan)
                self.budget.reserve(len(data), f"weights of {name}")
                loaded = LoadedPlan(tensorrt, data, plan.sidecar.batches, plan.sidecar.version_compatible)
                stack.callback(loaded.close)
                _check_plan(pack.models[name], loaded)
                plans[name] = loaded
        needed = max(1, *(loaded.scratch_bytes for loaded in plans.values()))
        scratch = stack.enter_context(self.budget.buffer(needed, "scratch memory of TensorRT"))
        place = StageResources(
            device=device,
            module=module,
            stream=self.stream,
            scratch=scratch,
            budget=self.budget,
            graphs=options.graphs,
            refused=self._graph_refused,
        )
        stages = {}
        for name, loaded in plans.items():
            model = pack.models[name]
            rows = round(model.input.height * model.input.spacing_mm / _FINE_SPACING_MM)
            stages[name] = ModelStage(
                place, model, loaded, statistics_blocks(rows), measures_cords=name == "cord"
            )
            stack.callback(stages[name].close)
        return stages

    def _graph_refused(self, reason: str) -> None:
        self.note(f"The GPU does not capture CUDA graphs here ({reason.rstrip('.')}): launched one by one.")

    def _warm_up(self, study: LoadedStudy) -> None:
        """Run every batch size of every model: once without a graph, once with it."""
        for name, stage in self._stages.items():
            for batch in stage.batches:
                for _ in range(_FIRST_RUNS):
                    self._try(study, name, batch)
                    _check_noise(stage, batch)

    def _try(self, study: LoadedStudy, name: str, batch: int) -> None:
        """Load a study and run one batch of one model on copies of one region."""
        stage, placed = self._stages[name], self.arena.load(study)
        try:
            slices = placed.axial if name == "cord" else placed.sagittal
            rois = [central_roi(slices, stage.model.input)] * batch
            inputs = describe_inputs(slices, rois, stage.model, batch, stage.statistics_blocks)
            stage.submit(inputs, batch, placed.address, placed.ready).result()
        finally:
            self.arena.release(placed)

    def _milliseconds(self, study: LoadedStudy, mapped: bool) -> float:
        """Median time for a study with the largest batch of each model, copied or read in place, in ms."""
        self.arena.mapped = mapped
        times = []
        for _ in range(_FIRST_RUNS + _TRIALS):
            start = time.perf_counter()
            for name, stage in self._stages.items():
                self._try(study, name, stage.batches[-1])
            times.append(1e3 * (time.perf_counter() - start))
        return round(statistics.median(times[_FIRST_RUNS:]), 3)


class GpuStudy:
    """See `BackendStudy`."""

    def __init__(self, backend: TensorRtBackend, placed: PlacedStudy) -> None:
        self._backend, self._placed = backend, placed
        self._submitted: list[PendingBatch] = []
        self._closed = False

    def locate(self, rois: Sequence[Roi]) -> _PendingBatches[Peaks]:
        """See `BackendStudy.locate`."""
        batches = self._submit("levels", self._placed.sagittal, rois)
        return _PendingBatches(batches, partial(to_peaks, self._backend.pack.models["levels"]))

    def grade(self, rois: Sequence[Roi]) -> _PendingBatches[Grades]:
        """See `BackendStudy.grade`."""
        batches = self._submit("grader", self._placed.sagittal, rois)
        return _PendingBatches(batches, partial(to_grades, self._backend.pack.models["grader"]))

    def measure(self, rois: Sequence[Roi]) -> _PendingBatches[Cords]:
        """See `BackendStudy.measure`."""
        batches = self._submit("cord", self._placed.axial, rois)
        return _PendingBatches(batches, partial(to_cords, self._backend.pack.models["cord"]))

    def close(self) -> None:
        """See `BackendStudy.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            for batch in self._submitted:
                # Results that were not waited for are lost with their errors. Do not mask another exception.
                with suppress(CudaError):
                    batch.result()
        finally:
            self._backend.arena.release(self._placed)
            self._backend.release_gpu()

    def _submit(self, model: str, slices: Sequence[PlacedSlice], rois: Sequence[Roi]) -> list[PendingBatch]:
        """Submit regions in as many batches as necessary."""
        stage = self._backend.stage(model)
        before = len(self._submitted)
        largest = stage.batches[-1]
        for first in range(0, len(rois), largest):
            part = rois[first : first + largest]
            batch = stage.batch_for(len(part))
            inputs = describe_inputs(slices, part, stage.model, batch, stage.statistics_blocks)
            self._submitted.append(stage.submit(inputs, batch, self._placed.address, self._placed.ready))
        return self._submitted[before:]


@dataclass(frozen=True)
class _PendingBatches(Generic[_T]):
    """Result of several batches. See `Pending`."""

    batches: Sequence[PendingBatch]
    convert: Callable[[BatchArrays], _T]

    def result(self) -> _T:
        """See `Pending.result`."""
        parts = [batch.result() for batch in self.batches]
        names = parts[0] if parts else ()
        return self.convert({name: [part[name] for part in parts] for name in names})


def _check_noise(stage: ModelStage, batch: int) -> None:
    """Check the raw outputs of a plan for a batch of noise.

    Raises:
        TensorRTError: a value is invalid.
    """
    try:
        check_output(stage.model, batch, stage.network_outputs(batch))
    except ModelOutputError as error:
        # Blame the plan, which was built for this GPU, rather than the model, which may be fine on the CPU.
        raise TensorRTError(
            f"The plan of {stage.model.name} gives invalid values for a batch of {batch} images of noise: "
            f"{error.fault}.",
            "Compare it with its model: stenosis-trt verify PACK --parity; or change --precision.",
        ) from error


def _check_plan(model: ModelSpec, plan: LoadedPlan) -> None:
    """Check the tensors of a plan against the specification of the model in the pack."""
    for name, wanted, found in (
        ("input", model.input_shape, plan.input_shape),
        ("output", model.output_shape, plan.output_shape),
    ):
        if wanted != found:
            raise TensorRTError(
                f"The {name} of the plan of {model.name} is {found}, but pack.json declares {wanted}.",
                "Build it again: stenosis-trt build PACK --force.",
            )
