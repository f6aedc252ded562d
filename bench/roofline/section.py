"""Section "roofline" of a benchmark run: how far a study is from what the hardware can do, and where."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

from stenosis_trt.bench.record.record import Absence, Section
from stenosis_trt.bench.roofline.ceilings import measure_ceilings
from stenosis_trt.bench.roofline.networks import NetworkProfile, profile_network, raise_peaks
from stenosis_trt.bench.roofline.stages import REST, timed_steps
from stenosis_trt.bench.roofline.summary import TITLE, MeasuredStudy, cpu_section
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.inputs import MODELS
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.engine.support.hardware import usable_cores

_STUDIES = 4
"""Studies that are measured in turn."""
_WARM_UP, _MOST_RUNS = 2, 60
_STUDY_SHARE, _PROFILE_SHARE, _CEILING_SHARE = 0.25, 0.06, 0.2
"""Shares of the section's time: of the studies, of each network's profile, and of the ceilings. Opening
models takes the rest."""


def measure(context: BenchContext) -> Section:
    """Measure a study, its stages and blocks, and the ceilings of the machine, in one run.

    Raises:
        StenosisError: the product cannot be opened, or a study cannot be graded.
    """
    start = time.perf_counter()
    missing = _missing()
    if missing is not None:
        return Section("roofline", TITLE, (), (missing,))
    with Product(context) as product:
        backend = product.grader.opened_backend
        if not isinstance(backend, CpuBackend):
            from stenosis_trt.bench.roofline.gpu import gpu_section

            return gpu_section(context, product, time.perf_counter() - start)
        context.say("roofline: studies")
        studies = _measure_studies(context, product, backend)
        inputs = product.inputs(product.load(context.studies[0]))
        profiles: dict[str, NetworkProfile] = {}
        absences = []
        for name in MODELS:
            if name not in inputs.batches:
                reason = "The first study has no inputs of this network."
                absences.append(Absence(f"roofline.{name}", reason))
                continue
            context.say(f"roofline: profile of {name}")
            try:
                profiles[name] = profile_network(
                    backend, name, inputs.batches[name], _PROFILE_SHARE * context.seconds, context.work
                )
            except PackError as error:
                absences.append(Absence(f"roofline.{name}", error.reason))
    threads = context.threads or usable_cores()
    context.say("roofline: ceilings of the processor")
    ceilings = raise_peaks(measure_ceilings(threads, _CEILING_SHARE * context.seconds), profiles.values())
    return cpu_section(
        context.pack, studies, profiles, ceilings, tuple(absences), time.perf_counter() - start
    )


def _missing() -> Absence | None:
    try:
        import onnx  # noqa: F401
    except ImportError:
        return Absence("roofline", "The package onnx, which counts what networks compute, is not installed.")
    return None


def _measure_studies(
    context: BenchContext, product: Product, backend: CpuBackend
) -> tuple[MeasuredStudy, ...]:
    """Time the cut "device" of several studies in turn, with and without the clock of the steps.

    The time of a study is taken without that clock; the stages come from runs in between.
    """
    loaded = [product.load(folder) for folder in context.studies[:_STUDIES]]
    counts = [{name: len(batch) for name, batch in product.inputs(study).batches.items()} for study in loaded]
    for _ in range(_WARM_UP):
        product.device(loaded[0])
    whole: list[list[float]] = [[] for _ in loaded]
    processor: list[list[float]] = [[] for _ in loaded]
    stages: list[dict[str, list[float]]] = [defaultdict(list) for _ in loaded]
    shares: list[dict[str, list[float]]] = [defaultdict(list) for _ in loaded]
    end = time.monotonic() + context.seconds * _STUDY_SHARE
    for number in range(_MOST_RUNS):
        if number >= 3 * len(loaded) and time.monotonic() > end:
            break
        index = number % len(loaded)
        computed = time.process_time()
        whole[index].append(_seconds(product, loaded[index]) * 1e3)
        processor[index].append((time.process_time() - computed) * 1e3)
        with timed_steps(backend) as clock:
            total = _seconds(product, loaded[index])
        steps = clock.take()
        for stage, seconds in steps.wall.items():
            stages[index][stage].append(seconds * 1e3)
            shares[index][stage].append(steps.shares[stage] * 1e3)
        stages[index][REST].append((total - sum(steps.shares.values())) * 1e3)
    return tuple(
        MeasuredStudy(
            counts[index],
            tuple(whole[index]),
            tuple(processor[index]),
            _frozen(stages[index]),
            _frozen(shares[index]),
        )
        for index in range(len(loaded))
        if whole[index]
    )


def _frozen(times: Mapping[str, list[float]]) -> dict[str, tuple[float, ...]]:
    return {stage: tuple(values) for stage, values in times.items()}


def _seconds(product: Product, study: LoadedStudy) -> float:
    start = time.perf_counter()
    product.device(study)
    return time.perf_counter() - start
