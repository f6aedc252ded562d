"""Add kyphosis and scoliosis to the angles of a canal's curve."""

from __future__ import annotations

import numpy as np

from stenosis_trt.bench.phantom.patient.findings import Findings
from stenosis_trt.engine.geometry import FloatArray

MAX_KYPHOSIS = 45.0
"""Degrees of kyphosis between C2/3 and C7/T1 that no patient exceeds."""
_KYPHOSIS_MM = 55.0
"""Length over which the angle changes; the shorter, the more the apex stands out."""
_LOWER_SHARE = 0.3
"""Share of the kyphosis that tilts the tangent at the apex and below it forwards, not above it backwards."""
_UPRIGHT_MM = 30.0
"""Distance above C2/3 beyond which the head is held upright again."""
_UPRIGHT_SHARE = 0.5


def bend(
    sagittal: FloatArray, coronal: FloatArray, s: FloatArray, discs: FloatArray, findings: Findings
) -> tuple[FloatArray, FloatArray]:
    """Angles of the tangent with the patient's deformity, in degrees, float64 (M,) each.

    Args:
        sagittal, coronal: inclination of the tangent to the back and to the left, as in `curve_from_angles`.
        s: arc lengths in mm.
        discs: arc lengths of C2/3 to T3/4.
        findings: kyphosis is limited so that at most `MAX_KYPHOSIS` results.
    """
    if findings.deformity is None:
        return sagittal, coronal
    drawn = findings.deformity
    top, bottom = (int(np.argmin(np.abs(s - discs[k]))) for k in (0, 5))
    lordosis = float(sagittal[bottom] - sagittal[top])
    kyphosis = min(drawn.kyphosis, max(lordosis + MAX_KYPHOSIS, 0.0))
    apex = float(np.interp(drawn.apex, np.arange(len(discs)), discs))
    # Towards the feet the tangent turns forwards; above C2 half of the turn is taken back.
    turn = -np.tanh((s - apex) / _KYPHOSIS_MM)
    upright = 0.5 * (1.0 - np.tanh((s - discs[0] + _UPRIGHT_MM) / 15.0))
    turn = turn - _UPRIGHT_SHARE * upright * (turn[top] - turn[bottom])
    turn = turn / (turn[top] - turn[bottom])
    turn = turn - turn[bottom] - _LOWER_SHARE
    wave = np.sin(2.0 * np.pi * s / drawn.wavelength + drawn.phase)
    return sagittal + kyphosis * turn, coronal + drawn.scoliosis * wave
