"""Charts of the section "roofline"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stenosis_trt.bench.record.record import Chart, Series
from stenosis_trt.bench.roofline.ceilings import Ceilings
from stenosis_trt.bench.roofline.networks import BlockPoint, NetworkProfile

_LEAST, _MOST = 0.25, 4096.0
"""Operations per byte between which the ceilings are drawn."""
_SLOPE_POINTS = 12
_MOST_BARS = 24
_OPERATIONS = 2
"""Operations of a multiply-add."""


def roofline_chart(
    ceilings: Ceilings, profiles: Mapping[str, NetworkProfile], points: Mapping[str, Sequence[BlockPoint]]
) -> Chart:
    """Points of each block below the ceilings of each precision, at the bandwidth of each level."""
    series = []
    peaks = {name: _OPERATIONS * rate.best / 1e9 for name, rate in ceilings.peaks.items()}
    highest = max(peaks.values(), default=1.0)
    for precision, peak in peaks.items():
        series.append(Series(f"ceiling {precision.upper()}", (_LEAST, _MOST), (peak, peak)))
    for level in ceilings.memory:
        bandwidth = level.all_cores.best / 1e9
        end = highest / bandwidth
        # Straight on logarithmic axes; several points keep it straight on others too.
        x = tuple(
            _LEAST * (max(end, _LEAST) / _LEAST) ** (k / (_SLOPE_POINTS - 1)) for k in range(_SLOPE_POINTS)
        )
        series.append(Series(f"ceiling {level.name}", x, tuple(bandwidth * value for value in x)))
    for name, items in points.items():
        shown = [item for item in items if item.median_ms > 0.0 and item.floor.multiply_adds]
        series.append(
            Series(
                f"{name} ({profiles[name].runs_by})",
                tuple(
                    _OPERATIONS * item.floor.multiply_adds / max(item.floor.moved_bytes, 1) for item in shown
                ),
                tuple(_OPERATIONS * item.floor.multiply_adds / item.median_ms / 1e6 for item in shown),
                labels=tuple(item.name for item in shown),
            )
        )
    return Chart(
        "roofline",
        "Blocks of the networks below the ceilings of this processor",
        "operations per byte",
        "10⁹ operations/s",
        tuple(series),
        log_x=True,
        log_y=True,
        note="A multiply-add counts as two operations. Bytes: weights, and what a block reads and writes.",
    )


def stage_charts(
    shares: Mapping[str, float], measured: Mapping[str, float], floors: Mapping[str, float]
) -> Iterator[Chart]:
    """Where the time of a study goes, and the floor of each stage; all in ms by stage."""
    names = tuple(measured)
    yield Chart(
        "waterfall",
        "Stages of a study, from pixels in memory to ratios",
        "stage",
        "ms",
        (Series("time", names, tuple(shares[name] for name in names)),),
        note="Medians. What runs beside a network is not drawn.",
    )
    known = tuple(name for name in names if name in floors)
    yield Chart(
        "bars",
        "Stages of a study and their floors",
        "stage",
        "ms",
        (
            Series("measured", known, tuple(measured[name] for name in known)),
            Series("floor", known, tuple(floors[name] for name in known)),
        ),
    )


def block_charts(points: Mapping[str, Sequence[BlockPoint]]) -> Iterator[Chart]:
    """Time and floor of each block, one chart for each network; of many blocks, the sums of their groups."""
    for name, items in points.items():
        if len(items) > _MOST_BARS:
            yield _grouped(name, items)
            continue
        names = tuple(item.name for item in items)
        yield Chart(
            "bars",
            f"Blocks of {name}",
            "block",
            "ms",
            (
                Series(
                    "measured",
                    names,
                    tuple(item.median_ms for item in items),
                    tuple(item.median_ms if item.low_ms is None else item.low_ms for item in items),
                    tuple(item.median_ms if item.high_ms is None else item.high_ms for item in items),
                ),
                Series("floor", names, tuple(item.floor.floor_ms for item in items)),
            ),
        )


def _grouped(name: str, items: Sequence[BlockPoint]) -> Chart:
    """Sums over the blocks whose names are the same but for their last part, such as "features.2"."""
    sums: dict[str, tuple[float, float]] = {}
    for item in items:
        group = item.name.rpartition(".")[0] or item.name
        measured, floor = sums.get(group, (0.0, 0.0))
        sums[group] = (measured + item.median_ms, floor + item.floor.floor_ms)
    names = tuple(sums)
    return Chart(
        "bars",
        f"Groups of blocks of {name}",
        "blocks",
        "ms",
        (
            Series("measured", names, tuple(measured for measured, _ in sums.values())),
            Series("floor", names, tuple(floor for _, floor in sums.values())),
        ),
        note="Sums of the medians of the blocks.",
    )
