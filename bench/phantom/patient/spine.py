"""Curve of the spinal canal, and canal coordinates along it.

Canal coordinates are `(u, v, s)` in mm: `s` is the arc length along the canal's centre line, 0 at disc C4/5
and increasing towards the feet; `u` points to the patient's left and `v` to the back, both perpendicular to
the line. Anatomy is defined in canal coordinates; this module converts them to patient coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import FloatArray

STEP_MM = 0.1
HEAD_END_MM = -150.0
FOOT_END_MM = 190.0


@dataclass(frozen=True)
class CanalCurve:
    """The centre line sampled every `STEP_MM`, with its moving frame, in patient coordinates (LPS, mm).

    Attributes:
        s: arc length, float64 (M,).
        centre: points on the line, float64 (M, 3).
        tangent, lateral, posterior: orthonormal frame, float64 (M, 3) each: towards the feet,
            the patient's left, and the back.
    """

    s: FloatArray
    centre: FloatArray
    tangent: FloatArray
    lateral: FloatArray
    posterior: FloatArray

    def index(self, s: npt.ArrayLike) -> npt.NDArray[np.intp]:
        """Index of the sample nearest to arc length `s`, clamped to the ends."""
        rows = np.rint((np.asarray(s) - self.s[0]) / STEP_MM).astype(np.intp)
        return np.asarray(np.clip(rows, 0, len(self.s) - 1))

    @cached_property
    def _along_axis(self) -> FloatArray:
        """Projection of each sample on the line from the first to the last, non-decreasing, (M,)."""
        along = (self.centre - self.centre[0]) @ (self.centre[-1] - self.centre[0])
        return np.asarray(np.maximum.accumulate(along))

    @cached_property
    def _coordinates(self) -> tuple[list[FloatArray], ...]:
        """x, y and z of centre, tangent, lateral and posterior, (M,) each."""
        tables = (self.centre, self.tangent, self.lateral, self.posterior)
        return tuple([np.ascontiguousarray(rows[:, k]) for k in range(3)] for rows in tables)

    def to_patient(self, u: npt.ArrayLike, v: npt.ArrayLike, s: npt.ArrayLike) -> FloatArray:
        """Convert canal coordinates (broadcast together) to patient points, float64 (..., 3), LPS, mm."""
        row = self.index(s)
        lateral, posterior = np.asarray(u)[..., None], np.asarray(v)[..., None]
        points = self.centre[row] + lateral * self.lateral[row] + posterior * self.posterior[row]
        return np.asarray(points, dtype=np.float64)

    def to_canal(self, points: npt.ArrayLike) -> FloatArray:
        """Convert patient points (..., 3), LPS, mm, to canal coordinates (u, v, s), (..., 3).

        Damped Newton iteration on the foot of the perpendicular: exact to `STEP_MM` near the canal, a smooth
        continuation far from it.
        """
        patient = np.asarray(points, dtype=np.float64)
        axis = self.centre[-1] - self.centre[0]
        s = np.interp((patient - self.centre[0]) @ axis, self._along_axis, self.s)
        # One array per coordinate is four times as fast as rows of three.
        place = [patient[..., k].copy() for k in range(3)]
        centre, tangent, lateral, posterior = self._coordinates

        def offset(row: npt.NDArray[np.intp]) -> list[FloatArray]:
            return [x - line.take(row) for x, line in zip(place, centre, strict=True)]

        def product(
            vector: list[FloatArray], rows: list[FloatArray], row: npt.NDArray[np.intp]
        ) -> FloatArray:
            x, y, z = (part * line.take(row) for part, line in zip(vector, rows, strict=True))
            return np.asarray(x + y + z)

        for _ in range(6):
            row = self.index(s)
            s = s + 0.8 * product(offset(row), tangent, row)
            s = np.clip(s, self.s[0], self.s[-1])
        row = self.index(s)
        away = offset(row)
        return np.stack([product(away, lateral, row), product(away, posterior, row), s], axis=-1)


@dataclass(frozen=True)
class Posture:
    """Curvature, rotation and position of the spine. Angles in degrees, lengths in mm."""

    sagittal_tilt: float
    lordosis: float
    thoracic_kyphosis: float
    scoliosis: float
    scoliosis_phase: float
    roll: float
    yaw: float
    pitch: float
    shift: tuple[float, float, float]


def sample_posture(rng: np.random.Generator) -> Posture:
    """Draw a posture: lordotic to kyphotic, with slight scoliosis and rotation."""
    return Posture(
        sagittal_tilt=rng.normal(9.0, 5.0),
        lordosis=float(np.clip(rng.normal(17.0, 14.0), -16.0, 45.0)),
        thoracic_kyphosis=rng.uniform(12.0, 28.0),
        scoliosis=rng.normal(0.0, 2.2),
        scoliosis_phase=rng.uniform(0.0, 2.0 * np.pi),
        roll=rng.normal(0.0, 2.5),
        yaw=rng.normal(0.0, 3.5),
        pitch=rng.normal(0.0, 2.5),
        shift=(rng.normal(0.0, 4.0), rng.normal(0.0, 8.0), rng.normal(0.0, 9.0)),
    )


def rotation_matrix(roll: float, pitch: float, yaw: float) -> FloatArray:
    """Rotation by degrees about the back–front, left–right and head–foot axes, float64 (3, 3)."""
    roll, pitch, yaw = np.deg2rad([roll, pitch, yaw])
    about_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


Bend = Callable[[FloatArray, FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
"""Changes sagittal and coronal angles along arc lengths, as `curve_from_angles` takes them."""


def curve_from_posture(posture: Posture, cervical_length: float, bend: Bend | None = None) -> CanalCurve:
    """Build the canal's curve of a posture.

    Args:
        posture: see `Posture`.
        cervical_length: mm from disc C2/3 to disc C7/T1, over which the lordosis is distributed.
        bend: applied to the angles (sagittal, coronal, arc length) of the posture.
    """
    s = np.arange(HEAD_END_MM, FOOT_END_MM + STEP_MM / 2, STEP_MM)
    # Bending saturates above C1 and turns into the thoracic kyphosis below C7/T1.
    cervical = np.clip(s / cervical_length, -0.75, 0.62)
    thoracic = np.clip((s - 0.62 * cervical_length) / 90.0, 0.0, 1.2)
    sagittal = posture.sagittal_tilt + posture.lordosis * cervical - posture.thoracic_kyphosis * thoracic
    coronal = posture.scoliosis * np.sin(2.0 * np.pi * s / 160.0 + posture.scoliosis_phase)
    # 50 mm wide, so that outlines far from the canal have no corner where bending begins.
    smooth = np.ones(501) / 501.0
    sagittal, coronal = (
        np.convolve(np.pad(angle, 250, mode="edge"), smooth, "valid") for angle in (sagittal, coronal)
    )
    if bend is not None:
        sagittal, coronal = bend(sagittal, coronal, s)
    return curve_from_angles(
        s,
        sagittal,
        coronal,
        rotation_matrix(posture.roll, posture.pitch, posture.yaw),
        np.asarray(posture.shift),
    )


def curve_from_angles(
    s: FloatArray, sagittal: FloatArray, coronal: FloatArray, turn: FloatArray, shift: FloatArray
) -> CanalCurve:
    """Integrate a curve from the angles of its tangent.

    Args:
        s: arc length in mm every `STEP_MM`, float64 (M,).
        sagittal, coronal: inclination of the tangent from straight down, to the back and to the left, in
            degrees, float64 (M,).
        turn: rotation of the curve about the point of arc length 0, float64 (3, 3).
        shift: position of that point, LPS, mm, float64 (3,).
    """
    theta, phi = np.deg2rad(sagittal), np.deg2rad(coronal)
    tangent = np.stack([np.sin(phi), np.sin(theta) * np.cos(phi), -np.cos(theta) * np.cos(phi)], axis=1)
    posterior = np.stack([np.zeros_like(s), np.cos(theta), np.sin(theta)], axis=1)
    lateral = np.cross(tangent, posterior)
    centre = np.cumsum(tangent, axis=0) * STEP_MM
    centre -= centre[np.argmin(np.abs(s))]
    return CanalCurve(
        s=s,
        centre=centre @ turn.T + shift,
        tangent=tangent @ turn.T,
        lateral=lateral @ turn.T,
        posterior=posterior @ turn.T,
    )
