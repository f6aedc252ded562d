"""Spine of a tall image: the anatomy of a patient continued to the sacrum, and upwards into the head.

The neck is that of the ordinary patient, unchanged. Below disc T3/4 thoracic and lumbar discs follow, the
curve goes on with the kyphosis of the chest and the lordosis of the loin, and the cord ends at L1/2.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.patient.spine import STEP_MM, CanalCurve
from stenosis_trt.engine.geometry import FloatArray

HEAD_MM, FOOT_MM = 200.0, 420.0
"""Lengths by which the canal is continued."""

NECK_DISCS = 9
"""Discs C2/3 … T3/4 of an ordinary anatomy."""
T12_L1, L5_S1 = 17, 22
"""Indices of discs."""

# Distances between neighbouring discs from T3/4 to T12/L1, to L5/S1, and in the sacrum; scale 1.
_PITCH = np.concatenate(
    [np.linspace(22.0, 25.5, 9), np.array([31.0, 32.5, 34.0, 35.0, 34.5]), np.array([28.0, 25.0])]
)

# Profiles at T3/4, T6/7, T9/10, T12/L1, L1/2, L3/4, L5/S1 and S1/2: factors of their value at T3/4.
_STATIONS = np.array([8, 11, 14, 17, 18, 20, 22, 23])
_CORD_AP = np.array([1.0, 0.95, 0.97, 1.12, 0.55, 0.42, 0.36, 0.3])
_CORD_TRANSVERSE = np.array([1.0, 0.92, 0.9, 1.0, 0.7, 0.72, 0.6, 0.4])
_CANAL_AP = np.array([1.0, 1.03, 1.05, 1.14, 1.18, 1.2, 1.18, 0.85])
_CANAL_TRANSVERSE = np.array([1.0, 0.95, 0.97, 1.15, 1.25, 1.35, 1.5, 1.3])
_BRAIN_MM = 40.0
"""Distance above the occiput over which the brain stem ends."""


def extended(anatomy: Anatomy, own: np.random.Generator) -> Anatomy:
    """Continue a patient's spine to the sacrum and its canal into the head; the truth does not change.

    Args:
        anatomy: of `sample_anatomy`, or of a semi-synthetic patient.
        own: draws the continuation.
    """
    pitch = _PITCH * anatomy.scale * own.normal(1.0, 0.03, len(_PITCH))
    discs = np.concatenate([anatomy.discs, anatomy.discs[-1] + np.cumsum(pitch)])
    curve = _extended_curve(anatomy.curve, discs, own)
    before, after = _added_samples()
    s = curve.s

    def profile(values: FloatArray, factors: FloatArray) -> FloatArray:
        padded = np.pad(values, (before, after), mode="edge")
        factor = np.interp(s, discs[_STATIONS], factors)
        return np.asarray(padded * np.convolve(np.pad(factor, 50, mode="edge"), np.ones(101) / 101, "valid"))

    def padded(values: FloatArray) -> FloatArray:
        return np.pad(values, (before, after), mode="edge")

    # Above the brain stem there is no canal.
    ends = np.sqrt(np.clip((s - (discs[0] - 27.0 * anatomy.scale - 85.0)) / _BRAIN_MM, 0.001, 1.0))
    # The sac ends at S2.
    closing = np.clip((discs[L5_S1 + 1] + 12.0 - s) / 20.0, 0.05, 1.0)
    sac_ap = profile(anatomy.sac_ap, _CANAL_AP) * closing * ends
    cord_ap = np.minimum(profile(anatomy.cord_ap, _CORD_AP) * ends, 0.8 * sac_ap)
    # Roots of the cauda equina lie at the back of the sac.
    behind = np.interp(s, discs[[T12_L1, T12_L1 + 2]], [0.0, 0.3])
    return replace(
        anatomy,
        curve=curve,
        discs=discs,
        cord_ap=cord_ap,
        cord_transverse=profile(anatomy.cord_transverse, _CORD_TRANSVERSE) * closing * ends,
        cord_centre=padded(anatomy.cord_centre) + behind * sac_ap,
        sac_ap=sac_ap,
        sac_transverse=profile(anatomy.sac_transverse, _CANAL_TRANSVERSE) * closing * ends,
        canal_ap=profile(anatomy.canal_ap, _CANAL_AP) * ends,
        canal_transverse=profile(anatomy.canal_transverse, _CANAL_TRANSVERSE) * ends,
        encroach_anterior=padded(anatomy.encroach_anterior),
        encroach_posterior=padded(anatomy.encroach_posterior),
        side=padded(anatomy.side),
        breadth=padded(anatomy.breadth),
        lesion=padded(anatomy.lesion),
    )


def extended_source(source_s: FloatArray, scale: float) -> FloatArray:
    """Arc lengths in a semi-synthetic patient's subject, continued as `extended` continues the curve."""
    before, after = _added_samples()
    step = STEP_MM / scale
    return np.concatenate(
        [source_s[0] + step * np.arange(-before, 0), source_s, source_s[-1] + step * np.arange(1, after + 1)]
    )


def _added_samples() -> tuple[int, int]:
    return round(HEAD_MM / STEP_MM), round(FOOT_MM / STEP_MM)


def _extended_curve(curve: CanalCurve, discs: FloatArray, own: np.random.Generator) -> CanalCurve:
    before, after = _added_samples()
    up = -np.arange(before, 0, -1)[:, None] * -STEP_MM
    head = curve.centre[0] - up * curve.tangent[0]
    below = curve.s[-1] + STEP_MM * np.arange(1, after + 1)
    tangent, lateral, posterior = _lower_frames(curve, below, discs, own)
    centre = curve.centre[-1] + np.cumsum(tangent, axis=0) * STEP_MM

    def joined(first: FloatArray, middle: FloatArray, last: FloatArray) -> FloatArray:
        return np.concatenate([np.broadcast_to(first, (before, 3)), middle, last])

    return CanalCurve(
        s=curve.s[0] + STEP_MM * np.arange(-before, len(curve.s) + after),
        centre=joined(head, curve.centre, centre),
        tangent=joined(curve.tangent[0], curve.tangent, tangent),
        lateral=joined(curve.lateral[0], curve.lateral, lateral),
        posterior=joined(curve.posterior[0], curve.posterior, posterior),
    )


def _lower_frames(
    curve: CanalCurve, s: FloatArray, discs: FloatArray, own: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Frames (M, 3) along the chest and the loin, from the end of the curve on without a bend in it."""
    axes = _stack_axes(curve, discs)
    x, y, z = axes @ curve.tangent[-1]
    sagittal, coronal = np.rad2deg(np.arctan2(y, -z)), np.rad2deg(np.arcsin(x))
    # Angles from straight down, to the back: forwards at T12/L1, backwards in the lower loin.
    forward, backward = own.normal(-13.0, 3.0), own.normal(20.0, 4.0)
    first = s[0] + 30.0
    places = np.array([s[0], first, discs[T12_L1], discs[T12_L1 + 3], discs[L5_S1], s[-1]])
    angles = np.array([sagittal, sagittal, forward, 0.0, backward, backward + 25.0])
    theta = _smooth(np.interp(s, places, angles))
    # The spine returns to the plane of the neck, in which sagittal slices are planned, and stays in it.
    away = float(axes[0] @ (curve.centre[-1] - curve.to_patient(0.0, 0.0, 0.0)))
    away += np.sin(np.deg2rad(coronal)) * 70.0
    back = np.rad2deg(-away / 150.0)
    places = np.array([s[0], first, first + 80.0, first + 150.0, first + 230.0])
    phi = _smooth(np.interp(s, places, [coronal, coronal, back, back, 0.0]))
    theta, phi = np.deg2rad(theta), np.deg2rad(phi)
    tangent = np.stack([np.sin(phi), np.sin(theta) * np.cos(phi), -np.cos(theta) * np.cos(phi)], axis=1)
    tangent = tangent @ axes
    lateral = curve.lateral[-1] - (tangent @ curve.lateral[-1])[:, None] * tangent
    lateral /= np.linalg.norm(lateral, axis=1, keepdims=True)
    return tangent, lateral, np.cross(lateral, tangent)


def _stack_axes(curve: CanalCurve, discs: FloatArray) -> FloatArray:
    """Rows: normal, back and up of the sagittal stack that is planned on the neck; see `plan_sagittal`."""
    top, bottom = curve.to_patient(0.0, 0.0, discs[0]), curve.to_patient(0.0, 0.0, discs[5])
    down, left = bottom - top, curve.lateral[curve.index(0.0)]
    left = left - np.array([0.0, 0.0, 1.0]) * (left[2] + left[0] * down[0] / down[2])
    left = left / np.linalg.norm(left)
    back = np.cross([0.0, 0.0, 1.0], left)
    back /= np.linalg.norm(back)
    return np.stack([left, back, np.cross(left, back)])


def _smooth(angle: FloatArray) -> FloatArray:
    return np.asarray(np.convolve(np.pad(angle, 250, mode="edge"), np.ones(501) / 501.0, "valid"))
