"""Signal at a point of a semi-synthetic patient: the subject's where its volume has data, else painted.

Contrast is changed per tissue, within the range of turbo spin echo: the sac's contents between cord and CSF,
marrow, each disc, and everything else.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from stenosis_trt.bench.phantom.painting.tall_tissue import painted as painted_tissues
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals
from stenosis_trt.bench.phantom.shapes import Array, Canvas, ellipse
from stenosis_trt.bench.semisynthetic.anatomy import SemisyntheticPatient
from stenosis_trt.bench.semisynthetic.deformation import Deformation, DeformedOutline
from stenosis_trt.bench.semisynthetic.straightened import GRID_MM

_CORD, _MARROW, _DISC, _MUSCLE = range(4)
_SOFT_MM = 1.2
_MAX_DISPLACEMENT_MM = 6.0
"""Displacement of tissue behind the sac by a wider sac, at most."""
_DISC_HALF_MM = 2.6
_BODY_DEPTH_MM = 19.0
_BODY_HALF_WIDTH_MM = 12.0
_C2_HEIGHT_MM = 24.0
_FACTOR_RANGE = (0.55, 2.6)
"""Bounds of the change of a tissue's signal, so that noise and texture stay realistic."""


_FAT_FROM, _FAT_SURELY = 0.22, 0.5
"""Signals outside the spine, relative to CSF, of tissue that may be fat and that is fat."""


class RealTissues:
    """Signal of one patient with one acquisition's contrast; a `TissueSource`."""

    def __init__(self, patient: SemisyntheticPatient, signals: Signals, painted: bool) -> None:
        """
        Args:
            patient: see `Patient`.
            signals: the target contrast.
            painted: paint what the volume does not cover; it is black otherwise.
        """
        self._patient, self._signals, self._painted = patient, signals, painted
        self._deformation = Deformation(patient)
        self._phantom = painted_tissues(patient.anatomy, signals)
        subject = patient.subject
        tones = subject.tones
        rng = np.random.default_rng([patient.anatomy.texture_seed, 1])
        worn = np.array([item.degeneration for item in patient.anatomy.stenoses])
        worn = np.concatenate([worn, rng.uniform(0.0, 0.4, len(subject.discs) - len(worn))])
        disc = signals.disc + (signals.disc_degenerated - signals.disc) * worn
        spread = rng.normal(1.0, 0.1, len(worn))
        self._cord_gain = (1.0 - signals.cord) / (1.0 - tones[_CORD])
        self._marrow = float(np.clip(signals.marrow / tones[_MARROW] * 0.8, *_FACTOR_RANGE))
        self._disc = np.clip(disc / tones[_DISC] * 0.6 * spread, 0.4, 3.0).astype(np.float32)
        self._other = float(np.clip(signals.muscle / tones[_MUSCLE], *_FACTOR_RANGE))
        self._curve = float(rng.uniform(0.8, 1.2))
        self._flow_void = float(rng.uniform(0.0, 0.45))

    def surroundings(self, u: Array, v: Array, s: Array, edge: float) -> Array:
        """Painted signal around the spine where the volume has no data, float32 (N,); see `Tissues`."""
        result = np.zeros(u.shape, dtype=np.float32)
        if self._painted:
            known = np.zeros(u.shape, dtype=np.float32)
            near = self._near(u, v)
            known[near] = self._known(*self._deformation.to_subject(u[near], v[near], s[near])[:3])
            where = np.flatnonzero(known < 1.0)
            if len(where):
                result[where] = self._phantom.surroundings(u[where], v[where], s[where], edge)
        return result

    def with_spine(self, surroundings: Array, u: Array, v: Array, s: Array, edge: float) -> Array:
        """Signal of the patient, float32 (N,); arguments as in `Tissues`."""
        known = np.zeros(u.shape, dtype=np.float32)
        result = np.zeros(u.shape, dtype=np.float32)
        near = self._near(u, v)
        source_u, source_v, source_s, pressed = self._deformation.to_subject(u[near], v[near], s[near])
        known[near] = self._known(source_u, source_v, source_s)
        inside = known[near] > 0.0
        shown = near[inside]
        if len(shown):
            at = (u[shown], v[shown], s[shown])
            real = self._recoloured(source_u[inside], source_v[inside], source_s[inside], *at)
            outline = DeformedOutline(
                *(getattr(pressed, item.name)[inside] for item in fields(DeformedOutline))
            )
            real = _with_lesion(real, at[0], at[1], outline, edge, np.float32(self._signals.lesion))
            result[shown] = known[shown] * real
        if self._painted:
            hidden = np.flatnonzero(known < 1.0)
            if len(hidden):
                painted = self._phantom.with_spine(
                    surroundings[hidden], u[hidden], v[hidden], s[hidden], edge
                )
                result[hidden] += (1.0 - known[hidden]) * painted
        return result

    def _near(self, u: Array, v: Array) -> npt.NDArray[np.intp]:
        """Indices of the points that may lie in the straightened volume (conservative)."""
        scale = self._patient.anatomy.scale
        far_v, far_u = -self._patient.subject.origin[1:] * scale + _SOFT_MM
        return np.flatnonzero((np.abs(u) < far_u) & (np.abs(v) < far_v + _MAX_DISPLACEMENT_MM))

    def _grid(self, u: Array, v: Array, s: Array) -> Array:
        return np.stack(
            [(x - first) / GRID_MM for x, first in zip((s, v, u), self._patient.subject.origin, strict=True)]
        )

    def _known(self, u: Array, v: Array, s: Array) -> Array:
        known = self._patient.subject.known
        index = np.rint(self._grid(u, v, s)).astype(np.int32)
        size = np.array(known.shape)[:, None]
        inside = ((index >= 0) & (index < size)).all(axis=0)
        index = np.clip(index, 0, size - 1)
        found: Array = np.where(inside, known[index[0], index[1], index[2]], np.float16(0)).astype(np.float32)
        return found

    def _recoloured(self, u: Array, v: Array, s: Array, at_u: Array, at_v: Array, at_s: Array) -> Array:
        """Signal of the subject at (u, v, s) in the target contrast; (at_u, at_v, at_s) in the patient."""
        subject = self._patient.subject
        canal = subject.canal
        signal = ndimage.map_coordinates(subject.signal, self._grid(u, v, s), order=1, mode="nearest")
        row = canal.curve.index(s)
        sac_v, sac_u = (
            (canal.sac_ap[row] / 2).astype(np.float32),
            (canal.sac_transverse[row] / 2).astype(np.float32),
        )
        in_sac = _coverage(ellipse(u, v, sac_u, sac_v))
        front = v + sac_v
        nearest = np.argmin(np.abs(s[:, None] - subject.discs.astype(np.float32)), axis=1)
        offset = np.abs(s - subject.discs[nearest].astype(np.float32))
        body = _coverage(np.maximum(front + 0.8, -front - _BODY_DEPTH_MM)) * _coverage(
            np.abs(u) - _BODY_HALF_WIDTH_MM
        )
        body *= s > subject.discs[0] - _C2_HEIGHT_MM
        disc = body * _coverage(offset - _DISC_HALF_MM)
        factor = (
            self._other + body * (self._marrow - self._other) + disc * (self._disc[nearest] - self._marrow)
        )
        outside = np.maximum(signal, 0.0) ** self._curve * factor
        if self._signals.fat_suppression:
            # Marrow's share is in its factor. Of the rest, fat is what is bright.
            fat = np.clip((signal - _FAT_FROM) / (_FAT_SURELY - _FAT_FROM), 0.0, 1.0) * (1.0 - body)
            outside *= 1.0 - 0.9 * self._signals.fat_suppression * fat
        canvas = Canvas(at_u, at_v, at_s, 1.0)
        turbulence = np.clip(self._phantom.texture.noise(canvas, 4, (2.6, 2.6, 9.0)) - 0.35, 0.0, 1.6)
        cord = ellipse(
            u,
            v - canal.cord_centre[row].astype(np.float32),
            canal.cord_transverse[row] / 2,
            canal.cord_ap[row] / 2,
        )
        void = 1.0 - self._flow_void * turbulence * (1.0 - _coverage(cord - 0.6))
        inside = np.maximum(1.0 - (1.0 - signal) * self._cord_gain, 0.02) * void
        return np.asarray(outside + in_sac * (inside - outside), dtype=np.float32)


def _coverage(distance: Array) -> Array:
    """Coverage from 1 inside an outline to 0 outside it, over `_SOFT_MM`."""
    return np.asarray(np.clip(0.5 - distance / _SOFT_MM, 0.0, 1.0), dtype=np.float32)


def _with_lesion(
    signal: Array, u: Array, v: Array, outline: DeformedOutline, edge: float, share: np.float32
) -> Array:
    """Add the raised T2 signal of a compressed cord to its core; `share` is the part that the echo shows."""
    x, y = np.abs(u) / outline.cord_u, (v - outline.cord_centre) / outline.cord_v
    core = ellipse(x - 0.15, y, 0.42, 0.52) * outline.cord_v
    return np.asarray(
        signal + share * outline.lesion * np.clip(0.5 - core / edge, 0.0, 1.0), dtype=np.float32
    )
