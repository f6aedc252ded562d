"""The section "roofline" on a GPU: a study against the bounds that are computed from the GPU's specification.

The bandwidth of device memory is measured by a copy in the same run. The time of each layer would come from
TensorRT's IProfiler, which this release does not attach; the section lists that as absent.
"""

from __future__ import annotations

import time

from stenosis_trt.bench.record.record import Absence, Figure, Section
from stenosis_trt.bench.roofline.layer_work import model_work
from stenosis_trt.bench.speed.devices import PRECISIONS, GpuSpec, device_of_driver
from stenosis_trt.bench.speed.kernels import measure_copy_bandwidth
from stenosis_trt.bench.speed.roofline import StudyWork, kernel_bytes, stage_times, study_time
from stenosis_trt.bench.statistics.medians import median_interval
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.backends.tensorrt import TensorRtBackend

_TITLE = "Roofline: how far from what the GPU can do"
_WARM_UP, _RUNS = 5, 100
_TARGET = 1.3


def gpu_section(context: BenchContext, product: Product, seconds: float) -> Section:
    """Measure the first study on the GPU, and compute its bounds.

    Args:
        context: of the run.
        product: on a GPU.
        seconds: spent before.
    """
    start = time.perf_counter()
    backend = product.grader.opened_backend
    study = product.load(context.studies[0])
    counts = {name: len(batch) for name, batch in product.inputs(study).batches.items()}
    times = []
    for number in range(_WARM_UP + _RUNS):
        begin = time.perf_counter()
        product.device(study)
        if number >= _WARM_UP:
            times.append((time.perf_counter() - begin) * 1e3)
    median, low, high = median_interval(times)
    text = "a study, from pixels in memory to ratios"
    figures = [Figure("roofline.study.time", text, median, "ms", "lower", "measured", low, high, len(times))]
    absences = [
        Absence(
            "roofline.blocks", "The time of each layer on a GPU is not measured: IProfiler is not attached."
        )
    ]
    spec: GpuSpec | None = None
    if isinstance(backend, TensorRtBackend):
        figures.append(
            Figure(
                "roofline.bandwidth.memory",
                "bandwidth of a copy in device memory",
                measure_copy_bandwidth(backend.device),
                "GB/s",
            )
        )
        spec = device_of_driver(backend.device.name)
    if spec is None or product.precision not in PRECISIONS:
        absences.append(
            Absence("roofline.study.ratio", "The peak rates of this GPU are not known to this release.")
        )
    else:
        work = StudyWork(
            context.pack.name,
            tuple(model_work(context.pack, name, count) for name, count in counts.items()),
            kernel_bytes(context.pack, {name: counts.get(name, 0) for name in context.pack.models}),
        )
        stages = stage_times(work, spec, product.precision)
        floor = study_time(stages).at_least_ms
        figures.append(Figure("roofline.study.floor", f"{text}: floor", floor, "ms", source="computed"))
        ratio, low, high = median_interval([value / floor for value in times])
        figures.append(
            Figure(
                "roofline.study.ratio",
                f"{text}: time over floor",
                ratio,
                "",
                "lower",
                "measured",
                low,
                high,
                len(times),
                _TARGET,
                f"The floor is computed from the peak rates of {spec.name}, not measured.",
            )
        )
        figures += (
            Figure(
                f"roofline.{item.stage}.floor",
                f"{item.stage}: floor",
                item.at_least_ms,
                "ms",
                source="computed",
            )
            for item in stages
        )
    return Section(
        "roofline",
        _TITLE,
        tuple(figures),
        tuple(absences),
        details={"milliseconds": times, "inputs": counts},
        seconds=seconds + time.perf_counter() - start,
    )
