"""Signal of the darkest area beside the canal, where there is metal and where there is none.

    python -m stenosis_trt.bench.accuracy.signal_voids [--volumes VOLUMES] [--studies 6]

The limit of `engine.grading.signal_void` lies between both. The levels are the true ones, and no network is
used. Studies are phantoms, ordinary ones and with each condition in each strength; with `--volumes` also
semi-synthetic ones, and the volumes as acquired.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.conditions import CONDITION_RANGES, ORDINARY, Conditions
from stenosis_trt.bench.phantom.study import PhantomSource, StudySource
from stenosis_trt.bench.semisynthetic.acquired import acquire_volume
from stenosis_trt.bench.semisynthetic.canal import NiftiVolume
from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.engine.geometry import FloatArray, SlicePose, Vector
from stenosis_trt.engine.grading.cord import canal_line
from stenosis_trt.engine.grading.levels import LevelPoint
from stenosis_trt.engine.grading.signal_void import MAXIMUM_VOID_SIGNAL, void_signals
from stenosis_trt.engine.records import LEVELS, FrameHeader, LoadedSlice

_SEED = 2112
"""Of studies that nothing was trained or tuned on."""


def study_signals(
    poses: Sequence[SlicePose], pixels: Iterable[npt.NDArray[np.uint16]], points: Sequence[Vector]
) -> FloatArray:
    """Signals of `void_signals` in a sagittal series.

    Args:
        poses, pixels: of its slices.
        points: true points of the levels, head to foot.

    Returns:
        float64 (levels,).
    """
    slices = [
        LoadedSlice(FrameHeader(Path(), k, "", pose), pose, stored)
        for k, (pose, stored) in enumerate(zip(poses, pixels, strict=True))
    ]
    found = [LevelPoint(name, point, 1.0) for name, point in zip(LEVELS, points, strict=False)]
    return void_signals(slices, found, canal_line(found))


def described(signals: Sequence[float]) -> str:
    """Number of levels, range of their signals and share of those that count as a void."""
    values = np.array(signals)
    if not len(values):
        return "none"
    share = 100 * np.mean(values <= MAXIMUM_VOID_SIGNAL)
    return f"{len(values)}, signal {values.min():.2f} to {values.max():.2f}, {share:.0f} % void"


def lines(name: str, sources: Sequence[StudySource], studies: int) -> Iterator[str]:
    """Yield what was found in the studies of one condition: at metal, beside it, and without any."""
    groups: dict[str, list[float]] = {"at metal": [], "in a neck with metal": [], "without metal": []}
    for source in sources:
        for index in range(studies):
            study = source.sample(_SEED, index)
            anatomy = study.anatomy
            series = study.sagittal
            pixels = (study.slice_pixels(series, k) for k in range(len(series.poses)))
            signals = study_signals(series.poses, pixels, [level.point for level in anatomy.levels])
            other = "in a neck with metal" if any(anatomy.operated) else "without metal"
            for signal, operated in zip(signals.tolist(), anatomy.operated, strict=True):
                groups["at metal" if operated else other].append(signal)
    for group, signals_of in groups.items():
        if signals_of:
            yield f"{name}, levels {group}: {described(signals_of)}"


def _sources(conditions: Conditions, volumes: Path | None) -> list[StudySource]:
    sources: list[StudySource] = [PhantomSource(conditions)]
    if volumes is not None:
        names = tuple(name for name in SUBJECTS if name.startswith("errsm"))
        sources.append(SemisyntheticSource(names, volumes, conditions=conditions))
    return sources


def main() -> None:
    """Print one line for each condition and strength."""
    parser = argparse.ArgumentParser(description="Signal of the darkest area beside the canal.")
    parser.add_argument("--studies", type=int, default=6, help="of each source and strength")
    parser.add_argument("--volumes", type=Path, help="folder with one folder a subject")
    arguments = parser.parse_args()
    if arguments.volumes is not None:
        signals: list[float] = []
        for subject in SUBJECTS.values():
            study = acquire_volume(subject.name, NiftiVolume(subject.path(arguments.volumes)))
            series = study.sagittal
            pixels = (study.slice_pixels(series, k) for k in range(len(series.poses)))
            signals += study_signals(series.poses, pixels, subject.disc_points.tolist()).tolist()
        print(f"volumes as acquired: {described(signals)}")
    chosen = [("ordinary", ORDINARY)]
    for name, strengths in CONDITION_RANGES.items():
        chosen += [(f"{name} {value:g}", Conditions(**{name: value})) for value in strengths.strengths]
    for name, conditions in chosen:
        for line in lines(name, _sources(conditions, arguments.volumes), arguments.studies):
            print(line, flush=True)


if __name__ == "__main__":
    main()
