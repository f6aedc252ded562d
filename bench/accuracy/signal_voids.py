"""Signal of the darkest area beside the canal, where there is metal and where there is none.

    python -m stenosis_trt.bench.accuracy.signal_voids [--volumes VOLUMES] [--studies 4]

The limit of `engine.grading.signal_void` lies between both. The levels are the true ones, and no network is
used. Studies are phantoms, ordinary ones and with each condition in each strength; with `--volumes` also
semi-synthetic ones, and the volumes as acquired.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from stenosis_trt.bench.phantom.conditions import CONDITION_RANGES, ORDINARY, Conditions
from stenosis_trt.bench.phantom.dicom_files import WritableStudy
from stenosis_trt.bench.phantom.study import PhantomSource, StudySource
from stenosis_trt.bench.semisynthetic.acquired import acquire_volume
from stenosis_trt.bench.semisynthetic.canal import NiftiVolume
from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS, Subject
from stenosis_trt.engine.geometry import FloatArray, Vector
from stenosis_trt.engine.grading.cord import canal_line
from stenosis_trt.engine.grading.levels import LevelPoint
from stenosis_trt.engine.grading.signal_void import MAXIMUM_VOID_SIGNAL, void_signals
from stenosis_trt.engine.records import LEVELS, FrameHeader, LoadedSlice

_SEED = 733
"""Of studies that neither a network nor the limit was made with."""


def study_signals(study: WritableStudy, points: Sequence[Vector]) -> FloatArray:
    """Signals of `void_signals` in the sagittal series of a study, at the true points of its levels.

    Args:
        study: a phantom, or an acquired volume.
        points: of the levels, head to foot.

    Returns:
        float64 (levels,).
    """
    slices = [
        LoadedSlice(FrameHeader(Path(), k, "", pose), pose, study.slice_pixels(study.sagittal, k))
        for k, pose in enumerate(study.sagittal.poses)
    ]
    found = [LevelPoint(name, point, 1.0) for name, point in zip(LEVELS, points, strict=False)]
    return void_signals(slices, found, canal_line(found))


def acquired_signals(subjects: Iterable[Subject], volumes: Path) -> list[float]:
    """Signals at the levels of volumes as acquired."""
    signals: list[float] = []
    for subject in subjects:
        study = acquire_volume(subject.name, NiftiVolume(subject.path(volumes)))
        signals += study_signals(study, subject.disc_points.tolist()).tolist()
    return signals


def described(signals: Sequence[float]) -> str:
    """Number of levels, range of their signals and share of those that count as a void."""
    values = np.array(signals)
    share = 100 * np.mean(values <= MAXIMUM_VOID_SIGNAL)
    return f"{len(values)}, signal {values.min():.2f} to {values.max():.2f}, {share:.0f} % void"


Groups = dict[str, list[float]]
"""Signals by what there is at a level: metal, metal elsewhere in the neck, or none."""


def group_signals(sources: Sequence[StudySource], studies: int) -> Groups:
    """Signals at the levels of the first studies of each source."""
    groups: Groups = {"at metal": [], "in a neck with metal": [], "without metal": []}
    for source in sources:
        for index in range(studies):
            study = source.sample(_SEED, index)
            anatomy = study.anatomy
            signals = study_signals(study, [level.point for level in anatomy.levels])
            other = "in a neck with metal" if any(anatomy.operated) else "without metal"
            for signal, operated in zip(signals.tolist(), anatomy.operated, strict=True):
                groups["at metal" if operated else other].append(signal)
    return groups


def _print(name: str, groups: Groups) -> None:
    for group, signals in groups.items():
        if signals:
            print(f"{name}, levels {group}: {described(signals)}", flush=True)


def _sources(conditions: Conditions, volumes: Path | None) -> list[StudySource]:
    sources: list[StudySource] = [PhantomSource(conditions)]
    if volumes is not None:
        names = tuple(name for name in SUBJECTS if name.startswith("errsm"))
        sources.append(SemisyntheticSource(names, volumes, conditions=conditions))
    return sources


def main() -> None:
    """Print what was found under each condition and strength, and in all studies."""
    parser = argparse.ArgumentParser(description="Signal of the darkest area beside the canal.")
    parser.add_argument("--studies", type=int, default=4, help="of each source and strength")
    parser.add_argument("--volumes", type=Path, help="folder with one folder a subject")
    parser.add_argument(
        "--condition", action="append", choices=CONDITION_RANGES, help="this alone; repeatable"
    )
    arguments = parser.parse_args()
    if arguments.volumes is not None:
        print(f"volumes as acquired: {described(acquired_signals(SUBJECTS.values(), arguments.volumes))}")
    chosen = [("ordinary", ORDINARY)]
    for name in arguments.condition or CONDITION_RANGES:
        strengths = CONDITION_RANGES[name].strengths
        chosen += [(f"{name} {value:g}", Conditions(**{name: value})) for value in strengths]
    total: Groups = {}
    for name, conditions in chosen:
        groups = group_signals(_sources(conditions, arguments.volumes), arguments.studies)
        _print(name, groups)
        for group, found in groups.items():
            total.setdefault(group, []).extend(found)
    _print("all", total)


if __name__ == "__main__":
    main()
