"""Paint the spinal canal: epidural fat, dura, CSF, encroachments, the cord and its lesion."""

from __future__ import annotations

import numpy as np

from stenosis_trt.bench.phantom.painting.texture import Texture
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals, Traits
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.patient.spine import STEP_MM
from stenosis_trt.bench.phantom.shapes import Array, Canvas, Positions, bounding_box, ellipse

_FLOW_GRAIN = (4, (2.6, 2.6, 9.0))
_CORD_GRAIN = (5, (1.2, 1.2, 3.0))
"""(channel of the texture, grain in mm along u, v and s)."""

ROOTS_MM = 0.39
"""Distance beyond the sides of the cord within which roots and ligaments leave it, as dark as it is; scaled
with sin² of the angle from the sagittal plane. Images of phantoms then show the cord as much wider than its
truth as those of real anatomy do (`bench.accuracy.cord_edges`)."""


class CanalContents:
    """Paints the canal of one patient."""

    def __init__(self, anatomy: Anatomy, signals: Signals, traits: Traits, texture: Texture) -> None:
        self._signals, self._traits, self._texture = signals, traits, texture
        self._first = anatomy.curve.s[0]
        canal = (anatomy.canal_ap / 2, anatomy.canal_transverse / 2)
        sac = (anatomy.sac_ap / 2, anatomy.sac_transverse / 2)
        cord = (anatomy.cord_ap / 2, anatomy.cord_transverse / 2, anatomy.cord_centre, anatomy.lesion)
        pressing = (anatomy.encroach_anterior, anatomy.encroach_posterior, anatomy.side, anatomy.breadth)
        self._canal = np.stack(canal).astype(np.float32)
        self._sac = np.stack(sac).astype(np.float32)
        self._cord = np.stack(cord).astype(np.float32)
        self._pressing = np.stack(pressing).astype(np.float32)
        self._thinnest_cord = float(self._cord[0].min())

    def paint(self, canvas: Canvas, _: Positions) -> None:
        """Paint the canal, then the sac, then the cord."""
        last = self._canal.shape[1] - 1
        row = np.clip(np.rint((canvas.s - self._first) / STEP_MM).astype(np.int32), 0, last)
        canal_v, canal_u = self._canal.take(row, axis=1)
        sac_v, sac_u = self._sac.take(row, axis=1)
        canal = ellipse(canvas.u, canvas.v, canal_u, canal_v)
        sac = ellipse(canvas.u, canvas.v, sac_u, sac_v)
        # The dura extends 0.5 mm beyond the sac.
        near = np.minimum(canal, sac - 0.5) < canvas.fade

        def within(part: Canvas, where: Positions) -> None:
            self._fat(part, canal.take(where), canal_u.take(where), canal_v.take(where))
            at = row.take(where)
            pressed = self._pressed(part, sac.take(where), sac_u.take(where), sac_v.take(where), at)
            cord_u = self._cord[1].take(at)
            self._fluid(part, pressed, cord_u)
            self._cord_at(part, pressed, cord_u, at)

        canvas.paint_on(near, within)

    def _fat(self, part: Canvas, canal: Array, canal_u: Array, canal_v: Array) -> None:
        tone, epidural = self._signals, self._traits.epidural
        part.fill(canal, tone.ligament)
        behind = np.maximum(canal + 0.4, -(part.v - 0.45 * canal_v))
        part.fill(behind, epidural * tone.fat)
        part.fill(np.maximum(canal + 0.4, 0.72 * canal_u - np.abs(part.u)), 0.7 * epidural)

    def _pressed(self, part: Canvas, sac: Array, sac_u: Array, sac_v: Array, row: Positions) -> Array:
        """Signed distance to the sac as narrowed by disc and ligament."""
        u, v = part.u, part.v
        front, back, side, breadth = self._pressing.take(row, axis=1)
        lean = np.exp(0.5 * (side / breadth) ** 2) * np.exp(-0.5 * ((u - side) / breadth) ** 2)
        pushed_front = -v - sac_v + front * lean
        pushed_back = v - sac_v + back * np.exp(-0.5 * (u / breadth) ** 2)
        # Towards the sides an encroachment follows the curved outline of the sac.
        rise = sac_v * (1.0 - np.sqrt(np.clip(1.0 - (u / sac_u) ** 2, 0.0, 1.0)))
        pushed = np.maximum(pushed_front + rise * 0.5, pushed_back + rise * 0.5)
        return np.asarray(np.maximum(sac, pushed))

    def _fluid(self, part: Canvas, sac: Array, cord_u: Array) -> None:
        """Paint dura, CSF with flow voids, and rootlets."""
        tone, traits = self._signals, self._traits
        part.fill(sac - 0.5, tone.cortex)
        turbulence = np.clip(self._texture.noise(part, *_FLOW_GRAIN) - 0.35, 0.0, 1.6)
        part.fill(sac, tone.csf * (1.0 - traits.flow_void * turbulence))
        rootlet = ellipse(np.abs(part.u) - cord_u - 2.2, np.abs(part.v) - 1.8, 1.6, 0.45)
        part.paint(part.coverage(np.maximum(rootlet, sac)) * np.float32(traits.rootlets), tone.cord)

    def _cord_at(self, part: Canvas, sac: Array, cord_u: Array, row: Positions) -> None:
        """Paint the cord with its roots, grey matter, fissure and lesion."""
        tone = self._signals
        cord_v, _, centre, lesion = self._cord.take(row, axis=1)
        behind = part.v - centre
        x, y = np.abs(part.u) / cord_u, behind / cord_v
        sideways = part.u**2 / np.maximum(part.u**2 + behind**2, np.float32(1e-6))
        cord = ellipse(part.u, behind, cord_u, cord_v) - np.float32(ROOTS_MM) * sideways
        cord = np.maximum(cord, sac - 0.02)
        # Grey matter and lesion are sized in shares of the cord's half axes, but fade over mm.
        share = part.fade / self._thinnest_cord
        boxes = (
            bounding_box(0.11, 0.46, share),
            bounding_box(0.28, 0.12, share),
            bounding_box(0.42, 0.52, share),
        )
        wide, deep = (max(axes) for axes in zip(*boxes, strict=True))
        near = (cord < part.fade) | ((x < 0.24 + wide) & (np.abs(y) < 0.1 + 0.3 * (0.24 + wide) + deep))

        def inner(canvas: Canvas, where: Positions) -> None:
            at_x, at_y, half, outline = (item.take(where) for item in (x, y, cord_v, cord))
            grain = self._texture.noise(canvas, *_CORD_GRAIN)
            canvas.fill(outline, tone.cord * (1.0 + 0.03 * grain))
            horn = np.minimum(
                ellipse(at_x - 0.24, at_y + 0.08 - 0.3 * at_x, 0.11, 0.46), ellipse(at_x, at_y, 0.28, 0.12)
            )
            canvas.fill(horn * half, tone.grey_matter)
            fissure = ellipse(canvas.u, at_y + 0.85, 0.25, 0.3)
            canvas.paint(canvas.coverage(np.maximum(fissure, outline)) * np.float32(0.5), tone.csf)
            core = ellipse(at_x - 0.15, at_y, 0.42, 0.52)
            canvas.fill(core * half, canvas.signal + np.float32(tone.lesion) * lesion.take(where))

        part.paint_on(near, inner)
