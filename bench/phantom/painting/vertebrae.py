"""Paint vertebrae C1–T3 with their discs, arches and ligaments, and the fat around the canal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.painting.texture import Texture
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals, Traits
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.patient.spine import STEP_MM
from stenosis_trt.bench.phantom.shapes import Array, Canvas, Positions, bounding_box, box, ellipse, rounded

_MARROW_GRAIN = (2, (1.6, 1.6, 1.6))
_MUSCLE_GRAIN = (3, (2.5, 2.5, 3.0))
"""(channel of the texture, grain in mm along u, v and s)."""


@dataclass(frozen=True)
class _Process:
    """Lamina and spinous process of one vertebra: arc length of its centre, and sizes in mm."""

    centre: float
    lamina: float
    length: float
    lean: float


class Vertebrae:
    """Paints the vertebrae of one patient."""

    def __init__(self, anatomy: Anatomy, signals: Signals, traits: Traits, texture: Texture) -> None:
        self._anatomy, self._signals, self._traits, self._texture = anatomy, signals, traits, texture
        self._canal_half = (anatomy.canal_ap / 2).astype(np.float32)
        self._canal_width = (anatomy.canal_transverse / 2).astype(np.float32)
        self._narrowest = float(self._canal_width.min())
        self._middles = (anatomy.discs[:-1] + anatomy.discs[1:]) / 2
        self._discs = anatomy.discs.astype(np.float32)
        self._disc_half = traits.disc_half.astype(np.float32)
        self._marrow = traits.marrow.astype(np.float32)
        self._worn = traits.degeneration.astype(np.float32)
        self._processes = tuple(self._sizes_of_processes())

    def _sizes_of_processes(self) -> Iterator[_Process]:
        discs, scale = self._anatomy.discs, self._anatomy.scale
        for index in range(len(discs)):
            centre = discs[index] - 9.0 * scale if index == 0 else (discs[index - 1] + discs[index]) / 2
            length = 24.0 if index == 0 else 17.0 + 2.8 * index if index < 6 else 34.0
            yield _Process(
                centre=centre + 2.0,
                lamina=(5.6 if index else 7.0) * scale,
                length=length * scale * self._traits.spinous[index],
                lean=0.30 if index < 5 else 0.45,
            )

    def paint(self, canvas: Canvas) -> None:
        """Paint ligament, arches, bodies, discs and dens; later structures cover earlier ones."""
        table = np.clip(
            ((canvas.s - self._anatomy.curve.s[0]) / STEP_MM).astype(np.int32), 0, len(self._canal_half) - 1
        )
        half, width = self._canal_half.take(table), self._canal_width.take(table)
        half_depth = self._traits.body_depth / 2
        depth = canvas.v + half + 1.0

        beyond = 1.6 + canvas.fade
        wide, deep = bounding_box(self._traits.body_width, half_depth, beyond)
        near = np.flatnonzero((np.abs(canvas.u) < wide) & (np.abs(depth + half_depth) < deep))
        column = ellipse(
            canvas.u.take(near), depth.take(near) + half_depth, self._traits.body_width, half_depth
        )
        near, column = near[column < beyond], column[column < beyond]
        self._long_ligament(canvas, near, column)
        self._arches(canvas, half, width)
        self._bodies(canvas, near, column, depth)
        self._dens(canvas, depth)

    def _numbered(self, s: Array) -> tuple[npt.NDArray[np.intp], Array]:
        """Index of the nearest disc, and distance below it in mm."""
        nearest = np.clip(np.searchsorted(self._middles, s), 0, len(self._discs) - 1)
        return nearest, s - self._discs.take(nearest)

    def _grain(self, canvas: Canvas) -> Array:
        return self._texture.noise(canvas, *_MARROW_GRAIN)

    def _marrow_of(self, canvas: Canvas, nearest: npt.NDArray[np.intp], offset: Array, grain: Array) -> Array:
        below = np.where(offset > 0, nearest + 1, nearest)
        return np.asarray(self._marrow.take(below) * (1.0 + 0.09 * grain))

    def _long_ligament(self, canvas: Canvas, near: Positions, column: Array) -> None:
        def ligament(part: Canvas, _: Positions) -> None:
            outline = np.maximum(column - 1.6, self._traits.c2_top - part.s)
            part.fill(outline, self._signals.ligament)

        canvas.paint_on(near, ligament)

    def _bodies(self, canvas: Canvas, near: Positions, column: Array, depth: Array) -> None:
        """Paint vertebral bodies with their veins, and discs; `column` is the distance to their outline."""
        # The annulus extends 0.6 mm beyond the column; above C2 there is neither body nor disc.
        inner = (column < 0.6 + canvas.fade) & (canvas.s.take(near) > self._traits.c2_top - canvas.fade)

        def bodies(part: Canvas, where: Positions) -> None:
            self._bodies_of(part, column[inner], depth.take(where))

        canvas.paint_on(near[inner], bodies)

    def _bodies_of(self, part: Canvas, column: Array, depth: Array) -> None:
        tone, traits = self._signals, self._traits
        half_depth = traits.body_depth / 2
        u, s = part.u, part.s
        nearest, offset = self._numbered(s)
        grain = self._grain(part)
        marrow = self._marrow_of(part, nearest, offset, grain)
        # Endplates are concave and slope forwards slightly, as in the cervical spine.
        bow = 0.8 * (1.0 - ((depth + half_depth) / half_depth) ** 2)
        half = self._disc_half.take(nearest) - np.clip(bow, -0.6, 0.8) * 0.7
        gap = np.abs(offset + 0.10 * (depth + half_depth)) - half

        cervical_top = s < traits.c2_top
        part.fill(np.where(cervical_top, 9.0, column).astype(np.float32), tone.cortex)
        body = np.maximum(rounded(column + 0.7, -gap + 0.7, 1.6), traits.c2_top - s)
        part.fill(body, marrow)
        vein = ellipse(u, depth + 2.5, 2.0, 2.6)
        away = np.abs(np.abs(offset) - 8.5 * self._anatomy.scale)
        part.paint(part.coverage(np.maximum(vein, away - 0.8)) * np.float32(~cervical_top), marrow * 1.5)

        annulus = np.maximum(column - 0.6, gap + 0.5)
        part.fill(annulus, tone.disc_degenerated)
        nucleus = np.maximum(
            ellipse(u, depth + half_depth * 0.95, traits.body_width * 0.66, half_depth * 0.6), gap + 1.2
        )
        core = tone.disc + (tone.disc_degenerated - tone.disc) * self._worn.take(nearest)
        part.fill(nucleus, core * (1.0 + 0.1 * grain))

    def _dens(self, canvas: Canvas, depth: Array) -> None:
        """Paint the dens of C2 and the anterior arch of C1."""
        tone, traits = self._signals, self._traits
        fade = 0.8 + canvas.fade

        def dens(part: Canvas, where: Positions) -> None:
            taper = np.clip((part.s - traits.dens_top) / 6.0, 0.15, 1.0)
            outline = np.maximum(
                ellipse(part.u, depth.take(where) + 6.0, 5.2 * taper, 5.2 * taper),
                box(part.s, traits.dens_top, traits.c2_top + 2),
            )
            part.fill(outline - 0.8, tone.cortex)
            part.fill(outline, traits.marrow[0] * (1.0 + 0.08 * self._grain(part)))

        def arch(part: Canvas, where: Positions) -> None:
            outline = np.maximum(
                ellipse(part.s - traits.c1, depth.take(where) + 15.0, 5.0, 3.2), np.abs(part.u) - 14.0
            )
            self._paint_c1(part, outline)

        wide, deep = bounding_box(5.2, 5.2, fade)
        along = (canvas.s > traits.dens_top - fade) & (canvas.s < traits.c2_top + 2 + fade)
        canvas.paint_on(along & (np.abs(canvas.u) < wide) & (np.abs(depth + 6.0) < deep), dens)
        high, deep = bounding_box(5.0, 3.2, fade)
        along = (np.abs(canvas.s - traits.c1) < high) & (np.abs(depth + 15.0) < deep)
        canvas.paint_on(along & (np.abs(canvas.u) < 14.0 + fade), arch)

    def _paint_c1(self, part: Canvas, outline: Array) -> None:
        part.fill(outline - 0.8, self._signals.cortex)
        part.fill(outline, self._traits.marrow[0])

    def _arches(self, canvas: Canvas, half: Array, width: Array) -> None:
        """Paint structures beside and behind the canal; `half` and `width` are the canal's half axes."""
        away, back = np.abs(canvas.u), canvas.v - half
        self._behind_the_canal(canvas, half, width, back)
        # Pillars begin at the canal's edge, foramina 3.5 mm inside it, roots 9 mm beside the mid-line.
        inmost = min(self._narrowest - 3.5, 9.0) - 4.0 * canvas.fade
        lateral = (away > inmost) & (canvas.v > -9.0 - canvas.fade) & (canvas.v < 12.0 + 2.0 * canvas.fade)

        def beside(part: Canvas, where: Positions) -> None:
            self._beside_the_canal(part, width.take(where))

        canvas.paint_on(lateral, beside)
        self._spinous_processes(canvas, half, width, back)
        self._c1_arch(canvas, half, back)

    def _behind_the_canal(self, canvas: Canvas, half: Array, width: Array, back: Array) -> None:
        """Paint interspinous tissue, then ligaments; bone covers them at each vertebra."""
        tone, fade = self._signals, canvas.fade
        away = np.abs(canvas.u)

        def interspinous(part: Canvas, where: Positions) -> None:
            streak = np.clip(self._texture.noise(part, *_MUSCLE_GRAIN), -1.5, 1.5)
            canal = half.take(where)
            part.fill(
                np.maximum(np.abs(part.u) - 3.0, box(part.v, canal + 2, canal + 30)),
                tone.muscle + (0.6 * tone.fat - tone.muscle) * np.clip(0.35 + 0.35 * streak, 0, 1),
            )

        def nuchal(part: Canvas, where: Positions) -> None:
            canal = half.take(where)
            outline = np.maximum(np.abs(part.u) - 1.2, box(part.v, canal + 26, canal + 44))
            part.fill(outline, tone.ligament)

        def flaval(part: Canvas, where: Positions) -> None:
            ring = ellipse(part.u, part.v, width.take(where), half.take(where))
            outline = np.maximum(np.maximum(ring - 3.6, -part.v - 1.0), np.abs(part.u) - 11)
            part.fill(outline, tone.ligament + 0.08)

        canvas.paint_on((away < 3.0 + fade) & (back > 2 - fade) & (back < 30 + fade), interspinous)
        canvas.paint_on((away < 1.2 + fade) & (back > 26 - fade) & (back < 44 + fade), nuchal)
        _, deep = self._ring_reach(3.6 + fade)
        canvas.paint_on((away < 11 + fade) & (canvas.v > -1.0 - fade) & (canvas.v < deep), flaval)

    def _ring_reach(self, beyond: float) -> tuple[float, float]:
        """Half axes of a box that contains all points within `beyond` mm of the canal's outline."""
        axes = np.minimum(self._canal_half, self._canal_width)
        grown = 1.0 + beyond / axes
        return float((self._canal_width * grown).max()) + 0.1, float((self._canal_half * grown).max()) + 0.1

    def _beside_the_canal(self, part: Canvas, width: Array) -> None:
        """Paint facet pillars with their joints, foramina with fat and roots, vertebral arteries."""
        v, s, tone = part.v, part.s, self._signals
        away = np.abs(part.u)
        nearest, offset = self._numbered(s)
        pillar = np.maximum(ellipse(away - width - 6.0, v - 3.5, 6.0, 7.5), self._traits.c2_top - s)
        part.fill(pillar, tone.cortex)

        def spongy(inner: Canvas, where: Positions) -> None:
            below = offset.take(where)
            joint = np.abs(below + 0.45 * (inner.v - 3.0)) - 1.1
            marrow = self._marrow_of(inner, nearest.take(where), below, self._grain(inner))
            inner.fill(rounded(pillar.take(where) + 0.9, -joint, 1.2), marrow)

        part.paint_on(pillar < part.fade - 0.9, spongy)
        foramen = np.maximum(ellipse(away - width - 2.0, offset + 1.0, 5.5, 4.2), box(v, -5.5, 1.5))
        part.fill(foramen, 0.7 * tone.fat)
        root = np.maximum(ellipse(v + 2.0 - 0.3 * (away - width), offset + 1.0, 1.6, 1.9), 9.0 - away)
        part.fill(root, tone.cord)
        artery = np.maximum(ellipse(away - width - 3.5, v + 5.5, 1.9, 1.9), s - self._anatomy.discs[5])
        part.fill(artery, tone.air + 0.02)

    def _spinous_processes(self, canvas: Canvas, half: Array, width: Array, back: Array) -> None:
        """Paint laminae and spinous processes, which slope downwards to the back."""
        fade, away = canvas.fade, np.abs(canvas.u)
        _, deep = self._ring_reach(5.5 + fade)
        longest = max(process.length for process in self._processes)
        near = (away < 12.5 + fade) & (canvas.v > -1.0 - fade) & (canvas.v < deep)
        near |= (away < 3.6 + fade) & (back > 2.0 - fade) & (back < longest + fade)

        def all_of_them(part: Canvas, where: Positions) -> None:
            canal = half.take(where)
            ring = ellipse(part.u, part.v, width.take(where), canal)
            lamina = np.maximum(ring - 5.5, -part.v - 1.0)
            behind = back.take(where)
            may_be = (np.maximum(lamina, 0.8 - ring) < fade) | (behind > 2.0 - fade)
            for process in self._processes:
                rise = part.s - np.float32(process.centre)
                window = np.abs(rise - np.float32(0.25) * behind) < process.lamina + fade
                reaching = (3.4 + 0.06 * behind) * self._anatomy.scale + fade
                window |= np.abs(rise - np.float32(process.lean) * behind) < reaching

                def one(bone: Canvas, at: Positions, process: _Process = process) -> None:
                    self._process(bone, process, ring.take(at), lamina.take(at), behind.take(at))

                part.paint_on(window & may_be, one)

        canvas.paint_on(near, all_of_them)

    def _process(self, part: Canvas, process: _Process, ring: Array, lamina: Array, back: Array) -> None:
        scale, away = self._anatomy.scale, np.abs(part.u)
        rise = part.s - process.centre
        lamina = np.maximum(lamina, np.abs(rise - 0.25 * back) - process.lamina)
        lamina = np.maximum(lamina, -(ring - 0.8))
        tip = np.maximum(away - 3.6, box(back, 2.0, process.length))
        spinous = rounded(tip, np.abs(rise - process.lean * back) - (3.4 + 0.06 * back) * scale, 2.4)
        bone = np.minimum(np.maximum(lamina, away - 12.5), spinous)

        def shell(inner: Canvas, where: Positions) -> None:
            outline = bone.take(where)
            inner.fill(outline, self._signals.cortex)
            nearest, offset = self._numbered(inner.s)
            marrow = self._marrow_of(inner, nearest, offset, self._grain(inner))
            inner.fill(outline + 1.0, marrow)

        part.paint_on(bone < part.fade, shell)

    def _c1_arch(self, canvas: Canvas, half: Array, back: Array) -> None:
        """Paint the posterior arch of C1."""
        c1, fade = self._traits.c1, 0.8 + canvas.fade

        def arch(part: Canvas, where: Positions) -> None:
            outline = ellipse(part.s - c1 - 1.0, part.v - half.take(where) - 4.0, 4.5, 3.0)
            self._paint_c1(part, np.maximum(outline, np.abs(part.u) - 12.0))

        high, deep = bounding_box(4.5, 3.0, fade)
        near = (np.abs(canvas.s - (c1 + 1.0)) < high) & (np.abs(back - 4.0) < deep)
        canvas.paint_on(near & (np.abs(canvas.u) < 12.0 + fade), arch)
