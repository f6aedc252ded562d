"""Deformation of tissue by a stenosis: map from a patient's points to those of the healthy subject.

Along each line from front to back the walls move inwards by the encroachment; the CSF between wall and cord
shrinks first, then the cord. Outside the walls, disc and ligament are stretched over `_STRETCH_MM`. Across,
the cord widens as the anatomy prescribes. The map is piecewise linear between wall, cord, cord and wall, and
hence continuous and free of folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stenosis_trt.bench.phantom.shapes import Array
from stenosis_trt.bench.semisynthetic.anatomy import SemisyntheticPatient
from stenosis_trt.engine.geometry import FloatArray

_STRETCH_MM = 11.0
_FADE_MM = 5.0
_THIN = np.float32(1e-3)


@dataclass(frozen=True)
class DeformedOutline:
    """The patient's cord and lesion at some points, flat float32 (N,) each, lengths in mm."""

    cord_u: Array
    cord_v: Array
    cord_centre: Array
    lesion: Array


class Deformation:
    """Map from a patient's canal coordinates to the subject's."""

    def __init__(self, patient: SemisyntheticPatient) -> None:
        anatomy, canal = patient.anatomy, patient.subject.canal
        rows = canal.curve.index(patient.source_s)
        self._first, self._step = anatomy.curve.s[0], anatomy.curve.s[1] - anatomy.curve.s[0]
        self._scale = np.float32(anatomy.scale)
        self._mirror = np.float32(-1.0 if patient.mirrored else 1.0)
        self._patient = _table(
            patient.source_s,
            anatomy.cord_ap / 2,
            anatomy.cord_transverse / 2,
            anatomy.cord_centre,
            anatomy.sac_ap / 2,
            anatomy.sac_transverse / 2,
        )
        self._pressing = _table(
            anatomy.encroach_anterior,
            anatomy.encroach_posterior,
            anatomy.side,
            anatomy.breadth,
            anatomy.lesion,
        )
        self._subject = _table(
            canal.cord_ap[rows] / 2,
            canal.cord_transverse[rows] / 2,
            canal.cord_centre[rows],
            canal.sac_ap[rows] / 2,
            canal.sac_transverse[rows] / 2,
        )

    def to_subject(self, u: Array, v: Array, s: Array) -> tuple[Array, Array, Array, DeformedOutline]:
        """Map the patient's (u, v, s) to the subject's (u, v, s), flat float32 (N,) each.

        The fourth value is the patient's cord and lesion at these points.
        """
        row = np.clip(np.rint((s - self._first) / self._step).astype(np.int32), 0, self._patient.shape[1] - 1)
        source_s, cord_v, cord_u, centre, sac_v, sac_u = self._patient[:, row]
        front, back, side, breadth, lesion = self._pressing[:, row]
        cord_v0, cord_u0, centre0, sac_v0, sac_u0 = self._subject[:, row]
        # Across: the mid-line, the cord's edge and the sac's edge map to those of the subject.
        away = np.abs(u)
        across = _between(away, (cord_u, sac_u), (cord_u0, sac_u0), self._scale)
        beyond = np.clip((np.abs(v) - sac_v) / _FADE_MM, 0.0, 1.0)
        source_u = np.sign(u) * (across + beyond * (away / self._scale - across))

        # From front to back, on the line through u. The subject's outlines are taken at `across`, where the
        # line crosses the sac; `source_u` varies beyond the walls and would fold tissue.
        out = np.sqrt(np.clip(1.0 - (u / sac_u) ** 2, 0.0, 1.0))
        out0 = np.sqrt(np.clip(1.0 - (across / sac_u0) ** 2, 0.0, 1.0))
        lean = np.exp(0.5 * (side / breadth) ** 2 - 0.5 * ((u - side) / breadth) ** 2)
        pushed_front = front * lean * out
        pushed_back = back * np.exp(-0.5 * (u / breadth) ** 2) * out
        wall, wall0 = sac_v * out, sac_v0 * out0
        near, far = -wall + pushed_front, wall - pushed_back
        middle = (near + far) / 2
        crossed = near > far
        near, far = np.where(crossed, middle, near), np.where(crossed, middle, far)
        round_ = np.sqrt(np.clip(1.0 - (u / cord_u) ** 2, 0.0, 1.0))
        round0 = np.sqrt(np.clip(1.0 - (across / cord_u0) ** 2, 0.0, 1.0))
        cord_front = np.clip(centre - cord_v * round_, near, far)
        cord_back = np.clip(centre + cord_v * round_, near, far)
        front0 = np.clip(centre0 - cord_v0 * round0, -wall0, wall0)
        back0 = np.clip(centre0 + cord_v0 * round0, -wall0, wall0)
        drawn = _STRETCH_MM * self._scale
        source_v = _piecewise(
            v,
            (-wall - drawn, near, cord_front, cord_back, far, wall + drawn),
            (-wall0 - _STRETCH_MM, -wall0, front0, back0, wall0, wall0 + _STRETCH_MM),
            self._scale,
        )
        return source_u * self._mirror, source_v, source_s, DeformedOutline(cord_u, cord_v, centre, lesion)


def _table(*profiles: FloatArray) -> Array:
    return np.stack(profiles).astype(np.float32)


def _between(x: Array, knots: tuple[Array, Array], targets: tuple[Array, Array], scale: np.float32) -> Array:
    """Map x ≥ 0 piecewise linearly: 0 to 0, each knot to its target, with slope 1 / scale beyond the last."""
    first, last = knots
    low = x * (targets[0] / first)
    middle = targets[0] + (x - first) * ((targets[1] - targets[0]) / np.maximum(last - first, _THIN))
    high = targets[1] + (x - last) / scale
    return np.where(x < first, low, np.where(x < last, middle, high))


def _piecewise(x: Array, knots: tuple[Array, ...], targets: tuple[Array, ...], scale: np.float32) -> Array:
    """Map x piecewise linearly between ascending knots, which may coincide; with slope 1 / scale outside."""
    result = targets[0] + (x - knots[0]) / scale
    for low, high, start, end in zip(knots[:-1], knots[1:], targets[:-1], targets[1:], strict=True):
        share = (x - low) / np.maximum(high - low, _THIN)
        result = np.where(x >= low, start + np.clip(share, 0.0, 1.0) * (end - start), result)
    return np.where(x >= knots[-1], targets[-1] + (x - knots[-1]) / scale, result)
