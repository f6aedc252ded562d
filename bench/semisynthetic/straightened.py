"""Resample a volume to canal coordinates, with even brightness and CSF at 1.

The shading of the surface coil is removed, so that simulated acquisitions can apply their own coil. The
result is computed once per subject and cached on disk.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from stenosis_trt.bench.phantom.patient.spine import CanalCurve
from stenosis_trt.bench.semisynthetic.canal import Canal, NiftiVolume, trace_canal
from stenosis_trt.bench.semisynthetic.subjects import Subject
from stenosis_trt.engine.geometry import FloatArray, Vector
from stenosis_trt.engine.support.atomic_files import atomic_write_binary

GRID_MM = 0.5
_U_MM = (-36.0, 36.0)
_V_MM = (-75.0, 75.0)
_EXTENSION_MM = 12.0
"""Extension of the straightened volume beyond the ends of the canal."""

_SHADING_MM = 22.0
"""Standard deviation of the blur that estimates the coil's shading."""
_MAX_SIGNAL = 1.7
"""Upper limit of the signal relative to CSF: fat next to the coil. Inflow and artefacts are brighter."""
_EDGE_MM = 2.0
_VERSION = 2


@dataclass(frozen=True)
class StraightenedSubject:
    """Straightened volume of a subject, and its canal.

    Attributes:
        name: of the subject.
        canal: see `Canal`; arc length is 0 at disc C4/5.
        discs: arc lengths of C2/3 … T3/4, float64 (9,).
        origin: (s, v, u) of the first grid point in mm; the grid spacing is `GRID_MM`.
        signal: relative to CSF, float32 (S, V, U).
        known: weight of the data, 1 inside the volume and 0 outside, float16 (S, V, U).
        tones: median signal of cord, marrow, disc and muscle, float64 (4,).
        dens_base: arc length of the base of the dens.
        dens_apex: apex of the dens in canal coordinates, of which v is relative to the middle of the sac;
            None where the volume ends below it.
    """

    name: str
    canal: Canal
    discs: FloatArray
    origin: FloatArray
    signal: npt.NDArray[np.float32]
    known: npt.NDArray[np.float16]
    tones: FloatArray
    dens_base: float
    dens_apex: Vector | None


def straighten(subject: Subject, volumes: Path) -> StraightenedSubject:
    """Straighten a subject's volume.

    Args:
        subject: marks and file name.
        volumes: folder with one folder per subject.

    Raises:
        OSError: the volume is missing.
    """
    volume = NiftiVolume(subject.path(volumes))
    points = subject.disc_points
    canal = trace_canal(volume, subject, subject.origin)
    discs = canal.curve.to_canal(points)[:, 2]
    s = np.arange(canal.first - _EXTENSION_MM, canal.last + _EXTENSION_MM, GRID_MM)
    v, u = np.arange(*_V_MM, GRID_MM), np.arange(*_U_MM, GRID_MM)
    even = copy(volume)
    even.data = ndimage.spline_filter(_without_shading(volume.data), order=3).astype(np.float32)
    signal = np.empty((len(s), len(v), len(u)), dtype=np.float32)
    known = np.empty(signal.shape, dtype=np.float16)
    for number, station in enumerate(s):
        plane = canal.to_patient(u[None, :], v[:, None], np.full((len(v), len(u)), station))
        voxels = even.voxels(plane)
        signal[number] = ndimage.map_coordinates(even.data, voxels, order=3, prefilter=False)
        known[number] = _depth_inside(voxels, even.data.shape)
    bright = _csf(signal, canal, s, v, u)
    signal = np.clip(signal / bright[:, None, None].astype(np.float32), 0.0, _MAX_SIGNAL)
    origin = np.array([s[0], v[0], u[0]])
    tones = _tones(signal, known, canal, discs, s, v, u)
    return StraightenedSubject(
        subject.name, canal, discs, origin, signal, known, tones, *_dens(subject, canal)
    )


def _dens(subject: Subject, canal: Canal) -> tuple[float, Vector | None]:
    """Marks of the dens in canal coordinates; see `StraightenedSubject`."""
    base = float(canal.curve.to_canal(subject.dens_base)[2])
    if subject.dens_apex is None:
        return base, None
    u, v, s = (float(value) for value in canal.curve.to_canal(subject.dens_apex))
    row = canal.curve.index(s)
    return base, (u - float(canal.middle_u[row]), v - float(canal.middle_v[row]), s)


def _without_shading(data: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Divide a volume by a copy blurred over the body's voxels."""
    body = (data > 0.25 * np.percentile(data, 90)).astype(np.float32)
    shading = ndimage.gaussian_filter(data * body, _SHADING_MM)
    weight = ndimage.gaussian_filter(body, _SHADING_MM)
    even = shading / np.maximum(weight, 0.02)
    return np.asarray(data / (even + 0.15 * np.percentile(even, 95)), dtype=np.float32)


def _depth_inside(voxels: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Weight that falls from 1 to 0 over `_EDGE_MM` before the volume's border, for voxels of about 1 mm."""
    size = np.array(shape).reshape(3, 1, 1)
    border = np.minimum(voxels, size - 1 - voxels).min(axis=0)
    return np.asarray(np.clip(border / _EDGE_MM, 0.0, 1.0))


def _csf(
    signal: npt.NDArray[np.float32], canal: Canal, s: FloatArray, v: FloatArray, u: FloatArray
) -> FloatArray:
    """Signal of CSF along the canal, float64 (S,): 90th percentile in the sac, smoothed."""
    row = canal.curve.index(s)
    near_v, near_u = np.abs(v) < 12, np.abs(u) < 14
    bright = np.empty(len(s))
    for number, k in enumerate(row):
        across = u[near_u][None, :] / (canal.sac_transverse[k] / 2)
        behind = v[near_v][:, None] / (canal.sac_ap[k] / 2)
        inside = across**2 + behind**2 < 0.9
        bright[number] = np.percentile(signal[number][np.ix_(near_v, near_u)][inside], 90)
    shown = (s > canal.first + 2) & (s < canal.last - 2)
    bright = np.interp(s, s[shown], bright[shown])
    return np.asarray(ndimage.gaussian_filter1d(bright, 12.0 / GRID_MM, mode="nearest"))


def _tones(
    signal: npt.NDArray[np.float32],
    known: npt.NDArray[np.float16],
    canal: Canal,
    discs: FloatArray,
    s: FloatArray,
    v: FloatArray,
    u: FloatArray,
) -> FloatArray:
    """Median signal of cord, marrow, discs and muscle between C2/3 and T1/2."""
    row = canal.curve.index(s)
    offset = np.abs(s[:, None] - discs).min(axis=1)[:, None, None]
    front = v[None, :, None] + canal.sac_ap[row][:, None, None] / 2
    middle = (np.abs(u) < 8)[None, None, :] & ((s > discs[0]) & (s < discs[6]))[:, None, None] & (known > 0.5)
    body = middle & (front < -5) & (front > -13)
    behind = v[None, :, None] - canal.sac_ap[row][:, None, None] / 2
    cord = np.hypot(u[None, None, :], v[None, :, None] - canal.cord_centre[row][:, None, None]) < 2.0
    regions = (
        cord & middle,
        body & (offset > 5),
        body & (offset < 1.2),
        middle & (behind > 12) & (behind < 30),
    )
    return np.array([float(np.median(signal[region])) for region in regions])


def load_straightened(subject: Subject, volumes: Path, folder: Path) -> StraightenedSubject:
    """Load the straightened volume of a subject from the cache folder; compute and store it if missing.

    Raises:
        OSError: both the cached file and the volume are missing.
    """
    path = folder / f"{subject.name}-{_VERSION}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = straighten(subject, volumes)
        with atomic_write_binary(path) as stream:
            np.savez(
                stream,
                discs=made.discs,
                origin=made.origin,
                signal=made.signal.astype(np.float16),
                known=made.known,
                tones=made.tones,
                **{f"curve_{item.name}": getattr(made.canal.curve, item.name) for item in fields(CanalCurve)},
                **{
                    f"canal_{item.name}": getattr(made.canal, item.name)
                    for item in fields(Canal)
                    if item.name != "curve"
                },
            )
    with np.load(path, allow_pickle=False) as stored:
        curve = CanalCurve(**{item.name: stored[f"curve_{item.name}"] for item in fields(CanalCurve)})
        rest = {item.name: stored[f"canal_{item.name}"] for item in fields(Canal) if item.name != "curve"}
        rest["first"], rest["last"] = float(rest["first"]), float(rest["last"])
        canal = Canal(curve=curve, **rest)
        base, apex = _dens(subject, canal)
        return StraightenedSubject(
            name=subject.name,
            canal=canal,
            discs=stored["discs"],
            origin=stored["origin"],
            signal=stored["signal"].astype(np.float32),
            known=stored["known"],
            tones=stored["tones"],
            dens_base=base,
            dens_apex=apex,
        )
