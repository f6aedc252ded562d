"""The whole path: the script that a user would write against the product, from files to results."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.bench.peers.pairing import PairedTimes, measure_pairs, timed
from stenosis_trt.bench.peers.peer import PeerAbsent, one_line
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.records import StudyResult


@dataclass(frozen=True)
class Agreement:
    """How far both do the same work and give the same answer.

    Attributes:
        script_images: images that the script runs its networks on, a study.
        levels: levels that both graded.
        same_grade: share of them with the same grade; NaN without levels.
        ratio_difference: mean absolute difference of the compression ratios; NaN without any.
    """

    script_images: float
    levels: int
    same_grade: float
    ratio_difference: float


def measure_whole(
    product: Product, studies: Sequence[Path], pack: Path, seconds: float
) -> tuple[PairedTimes, Agreement]:
    """Time the product and the script in pairs on the same studies, both opened and warm.

    Args:
        product: the product; its side ends with a DICOM SR in memory, the script's with rows.
        studies: folders of studies; the pairs go through them in turn.
        pack: folder that `write_models` wrote, for the script.
        seconds: how long to measure, about.

    Raises:
        PeerAbsent: the script needs what is not installed, or fails on a study.
        CannotGrade, InputError: the product cannot grade a study.
    """
    if importlib.util.find_spec("scipy") is None:
        raise PeerAbsent("SciPy is not installed.")
    from stenosis_trt.bench.peers import user_script

    models = user_script.Models(pack)

    def script(folder: Path) -> list[dict[str, Any]]:
        try:
            return user_script.grade_folder(folder, models)
        except Exception as error:  # a plain script checks nothing, and fails in many ways
            raise PeerAbsent(f"The script fails on a study: {one_line(error).rstrip('.')}.") from error

    pairs = [(product.whole(folder), script(folder)) for folder in studies]
    images = models.images / len(studies)
    ours, theirs = itertools.cycle(studies), itertools.cycle(studies)
    times, failed = measure_pairs(
        timed(lambda: product.whole(next(ours))),
        {"user_script": timed(lambda: script(next(theirs)))},
        seconds,
        PeerAbsent,
    )
    for error in failed.values():
        raise error
    return times["user_script"], agreement(pairs, images)


def agreement(
    pairs: Sequence[tuple[StudyResult, Sequence[Mapping[str, Any]]]], script_images: float
) -> Agreement:
    """Compare the product's results with the script's rows, study by study."""
    same, differences = [], []
    for result, rows in pairs:
        by_level = {row["level"]: row for row in rows}
        for level in result.levels:
            row = by_level[level.level]
            if level.grade is not None:
                same.append(level.grade == row["kang_grade"])
            if level.cord is not None and np.isfinite(row["compression_ratio"]):
                differences.append(abs(level.cord.compression_ratio - row["compression_ratio"]))
    return Agreement(
        script_images,
        len(same),
        float(np.mean(same)) if same else float("nan"),
        float(np.mean(differences)) if differences else float("nan"),
    )
