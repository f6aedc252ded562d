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
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.patient.deformity import bend
from stenosis_trt.bench.phantom.patient.findings import NO_FINDINGS, Findings
from stenosis_trt.bench.phantom.patient.hardware import operated_levels
from stenosis_trt.bench.phantom.patient.ossified import Pressing, ossified
from stenosis_trt.bench.phantom.patient.spine import CanalCurve, curve_from_posture, sample_posture
from stenosis_trt.bench.phantom.patient.stenoses import Stenosis, envelope, sample_grades, sample_stenosis
from stenosis_trt.bench.phantom.slice_profile import through_thickness
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

_RAISED_SIGNAL = 0.15
"""Signal above that of the cord, relative to CSF, from which on a lesion counts."""

_WALL_MM = 0.6
"""Thickness of the wall in front of the sac: the points of levels lie on its front."""

LEVEL_WINDOW_MM = 6.0
"""Distance from a disc along the canal within which its stenosis is searched, by truth and by slices."""


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

    `operated` says for each of the six levels whether metal lies there or hides it: it must not be graded,
    and its grade in `levels` is that of the geometry alone. `lesion` is 0 where `findings` has an oedema.
    `landmarks` are the points of `landmarks.LANDMARKS` that the patient's images can show, LPS, mm.
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
    operated: tuple[bool, ...] = (False,) * len(LEVELS)
    findings: Findings = NO_FINDINGS
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


def sample_anatomy(
    rng: np.random.Generator, grade: int | None = None, findings: Findings = NO_FINDINGS
) -> Anatomy:
    """Draw one patient; it depends on the generator's state, `grade` (see `sample_grades`) and `findings`."""
    scale = float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.14))
    pitch = _VERTEBRA_PITCH * scale * rng.normal(1.0, 0.035, size=len(_VERTEBRA_PITCH))
    discs = np.concatenate([[0.0], np.cumsum(findings.shortened(pitch))])
    discs -= discs[_C4_C5_DISC]
    deformed = partial(bend, discs=discs, findings=findings)
    curve = curve_from_posture(sample_posture(rng), float(discs[5] - discs[0]), deformed)
    s = curve.s

    def profile(values: FloatArray, spread: float) -> FloatArray:
        return np.interp(s, discs[_PROFILE_DISCS], values) * float(np.clip(rng.normal(1.0, spread), 0.8, 1.2))

    cord_ap0, cord_width0 = profile(_CORD_AP, 0.055), profile(_CORD_TRANSVERSE, 0.055)
    cord_ap0, cord_width0 = cord_ap0 * findings.cord_depth, cord_width0 * findings.cord_width
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
    return add_stenoses(rng, sizes, grade, findings)


def add_stenoses(
    rng: np.random.Generator,
    sizes: HealthyAnatomy,
    grade: int | None = None,
    findings: Findings = NO_FINDINGS,
) -> Anatomy:
    """Draw stenoses for a patient of these sizes and derive the truth; `grade` as in `sample_grades`."""
    curve, discs, s = sizes.curve, sizes.discs, sizes.curve.s
    cord_ap0, cord_width0, sac_ap = sizes.cord_ap, sizes.cord_transverse, sizes.sac_ap
    rows = curve.index(discs[: len(LEVELS)])
    grades = sample_grades(rng, grade)
    stenoses = tuple(
        sample_stenosis(rng, wanted, float(sac_ap[row]), float(cord_ap0[row]))
        for wanted, row in zip(grades, rows, strict=True)
    )
    level_discs = discs[: len(LEVELS)]
    extents = np.array([item.extent for item in stenoses])
    nearest = np.argmin(np.abs(s[None, :] - level_discs[:, None]), axis=0)
    pressing = Pressing(
        anterior=envelope(s, level_discs, np.array([item.anterior for item in stenoses]), extents),
        posterior=envelope(s, level_discs, np.array([item.posterior for item in stenoses]), extents),
        side=np.array([item.side for item in stenoses])[nearest],
        breadth=np.array([item.breadth for item in stenoses])[nearest],
    )
    pressing = ossified(pressing, findings.ossification, s, discs, sac_ap, cord_ap0)
    lesion_lengths = np.array([item.lesion_length for item in stenoses])
    lesion = envelope(s, level_discs, np.array([item.lesion for item in stenoses]), lesion_lengths)
    raised = lesion > _RAISED_SIGNAL
    if findings.oedema:
        # An oedema at each deformed level replaces the lesions that were drawn.
        lesion, raised = np.zeros_like(s), np.ones_like(s, dtype=np.bool_)

    # The cord is displaced first, then flattened; a flattened cord widens but loses some area.
    front, back = -sac_ap / 2 + pressing.anterior, sac_ap / 2 - pressing.posterior
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
        _truth(curve, name, float(discs[k]), -float(sac_ap[rows[k]]) / 2 - _WALL_MM, raised, anatomy)
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
        encroach_anterior=pressing.anterior,
        encroach_posterior=pressing.posterior,
        side=pressing.side,
        breadth=pressing.breadth,
        lesion=lesion,
        levels=levels,
        texture_seed=int(rng.integers(2**31)),
        operated=operated_levels(
            findings, s, discs, sizes.canal_ap, sac_ap, sizes.sac_transverse, sizes.scale
        ),
        findings=findings,
    )


def _truth(
    curve: CanalCurve,
    name: str,
    disc: float,
    wall: float,
    raised: npt.NDArray[np.bool_],
    profiles: dict[str, FloatArray],
) -> LevelTruth:
    """Apply Kang's definition to the profiles near one disc; `wall` is v of the canal's front wall."""
    window = slice(int(curve.index(disc - LEVEL_WINDOW_MM)), int(curve.index(disc + LEVEL_WINDOW_MM)) + 1)
    ratio = profiles["cord_ap"][window] / profiles["cord_transverse"][window]
    worst = int(np.argmin(ratio))
    csf_fraction = float(profiles["csf_fraction"][window].min())
    deformed = float(profiles["kept"][window].min()) < 1.0 - DEFORMED_FRACTION
    compressed = 3 if raised[curve.index(disc)] else 2
    grade = compressed if deformed else int(csf_fraction < 0.5)
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
