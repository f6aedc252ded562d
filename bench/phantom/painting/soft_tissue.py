"""Paint the neck around the spine: skin, fat, muscles, airway, vessels, and the back of the skull."""

from __future__ import annotations

import numpy as np

from stenosis_trt.bench.phantom.painting.texture import Texture
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals, Traits
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.shapes import Array, Canvas, Positions, bounding_box, ellipse, ellipsoid, ramp

_COARSE = (0, (5.0, 5.0, 14.0))
_FINE = (1, (1.1, 1.1, 2.4))
"""(channel of the texture, grain in mm along u, v and s)."""

_CAROTID = (3.4, 3.4)
_JUGULAR = (5.0, 3.6)


class SoftTissue:
    """Paints the soft tissue of one patient."""

    def __init__(self, anatomy: Anatomy, signals: Signals, traits: Traits, texture: Texture) -> None:
        self._anatomy, self._signals, self._traits, self._texture = anatomy, signals, traits, texture
        self._body_front = -(anatomy.canal_ap.mean() / 2 + traits.body_depth)

    def paint(self, canvas: Canvas) -> None:
        """Paint neck outline, subcutaneous fat, muscles with fat between them, airway, vessels, head."""
        traits = self._traits
        s = canvas.s
        shoulders = 1.5 * ramp(s, self._anatomy.discs[4] - 10.0, 110.0)
        head = ramp(s, traits.c1 + 22.0, -65.0)
        half_width = traits.neck_width * (1.0 + 0.9 * shoulders + 0.25 * head)
        front = traits.neck_front * (1.0 + 0.35 * shoulders + 0.55 * head)
        back = traits.skin_back * (1.0 + 0.10 * shoulders + 0.35 * head)
        middle = (back - front) / 2
        skin = ellipse(canvas.u, canvas.v - middle, half_width, (front + back) / 2)

        def under_skin(part: Canvas, where: Positions) -> None:
            self._muscles(part, skin.take(where), middle.take(where), front.take(where), back.take(where))

        # `_muscles` adds half of the coarse texture to the fat's depth, so muscle may extend beyond the skin.
        canvas.paint_on(skin < canvas.fade - min(0.0, 0.5 * self._texture.minimum), under_skin)
        self._airway(canvas, skin)
        for side in (-1.0, 1.0):
            self._vessels(canvas, side)
        canvas.paint_on(s < traits.c1 + 4.0, self._skull)

    def _muscles(self, part: Canvas, skin: Array, middle: Array, front: Array, back: Array) -> None:
        tone = self._signals
        part.fill(skin, tone.fat)
        backward = np.clip((part.v - middle) / (front + back) * 2.0 + 0.45, 0.0, 1.0)
        coarse = self._texture.noise(part, *_COARSE)
        depth = skin + (self._traits.fat_back * (0.3 + 0.7 * backward**2) + 0.5 * coarse)

        def muscles(inner: Canvas, where: Positions) -> None:
            wide = coarse.take(where)
            fine = self._texture.noise(inner, *_FINE)
            muscle = tone.muscle * (1.0 + 0.14 * fine + 0.10 * wide)
            # Fat lies between muscles where the texture crosses zero, more of it towards the spine.
            septa = np.clip(0.55 - np.abs(wide + 0.25 * fine) * 5.0, 0.0, 1.0) * np.clip(
                1.3 - np.abs(inner.u) / 60.0, 0.3, 1.0
            )
            inner.fill(depth.take(where), muscle + (tone.fat * 0.7 - muscle) * septa)

        part.paint_on(depth < part.fade, muscles)

        def mouth(inner: Canvas, where: Positions) -> None:
            mottled = tone.muscle * 1.6 * (1.0 + 0.35 * coarse.take(where)) + 0.1
            inner.fill(skin.take(where) + 9.0, mottled)

        in_mouth = (part.v < self._body_front - 20) & (part.s < self._anatomy.discs[1])
        part.paint_on(in_mouth & (skin + 9.0 < part.fade), mouth)

    def _airway(self, canvas: Canvas, skin: Array) -> None:
        """Paint pharynx and trachea with their mucosa."""
        tone, discs = self._signals, self._anatomy.discs
        # The lumen is widest where it is flattest, in the mouth.
        width, _ = bounding_box(11.5, 4.0, 2.0 + canvas.fade)
        _, depth = bounding_box(8.5, 6.0, 2.0 + canvas.fade)
        # 5 to 14 mm of prevertebral tissue, and the airway's centre 7 mm in front of it.
        first, last = self._body_front - 21.0 - depth, self._body_front - 12.0 + depth

        def lumen(part: Canvas, _: Positions) -> None:
            prevertebral = 5.0 + 9.0 * ramp(part.s, discs[1] - 5.0, 35.0)
            airway_v = part.v - (self._body_front - prevertebral - 7.0).astype(np.float32)
            oral = ramp(part.s, discs[0] + 5.0, -40.0)
            outline = ellipse(part.u, airway_v, 8.5 + 3.0 * oral, 6.0 - 2.0 * oral)
            part.fill(outline - 2.0, tone.mucosa)
            part.fill(outline, tone.air)

        canvas.paint_on((np.abs(canvas.u) < width) & (canvas.v > first) & (canvas.v < last), lumen)

    def _vessels(self, canvas: Canvas, side: float) -> None:
        """Paint carotid artery and jugular vein of one side."""
        tone, front = self._signals, self._body_front

        def carotid(part: Canvas, _: Positions) -> None:
            outline = ellipse(part.u - side * 25.0, part.v - front + 4.0, *_CAROTID)
            part.fill(outline - 0.8, 0.3)
            part.fill(outline, tone.air + 0.02)

        def jugular(part: Canvas, _: Positions) -> None:
            outline = ellipse(part.u - side * 33.0, part.v - front - 4.0, *_JUGULAR)
            part.fill(outline, 0.55 if side > 0 else 0.12)

        width, depth = bounding_box(*_CAROTID, 0.8 + canvas.fade)
        near = (np.abs(canvas.u - side * 25.0) < width) & (np.abs(canvas.v - (front - 4.0)) < depth)
        canvas.paint_on(near, carotid)
        width, depth = bounding_box(*_JUGULAR, canvas.fade)
        near = (np.abs(canvas.u - side * 33.0) < width) & (np.abs(canvas.v - (front + 4.0)) < depth)
        canvas.paint_on(near, jugular)

    def _skull(self, part: Canvas, _: Positions) -> None:
        """Paint occiput and cerebellum behind, clivus in front."""
        tone, c1 = self._signals, self._traits.c1
        # Three shells of one bowl whose rim reaches down behind the foramen magnum.
        bowl = ellipsoid(part.u, part.v - 30.0, part.s - c1 + 50.0, (58.0, 50.0, 44.0))
        part.fill(bowl, tone.cortex)
        part.fill(bowl + 1.2, tone.marrow)
        part.fill(bowl + 4.0, tone.cortex)
        part.fill(bowl + 5.5, tone.csf)
        cerebellum = ellipsoid(part.u, part.v - 36.0, part.s - c1 + 54.0, (48.0, 28.0, 36.0))

        def folia(inner: Canvas, where: Positions) -> None:
            fine = self._texture.noise(inner, *_FINE)
            leaves = 0.5 + 0.5 * np.sin(inner.s * 2.1 + 3.0 * np.sin(inner.v * 0.22) + 0.4 * fine)
            signal = tone.cord * (0.95 + 0.25 * leaves + 0.05 * fine)
            inner.fill(cerebellum.take(where), signal)

        part.paint_on(cerebellum < part.fade, folia)
        height = part.s - (c1 - 12.0)
        clivus = np.maximum(
            ellipse(part.u, part.v + 24.0 + 0.5 * height, 14.0, 6.0), part.s - self._traits.dens_top + 6.0
        )
        part.fill(clivus, tone.marrow)
