"""Anatomy of one phantom patient: sizes, stenoses and the truth derived from them.

Stenoses follow Kang's grades (Kang et al., AJR 2011;197:W134): disc or ligament pushes into the dural sac;
first the subarachnoid space is obliterated, then the cord is deformed, then the cord's T2 signal rises.
Grade, CSF fraction and diameters are taken from the continuous profiles along the canal, before any slice is
sampled.

Cord and canal sizes follow the Spinal Cord Toolbox's healthy metrics (PAM50-normalized-metrics):
at C5 cord 7.5 ± 0.5 mm × 13.0 ± 0.8 mm and canal 12.8 ± 1.2 mm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from stenosis_trt.bench.phantom.slice_profile import through_thickness
from stenosis_trt.bench.phantom.spine import CanalCurve, curve_from_posture, sample_posture
from stenosis_trt.engine.geometry import FloatArray, SlicePose, Vector
from stenosis_trt.engine.records import LEVELS

# Distance in mm between neighbouring discs, for an adult of scale 1: C3, C4, C5, C6, C7, T1, T2, T3.
_VERTEBRA_PITCH = np.array([17.0, 16.5, 16.0, 16.5, 18.5, 20.5, 21.5, 22.0])
_C4_C5_DISC = 2

# Profiles at the discs C2/3 … C7/T1 and T3/4, in mm: cord AP and transverse, canal AP and transverse.
_PROFILE_DISCS = np.array([0, 1, 2, 3, 4, 5, 8])
_CORD_AP = np.array([7.9, 7.7, 7.6, 7.4, 7.1, 6.8, 6.4])
_CORD_TRANSVERSE = np.array([12.1, 12.6, 13.1, 12.9, 12.1, 10.8, 9.6])
_CANAL_AP = np.array([14.6, 13.2, 12.8, 12.8, 13.0, 13.6, 13.8])
_CANAL_TRANSVERSE = np.array([23.0, 23.0, 24.0, 24.5, 24.5, 23.0, 18.0])

DEFORMED_FRACTION = 0.08
"""The cord counts as deformed when its AP diameter is reduced by more than this share."""

LANDMARKS = ("T1/2", "T2/3", "C2", "dens")
"""Points that tell the levels apart: two discs below them, the wall of the canal at the base of the dens, and
the apex of the dens."""

_DENS_BASE_MM = 16.0
DENS_APEX_MM = 36.0
"""Distances above disc C2/3 along the canal, for a patient of scale 1."""

_WALL_MM = 0.6
"""Thickness of the wall in front of the sac: the points of levels lie on its front."""

_DENS_AXIS_MM = 7.0
"""Distance of the axis of the dens in front of the canal."""

LEVEL_WINDOW_MM = 6.0
"""Distance from a disc along the canal within which its stenosis is searched, by truth and by slices."""


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


@dataclass(frozen=True)
class LevelTruth:
    """Truth at one disc level, from the continuous geometry. Lengths in mm, `point` in LPS.

    Diameters and ratio are those of the narrowest position near the disc, which may lie between slices.
    """

    level: str
    s: float
    point: tuple[float, float, float]
    grade: int
    csf_fraction: float
    ap_mm: float
    transverse_mm: float
    compression_ratio: float


@dataclass(frozen=True)
class HealthyAnatomy:
    """A patient without stenoses. Profiles along `curve.s`, float64 (M,), in mm.

    `cord_centre` is coordinate v of the cord's centre; None for a random offset.
    """

    curve: CanalCurve
    scale: float
    discs: FloatArray
    cord_ap: FloatArray
    cord_transverse: FloatArray
    cord_centre: FloatArray | None
    sac_ap: FloatArray
    sac_transverse: FloatArray
    canal_ap: FloatArray
    canal_transverse: FloatArray


@dataclass(frozen=True)
class Anatomy:
    """A patient with stenoses. Arrays are profiles along `curve.s`, float64 (M,), in mm.

    `landmarks` are the points of `LANDMARKS` that the patient's images can show, LPS, mm.
    """

    curve: CanalCurve
    scale: float
    discs: FloatArray
    stenoses: tuple[Stenosis, ...]
    cord_ap: FloatArray
    cord_transverse: FloatArray
    cord_centre: FloatArray
    sac_ap: FloatArray
    sac_transverse: FloatArray
    canal_ap: FloatArray
    canal_transverse: FloatArray
    encroach_anterior: FloatArray
    encroach_posterior: FloatArray
    side: FloatArray
    breadth: FloatArray
    lesion: FloatArray
    levels: tuple[LevelTruth, ...]
    texture_seed: int
    landmarks: Mapping[str, Vector] = field(default_factory=dict)

    def wall_point(self, s: float) -> Vector:
        """Point of the front wall of the canal in the mid-line at an arc length, LPS, mm."""
        wall = -float(self.sac_ap[self.curve.index(s)]) / 2 - _WALL_MM
        x, y, z = self.curve.to_patient(0.0, wall, s)
        return float(x), float(y), float(z)

    def cord_points(self, pose: SlicePose) -> FloatArray | None:
        """Extreme points of the cord's outline in a slice, averaged over the slice profile like the signal.

        Returns:
            float64 (4, 3), patient points (LPS, mm) anterior, posterior, left, right; None where the slice
            misses the cord or runs along it.
        """
        half_ap, half_width = self.cord_ap / 2, self.cord_transverse / 2
        zero = np.zeros_like(half_ap)
        outlines = (
            (zero, self.cord_centre - half_ap),
            (zero, self.cord_centre + half_ap),
            (half_width, self.cord_centre),
            (-half_width, self.cord_centre),
        )
        lines = [self.curve.to_patient(u, v, self.curve.s) for u, v in outlines]
        heights = [(line - np.asarray(pose.origin)) @ pose.normal for line in lines]
        points = np.zeros((4, 3))
        for depth, weight in through_thickness(pose):
            for k, (line, height) in enumerate(zip(lines, heights, strict=True)):
                crossing = np.flatnonzero(np.diff(np.signbit(height - depth)))
                if len(crossing) != 1:
                    return None
                row = crossing[0]
                share = (height[row] - depth) / (height[row] - height[row + 1])
                points[k] += weight * (line[row] + share * (line[row + 1] - line[row]))
        return points


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


def _sample_stenosis(rng: np.random.Generator, grade: int, sac: float, cord: float) -> Stenosis:
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


def _envelope(s: FloatArray, discs: FloatArray, heights: FloatArray, extents: FloatArray) -> FloatArray:
    """Maximum over discs of one Gaussian each, float64 (M,); neighbouring stenoses do not add up."""
    bumps = heights[:, None] * np.exp(-0.5 * ((s[None, :] - discs[:, None]) / extents[:, None]) ** 2)
    return np.asarray(bumps.max(axis=0))


def sample_anatomy(rng: np.random.Generator, grade: int | None = None) -> Anatomy:
    """Draw one patient; it depends on the generator's state and `grade` (see `sample_grades`) alone."""
    scale = float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.14))
    pitch = _VERTEBRA_PITCH * scale * rng.normal(1.0, 0.035, size=len(_VERTEBRA_PITCH))
    discs = np.concatenate([[0.0], np.cumsum(pitch)])
    discs -= discs[_C4_C5_DISC]
    curve = curve_from_posture(sample_posture(rng), cervical_length=float(discs[5] - discs[0]))
    s = curve.s

    def profile(values: FloatArray, spread: float) -> FloatArray:
        return np.interp(s, discs[_PROFILE_DISCS], values) * float(np.clip(rng.normal(1.0, spread), 0.8, 1.2))

    cord_ap0, cord_width0 = profile(_CORD_AP, 0.055), profile(_CORD_TRANSVERSE, 0.055)
    canal_ap, canal_width = profile(_CANAL_AP, 0.08), profile(_CANAL_TRANSVERSE, 0.05)
    # Above C2 canal and cord widen towards the cisterna magna and the medulla.
    upper = np.clip((discs[0] - 24.0 * scale - s) / 30.0, 0.0, 1.0)
    cord_ap0, cord_width0 = cord_ap0 + 6.0 * upper, cord_width0 + 5.0 * upper
    canal_ap, canal_width = canal_ap + 14.0 * upper, canal_width + 10.0 * upper
    sac_ap = np.maximum(canal_ap - rng.uniform(0.9, 1.6), cord_ap0 + 2.6)
    canal_ap = np.maximum(canal_ap, sac_ap + 0.8)
    sac_width = np.maximum(canal_width - rng.uniform(2.0, 4.0), cord_width0 + 3.0)

    sizes = HealthyAnatomy(
        curve=curve,
        scale=scale,
        discs=discs,
        cord_ap=cord_ap0,
        cord_transverse=cord_width0,
        cord_centre=None,
        sac_ap=sac_ap,
        sac_transverse=sac_width,
        canal_ap=canal_ap,
        canal_transverse=canal_width,
    )
    anatomy = add_stenoses(rng, sizes, grade)
    return replace(anatomy, landmarks=painted_landmarks(anatomy))


def painted_landmarks(anatomy: Anatomy) -> dict[str, Vector]:
    """Landmarks of a painted spine: where `tissue` paints discs and dens."""
    apex = float(anatomy.discs[0] - DENS_APEX_MM * anatomy.scale)
    front = -float(anatomy.canal_ap[anatomy.curve.index(apex)]) / 2 - _DENS_AXIS_MM
    x, y, z = anatomy.curve.to_patient(0.0, front, apex)
    return {
        "T1/2": anatomy.wall_point(float(anatomy.discs[6])),
        "T2/3": anatomy.wall_point(float(anatomy.discs[7])),
        "C2": anatomy.wall_point(float(anatomy.discs[0] - _DENS_BASE_MM * anatomy.scale)),
        "dens": (float(x), float(y), float(z)),
    }


def add_stenoses(rng: np.random.Generator, sizes: HealthyAnatomy, grade: int | None = None) -> Anatomy:
    """Draw stenoses for a patient of these sizes and derive the truth; `grade` as in `sample_grades`."""
    curve, discs, s = sizes.curve, sizes.discs, sizes.curve.s
    cord_ap0, cord_width0, sac_ap = sizes.cord_ap, sizes.cord_transverse, sizes.sac_ap
    rows = curve.index(discs[: len(LEVELS)])
    grades = sample_grades(rng, grade)
    stenoses = tuple(
        _sample_stenosis(rng, wanted, float(sac_ap[row]), float(cord_ap0[row]))
        for wanted, row in zip(grades, rows, strict=True)
    )
    level_discs = discs[: len(LEVELS)]
    extents = np.array([item.extent for item in stenoses])
    anterior = _envelope(s, level_discs, np.array([item.anterior for item in stenoses]), extents)
    posterior = _envelope(s, level_discs, np.array([item.posterior for item in stenoses]), extents)
    nearest = np.argmin(np.abs(s[None, :] - level_discs[:, None]), axis=0)
    lesion_lengths = np.array([item.lesion_length for item in stenoses])
    lesion = _envelope(s, level_discs, np.array([item.lesion for item in stenoses]), lesion_lengths)

    # The cord is displaced first, then flattened; a flattened cord widens but loses some area.
    front, back = -sac_ap / 2 + anterior, sac_ap / 2 - posterior
    room = back - front
    cord_ap = np.minimum(cord_ap0, room)
    natural = sizes.cord_centre
    if natural is None:
        natural = np.full_like(s, np.clip(rng.normal(0.0, 0.6), -1.2, 1.2))
    cord_centre = np.clip(natural, front + cord_ap / 2, back - cord_ap / 2)
    widening = (cord_ap0 / cord_ap) ** rng.uniform(0.25, 0.5)
    cord_width = np.minimum(cord_width0 * widening, sizes.sac_transverse - 1.5)

    reserve = sac_ap - cord_ap0
    anatomy = {
        "cord_ap": cord_ap,
        "cord_transverse": cord_width,
        "csf_fraction": np.maximum(room - cord_ap0, 0.0) / reserve,
        "kept": cord_ap / cord_ap0,
    }
    levels = tuple(
        _truth(curve, name, float(discs[k]), -float(sac_ap[rows[k]]) / 2 - _WALL_MM, lesion, anatomy)
        for k, name in enumerate(LEVELS)
    )
    return Anatomy(
        curve=curve,
        scale=sizes.scale,
        discs=discs,
        stenoses=stenoses,
        cord_ap=cord_ap,
        cord_transverse=cord_width,
        cord_centre=cord_centre,
        sac_ap=sac_ap,
        sac_transverse=sizes.sac_transverse,
        canal_ap=sizes.canal_ap,
        canal_transverse=sizes.canal_transverse,
        encroach_anterior=anterior,
        encroach_posterior=posterior,
        side=np.array([item.side for item in stenoses])[nearest],
        breadth=np.array([item.breadth for item in stenoses])[nearest],
        lesion=lesion,
        levels=levels,
        texture_seed=int(rng.integers(2**31)),
    )


def _truth(
    curve: CanalCurve,
    name: str,
    disc: float,
    wall: float,
    lesion: FloatArray,
    profiles: dict[str, FloatArray],
) -> LevelTruth:
    """Apply Kang's definition to the profiles near one disc; `wall` is v of the canal's front wall."""
    window = slice(int(curve.index(disc - LEVEL_WINDOW_MM)), int(curve.index(disc + LEVEL_WINDOW_MM)) + 1)
    ratio = profiles["cord_ap"][window] / profiles["cord_transverse"][window]
    worst = int(np.argmin(ratio))
    csf_fraction = float(profiles["csf_fraction"][window].min())
    deformed = float(profiles["kept"][window].min()) < 1.0 - DEFORMED_FRACTION
    if deformed:
        grade = 3 if float(lesion[window].max()) > 0.0 and lesion[curve.index(disc)] > 0.15 else 2
    else:
        grade = 1 if csf_fraction < 0.5 else 0
    x, y, z = curve.to_patient(0.0, wall, disc)
    return LevelTruth(
        level=name,
        s=disc,
        point=(float(x), float(y), float(z)),
        grade=grade,
        csf_fraction=csf_fraction,
        ap_mm=float(profiles["cord_ap"][window][worst]),
        transverse_mm=float(profiles["cord_transverse"][window][worst]),
        compression_ratio=float(ratio[worst]),
    )
