"""Trace the spinal canal of a T2 volume, and measure cord and dural sac along it.

The first curve interpolates manual marks. In planes across it, rays are cast from the cord's centre: the cord
ends where the signal has risen half-way to that of CSF, the sac where it has fallen half-way from there. The
centres of the outlines give the next curve; `_ITERATIONS` iterations suffice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from scipy import interpolate, ndimage

from stenosis_trt.bench.phantom.patient.spine import (
    FOOT_END_MM,
    HEAD_END_MM,
    STEP_MM,
    CanalCurve,
    curve_from_angles,
)
from stenosis_trt.bench.semisynthetic.subjects import Subject
from stenosis_trt.engine.geometry import FloatArray

_PLANE_MM = 1.0
_RAY_MM = 0.25
_RAYS = 48
_CORD_RADII_MM = (2.0, 8.5)
"""Bounds of the cord's radius along any ray, from the medulla to the upper thorax."""
_LATERAL_CORRECTION_MM = 0.25
"""Correction of the cord's lateral radius, scaled with sin² of the ray's angle: roots and ligaments beside
the cord are as dark as it is. Without the correction the transverse diameter, C2/3 to C7/T1, exceeds that of
the manual masks of errsm_11, errsm_18 and PAM50 by 0.6, 0.3 and 0.8 mm."""
_MAX_RADIUS_MM = 13.0
_SMOOTHING_MM = 2.5
"""Standard deviation of the smoothing along the canal; outlines of a healthy cord vary over centimetres."""
_ITERATIONS = 3
_MARGIN_MM = 4.0


class NiftiVolume:
    """A NIfTI volume that is sampled at LPS points; `data` is float32."""

    def __init__(self, path: Path) -> None:
        image = nibabel.Nifti1Image.from_filename(path)
        self.data = np.asarray(image.dataobj, dtype=np.float32)
        # NIfTI's axes are RAS; DICOM's are LPS.
        self.to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
        self.from_lps = np.linalg.inv(self.to_lps)

    @property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest LPS coordinates of voxel centres, mm, float64 (3,) each."""
        corners = np.array(np.meshgrid(*[(0, size - 1) for size in self.data.shape])).reshape(3, -1)
        points = self.to_lps[:3, :3] @ corners + self.to_lps[:3, 3:]
        return points.min(axis=1), points.max(axis=1)

    def voxels(self, points: npt.ArrayLike) -> FloatArray:
        """Convert LPS points (..., 3) to voxel coordinates (3, ...)."""
        return np.moveaxis(np.asarray(points) @ self.from_lps[:3, :3].T + self.from_lps[:3, 3], -1, 0)

    def sample(self, points: npt.ArrayLike, order: int = 1) -> npt.NDArray[np.float32]:
        """Interpolate at LPS points (..., 3) with splines of an order; 0 outside."""
        return np.asarray(
            ndimage.map_coordinates(self.data, self.voxels(points), order=order, mode="constant"),
            dtype=np.float32,
        )

    def covers(self, points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """True for the LPS points (..., 3) that lie within the volume."""
        voxels = self.voxels(points)
        size = np.array(self.data.shape).reshape(3, *[1] * (voxels.ndim - 1))
        return np.asarray(((voxels >= 0) & (voxels <= size - 1)).all(axis=0))


@dataclass(frozen=True)
class Canal:
    """Canal of a volume. Profiles along `curve.s`, float64 (M,), in mm.

    Attributes:
        curve: smooth line along the centre of the sac.
        sagittal, coronal: inclination of its tangent in degrees; see `course`.
        first, last: range of arc lengths that the volume covers.
        middle_u, middle_v: offset of the sac's centre from the curve; the origin of the following profiles.
        cord_ap, cord_transverse: diameters of the ellipse with the second moments of the cord's outline.
        cord_centre: v of the cord's centre.
        sac_ap, sac_transverse: diameters of the dural sac through its centre.
    """

    curve: CanalCurve
    sagittal: FloatArray
    coronal: FloatArray
    first: float
    last: float
    middle_u: FloatArray
    middle_v: FloatArray
    cord_ap: FloatArray
    cord_transverse: FloatArray
    cord_centre: FloatArray
    sac_ap: FloatArray
    sac_transverse: FloatArray

    def to_patient(self, u: npt.ArrayLike, v: npt.ArrayLike, s: npt.ArrayLike) -> FloatArray:
        """Convert canal coordinates relative to the sac's centre to patient points (..., 3), LPS, mm."""
        row = self.curve.index(s)
        u, v = np.asarray(u) + self.middle_u[row], np.asarray(v) + self.middle_v[row]
        return self.curve.to_patient(u, v, s)


def trace_canal(volume: NiftiVolume, subject: Subject, origin: npt.ArrayLike) -> Canal:
    """Trace the canal of a subject.

    Args:
        volume: the subject's T2 volume.
        subject: provides the initial marks.
        origin: LPS, mm, (3,); arc length is 0 at the nearest point of the canal.
    """
    points, middle = np.array(subject.cord), np.asarray(origin, dtype=np.float64)
    for _ in range(_ITERATIONS):
        curve, *_ = _fit_curve(points, middle)
        stations, outlines = _outlines(volume, curve)
        points = curve.to_patient(outlines.middle_u, outlines.middle_v, stations)
    curve, sagittal, coronal = _fit_curve(points, middle)
    stations, outlines = _outlines(volume, curve)

    def profile(values: FloatArray) -> FloatArray:
        return np.interp(curve.s, stations, values)

    return Canal(
        curve=curve,
        sagittal=sagittal,
        coronal=coronal,
        first=float(stations[0]),
        last=float(stations[-1]),
        middle_u=profile(outlines.middle_u),
        middle_v=profile(outlines.middle_v),
        cord_ap=profile(outlines.cord_ap),
        cord_transverse=profile(outlines.cord_transverse),
        cord_centre=profile(outlines.cord_v - outlines.middle_v),
        sac_ap=profile(outlines.sac_ap),
        sac_transverse=profile(outlines.sac_transverse),
    )


def _fit_curve(points: FloatArray, origin: FloatArray) -> tuple[CanalCurve, FloatArray, FloatArray]:
    """Fit a smooth curve to points from head to foot, straight beyond them; also return its angles."""
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    # Tolerance of 0.5 mm: the points are manual marks, or lie on voxels.
    smoothing = len(points) * 0.25
    splines = [interpolate.UnivariateSpline(chord, points[:, k], k=3, s=smoothing) for k in range(3)]
    fine = np.arange(0.0, chord[-1], STEP_MM)
    line = np.stack([spline(fine) for spline in splines], axis=1)
    zero = int(np.argmin(np.linalg.norm(line - origin, axis=1)))
    tangent = np.stack([spline.derivative()(fine) for spline in splines], axis=1)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    s = np.arange(HEAD_END_MM, FOOT_END_MM + STEP_MM / 2, STEP_MM)
    at = fine - fine[zero]
    sagittal = np.interp(s, at, np.rad2deg(np.arctan2(tangent[:, 1], -tangent[:, 2])))
    coronal = np.interp(s, at, np.rad2deg(np.arcsin(tangent[:, 0])))
    return curve_from_angles(s, sagittal, coronal, np.eye(3), line[zero]), sagittal, coronal


@dataclass(frozen=True)
class _Outlines:
    """Profiles along the stations in mm; `middle_*` is the sac's centre relative to the present curve."""

    middle_u: FloatArray
    middle_v: FloatArray
    cord_v: FloatArray
    cord_ap: FloatArray
    cord_transverse: FloatArray
    sac_ap: FloatArray
    sac_transverse: FloatArray


def _outlines(volume: NiftiVolume, curve: CanalCurve) -> tuple[FloatArray, _Outlines]:
    """Measure outlines in the planes that the volume covers with a margin; return stations and outlines."""
    stations = np.arange(curve.s[0], curve.s[-1], _PLANE_MM)
    inside = volume.covers(
        curve.to_patient(0.0, 0.0, stations[:, None] + np.array([-_MARGIN_MM, _MARGIN_MM]))
    )
    stations = stations[inside.all(axis=1)]
    # Rays start at the curve first, then at the centre of the outline that was found.
    cord, _ = _edges(volume, curve, stations, np.zeros((2, len(stations))))
    middle, _ = _moments(cord)
    cord, sac = _edges(volume, curve, stations, middle)
    offset, diameters = _moments(cord)
    cord_u, cord_v = middle + offset
    half = _RAYS // 2
    quarter = _RAYS // 4
    front, back, left, right = sac[:, half], sac[:, 0], sac[:, quarter], sac[:, half + quarter]
    smooth = [
        ndimage.gaussian_filter1d(values, _SMOOTHING_MM / _PLANE_MM, mode="nearest")
        for values in (
            cord_u,
            middle[1] + (back - front) / 2,
            cord_v,
            diameters[1],
            diameters[0],
            front + back,
            left + right,
        )
    ]
    return stations, _Outlines(*smooth)


def _directions() -> tuple[FloatArray, FloatArray]:
    """u and v of the rays' directions: the first points to the back, the following turn to the left."""
    angle = np.arange(_RAYS) * 2 * np.pi / _RAYS
    return np.sin(angle), np.cos(angle)


def _edges(
    volume: NiftiVolume, curve: CanalCurve, stations: FloatArray, middle: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Radii of cord and sac from `middle`, float64 (stations, rays) each."""
    radius = np.arange(0.0, _MAX_RADIUS_MM, _RAY_MM)
    across, behind = _directions()
    u = middle[0][:, None, None] + across[:, None] * radius
    v = middle[1][:, None, None] + behind[:, None] * radius
    signal = volume.sample(curve.to_patient(u, v, np.broadcast_to(stations[:, None, None], u.shape)))
    signal = ndimage.gaussian_filter(
        signal, (_SMOOTHING_MM / _PLANE_MM, 1.0, 1.0), mode=["nearest", "wrap", "nearest"]
    )
    core = np.median(signal[:, :, radius < 1.5], axis=(1, 2))[:, None]
    first, last = np.searchsorted(radius, _CORD_RADII_MM)
    bright = signal[:, :, first : last + 8]
    peak_at = first + bright.argmax(axis=2)
    peak = bright.max(axis=2)
    beyond = radius[None, None] > radius[peak_at][:, :, None]
    cord = (
        _crossing(signal, radius, (core + peak) / 2, ~beyond, rising=True)
        - _LATERAL_CORRECTION_MM * across**2
    )
    sac = _crossing(signal, radius, peak / 2, beyond, rising=False)
    return _without_outliers(cord), _without_outliers(sac)


def _crossing(
    signal: npt.NDArray[np.float32],
    radius: FloatArray,
    level: FloatArray,
    where: npt.NDArray[np.bool_],
    rising: bool,
) -> FloatArray:
    """Radius at which each ray crosses `level`: the last rise before its peak, or the first fall after it.

    NaN for a ray without a crossing in `where`.
    """
    above = signal >= level[..., None]
    step = (~above[..., :-1] & above[..., 1:]) if rising else (above[..., :-1] & ~above[..., 1:])
    step &= where[..., 1:] if rising else where[..., :-1] | where[..., 1:]
    found = step.any(axis=-1)
    index = step.shape[-1] - 1 - step[..., ::-1].argmax(axis=-1) if rising else step.argmax(axis=-1)
    below = np.take_along_axis(signal, index[..., None], axis=-1)[..., 0]
    after = np.take_along_axis(signal, index[..., None] + 1, axis=-1)[..., 0]
    share = (level - below) / np.where(after == below, 1.0, after - below)
    return np.where(found, radius[index] + np.clip(share, 0.0, 1.0) * _RAY_MM, np.nan)


def _without_outliers(radii: FloatArray) -> FloatArray:
    """Remove outliers from radii: median filter along the canal, then low-pass filter over the angle."""
    middle = np.nanmedian(radii, axis=0)
    filled = np.where(np.isfinite(radii), radii, middle)
    steady = ndimage.median_filter(np.pad(filled, ((0, 0), (1, 1)), mode="wrap"), size=(7, 3))[:, 1:-1]
    spectrum = np.fft.rfft(steady, axis=1)
    spectrum[:, 5:] = 0.0
    return np.asarray(np.fft.irfft(spectrum, _RAYS, axis=1))


def _moments(radii: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centroids (2, stations) and diameters (2, stations) along u and v of star-shaped outlines.

    The diameters are those of the ellipse with the same second moments, as in `sct_process_segmentation` of
    the Spinal Cord Toolbox. Integrals are taken in polar coordinates: ∫∫ f r dr dθ.
    """
    across, behind = _directions()
    step = 2 * np.pi / _RAYS
    area = (radii**2).sum(axis=1) * step / 2
    centre = np.stack([(radii**3 * axis).sum(axis=1) * step / 3 / area for axis in (across, behind)])
    second = np.stack([(radii**4 * axis**2).sum(axis=1) * step / 4 / area for axis in (across, behind)])
    return centre, 4.0 * np.sqrt(second - centre**2)
