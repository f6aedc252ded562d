"""Where a volume's canal runs, and how wide the cord and its sac are along it.

The course begins with points marked by hand. In planes across it rays leave the middle of the cord: the
cord ends where the signal has risen half-way to the CSF's, the sac where it has fallen half-way from there.
The middle of the outlines is the next course, and so on until it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from scipy import interpolate, ndimage

from stenosis_trt.bench.phantom.spine import FOOT_END_MM, HEAD_END_MM, STEP_MM, CanalCurve, curve_from_angles
from stenosis_trt.bench.semisynthetic.subjects import Subject
from stenosis_trt.engine.geometry import FloatArray

_PLANE_MM = 1.0
_RAY_MM = 0.25
_RAYS = 48
_CORD_MM = (2.0, 8.5)
"""Radii between which the cord's edge lies, along any ray, from the medulla to the upper thorax."""
_SIDEWAYS_MM = 0.25
"""By how much less the cord reaches straight sideways than the signal says; in proportion to sin² elsewhere.
Roots and ligaments leave the cord there, as dark as it is. Without this the transverse diameter, C2/3 to
C7/T1, is 0.6, 0.3 and 0.8 mm larger than that of the manual masks of errsm_11, errsm_18 and PAM50."""
_SAC_MM = 13.0
_ALONG_MM = 2.5
"""Deviation of the smoothing along the canal; the outlines of a healthy cord change over centimetres."""
_ROUNDS = 3
_MARGIN_MM = 4.0


class NiftiVolume:
    """A NIfTI volume that can be sampled at LPS points; `data` is float32."""

    def __init__(self, path: Path) -> None:
        image = nibabel.Nifti1Image.from_filename(path)
        self.data = np.asarray(image.dataobj, dtype=np.float32)
        # NIfTI's axes are RAS; DICOM's are LPS.
        self.to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
        self.from_lps = np.linalg.inv(self.to_lps)

    @property
    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest LPS coordinates of voxels, mm, float64 (3,) each."""
        corners = np.array(np.meshgrid(*[(0, size - 1) for size in self.data.shape])).reshape(3, -1)
        points = self.to_lps[:3, :3] @ corners + self.to_lps[:3, 3:]
        return points.min(axis=1), points.max(axis=1)

    def voxels(self, points: npt.ArrayLike) -> FloatArray:
        """LPS points (..., 3) → voxel coordinates (3, ...)."""
        return np.moveaxis(np.asarray(points) @ self.from_lps[:3, :3].T + self.from_lps[:3, 3], -1, 0)

    def sample(self, points: npt.ArrayLike, order: int = 1) -> npt.NDArray[np.float32]:
        """Spline values of an order at LPS points (..., 3); 0 outside."""
        return np.asarray(
            ndimage.map_coordinates(self.data, self.voxels(points), order=order, mode="constant"),
            dtype=np.float32,
        )

    def covers(self, points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which LPS points (..., 3) lie between the first and the last voxel."""
        voxels = self.voxels(points)
        size = np.array(self.data.shape).reshape(3, *[1] * (voxels.ndim - 1))
        return np.asarray(((voxels >= 0) & (voxels <= size - 1)).all(axis=0))


@dataclass(frozen=True)
class Canal:
    """A volume's canal. Profiles are along `curve.s`, float64 (M,), in mm.

    Attributes:
        curve: a smooth line along the middle of the sac; zero where `origin` was asked for.
        sagittal, coronal: lean of its tangent in degrees, as `course` takes it.
        first, last: arc length between which the volume shows the canal.
        middle_u, middle_v: the sac's middle beside that line. Everything else is measured from this middle.
        cord_ap, cord_transverse: diameters of the ellipse with the cord outline's second moments.
        cord_centre: v of the cord's middle.
        sac_ap, sac_transverse: width of the dural sac through its middle.
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
        """Canal coordinates from the sac's middle → patient points (..., 3), LPS, mm."""
        row = self.curve.index(s)
        u, v = np.asarray(u) + self.middle_u[row], np.asarray(v) + self.middle_v[row]
        return self.curve.to_patient(u, v, s)


def trace_canal(volume: NiftiVolume, subject: Subject, origin: npt.ArrayLike) -> Canal:
    """Find the canal of a subject.

    Args:
        volume: its T2 volume.
        subject: whose marks to begin with.
        origin: LPS, mm, (3,): the point nearest to it on the canal has arc length 0.
    """
    points, middle = np.array(subject.cord), np.asarray(origin, dtype=np.float64)
    for _ in range(_ROUNDS):
        curve, *_ = _through(points, middle)
        stations, outlines = _outlines(volume, curve)
        points = curve.to_patient(outlines.middle_u, outlines.middle_v, stations)
    curve, sagittal, coronal = _through(points, middle)
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


def _through(points: FloatArray, origin: FloatArray) -> tuple[CanalCurve, FloatArray, FloatArray]:
    """A smooth curve through points from head to foot, straight beyond them, and its angles in degrees."""
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    # Half a millimetre off the points is allowed: they were marked by hand, or lie on voxels.
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
    """Along the stations, in mm; `middle_*` is the sac's middle as the present curve sees it."""

    middle_u: FloatArray
    middle_v: FloatArray
    cord_v: FloatArray
    cord_ap: FloatArray
    cord_transverse: FloatArray
    sac_ap: FloatArray
    sac_transverse: FloatArray


def _outlines(volume: NiftiVolume, curve: CanalCurve) -> tuple[FloatArray, _Outlines]:
    """Outlines in the planes whose neighbourhood the volume shows."""
    stations = np.arange(curve.s[0], curve.s[-1], _PLANE_MM)
    inside = volume.covers(
        curve.to_patient(0.0, 0.0, stations[:, None] + np.array([-_MARGIN_MM, _MARGIN_MM]))
    )
    stations = stations[inside.all(axis=1)]
    # First from where the curve runs, then from the middle of what was found.
    cord, _ = _edges(volume, curve, stations, np.zeros((2, len(stations))))
    middle, _ = _moments(cord)
    cord, sac = _edges(volume, curve, stations, middle)
    offset, diameters = _moments(cord)
    cord_u, cord_v = middle + offset
    half = _RAYS // 2
    quarter = _RAYS // 4
    front, back, left, right = sac[:, half], sac[:, 0], sac[:, quarter], sac[:, half + quarter]
    smooth = [
        ndimage.gaussian_filter1d(values, _ALONG_MM / _PLANE_MM, mode="nearest")
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
    """u and v of the rays: the first runs to the back, then on to the left."""
    angle = np.arange(_RAYS) * 2 * np.pi / _RAYS
    return np.sin(angle), np.cos(angle)


def _edges(
    volume: NiftiVolume, curve: CanalCurve, stations: FloatArray, middle: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Radii of cord and sac from `middle`, float64 (stations, rays) each."""
    radius = np.arange(0.0, _SAC_MM, _RAY_MM)
    across, behind = _directions()
    u = middle[0][:, None, None] + across[:, None] * radius
    v = middle[1][:, None, None] + behind[:, None] * radius
    signal = volume.sample(curve.to_patient(u, v, np.broadcast_to(stations[:, None, None], u.shape)))
    signal = ndimage.gaussian_filter(
        signal, (_ALONG_MM / _PLANE_MM, 1.0, 1.0), mode=["nearest", "wrap", "nearest"]
    )
    core = np.median(signal[:, :, radius < 1.5], axis=(1, 2))[:, None]
    first, last = np.searchsorted(radius, _CORD_MM)
    bright = signal[:, :, first : last + 8]
    peak_at = first + bright.argmax(axis=2)
    peak = bright.max(axis=2)
    beyond = radius[None, None] > radius[peak_at][:, :, None]
    cord = _crossing(signal, radius, (core + peak) / 2, ~beyond, rising=True) - _SIDEWAYS_MM * across**2
    sac = _crossing(signal, radius, peak / 2, beyond, rising=False)
    return _round(cord), _round(sac)


def _crossing(
    signal: npt.NDArray[np.float32],
    radius: FloatArray,
    level: FloatArray,
    where: npt.NDArray[np.bool_],
    rising: bool,
) -> FloatArray:
    """Radius at which each ray passes `level`: the last rise before its peak, or the first fall after it."""
    above = signal >= level[..., None]
    step = (~above[..., :-1] & above[..., 1:]) if rising else (above[..., :-1] & ~above[..., 1:])
    step &= where[..., 1:] if rising else where[..., :-1] | where[..., 1:]
    found = step.any(axis=-1)
    index = step.shape[-1] - 1 - step[..., ::-1].argmax(axis=-1) if rising else step.argmax(axis=-1)
    below = np.take_along_axis(signal, index[..., None], axis=-1)[..., 0]
    after = np.take_along_axis(signal, index[..., None] + 1, axis=-1)[..., 0]
    share = (level - below) / np.where(after == below, 1.0, after - below)
    return np.where(found, radius[index] + np.clip(share, 0.0, 1.0) * _RAY_MM, np.nan)


def _round(radii: FloatArray) -> FloatArray:
    """Radii without rays that went astray: median along the canal, then the lowest angular frequencies."""
    middle = np.nanmedian(radii, axis=0)
    filled = np.where(np.isfinite(radii), radii, middle)
    steady = ndimage.median_filter(np.pad(filled, ((0, 0), (1, 1)), mode="wrap"), size=(7, 3))[:, 1:-1]
    spectrum = np.fft.rfft(steady, axis=1)
    spectrum[:, 5:] = 0.0
    return np.asarray(np.fft.irfft(spectrum, _RAYS, axis=1))


def _moments(radii: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centroids (2, stations) and diameters (2, stations) along u and v of star-shaped outlines.

    The diameters are those of the ellipse with the same second moments, as `sct_process_segmentation` of the
    Spinal Cord Toolbox takes them from a mask. Integrals in polar coordinates: ∫∫ f r dr dθ.
    """
    across, behind = _directions()
    step = 2 * np.pi / _RAYS
    area = (radii**2).sum(axis=1) * step / 2
    centre = np.stack([(radii**3 * axis).sum(axis=1) * step / 3 / area for axis in (across, behind)])
    second = np.stack([(radii**4 * axis**2).sum(axis=1) * step / 4 / area for axis in (across, behind)])
    return centre, 4.0 * np.sqrt(second - centre**2)
