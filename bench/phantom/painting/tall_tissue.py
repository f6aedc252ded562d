"""Tissue of a tall image: vertebrae of chest and loin, the trunk in front of them, and the head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stenosis_trt.bench.phantom.painting.canal_contents import CanalContents
from stenosis_trt.bench.phantom.painting.soft_tissue import SoftTissue
from stenosis_trt.bench.phantom.painting.texture import Texture
from stenosis_trt.bench.phantom.painting.tissue import Tissues
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals, Traits, sample_traits
from stenosis_trt.bench.phantom.painting.vertebrae import Vertebrae
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.patient.spine import STEP_MM
from stenosis_trt.bench.phantom.patient.tall_spine import L5_S1, NECK_DISCS, T12_L1
from stenosis_trt.bench.phantom.shapes import Array, Canvas, Positions, ellipse, ellipsoid, ramp

_COARSE = (0, (9.0, 9.0, 11.0))
_FINE = (1, (1.1, 1.1, 2.4))
_FOLDS = (3, (4.0, 4.0, 4.0))
"""(channel of the texture, grain in mm along u, v and s)."""

# Size of vertebral bodies relative to those of the neck at T3/4, T6/7, T12/L1, L2/3, L5/S1 and S2/3.
_GROWTH_AT = np.array([8, 11, T12_L1, 19, L5_S1, L5_S1 + 2])
_GROWTH = np.array([1.0, 1.3, 1.75, 2.05, 2.0, 1.1])


def painted(anatomy: Anatomy, signals: Signals) -> Tissues:
    """Painted tissue of a patient, whether ordinary or of a tall image."""
    if len(anatomy.discs) > NECK_DISCS:
        return TallTissues(anatomy, signals)
    return Tissues(anatomy, signals)


class TallTissues(Tissues):
    """Painted signal of an anatomy that `tall_spine.extended` has continued."""

    def __init__(self, anatomy: Anatomy, signals: Signals) -> None:
        self.anatomy, self.signals = anatomy, signals
        rng = np.random.default_rng(anatomy.texture_seed)
        self.texture = Texture(rng)
        # The neck has the traits that it has in an ordinary image.
        traits = sample_traits(rng, replace(anatomy, discs=anatomy.discs[:NECK_DISCS]), signals)
        self._traits = _continued(traits, anatomy, signals)
        self._soft: SoftTissue = TallSoftTissue(anatomy, signals, self._traits, self.texture)
        self._bones = Vertebrae(anatomy, signals, self._traits, self.texture)
        self._canal = CanalContents(anatomy, signals, self._traits, self.texture)
        growth = np.interp(anatomy.curve.s, anatomy.discs[_GROWTH_AT], _GROWTH)
        self._growth = growth.astype(np.float32)
        self._half = (anatomy.canal_ap / 2).astype(np.float32)

    def with_spine(self, surroundings: Array, u: Array, v: Array, s: Array, edge: float) -> Array:
        """See `Tissues`."""
        canvas = Canvas(u, v, s, edge)
        canvas.signal = surroundings.copy()
        below = s > self.anatomy.discs[6]
        wide, deep = np.where(below, 34, 27), np.where(below, 52, 34)
        near = (np.abs(u) < wide) & (v > -deep) & (v < 70) & (s > self._traits.c1 - 85.0)
        canvas.paint_on(near & (s < self.anatomy.discs[-1] - 3.0), self._spine)
        return canvas.signal

    def _spine(self, canvas: Canvas, _: Positions) -> None:
        canvas.paint_on(canvas.s > self._traits.c1 - 14.0, self._column)
        canvas.paint_on((np.abs(canvas.v) < 19) & (np.abs(canvas.u) < 24), self._canal.paint)

    def _column(self, canvas: Canvas, _: Positions) -> None:
        """Paint the vertebrae at the places in the neck's size that correspond to those of larger ones."""
        first, last = self.anatomy.curve.s[0], len(self._half) - 1
        row = np.clip(((canvas.s - first) / STEP_MM).astype(np.int32), 0, last)
        growth, wall = self._growth.take(row), self._half.take(row) + 1.0
        front = canvas.v < -wall
        small = Canvas(
            np.where(front, canvas.u / growth, canvas.u).astype(np.float32),
            np.where(front, -wall + (canvas.v + wall) / growth, canvas.v).astype(np.float32),
            canvas.s,
            canvas.edge,
        )
        small.signal = canvas.signal
        self._bones.paint(small)
        canvas.signal = small.signal


def _continued(traits: Traits, anatomy: Anatomy, signals: Signals) -> Traits:
    """Traits with those of the added discs and vertebrae."""
    rng = np.random.default_rng([anatomy.texture_seed, 3])
    added = len(anatomy.discs) - NECK_DISCS
    worn = rng.uniform(0.0, 0.6, added)
    height = np.interp(
        np.arange(NECK_DISCS, len(anatomy.discs)), [9, T12_L1, T12_L1 + 3, L5_S1], [1, 1.3, 2, 2]
    )
    height[L5_S1 + 1 - NECK_DISCS :] = 0.5
    half = rng.uniform(2.0, 2.7, added) * anatomy.scale * height * (1.0 - 0.35 * worn)
    return replace(
        traits,
        degeneration=np.concatenate([traits.degeneration, worn]),
        disc_half=np.concatenate([traits.disc_half, half]),
        marrow=np.concatenate([traits.marrow, signals.marrow * rng.uniform(0.85, 1.15, added)]),
        spinous=np.concatenate([traits.spinous, rng.uniform(0.85, 1.15, added)]),
    )


class TallSoftTissue(SoftTissue):
    """Paints neck, trunk and head."""

    def __init__(self, anatomy: Anatomy, signals: Signals, traits: Traits, texture: Texture) -> None:
        super().__init__(anatomy, signals, traits, texture)
        neck = (anatomy.curve.s > anatomy.discs[0]) & (anatomy.curve.s < anatomy.discs[6])
        self._body_front = -(float(anatomy.canal_ap[neck].mean()) / 2 + traits.body_depth)

    def paint(self, canvas: Canvas) -> None:
        """Paint the neck as in an ordinary image, then the trunk below it and the head above."""
        super().paint(canvas)
        canvas.paint_on(canvas.s > self._anatomy.discs[5] + 8.0, self._trunk)
        canvas.paint_on(canvas.s < self._traits.c1 - 5.0, self._head)

    def _trunk(self, part: Canvas, _: Positions) -> None:
        """Paint lungs, mediastinum, aorta and the organs of the belly; saturation darkens the front."""
        tone, discs = self._signals, self._anatomy.discs
        chest = ramp(part.s, float(discs[5]) + 8.0, 60.0)
        belly = ramp(part.s, float(discs[T12_L1 - 2]), 40.0)
        growth = np.interp(part.s, discs[_GROWTH_AT], _GROWTH).astype(np.float32)
        front = part.v + 8.0 + growth * (self._traits.body_depth + 2.0)
        coarse, fine = self._texture.noise(part, *_COARSE), self._texture.noise(part, *_FINE)
        inside = part.coverage(ellipse(part.u, front + 56.0, 112.0, 60.0)) * chest
        lung = 0.03 + 0.05 * np.clip(coarse + 0.5 * fine - 0.9, 0.0, 1.0)
        middle = np.clip(1.3 - np.abs(part.u) / 40.0, 0.0, 1.0)
        mediastinum = np.clip(0.16 + 0.1 * coarse + 0.03 * fine, 0.03, 0.6)
        organs = np.clip(0.22 + 0.16 * coarse + 0.04 * fine, 0.04, 0.9)
        signal = np.where(middle > 0.4, mediastinum, lung)
        part.paint(inside, signal + (organs - signal) * belly)
        aorta = ellipse(part.u - 12.0, front + 13.0, 10.0, 10.0)
        part.paint(part.coverage(aorta) * ramp(part.s, float(discs[8]), 10.0), tone.air + 0.03)
        # A slab in front of the spine is saturated, so that breathing leaves no ghosts.
        saturated = 0.25 + 0.75 * np.clip((front + 48.0) / 18.0, 0.0, 1.0)
        part.signal = np.asarray(part.signal * (1.0 + (saturated - 1.0) * chest), dtype=np.float32)

    def _head(self, part: Canvas, _: Positions) -> None:
        """Paint the upper head: scalp, skull and brain above the tentorium, air around them."""
        tone, traits, c1, scale = self._signals, self._traits, self._traits.c1, self._anatomy.scale
        # The head continues the outline that the neck has at its widest section.
        front, back = 1.55 * traits.neck_front, 1.35 * traits.skin_back
        widest, height = c1 - 62.0 * scale, 96.0 * scale
        radii = (1.25 * traits.neck_width, (front + back) / 2, height)
        head = ellipsoid(part.u, part.v - (back - front) / 2, part.s - widest, radii)
        above = part.s < widest
        # The base of the skull rises to the front, and the tentorium to the middle.
        base = part.s - (c1 - 52.0 * scale) - 0.35 * np.minimum(part.v + 8.0, 0.0)
        skull = np.maximum(head + 6.0, base).astype(np.float32)
        part.fill(skull, tone.cortex)
        part.fill(np.maximum(head + 8.0, base + 1.5), tone.marrow)
        part.fill(np.maximum(head + 11.0, base + 1.5), tone.cortex)
        part.fill(np.maximum(head + 12.5, base + 2.0), tone.csf)
        brain = np.maximum(head + 15.0, base + 3.0).astype(np.float32)

        def tissue(inner: Canvas, where: Positions) -> None:
            depth = -brain.take(where)
            folds = self._texture.noise(inner, *_FOLDS)
            sulci = np.clip(1.2 - np.abs(folds) * 6.0, 0.0, 1.0) * np.clip(1.0 - depth / 22.0, 0.0, 1.0)
            cortex = np.clip(1.4 - depth / 5.0 + 0.4 * folds, 0.0, 1.0)
            grey, white = tone.cord * 1.25, tone.cord * 0.95
            signal = white + (grey - white) * cortex
            inner.fill(-depth, signal + (tone.csf * 0.85 - signal) * sulci)
            away = np.abs(inner.u) - 9.0
            ventricle = ellipsoid(away, inner.v + 12.0, inner.s - (c1 - 88.0 * scale), (6.0, 34.0, 9.0))
            inner.fill(ventricle, tone.csf)
            cleft = np.maximum(np.abs(inner.u) - 1.0, inner.s - (c1 - 105.0 * scale))
            inner.fill(cleft, tone.csf * 0.7)

        part.paint_on(brain < part.fade, tissue)
        part.paint(np.where(above & (head > -6.0), 1.0, 0.0).astype(np.float32), tone.fat * 0.9)
        outline = np.where(above, head, -1.0).astype(np.float32)
        part.paint(1.0 - part.coverage(outline), tone.air)
