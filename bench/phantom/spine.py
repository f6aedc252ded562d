"""The course of the spinal canal: a smooth curve in the patient, and coordinates along it.

Canal coordinates are `(u, v, s)` in mm: `s` the arc length along the canal's centre line, zero at
disc C4/5 and growing towards the feet; `u` towards the patient's left and `v` towards the back,
both perpendicular to the line. Everything anatomical is defined in them; only this module knows
how they lie in the patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

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
        """Row of the tables nearest to arc length `s`, clamped to the ends."""
        rows = np.rint((np.asarray(s) - self.s[0]) / STEP_MM).astype(np.intp)
        return np.asarray(np.clip(rows, 0, len(self.s) - 1))

    @cached_property
    def _along_axis(self) -> FloatArray:
        """Place of each row along the straight line from the first to the last, never falling, (M,)."""
        along = (self.centre - self.centre[0]) @ (self.centre[-1] - self.centre[0])
        return np.asarray(np.maximum.accumulate(along))

    @cached_property
    def _coordinates(self) -> tuple[list[FloatArray], ...]:
        """x, y and z of centre, tangent, lateral and posterior, (M,) each."""
        tables = (self.centre, self.tangent, self.lateral, self.posterior)
        return tuple([np.ascontiguousarray(rows[:, k]) for k in range(3)] for rows in tables)

    def to_patient(self, u: npt.ArrayLike, v: npt.ArrayLike, s: npt.ArrayLike) -> FloatArray:
        """Canal coordinates (broadcast together) → patient points `(..., 3)` in mm."""
        row = self.index(s)
        lateral, posterior = np.asarray(u)[..., None], np.asarray(v)[..., None]
        points = self.centre[row] + lateral * self.lateral[row] + posterior * self.posterior[row]
        return np.asarray(points, dtype=np.float64)

    def to_canal(self, points: npt.ArrayLike) -> FloatArray:
        """Patient points `(..., 3)` in mm → `(..., 3)` as (u, v, s).

        A Newton iteration on the foot of the perpendicular; exact to the table's step near the
        canal, where anatomy is fine, and a smooth continuation far from it.
        """
        patient = np.asarray(points, dtype=np.float64)
        axis = self.centre[-1] - self.centre[0]
        s = np.interp((patient - self.centre[0]) @ axis, self._along_axis, self.s)
        # One array a coordinate: reading rows of three takes four times as long.
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
    """What bends and turns the spine. Angles in degrees, lengths in mm."""

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
    """Lordotic to kyphotic, with some scoliosis and a head that never lies quite straight."""
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
    """Turns in degrees about the back–front, left–right and head–foot axes, float64 (3, 3)."""
    roll, pitch, yaw = np.deg2rad([roll, pitch, yaw])
    about_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def curve_from_posture(posture: Posture, cervical_length: float) -> CanalCurve:
    """Integrate the tangent's angles along the line.

    Args:
        posture: see `Posture`.
        cervical_length: mm from disc C2/3 to disc C7/T1, over which the lordosis is spread.
    """
    s = np.arange(HEAD_END_MM, FOOT_END_MM + STEP_MM / 2, STEP_MM)
    # Bending saturates above C1 and turns into the thoracic kyphosis below C7/T1.
    cervical = np.clip(s / cervical_length, -0.75, 0.62)
    thoracic = np.clip((s - 0.62 * cervical_length) / 90.0, 0.0, 1.2)
    sagittal = posture.sagittal_tilt + posture.lordosis * cervical - posture.thoracic_kyphosis * thoracic
    coronal = posture.scoliosis * np.sin(2.0 * np.pi * s / 160.0 + posture.scoliosis_phase)
    # Wide enough that outlines far in front of and behind the canal have no corner where bending sets in.
    smooth = np.ones(501) / 501.0
    sagittal, coronal = (
        np.convolve(np.pad(angle, 250, mode="edge"), smooth, "valid") for angle in (sagittal, coronal)
    )
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
    """The curve whose tangent leans by these angles, in degrees, from straight down.

    Args:
        s: arc length in mm every `STEP_MM`, float64 (M,); the point where it is 0 comes to lie at `shift`.
        sagittal: lean to the back, float64 (M,).
        coronal: lean to the left, float64 (M,).
        turn: rotation of the whole about that point, float64 (3, 3).
        shift: where that point lies, LPS, mm, float64 (3,).
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
