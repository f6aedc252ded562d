"""A subject whose canal is known exactly: a bent tube of CSF with an elliptical cord, painted."""

from __future__ import annotations

import numpy as np

from stenosis_trt.bench.phantom.patient.spine import FOOT_END_MM, HEAD_END_MM, STEP_MM, curve_from_angles
from stenosis_trt.bench.phantom.shapes import ellipse
from stenosis_trt.bench.semisynthetic.canal import Canal
from stenosis_trt.bench.semisynthetic.straightened import GRID_MM, StraightenedSubject

CORD_AP, CORD_TRANSVERSE, CORD_CENTRE = 7.4, 12.6, 0.4
SAC_AP, SAC_TRANSVERSE = 13.0, 20.0
DISCS = np.array([-34.0, -17.0, 0.0, 16.0, 32.5, 51.0, 71.5, 93.0, 115.0])

TONES = (0.45, 0.35, 0.5, 0.15)
"""Signal of cord, marrow, disc and muscle."""
SPOT_U, SPOT_V = 9.0, 9.0
"""A bright vessel behind the canal, on the left alone."""
_SPOT_MM = 1.5


def made_subject(name: str = "made", bend: float = 20.0) -> StraightenedSubject:
    """A subject of 2 MB around discs C2/3 to C7/T1.

    Args:
        name: of the subject.
        bend: degrees by which its canal leans at the ends.
    """
    s = np.arange(HEAD_END_MM, FOOT_END_MM + STEP_MM / 2, STEP_MM)
    sagittal = bend * np.tanh(s / 60.0)
    level = np.zeros_like(s)
    canal = Canal(
        curve=curve_from_angles(s, sagittal, level, np.eye(3), np.zeros(3)),
        sagittal=sagittal,
        coronal=level,
        first=-45.0,
        last=60.0,
        middle_u=level,
        middle_v=level,
        cord_ap=np.full_like(s, CORD_AP),
        cord_transverse=np.full_like(s, CORD_TRANSVERSE),
        cord_centre=np.full_like(s, CORD_CENTRE),
        sac_ap=np.full_like(s, SAC_AP),
        sac_transverse=np.full_like(s, SAC_TRANSVERSE),
    )
    along, v, u = (np.arange(low, high, GRID_MM) for low, high in ((-45, 61), (-12, 12.5), (-13, 13.5)))
    return StraightenedSubject(
        name=name,
        canal=canal,
        discs=DISCS,
        origin=np.array([along[0], v[0], u[0]]),
        signal=_painted(*np.meshgrid(along, v, u, indexing="ij")),
        known=np.ones((len(along), len(v), len(u)), dtype=np.float16),
        tones=np.array(TONES),
        dens_base=DISCS[0] - 15.0,
        dens_apex=None,
    )


def _painted(s: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Vertebrae and discs in front, muscle behind and beside, in the tube CSF and the cord."""
    cord, marrow, disc, muscle = TONES
    from_disc = np.abs(s[..., None] - DISCS).min(axis=-1)
    signal = np.full(s.shape, muscle)
    signal[v < -SAC_AP / 2] = marrow
    signal[(v < -SAC_AP / 2) & (from_disc < 2.5)] = disc
    signal[np.hypot(u - SPOT_U, v - SPOT_V) < _SPOT_MM] = 1.4
    for value, distance in (
        (1.0, ellipse(u, v, SAC_TRANSVERSE / 2, SAC_AP / 2)),
        (cord, ellipse(u, v - CORD_CENTRE, CORD_TRANSVERSE / 2, CORD_AP / 2)),
    ):
        signal += np.clip(0.5 - distance / GRID_MM, 0.0, 1.0) * (value - signal)
    return np.asarray(signal, dtype=np.float32)
