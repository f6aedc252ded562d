"""Draw the grades of a patient's levels, and encroachments on the dural sac that yield them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.records import LEVELS


@dataclass(frozen=True)
class Stenosis:
    """Encroachment on the dural sac at one level. Lengths in mm.

    Attributes:
        grade: Kang grade that the encroachment yields.
        anterior, posterior: encroachment at the mid-line.
        extent: standard deviation along the canal.
        side, breadth: centre and standard deviation across the canal.
        lesion, lesion_length: T2 signal added inside the cord (CSF is 1; 0 for none), and its standard
            deviation along the canal.
        degeneration: of the disc, 0 to 1.
    """

    grade: int
    anterior: float
    posterior: float
    extent: float
    side: float
    breadth: float
    lesion: float
    lesion_length: float
    degeneration: float


def sample_grades(rng: np.random.Generator, grade: int | None) -> list[int]:
    """Draw the grades of the six levels.

    Args:
        rng: random generator.
        grade: None draws grades as frequent as in a symptomatic population; otherwise one or two of the
            levels C3/4 to C6/7 get this grade, and all others 0.
    """
    if grade is None:
        weights = np.array(
            [
                [0.60, 0.24, 0.10, 0.06],
                [0.36, 0.28, 0.20, 0.16],
                [0.26, 0.28, 0.24, 0.22],
                [0.22, 0.28, 0.26, 0.24],
                [0.32, 0.28, 0.22, 0.18],
                [0.72, 0.20, 0.06, 0.02],
            ]
        )
        return [int(rng.choice(4, p=row)) for row in weights]
    grades = [0] * len(LEVELS)
    for level in rng.choice(np.arange(1, 5), size=int(rng.integers(1, 3)), replace=False):
        grades[int(level)] = grade
    return grades


def sample_stenosis(rng: np.random.Generator, grade: int, sac: float, cord: float) -> Stenosis:
    """Draw an encroachment that yields `grade` in a sac and cord of these AP diameters (mm)."""
    reserve = sac - cord
    lesion, kept = 0.0, 1.0
    if grade == 0:
        total = reserve * rng.uniform(0.0, 0.38) * rng.choice([0.3, 1.0])
    elif grade == 1:
        total = reserve * rng.uniform(0.60, 0.95)
    else:
        kept = rng.uniform(0.56, 0.86)
        total = sac - kept * cord
        lesion = rng.uniform(0.22, 0.42) if grade == 3 else 0.0
    share = float(np.clip(rng.normal(0.68, 0.2), 0.3, 1.0))
    return Stenosis(
        grade=grade,
        anterior=total * share,
        posterior=total * (1.0 - share),
        extent=rng.uniform(2.2, 3.6),
        side=float(np.clip(rng.normal(0.0, 1.2), -2.5, 2.5)),
        breadth=rng.uniform(6.5, 11.0),
        lesion=lesion,
        lesion_length=rng.uniform(2.2, 5.0),
        degeneration=float(np.clip(rng.normal(0.2 + 0.22 * grade, 0.2), 0.0, 1.0)),
    )


def envelope(s: FloatArray, discs: FloatArray, heights: FloatArray, extents: FloatArray) -> FloatArray:
    """Maximum over discs of one Gaussian each, float64 (M,); neighbouring stenoses do not add up."""
    bumps = heights[:, None] * np.exp(-0.5 * ((s[None, :] - discs[:, None]) / extents[:, None]) ** 2)
    return np.asarray(bumps.max(axis=0))
