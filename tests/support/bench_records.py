"""Benchmark records that no machine measured, with every kind of figure and chart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from stenosis_trt.bench.record.record import Absence, BenchRecord, Chart, Figure, Section, Series

BUSY = {
    "load_average_before": [3.1, 2.0, 1.0],
    "before": {"others_share": 0.31, "others_share_high": 0.31},
    "during": {
        "load": {"others_cores": 0.7, "others_share": 0.35, "others_share_high": 0.5, "seconds": 300.0}
    },
    "throttled": None,
    "sentence": "The machine was busy: other processes took up to 0.70 of 2 cores during load, on average, "
    "and figures of load are worse than on a quiet machine.",
}


def quiet(share: float = 0.004) -> dict[str, object]:
    """Return what is recorded of a quiet machine; of a busy one if others took more than a twentieth."""
    load = {"others_share": share, "others_share_high": share, "disturbed": share > 0.05}
    during = dict.fromkeys(("load", "peers"), load)
    return {"before": {"others_share": share}, "during": during, "sentence": ""}


def figure(name: str, value: float, unit: str = "ms", spread: float = 0.01, **fields: object) -> Figure:
    """Return a figure whose interval is `spread` of the value to both sides; none for a spread of 0."""
    better = "higher" if unit.endswith("/s") or unit == "" else "lower"
    ends = {"low": value * (1 - spread), "high": value * (1 + spread), "runs": 40} if spread else {}
    filled = {"text": f"Text of {name}", "better": better, **ends, **fields}
    return Figure(name=name, value=value, unit=unit, **filled)  # type: ignore[arg-type]


def record(*figures: Figure, **fields: object) -> BenchRecord:
    """Return a record with these figures, in sections by the first part of their names."""
    names = dict.fromkeys(one.name.partition(".")[0] for one in figures)
    sections = tuple(
        Section(name, name.title(), tuple(one for one in figures if one.name.startswith(f"{name}.")))
        for name in names
    )
    empty = BenchRecord(
        command="stenosis-trt bench all --out BENCH",
        started="2026-11-30T14:12:05+00:00",
        machine={"processor": "AMD EPYC", "cores": 2, "memory_gb": 25.3, "gpus": []},
        versions={"stenosis-trt": "0.1.0", "onnxruntime": "1.32.0"},
        product={"pack": "reference 1", "sha256": "ab" * 32, "backend": "cpu", "precision": "fp32"},
        studies={"studies": 8, "seed": 909},
        busy=quiet(),
        sections=sections,
    )
    return replace(empty, **fields)  # type: ignore[arg-type]


def full_record() -> BenchRecord:
    """Return a record with all sections, all kinds of charts, absences, notes and a failure."""
    return replace(
        record(),
        machine={
            **{"processor": "AMD EPYC 9R14 96-Core Processor", "cores": 2, "memory_gb": 25.3, "gpus": []},
            **{
                "instructions": ["avx2", "avx512f", "avx512_bf16"],
                "system": "Linux 6.18",
                "python": "3.11.7",
            },
            "power_mode": None,
        },
        product={
            **{
                "pack": "reference 1",
                "sha256": "ab" * 32,
                "backend": "cpu",
                "precision": "int8",
                "threads": 2,
            },
            "model_runs_by": {"levels": "openvino int8", "grader": "openvino bf16", "cord": "openvino int8"},
        },
        studies={"studies": 8, "seed": 909, "files": 328, "bytes": 61_000_000},
        settings={"sections": ["load", "peers", "energy", "roofline", "scaling"], "quick": False},
        busy=BUSY,
        sections=(_load(), _peers(), _energy(), _roofline()),
        failures=(Absence("scaling", "The archive could not be written: there is no room in /tmp."),),
    )


def _load() -> Section:
    draw = np.random.default_rng(5)
    runs = {
        "models alone": draw.gamma(40, 2.0, 600),
        "device": draw.gamma(40, 3.4, 600),
        "whole": draw.gamma(25, 8.2, 600) + (draw.random(600) > 0.97) * 240,
    }
    curves = tuple(
        Series(name, tuple(np.sort(values).tolist()), tuple(((np.arange(600) + 1) / 600).tolist()))
        for name, values in runs.items()
    )
    idle = Series("whole", (1, 5, 20, 60), (214, 231, 262, 270), (205, 220, 240, 244), (222, 240, 288, 301))
    return Section(
        "load",
        "Load scenarios",
        (
            figure("load.single_stream.whole.p90", 268.0, text="SingleStream, whole path: p90 of a study"),
            figure("load.single_stream.models.p90", 92.1, text="SingleStream, models alone: p90 of a study"),
            figure("load.multi_stream.p99", 48.2, text="MultiStream: p99 of the regions of one study"),
            figure("load.offline.whole", 5.31, "studies/s", text="Offline: studies from an archive"),
            figure(
                *("load.server.whole.rate", 3.9, "studies/s"),
                text="Server: highest arrival rate with p99 below 1 s",
                note="Found by bisection; the bound is ours.",
            ),
            figure(*("load.peak_memory", 612.0, "MB", 0.0), text="Peak memory of the process", target=700.0),
        ),
        absences=(Absence("load.server.models", "The budget of this section had no time left for it."),),
        notes=('MLPerf leaves preprocessing out of its clock: compare "models alone" with its figures.',),
        charts=(
            Chart("cdf", "Latency of a study, SingleStream", "latency in ms", "share of studies", curves),
            Chart("lines", "Latency after an idle gap", "gap in s", "latency in ms", (idle,), log_x=True),
        ),
        valid=True,
        seconds=402.0,
    )


def _peers() -> Section:
    names = (
        "stenosis-trt",
        "OpenVINO, FP32",
        "ONNX Runtime, its defaults",
        "PyTorch, torch.compile",
        "PyTorch, eager",
        "script of a user: pydicom, SciPy, one slice at a time",
    )
    models = Series(
        "levels", names[:5], (44, 145, 111, 160, 214), (43, 140, 107, 150, 200), (46, 151, 118, 172, 231)
    )
    grader = Series(
        "grader", names[:5], (34, 100, 70, 96, 118), (33, 97, 66, 90, 111), (36, 104, 75, 104, 126)
    )
    whole = Series("whole path", (names[0], names[5]), (212, 1390), (205, 1350), (220, 1421))
    return Section(
        "peers",
        "Peers",
        (
            figure(
                "peers.whole.script.ratio",
                6.56,
                "",
                0.03,
                text="Whole path against the user's script",
                target=6.0,
            ),
            figure(
                "peers.models.onnxruntime.ratio",
                2.31,
                "",
                0.02,
                text="Models against ONNX Runtime",
                target=2.2,
            ),
            figure(
                *("peers.models.openvino.ratio", 0.97, "", 0.02),
                text="Models against the best of OpenVINO",
                target=1.0,
                note="Both run the same plan on levels; the grader loses 3 % to our copy of its input.",
            ),
        ),
        absences=(
            Absence("torchvision", "It is not installed."),
            Absence("trtexec", "There is no NVIDIA GPU on this machine."),
            Absence("onnxruntime-cuda", "There is no NVIDIA GPU on this machine."),
        ),
        charts=(
            Chart(
                "bars", "Time of a study's batch, by network", "", "ms (median of pairs)", (models, grader)
            ),
            Chart(
                "bars",
                "Time of a study, files to results",
                "",
                "ms (median of pairs)",
                (whole,),
                note="Interleaved A B A B.",
            ),
        ),
        seconds=281.0,
    )


def _energy() -> Section:
    reason = "No sensor of this machine can be read: no NVML, no INA3221, and RAPL is not readable."
    return Section("energy", "Energy", (), (Absence("energy.study", reason),), seconds=0.4)


def _roofline() -> Section:
    draw = np.random.default_rng(9)
    peak, bandwidth = 230.0, 38.0
    series = []
    for name, count in (("levels", 24), ("grader", 60), ("cord", 18)):
        x = 10 ** draw.uniform(-0.6, 2.4, count)
        y = np.minimum(peak, bandwidth * x) * draw.uniform(0.2, 0.9, count)
        labels = tuple(f"layer {index}" for index in range(count))
        series.append(Series(name, tuple(x.tolist()), tuple(y.tolist()), labels=labels))
    ceilings = (
        Series("ceiling memory", (0.1, 6.05), (3.8, peak), labels=("memory, 38 GB/s", "")),
        Series("ceiling FP32", (6.05, 500.0), (peak, peak), labels=("FP32, 230 GFLOP/s", "")),
        Series("ceiling bf16", (11.8, 500.0), (450.0, 450.0), labels=("bf16, 450 GFLOP/s", "")),
    )
    stages = Series(
        "a study",
        ("read", "levels", "grader", "cord", "decode", "report"),
        (38.2, 61.0, 41.7, 48.9, 4.1, 0.9),
    )
    return Section(
        "roofline",
        "Roofline",
        (
            figure("roofline.floor", 148.0, spread=0.0, text="Floor of a study's models", source="computed"),
            figure(
                "roofline.ratio",
                1.37,
                "",
                better="lower",
                text="Time of the models over their floor",
                target=1.3,
            ),
        ),
        charts=(
            Chart(
                "roofline",
                "Layers below the ceilings",
                "operations per byte",
                "GFLOP/s",
                (*ceilings, *series),
                True,
                True,
            ),
            Chart("waterfall", "Where the time of a study goes", "", "ms", (stages,)),
            Chart(
                *("lines", "Latency against batch", "batch", "ms"),
                tuple(
                    Series(name, (1, 2, 4, 8, 16, 32), tuple(a + b * n for n in (1, 2, 4, 8, 16, 32)))
                    for name, a, b in (("levels", 3.0, 3.1), ("grader", 8.0, 4.9), ("cord", 1.2, 1.0))
                ),
                log_x=True,
                log_y=True,
            ),
        ),
        seconds=math.pi * 33,
    )
