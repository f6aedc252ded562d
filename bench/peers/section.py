"""The section "peers" of a benchmark run: the product against what a user would take otherwise."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stenosis_trt.bench.peers.catalogue import DEFAULT, find_peers
from stenosis_trt.bench.peers.gate import refused
from stenosis_trt.bench.peers.loading import NetworkOptions
from stenosis_trt.bench.peers.model_files import write_models
from stenosis_trt.bench.peers.networks import ALL, BEST_OPENVINO, ONE, STUDY, NetworkTimes, measure_networks
from stenosis_trt.bench.peers.pairing import PairedTimes
from stenosis_trt.bench.peers.paper_size import PEERS as PAPER_PEERS
from stenosis_trt.bench.peers.paper_size import SIZE, measure_paper_size
from stenosis_trt.bench.peers.peer import PeerAbsent
from stenosis_trt.bench.peers.whole_path import measure_whole
from stenosis_trt.bench.record.record import Absence, Chart, Direction, Figure, Section, Series
from stenosis_trt.bench.statistics.medians import median_interval
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.inputs import StudyInputs
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.backends.cpu.table import find_table, this_machine
from stenosis_trt.engine.errors import InputError

TARGET_SCRIPT = 6.0
TARGET_DEFAULT = 2.2
TARGET_PARITY = 1.0
"""Ratios that the project aims at: the user's script; ONNX Runtime's defaults at a study's batch; the best of
OpenVINO at a study's batch, and ONNX Runtime at batch 1."""

_WHOLE_SHARE, _NETWORKS_SHARE, _SIZE_SHARE = 0.15, 0.65, 0.15

_MOST_STUDIES = 6
"""Studies that the whole path is measured on; pairs go through them in turn."""

_BATCH_TEXT = {STUDY: "a study's batch", ONE: "batch 1"}


@dataclass
class _Content:
    """The section as far as it is filled."""

    figures: list[Figure] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def measure(context: BenchContext) -> Section:
    """Measure every peer that this machine has against the product; see `BenchContext`.

    Raises:
        StenosisError: the product cannot be opened, or grades none of the studies.
    """
    start = time.perf_counter()
    content = _Content()
    files, work = context.work / "peers-pack", context.work / "peers"
    work.mkdir(parents=True, exist_ok=True)
    write_models(context.pack, files)
    with Product(context) as product:
        on_gpu = product.backend == "tensorrt"
        studies = _gradable(context, product)
        _add_whole(content, context, product, studies)
        peers, absent = find_peers(context.pack, on_gpu, product.precision)
        content.absences += absent
        table = find_table(context.pack, this_machine(context.threads)).table
        options = NetworkOptions(
            context.pack,
            files,
            work,
            context.threads,
            _NETWORKS_SHARE * context.seconds,
            context.say,
            refused(table),
        )
        times = measure_networks(product, next(iter(studies.values())), peers, options)
        labels = {peer.name: peer.label for peer in peers} | {BEST_OPENVINO: "OpenVINO, best precisions"}
        _add_networks(content, times, labels)
        content.details["product"] = {
            "backend": product.backend,
            "precision": product.precision,
            "threads": context.threads,
            "measured_table": table is not None,
            "refused_by_the_gate": {model: sorted(names) for model, names in options.refused.items()},
        }
    _add_paper_size(content, context, on_gpu)
    return Section(
        "peers",
        "Compared with other ways to compute the same",
        tuple(content.figures),
        tuple(content.absences),
        _NOTES,
        tuple(content.charts),
        content.details,
        seconds=time.perf_counter() - start,
    )


_NOTES = (
    "A ratio is the peer's time divided by the product's: above 1, the product is faster. It is the median "
    "over pairs of runs that follow each other, with a 95 % interval by bootstrap over the pairs.",
    "The script of a user ends with rows, the product with a DICOM SR in memory.",
    "The script measures every sagittal slice and every axial one that crosses the neck; the product leaves "
    "out slices that cannot hold a level or the cord. The script chooses series by description and "
    "orientation, and refuses nothing.",
    "Graphs for PyTorch are the pack's ONNX graphs, translated operator by operator, with the same weights: "
    "convolutions have taken in their batch normalisations.",
)


def _gradable(context: BenchContext, product: Product) -> dict[Path, StudyInputs]:
    """The first studies that the product can grade, with the inputs of its networks."""
    found: dict[Path, StudyInputs] = {}
    problems: list[InputError] = []
    for folder in context.studies:
        if len(found) < _MOST_STUDIES:
            with _kept(problems):
                found[folder] = product.inputs(product.load(folder))
    if not found:
        advice = "Give studies that the product can grade."
        raise problems[0] if problems else InputError("There is no study to compare peers on.", advice)
    return found


@contextmanager
def _kept(problems: list[InputError]) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        problems.append(error)


def _add_whole(
    content: _Content, context: BenchContext, product: Product, studies: Mapping[Path, StudyInputs]
) -> None:
    context.say("peers: the script that a user would write")
    try:
        times, same = measure_whole(
            product, tuple(studies), context.work / "peers-pack", _WHOLE_SHARE * context.seconds
        )
    except PeerAbsent as error:
        content.absences.append(Absence("peers.whole.user_script", str(error)))
        return
    text = "Whole study, files to results: {} of a script with pydicom, SciPy and ONNX Runtime"
    ratio = _ratio("peers.whole.user_script", text.format("time"), times, TARGET_SCRIPT)
    images = sum(item.images for item in studies.values()) / len(studies)
    work = f"Images a study that the networks run on: script {same.script_images:.0f}, product {images:.0f}."
    content.figures += [
        replace(ratio, note=f"{ratio.note} {work}".strip()),
        _milliseconds("peers.whole.user_script.ms", text.format("time"), times.theirs),
        _milliseconds("peers.whole.product.ms", "Whole study, files to results and SR", times.ours, True),
    ]
    content.details["whole"] = {
        "script_images_a_study": same.script_images,
        "product_images_a_study": images,
        "levels": same.levels,
        "share_with_the_same_grade": _or_none(same.same_grade),
        "mean_absolute_difference_of_ratios": _or_none(same.ratio_difference),
        **_seconds(times),
    }


def _add_networks(content: _Content, times: NetworkTimes, labels: dict[str, str]) -> None:
    content.absences += times.absences
    for (model, batch), pairs in times.pairs.items():
        where = f"peers.models.{model}.{batch}"
        what = "All three networks" if model == ALL else f"Network {model}"
        text = f"{what}, {_BATCH_TEXT[batch]} ({times.images[model, batch]} images)"
        everything = tuple(seconds for item in pairs.values() for seconds in item.ours)
        if everything:
            content.figures.append(_milliseconds(f"{where}.product.ms", f"{text}: product", everything, True))
        for name, item in pairs.items():
            target = _target(model, batch, name)
            content.figures += [
                _ratio(f"{where}.{name}.ratio", f"{text}: {labels[name]}", item, target),
                _milliseconds(f"{where}.{name}.ms", f"{text}: {labels[name]}", item.theirs),
            ]
    for batch in (STUDY, ONE):
        groups = [group for group in times.pairs if group[1] == batch]
        series = [
            _bars(labels[name], {group[0]: times.pairs[group].get(name) for group in groups})
            for name in labels
        ]
        title = f"Time of peers relative to the product, networks alone, {_BATCH_TEXT[batch]}"
        content.charts.append(
            Chart("bars", title, "network", "peer's time / product's time", _filled(series))
        )
    content.details["networks"] = {
        "images": {f"{model}.{batch}": count for (model, batch), count in times.images.items()},
        "largest_output_differences": times.differences,
        "openvino_best": times.best_openvino,
        "pairs": {
            f"{model}.{batch}": {name: _seconds(item) for name, item in pairs.items()}
            for (model, batch), pairs in times.pairs.items()
        },
    }


def _target(model: str, batch: str, peer: str) -> float | None:
    if model == ALL and batch == STUDY:
        return {DEFAULT: TARGET_DEFAULT, BEST_OPENVINO: TARGET_PARITY}.get(peer)
    return TARGET_PARITY if batch == ONE and peer == DEFAULT else None


def _add_paper_size(content: _Content, context: BenchContext, on_gpu: bool) -> None:
    where = f"peers.size_{SIZE}"
    if on_gpu:
        content.absences.append(Absence(where, f"It is measured on a CPU: the pack has no plan for {SIZE}²."))
        return
    try:
        pairs, absent = measure_paper_size(
            context.work / "peers-pack",
            context.work / "peers",
            context.threads,
            _SIZE_SHARE * context.seconds,
            context.say,
        )
    except PeerAbsent as error:
        content.absences.append(Absence(where, str(error)))
        return
    content.absences += absent
    text = f"One image of {SIZE}² through the grader's network"
    labels = {peer.name: peer.label for peer, _ in PAPER_PEERS}
    everything = tuple(seconds for item in pairs.values() for seconds in item.ours)
    if everything:
        content.figures.append(_milliseconds(f"{where}.product.ms", f"{text}: product", everything, True))
    for name, item in pairs.items():
        content.figures += [
            _ratio(f"{where}.{name}.ratio", f"{text}: {labels[name]}", item),
            _milliseconds(f"{where}.{name}.ms", f"{text}: {labels[name]}", item.theirs),
        ]
    content.details[f"size_{SIZE}"] = {name: _seconds(item) for name, item in pairs.items()}
    title = f"Time of peers relative to the product, one image of {SIZE}²"
    bars = _bars("peers", {labels[name]: item for name, item in pairs.items()})
    content.charts.append(Chart("bars", title, "peer", "peer's time / product's time", _filled([bars])))


def _ratio(name: str, text: str, times: PairedTimes, target: float | None = None) -> Figure:
    ratio = times.ratio()
    return Figure(
        name,
        f"{text}, relative to the product",
        ratio.value,
        "",
        "higher",
        low=ratio.low,
        high=ratio.high,
        runs=ratio.pairs,
        target=target,
        note=_disturbance(times),
    )


def _milliseconds(name: str, text: str, seconds: tuple[float, ...], ours: bool = False) -> Figure:
    value, low, high = median_interval(tuple(1000.0 * item for item in seconds))
    better: Direction = "lower" if ours else "neither"
    return Figure(name, text, value, "ms", better, low=low, high=high, runs=len(seconds))


def _disturbance(times: PairedTimes) -> str:
    """A sentence if much else ran while pairs were measured."""
    if 4 * times.disturbed <= len(times.ours):
        return ""
    return f"{times.disturbed} of {len(times.ours)} pairs were disturbed: the machine was busy."


def _bars(name: str, times: dict[str, PairedTimes | None]) -> Series:
    ratios = {key: item.ratio() for key, item in times.items() if item is not None}
    return Series(
        name,
        tuple(ratios),
        tuple(item.value for item in ratios.values()),
        tuple(item.value if item.low is None else item.low for item in ratios.values()),
        tuple(item.value if item.high is None else item.high for item in ratios.values()),
    )


def _filled(series: list[Series]) -> tuple[Series, ...]:
    return tuple(item for item in series if item.x)


def _seconds(times: PairedTimes) -> dict[str, Any]:
    return {"product_seconds": list(times.ours), "peer_seconds": list(times.theirs)}


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
