"""Figures, charts and details of the section "roofline" on a CPU."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from stenosis_trt.bench.record.record import Absence, Figure, Section
from stenosis_trt.bench.roofline.ceilings import Ceilings, Rate
from stenosis_trt.bench.roofline.charts import block_charts, roofline_chart, stage_charts
from stenosis_trt.bench.roofline.floors import block_floor, moved_floor
from stenosis_trt.bench.roofline.networks import BlockPoint, NetworkProfile, block_points
from stenosis_trt.bench.roofline.stages import DECODING, PREPROCESSING, REST
from stenosis_trt.bench.speed.roofline import decoding_bytes, preprocessing_bytes
from stenosis_trt.bench.statistics.medians import median_interval
from stenosis_trt.bench.systems.inputs import MODELS
from stenosis_trt.engine.packs.pack import Pack

TITLE = "Roofline: how far from what the hardware can do"
STAGES = (PREPROCESSING, *MODELS, DECODING)
"""Stages with a floor, in the order of a study."""
RATIO_TARGET = 1.3
_TEXTS = {
    PREPROCESSING: "windows and inputs of all networks",
    "levels": "network that locates the levels",
    "grader": "network that grades",
    "cord": "network that locates the cord",
    DECODING: "points from heatmaps",
    REST: "geometry, matching and everything else",
}
_SHOWN = 6
"""Places that the note on the missed target names."""


@dataclass(frozen=True)
class MeasuredStudy:
    """Times of one study, from pixels in memory to ratios, in ms.

    Attributes:
        batches: inputs of each network.
        milliseconds: of each run.
        processor_ms: processor time of all threads in each of these runs.
        stages: wall time of each stage, `REST` among them, in each run with the clock of the steps.
        shares: the same without what ran beside a network, see `StepTimes`.
    """

    batches: Mapping[str, int]
    milliseconds: tuple[float, ...]
    processor_ms: tuple[float, ...]
    stages: Mapping[str, tuple[float, ...]]
    shares: Mapping[str, tuple[float, ...]]

    def stage_runs(self, stage: str) -> tuple[float, ...]:
        """Time of a stage in each run; () if the backend has no such step."""
        return self.stages.get(stage, ())


def cpu_section(
    pack: Pack,
    studies: Sequence[MeasuredStudy],
    profiles: Mapping[str, NetworkProfile],
    ceilings: Ceilings,
    absences: tuple[Absence, ...],
    seconds: float,
) -> Section:
    """Make the section of what was measured on a CPU."""
    floors = [_stage_floors(pack, study, profiles, ceilings) for study in studies]
    points = {name: block_points(profile, ceilings) for name, profile in profiles.items()}
    figures = (
        *_study_figures(studies, floors, ceilings.threads),
        *_stage_figures(studies, floors),
        *_ceilings(ceilings),
    )
    stages = {name: _median(study.stage_runs(name) for study in studies) for name in (*STAGES, REST)}
    measured = {name: value for name, value in stages.items() if value is not None}
    shares = {
        name: _median(study.shares.get(name, study.stage_runs(name)) for study in studies) or 0.0
        for name in measured
    }
    typical = {
        name: statistics.median(item[name] for item in floors)
        for name in STAGES
        if all(name in item for item in floors)
    }
    excess = _excess(measured, typical, points)
    absent = [
        Absence(f"roofline.{name}", "The backend does not compute this step on its own.")
        for name in STAGES
        if name not in measured and not any(item.name == f"roofline.{name}" for item in absences)
    ]
    return Section(
        "roofline",
        TITLE,
        figures,
        (*absences, *absent),
        tuple(_notes(figures, excess, profiles)),
        (
            roofline_chart(ceilings, profiles, points),
            *stage_charts(shares, measured, typical),
            *block_charts(points),
        ),
        {
            "ceilings": _ceiling_details(ceilings),
            "networks": {name: _network_details(profiles[name], points[name]) for name in profiles},
            "studies": [
                {
                    "inputs": dict(study.batches),
                    "milliseconds": list(study.milliseconds),
                    "processor_ms": list(study.processor_ms),
                    "stages": {name: list(values) for name, values in study.stages.items()},
                    "floor_ms": floor,
                }
                for study, floor in zip(studies, floors, strict=True)
            ],
            "above_floor_ms": [{"place": place, "milliseconds": value} for place, value in excess],
        },
        seconds=seconds,
    )


def _stage_floors(
    pack: Pack, study: MeasuredStudy, profiles: Mapping[str, NetworkProfile], ceilings: Ceilings
) -> dict[str, float]:
    """Floor of each stage of a study, in ms; without the networks that were not profiled."""
    found = {}
    for stage in STAGES:
        if stage in profiles:
            profile, batch = profiles[stage], study.batches.get(stage, 0)
            floors = (block_floor(item, batch, profile.precision, ceilings) for item in profile.blocks)
            found[stage] = sum(item.floor_ms for item in floors) if batch else 0.0
        elif stage in (PREPROCESSING, DECODING):
            # The host's kernels write FP32 for every network. Pixels come from memory, heatmaps were just
            # written.
            count = preprocessing_bytes if stage == PREPROCESSING else decoding_bytes
            moved = count(pack, {name: study.batches.get(name, 0) for name in MODELS}, "fp32")
            rate = ceilings.bandwidth(float("inf") if stage == PREPROCESSING else moved)
            found[stage] = moved_floor(stage, moved, rate).floor_ms
    return found


def _study_figures(
    studies: Sequence[MeasuredStudy], floors: Sequence[Mapping[str, float]], threads: int
) -> Iterator[Figure]:
    runs = [value for study in studies for value in study.milliseconds]
    median, low, high = median_interval(runs)
    text = "a study, from pixels in memory to ratios"
    yield Figure("roofline.study.time", text, median, "ms", "lower", "measured", low, high, len(runs))
    if any(stage not in item for item in floors for stage in STAGES):
        return
    sums = [sum(item.values()) for item in floors]
    floor = statistics.median(sums)
    yield Figure("roofline.study.floor", f"{text}: floor", floor, "ms", source="computed")
    ratios = [
        value / total
        for study, total in zip(studies, sums, strict=True)
        for value in study.milliseconds
        if total
    ]
    if ratios:
        median, low, high = median_interval(ratios)
        yield Figure(
            "roofline.study.ratio",
            f"{text}: time over floor",
            median,
            "",
            "lower",
            "measured",
            low,
            high,
            len(ratios),
            RATIO_TARGET,
        )
        ratios = [
            value / (total * threads)
            for study, total in zip(studies, sums, strict=True)
            for value in study.processor_ms
            if total
        ]
        median, low, high = median_interval(ratios)
        yield Figure(
            "roofline.study.processor_ratio",
            f"{text}: processor time over that of {threads} busy cores at the floor",
            median,
            "",
            "lower",
            "measured",
            low,
            high,
            len(ratios),
            note="Processor time leaves out waiting: for other processes, and of a core for another.",
        )


def _stage_figures(
    studies: Sequence[MeasuredStudy], floors: Sequence[Mapping[str, float]]
) -> Iterator[Figure]:
    for stage in (*STAGES, REST):
        runs = [value for study in studies for value in study.stage_runs(stage)]
        if not runs:
            continue
        median, low, high = median_interval(runs)
        name, text = f"roofline.{stage}", _TEXTS[stage]
        yield Figure(f"{name}.time", text, median, "ms", "lower", "measured", low, high, len(runs))
        if any(stage not in item for item in floors):
            continue
        floor = statistics.median(item[stage] for item in floors)
        yield Figure(f"{name}.floor", f"{text}: floor", floor, "ms", source="computed")
        ratios = [
            value / item[stage]
            for study, item in zip(studies, floors, strict=True)
            for value in study.stage_runs(stage)
            if item[stage]
        ]
        if ratios:
            median, low, high = median_interval(ratios)
            yield Figure(
                f"{name}.ratio",
                f"{text}: time over floor",
                median,
                "",
                "lower",
                "measured",
                low,
                high,
                len(ratios),
            )


def _ceilings(ceilings: Ceilings) -> Iterator[Figure]:
    for suffix, words, peaks in (
        ("", f"{ceilings.threads} threads", ceilings.peaks),
        (".one_core", "one core", ceilings.one_core_peaks),
    ):
        for precision, rate in peaks.items():
            text = f"peak in {precision.upper()}, {words}"
            yield _rate_figure(f"roofline.peak.{precision}{suffix}", text, rate, "10⁹ multiply-adds/s")
    for level in ceilings.memory:
        for suffix, words, rate in (
            ("", f"{ceilings.threads} threads", level.all_cores),
            (".one_core", "one core", level.one_core),
        ):
            text = f"bandwidth of {level.name}, {words}"
            yield _rate_figure(f"roofline.bandwidth.{level.name.lower()}{suffix}", text, rate, "GB/s")


def _rate_figure(name: str, text: str, rate: Rate, unit: str) -> Figure:
    rounds = [value / 1e9 for value in rate.rounds]
    note = f"best of {len(rounds)} rounds; the interval is their range; by {rate.by}"
    return Figure(
        name, text, max(rounds), unit, "neither", "measured", min(rounds), max(rounds), len(rounds), note=note
    )


def _excess(
    measured: Mapping[str, float], floors: Mapping[str, float], points: Mapping[str, Sequence[BlockPoint]]
) -> list[tuple[str, float]]:
    """Milliseconds above the floor, by stage or block, largest first."""
    found = [
        (stage, value - floors.get(stage, 0.0)) for stage, value in measured.items() if stage not in points
    ]
    for name, items in points.items():
        found += ((f"{name} {item.name}", item.median_ms - item.floor.floor_ms) for item in items)
        # What a network takes in a study beyond the nodes of its profile.
        beyond = measured.get(name, 0.0) - sum(item.median_ms for item in items)
        found.append((f"{name}, outside of its nodes", beyond))
    return sorted(found, key=lambda item: -item[1])


def _notes(
    figures: Iterable[Figure], excess: Sequence[tuple[str, float]], profiles: Mapping[str, NetworkProfile]
) -> Iterator[str]:
    by_name = {figure.name: figure for figure in figures}
    ratio, floor = by_name.get("roofline.study.ratio"), by_name.get("roofline.study.floor")
    if ratio is not None and floor is not None and ratio.target_met is False:
        places = "; ".join(f"{place} {value:.1f} ms" for place, value in excess[:_SHOWN])
        yield (
            f"A study takes {ratio.value:.2f} times its floor of {floor.value:.1f} ms, not "
            f"{RATIO_TARGET}. Most of what is above the floor: {places}."
        )
    for name, profile in profiles.items():
        if profile.assignment.unassigned:
            lost = ", ".join(sorted(profile.assignment.unassigned))
            yield f"Nodes of {name} that no block could be found for: {lost}."
    yield (
        "A floor counts multiply-adds at the measured peak or bytes at the measured bandwidth, whichever "
        "takes longer, block by block; depthwise convolutions, activations and reductions cost more."
    )


def _median(runs: Iterable[Sequence[float]]) -> float | None:
    values = [value for item in runs for value in item]
    return statistics.median(values) if values else None


def _ceiling_details(ceilings: Ceilings) -> dict[str, object]:
    return {
        "threads": ceilings.threads,
        "peaks": {
            name: {"by": rate.by, "rounds": list(rate.rounds)} for name, rate in ceilings.peaks.items()
        },
        "memory": [
            {
                "name": level.name,
                "capacity_bytes": level.capacity,
                "by": level.all_cores.by,
                "rounds": list(level.all_cores.rounds),
            }
            for level in ceilings.memory
        ],
    }


def _network_details(profile: NetworkProfile, points: Sequence[BlockPoint]) -> dict[str, object]:
    return {
        "runs_by": profile.runs_by,
        "execution": asdict(profile.execution),
        "precision": profile.precision.name,
        "int8_share": profile.precision.int8_share,
        "inputs": profile.batch,
        "nodes_ms": profile.total_ms,
        "assigned_by_order": profile.assignment.by_order,
        "unassigned_ms": {
            name: statistics.median(values) for name, values in profile.assignment.unassigned.items()
        },
        "blocks": [
            {
                "name": item.name,
                "milliseconds": item.median_ms,
                "floor_ms": item.floor.floor_ms,
                "ratio": item.ratio,
                "limit": item.floor.limit,
                "compute_ms": item.floor.compute_ms,
                "memory_ms": item.floor.memory_ms,
                "layered_floor_ms": item.floor.layered_ms,
                "multiply_adds": item.floor.multiply_adds,
                "bytes": item.floor.moved_bytes,
                "operators": item.operators,
            }
            for item in points
        ],
    }
