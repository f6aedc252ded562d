"""Scenario: time of one study on the device, and from host to host, with and without CUDA graphs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from stenosis_trt.bench.speed.suite.measurements import (
    EVENTS,
    WALL,
    Limit,
    Measurement,
    Repetition,
    ScenarioReport,
    median_measurement,
)
from stenosis_trt.bench.speed.suite.system import SystemUnderTest
from stenosis_trt.engine.backends.base import Backend, BackendStudy, Cords, Grades, Peaks, Pending, Roi
from stenosis_trt.engine.backends.gpu.options import GpuOptions
from stenosis_trt.engine.backends.tensorrt import TensorRtBackend
from stenosis_trt.engine.cuda.device import Device, Event, Stream
from stenosis_trt.engine.cuda.memory import DeviceBuffer
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.records import LoadedStudy

STUDY_LIMIT = Limit(at_most=5.0)
"""Milliseconds for one study with the reference pack."""

_FILLER_BYTES, _FILLER_MS, _MAX_FILLERS = 64 << 20, 2.0, 100
_STAGES = ("levels", "grader", "cord")


@dataclass
class RequestedRegions:
    """Regions that the pipeline requests for a study, by model."""

    rois: dict[str, Sequence[Roi]] = field(default_factory=dict)


class _RecordingBackend:
    """Backend wrapper that records the requested regions."""

    def __init__(self, backend: Backend, requested: RequestedRegions) -> None:
        self._backend, self._requested = backend, requested
        self.name = backend.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def load(self, study: LoadedStudy) -> _RecordingStudy:
        return _RecordingStudy(self._backend.load(study), self._requested)


class _RecordingStudy:
    """Study wrapper of `_RecordingBackend`."""

    def __init__(self, study: BackendStudy, requested: RequestedRegions) -> None:
        self._study, self._requested = study, requested

    def locate(self, rois: Sequence[Roi]) -> Pending[Peaks]:
        self._requested.rois["levels"] = rois
        return self._study.locate(rois)

    def grade(self, rois: Sequence[Roi]) -> Pending[Grades]:
        self._requested.rois["grader"] = rois
        return self._study.grade(rois)

    def measure(self, rois: Sequence[Roi]) -> Pending[Cords]:
        self._requested.rois["cord"] = rois
        return self._study.measure(rois)

    def close(self) -> None:
        self._study.close()


def requested_regions(study: LoadedStudy, backend: TensorRtBackend) -> RequestedRegions:
    """Grade a study and return the regions that the pipeline requested."""
    requested = RequestedRegions()
    grade_study(study, backend.pack, _RecordingBackend(backend, requested))
    return requested


class DeviceTimer:
    """Times work between two events on a stream.

    Memory fills precede the first event. They take longer than the host needs to launch the timed work, so
    the time is that of the device alone, and they evict the weights from the cache.
    """

    def __init__(self, device: Device, stream: Stream) -> None:
        """Allocate events and the fill buffer; `close` frees them, and so does closing the device."""
        self._device, self._stream = device, stream
        self._begin, self._end = Event(self._device), Event(self._device)
        self._filler = DeviceBuffer(self._device, _FILLER_BYTES)
        with self._device.current():
            self._fillers = 1
            once = max(self._once(lambda: self._filler.fill(0, self._stream)) for _ in range(3))
        self._fillers = max(1, min(_MAX_FILLERS, math.ceil(_FILLER_MS / max(once, 1e-3))))

    def times(self, enqueue: Callable[[], Sequence[Pending[Any]] | None], repeats: Repetition) -> list[float]:
        """Milliseconds of each run of `enqueue`; the results that it returns are awaited between runs."""
        return repeats.repeat(lambda: self._once(enqueue))

    def close(self) -> None:
        """Free events and buffer."""
        for item in (self._begin, self._end, self._filler):
            item.close()

    def _once(self, enqueue: Callable[[], Sequence[Pending[Any]] | None]) -> float:
        with self._device.current():
            for _ in range(self._fillers):
                self._filler.fill(0, self._stream)
            self._begin.record(self._stream)
            pending = enqueue()
            self._end.record(self._stream)
            self._end.synchronize()
            for answer in pending or ():
                answer.result()
            return self._end.elapsed_ms(self._begin)


def device_time(system: SystemUnderTest, report: ScenarioReport) -> None:
    """Time one study in each precision of the pack."""
    study = system.loaded_study
    report.details["study"] = {
        plane: [len(slices), *slices[0].stored.shape] if slices else []
        for plane, slices in (("sagittal", study.sagittal), ("axial", study.axial))
    }
    repeats = system.options.repetition(200)
    for precision in system.precisions:
        for graphs in (True, False):
            kind = f"{precision}, {'CUDA graphs' if graphs else 'launched one by one'}"
            with system.backend(precision, GpuOptions(graphs=graphs)) as backend:
                for figure in _study_figures(backend, study, repeats, judged=graphs):
                    report.add(_named(figure, kind))
                for text in backend.notes:
                    report.note(text)


def _named(figure: Measurement, kind: str) -> Measurement:
    return replace(figure, name=f"{kind}: {figure.name}")


def _study_figures(
    backend: TensorRtBackend, study: LoadedStudy, repeats: Repetition, judged: bool
) -> Iterator[Measurement]:
    limit = STUDY_LIMIT if judged else None
    requested = requested_regions(study, backend)
    with (
        closing(DeviceTimer(backend.device, backend.stream)) as clock,
        closing(backend.load(study)) as loaded,
    ):
        calls: dict[str, Callable[[Sequence[Roi]], Pending[Any]]] = {
            "levels": loaded.locate,
            "grader": loaded.grade,
            "cord": loaded.measure,
        }

        def all_three() -> list[Pending[Any]]:
            return [calls[name](requested.rois[name]) for name in _STAGES]

        yield median_measurement(
            "study on the device, preprocess to ratios", clock.times(all_three, repeats), EVENTS, limit=limit
        )
        for name in _STAGES:
            rois, call = requested.rois[name], calls[name]
            times = clock.times(lambda call=call, rois=rois: [call(rois)], repeats)  # type: ignore[misc]
            yield median_measurement(f"{name}, {len(rois)} regions", times, EVENTS)
    for name, prefetched in (("pixels on the device", True), ("pixels copied too", False)):
        yield from _host_to_host(backend, study, repeats, name, prefetched, limit)


def _host_to_host(
    backend: TensorRtBackend,
    study: LoadedStudy,
    repeats: Repetition,
    name: str,
    prefetched: bool,
    limit: Limit | None,
) -> Iterator[Measurement]:
    """Time `grade_study`, which ends once the ratios are on the host, and its stages by its own clock."""

    def once() -> tuple[float, dict[str, float]]:
        if prefetched:
            backend.prefetch(study)
            backend.device.synchronize()
        start = time.perf_counter()
        result = grade_study(study, backend.pack, backend)
        return (time.perf_counter() - start) * 1e3, result.seconds

    runs = repeats.repeat(once)
    whole = [milliseconds for milliseconds, _ in runs]
    yield median_measurement(f"grade_study, {name}", whole, WALL, limit=limit if prefetched else None)
    for stage in runs[0][1]:
        spent = [seconds[stage] * 1e3 for _, seconds in runs]
        yield median_measurement(f"grade_study, {name}, of which {stage}", spent, WALL)
