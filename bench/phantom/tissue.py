"""What T2 signal the anatomy gives at any point of the canal's coordinates.

Structures are painted one over the other, each with an edge as soft as the pixels are wide, so that a
point sample stands for a pixel. Signal is relative to CSF at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stenosis_trt.bench.phantom.anatomy import Anatomy
from stenosis_trt.bench.phantom.shapes import Array, Canvas, box, ellipse, ellipsoid, ramp, rounded

_TEXTURE_SIZE = 48
_FINE_TABLE_MM = 0.1


@dataclass(frozen=True)
class Signals:
    """Relative T2 signal of each tissue in one acquisition."""

    csf: float
    cord: float
    grey_matter: float
    marrow: float
    disc: float
    disc_degenerated: float
    muscle: float
    fat: float
    ligament: float
    cortex: float
    mucosa: float
    air: float = 0.01


def sample_signals(rng: np.random.Generator) -> Signals:
    """Contrast differs between scanners and protocols, but stays T2 turbo spin echo."""
    cord = rng.uniform(0.34, 0.52)
    return Signals(
        csf=1.0,
        cord=cord,
        grey_matter=cord + rng.uniform(0.03, 0.10),
        marrow=rng.uniform(0.20, 0.50),
        disc=rng.uniform(0.30, 0.60),
        disc_degenerated=rng.uniform(0.08, 0.20),
        muscle=rng.uniform(0.10, 0.22),
        fat=rng.uniform(0.55, 0.95),
        ligament=rng.uniform(0.04, 0.14),
        cortex=rng.uniform(0.03, 0.09),
        mucosa=rng.uniform(0.35, 0.7),
    )


class TissueSource(Protocol):
    """Signal at points given in canal coordinates; `Tissues` paints it."""

    def surroundings(self, u: Array, v: Array, s: Array, edge: float) -> Array: ...

    def with_spine(self, surroundings: Array, u: Array, v: Array, s: Array, edge: float) -> Array: ...


class Tissues:
    """Signal of one anatomy under one acquisition's contrast, at points given in canal coordinates."""

    def __init__(self, anatomy: Anatomy, signals: Signals) -> None:
        self.anatomy, self.signals = anatomy, signals
        rng = np.random.default_rng(anatomy.texture_seed)
        self._table = np.stack(
            [
                anatomy.cord_ap / 2,
                anatomy.cord_transverse / 2,
                anatomy.cord_centre,
                anatomy.sac_ap / 2,
                anatomy.sac_transverse / 2,
                anatomy.canal_ap / 2,
                anatomy.canal_transverse / 2,
                anatomy.encroach_anterior,
                anatomy.encroach_posterior,
                anatomy.side,
                anatomy.breadth,
                anatomy.lesion,
            ]
        ).astype(np.float32)
        grid: Array = rng.standard_normal((_TEXTURE_SIZE,) * 3).astype(np.float32)
        for axis in range(3):
            grid = (np.roll(grid, 1, axis) + 2 * grid + np.roll(grid, -1, axis)) / 4
        self._texture = (grid / grid.std()).astype(np.float32)
        self._offsets = rng.uniform(0, _TEXTURE_SIZE, size=(6, 3)).astype(np.float32)

        discs, scale = anatomy.discs, anatomy.scale
        # C2 reaches up from disc C2/3; the dens stands on it.
        self._c2_top = float(discs[0] - 20.0 * scale)
        self._dens_top = float(discs[0] - 36.0 * scale)
        self._c1 = float(discs[0] - 27.0 * scale)
        self._middles = (discs[:-1] + discs[1:]) / 2
        self._degeneration = np.concatenate(
            [
                [item.degeneration for item in anatomy.stenoses],
                rng.uniform(0, 0.4, len(discs) - len(anatomy.stenoses)),
            ]
        )
        self._disc_half = rng.uniform(2.0, 2.9, len(discs)) * scale * (1.0 - 0.35 * self._degeneration)
        self._body_depth = rng.uniform(15.0, 17.5) * scale
        self._body_width = rng.uniform(9.5, 12.0) * scale
        self._marrow = signals.marrow * rng.uniform(0.85, 1.15, len(discs) + 1)
        self._spinous = rng.uniform(0.85, 1.15, len(discs) + 1)
        self._skin_back = rng.uniform(52.0, 72.0) * scale
        self._fat_back = rng.uniform(5.0, 16.0)
        self._neck_width = rng.uniform(58.0, 72.0) * scale
        self._neck_front = rng.uniform(52.0, 66.0) * scale
        self._epidural = rng.uniform(0.3, 0.9)
        self._flow_void = rng.uniform(0.0, 0.45)
        self._rootlets = rng.uniform(0.2, 0.6)

    def surroundings(self, u: Array, v: Array, s: Array, edge: float) -> Array:
        """Signal of everything but the spine; it changes little through a slice.

        Args:
            u, v, s: canal coordinates in mm, flat float32 (N,).
            edge: width in mm over which outlines fade.

        Returns:
            float32 (N,).
        """
        canvas = Canvas(u, v, s, edge)
        self._soft_tissue(canvas)
        return canvas.signal

    def with_spine(self, surroundings: Array, u: Array, v: Array, s: Array, edge: float) -> Array:
        """`surroundings` with vertebrae, canal and cord painted over, float32 (N,). Arguments as there."""
        canvas = Canvas(u, v, s, edge)
        canvas.signal = surroundings.copy()
        near, where = canvas.subset((np.abs(u) < 27) & (v > -34) & (v < 62))
        if len(where):
            self._bones(near)
            inner, inside = near.subset(
                (np.abs(near.u) < 16 + 8 * (near.s < self._c1)) & (np.abs(near.v) < 19)
            )
            if len(inside):
                self._canal(inner)
                near.signal[inside] = inner.signal
            canvas.signal[where] = near.signal
        return canvas.signal

    def noise(self, canvas: Canvas, channel: int, cell: tuple[float, float, float]) -> Array:
        """Smooth random field of unit variance; `cell` is its grain in mm along u, v and s."""
        size = _TEXTURE_SIZE
        position = [
            coordinate / grain + offset
            for coordinate, grain, offset in zip(
                (canvas.u, canvas.v, canvas.s), cell, self._offsets[channel], strict=True
            )
        ]
        floors = [np.floor(x) for x in position]
        shares = [x - f for x, f in zip(position, floors, strict=True)]
        cells = [f.astype(np.int32) % size for f in floors]
        nexts = [(c + 1) % size for c in cells]
        flat = self._texture.ravel()
        total = np.zeros(canvas.u.shape, dtype=np.float32)
        for corner in range(8):
            picks = [(nexts if corner >> axis & 1 else cells)[axis] for axis in range(3)]
            weights = [shares[axis] if corner >> axis & 1 else 1 - shares[axis] for axis in range(3)]
            total += flat[(picks[0] * size + picks[1]) * size + picks[2]] * (
                weights[0] * weights[1] * weights[2]
            )
        return total

    def _soft_tissue(self, canvas: Canvas) -> None:
        """Neck outline, subcutaneous fat, muscles with fat between them, airway, vessels, head."""
        u, v, s, tone = canvas.u, canvas.v, canvas.s, self.signals
        shoulders = 1.5 * ramp(s, self.anatomy.discs[4] - 10.0, 110.0)
        head = ramp(s, self._c1 + 22.0, -65.0)
        half_width = self._neck_width * (1.0 + 0.9 * shoulders + 0.25 * head)
        front = self._neck_front * (1.0 + 0.35 * shoulders + 0.55 * head)
        back = self._skin_back * (1.0 + 0.10 * shoulders + 0.35 * head)
        middle = (back - front) / 2
        skin = ellipse(u, v - middle, half_width, (front + back) / 2)
        canvas.paint(canvas.inside(skin), tone.fat)

        backward = np.clip((v - middle) / (front + back) * 2.0 + 0.45, 0.0, 1.0)
        coarse = self.noise(canvas, 0, (5.0, 5.0, 14.0))
        thickness = self._fat_back * (0.3 + 0.7 * backward**2) + 0.5 * coarse
        fine = self.noise(canvas, 1, (1.1, 1.1, 2.4))
        muscle = tone.muscle * (1.0 + 0.14 * fine + 0.10 * coarse)
        # Fat lies between muscles where two smooth fields cross zero, more of it towards the spine.
        septa = np.clip(0.55 - np.abs(coarse + 0.25 * fine) * 5.0, 0.0, 1.0) * np.clip(
            1.3 - np.abs(u) / 60.0, 0.3, 1.0
        )
        canvas.paint(canvas.inside(skin + thickness), muscle + (tone.fat * 0.7 - muscle) * septa)

        body_front = -(self.anatomy.canal_ap.mean() / 2 + self._body_depth)
        prevertebral = 5.0 + 9.0 * ramp(s, self.anatomy.discs[1] - 5.0, 35.0)
        airway_v = v - (body_front - prevertebral - 7.0).astype(np.float32)
        oral = ramp(s, self.anatomy.discs[0] + 5.0, -40.0)
        mouth = (v < body_front - 20) & (s < self.anatomy.discs[1])
        mottled = tone.muscle * 1.6 * (1.0 + 0.35 * coarse) + 0.1
        canvas.paint(canvas.inside(np.where(mouth, skin + 9.0, 9.0).astype(np.float32)), mottled)
        lumen = ellipse(u, airway_v, 8.5 + 3.0 * oral, 6.0 - 2.0 * oral)
        canvas.paint(canvas.inside(lumen - 2.0), tone.mucosa)
        canvas.paint(canvas.inside(lumen), tone.air)
        for side in (-1.0, 1.0):
            carotid = ellipse(u - side * 25.0, v - body_front + 4.0, 3.4, 3.4)
            canvas.paint(canvas.inside(carotid - 0.8), 0.3)
            canvas.paint(canvas.inside(carotid), tone.air + 0.02)
            jugular = ellipse(u - side * 33.0, v - body_front - 4.0, 5.0, 3.6)
            canvas.paint(canvas.inside(jugular), 0.55 if side > 0 else 0.12)
        self._skull(canvas, fine)

    def _skull(self, canvas: Canvas, fine: Array) -> None:
        """Occiput with cerebellum behind, clivus in front; only above C1."""
        part, where = canvas.subset(canvas.s < self._c1 + 4.0)
        if not len(where):
            return
        tone = self.signals
        # Three shells of one bowl whose rim reaches down behind the foramen magnum.
        bowl = ellipsoid(part.u, part.v - 30.0, part.s - self._c1 + 50.0, (58.0, 50.0, 44.0))
        part.paint(part.inside(bowl), tone.cortex)
        part.paint(part.inside(bowl + 1.2), tone.marrow)
        part.paint(part.inside(bowl + 4.0), tone.cortex)
        part.paint(part.inside(bowl + 5.5), tone.csf)
        folia = 0.5 + 0.5 * np.sin(part.s * 2.1 + 3.0 * np.sin(part.v * 0.22) + 0.4 * fine[where])
        cerebellum = ellipsoid(part.u, part.v - 36.0, part.s - self._c1 + 54.0, (48.0, 28.0, 36.0))
        part.paint(part.inside(cerebellum), tone.cord * (0.95 + 0.25 * folia + 0.05 * fine[where]))
        height = part.s - (self._c1 - 12.0)
        clivus = np.maximum(
            ellipse(part.u, part.v + 24.0 + 0.5 * height, 14.0, 6.0), part.s - self._dens_top + 6.0
        )
        part.paint(part.inside(clivus), tone.marrow)
        canvas.signal[where] = part.signal

    def _bones(self, canvas: Canvas) -> None:
        """Vertebrae C1–T3 with their discs, arches and ligaments, and the fat around the canal."""
        u, v, s, tone = canvas.u, canvas.v, canvas.s, self.signals
        anatomy = self.anatomy
        row = np.clip(
            ((s - anatomy.curve.s[0]) / _FINE_TABLE_MM).astype(np.int32), 0, len(anatomy.curve.s) - 1
        )
        canal_half, canal_width = self._table[5][row], self._table[6][row]
        grain = self.noise(canvas, 2, (1.6, 1.6, 1.6))
        depth = v + canal_half + 1.0
        half_depth = self._body_depth / 2
        column = ellipse(u, depth + half_depth, self._body_width, half_depth)

        discs = anatomy.discs
        nearest = np.clip(np.searchsorted(self._middles, s), 0, len(discs) - 1)
        offset = s - discs[nearest].astype(np.float32)
        below = np.where(offset > 0, nearest + 1, nearest)
        # Endplates are hollow and lean forwards a little, as in the neck.
        bow = 0.8 * (1.0 - ((depth + half_depth) / half_depth) ** 2)
        half = self._disc_half[nearest].astype(np.float32) - np.clip(bow, -0.6, 0.8) * 0.7
        gap = np.abs(offset + 0.10 * (depth + half_depth)) - half

        cervical_top = s < self._c2_top
        canvas.paint(canvas.inside(np.maximum(column - 1.6, self._c2_top - s)), tone.ligament)
        marrow = self._marrow[below].astype(np.float32) * (1.0 + 0.09 * grain)
        self._arches(canvas, marrow, canal_half, canal_width, offset)
        canvas.paint(canvas.inside(np.where(cervical_top, 9.0, column).astype(np.float32)), tone.cortex)
        body = np.maximum(rounded(column + 0.7, -gap + 0.7, 1.6), self._c2_top - s)
        canvas.paint(canvas.inside(body), marrow)
        vein = ellipse(u, depth + 2.5, 2.0, 2.6)
        away = np.abs(np.abs(offset) - 8.5 * anatomy.scale)
        canvas.paint(canvas.inside(np.maximum(vein, away - 0.8)) * np.float32(~cervical_top), marrow * 1.5)

        worn = self._degeneration[nearest].astype(np.float32)
        annulus = np.maximum(column - 0.6, gap + 0.5)
        canvas.paint(canvas.inside(annulus), tone.disc_degenerated)
        nucleus = np.maximum(
            ellipse(u, depth + half_depth * 0.95, self._body_width * 0.66, half_depth * 0.6), gap + 1.2
        )
        core = tone.disc + (tone.disc_degenerated - tone.disc) * worn
        canvas.paint(canvas.inside(nucleus), core * (1.0 + 0.1 * grain))
        self._dens(canvas, depth, grain)

    def _dens(self, canvas: Canvas, depth: Array, grain: Array) -> None:
        """Dens of C2, anterior arch of C1 and the transverse ligament."""
        u, s, tone = canvas.u, canvas.s, self.signals
        taper = np.clip((s - self._dens_top) / 6.0, 0.15, 1.0)
        dens = np.maximum(
            ellipse(u, depth + 6.0, 5.2 * taper, 5.2 * taper), box(s, self._dens_top, self._c2_top + 2)
        )
        canvas.paint(canvas.inside(dens - 0.8), tone.cortex)
        canvas.paint(canvas.inside(dens), self._marrow[0] * (1.0 + 0.08 * grain))
        arch = np.maximum(ellipse(s - self._c1, depth + 15.0, 5.0, 3.2), np.abs(u) - 14.0)
        canvas.paint(canvas.inside(arch - 0.8), tone.cortex)
        canvas.paint(canvas.inside(arch), self._marrow[0])

    def _arches(
        self, canvas: Canvas, marrow: Array, canal_half: Array, canal_width: Array, offset: Array
    ) -> None:
        """Laminae, spinous processes, facets, flaval ligaments, foramina with roots, vertebral arteries."""
        u, v, s, tone = canvas.u, canvas.v, canvas.s, self.signals
        scale, discs = self.anatomy.scale, self.anatomy.discs
        ring = ellipse(u, v, canal_width, canal_half)
        behind = -v - 1.0
        # Interspinous tissue, then ligament, then bone at each vertebra, leaning down as they go back.
        streak = np.clip(self.noise(canvas, 3, (2.5, 2.5, 3.0)), -1.5, 1.5)
        canvas.paint(
            canvas.inside(np.maximum(np.abs(u) - 3.0, box(v, canal_half + 2, canal_half + 30))),
            tone.muscle + (0.6 * tone.fat - tone.muscle) * np.clip(0.35 + 0.35 * streak, 0, 1),
        )
        nuchal = np.maximum(np.abs(u) - 1.2, box(v, canal_half + 26, canal_half + 44))
        canvas.paint(canvas.inside(nuchal), tone.ligament)
        canvas.paint(
            canvas.inside(np.maximum(np.maximum(ring - 3.6, behind), np.abs(u) - 11)), tone.ligament + 0.08
        )

        pillar = np.maximum(ellipse(np.abs(u) - canal_width - 6.0, v - 3.5, 6.0, 7.5), self._c2_top - s)
        canvas.paint(canvas.inside(pillar), tone.cortex)
        joint = np.abs(offset + 0.45 * (v - 3.0)) - 1.1
        canvas.paint(canvas.inside(rounded(pillar + 0.9, -joint, 1.2)), marrow)
        foramen = np.maximum(
            ellipse(np.abs(u) - canal_width - 2.0, offset + 1.0, 5.5, 4.2), box(v, -5.5, 1.5)
        )
        canvas.paint(canvas.inside(foramen), 0.7 * tone.fat)
        root = np.maximum(
            ellipse(v + 2.0 - 0.3 * (np.abs(u) - canal_width), offset + 1.0, 1.6, 1.9), 9.0 - np.abs(u)
        )
        canvas.paint(canvas.inside(root), tone.cord)
        artery = np.maximum(ellipse(np.abs(u) - canal_width - 3.5, v + 5.5, 1.9, 1.9), s - discs[5])
        canvas.paint(canvas.inside(artery), tone.air + 0.02)

        for index in range(len(discs)):
            centre = (
                discs[index] - 9.0 * scale if index == 0 else (discs[index - 1] + discs[index]) / 2
            ) + 2.0
            length = (
                (24.0 if index == 0 else 17.0 + 2.8 * index if index < 6 else 34.0)
                * scale
                * self._spinous[index]
            )
            lean = 0.30 if index < 5 else 0.45
            back = v - canal_half
            lamina = np.maximum(
                np.maximum(ring - 5.5, behind),
                np.abs(s - centre - 0.25 * back) - (5.6 if index else 7.0) * scale,
            )
            lamina = np.maximum(lamina, -(ring - 0.8))
            tip = np.maximum(np.abs(u) - 3.6, box(back, 2.0, length))
            process = rounded(tip, np.abs(s - centre - lean * back) - (3.4 + 0.06 * back) * scale, 2.4)
            bone = np.minimum(np.maximum(lamina, np.abs(u) - 12.5), process)
            close, where = canvas.subset(bone < 2.0)
            if len(where):
                close.paint(close.inside(bone[where]), tone.cortex)
                close.paint(close.inside(bone[where] + 1.0), marrow[where])
                canvas.signal[where] = close.signal
        arch = np.maximum(ellipse(s - self._c1 - 1.0, v - canal_half - 4.0, 4.5, 3.0), np.abs(u) - 12.0)
        canvas.paint(canvas.inside(arch - 0.8), tone.cortex)
        canvas.paint(canvas.inside(arch), self._marrow[0])

    def _canal(self, canvas: Canvas) -> None:
        """Epidural fat, dura, CSF with its flow voids, what pushes in, the cord and its lesion."""
        u, v, s, tone = canvas.u, canvas.v, canvas.s, self.signals
        row = np.clip(
            np.rint((s - self.anatomy.curve.s[0]) / _FINE_TABLE_MM).astype(np.int32),
            0,
            self._table.shape[1] - 1,
        )
        (cord_v, cord_u, centre, sac_v, sac_u, canal_v, canal_u, front, back, side, breadth, lesion) = (
            self._table[:, row]
        )
        canal = ellipse(u, v, canal_u, canal_v)
        canvas.paint(canvas.inside(canal), tone.ligament)
        epidural = np.maximum(canal + 0.4, -(v - 0.45 * canal_v))
        canvas.paint(canvas.inside(epidural), self._epidural * tone.fat)
        canvas.paint(canvas.inside(np.maximum(canal + 0.4, 0.72 * canal_u - np.abs(u))), 0.7 * self._epidural)

        lean = np.exp(0.5 * (side / breadth) ** 2) * np.exp(-0.5 * ((u - side) / breadth) ** 2)
        pushed_front = -v - sac_v + front * lean
        pushed_back = v - sac_v + back * np.exp(-0.5 * (u / breadth) ** 2)
        sac = ellipse(u, v, sac_u, sac_v)
        # Out at the sides the sac curves away, so an encroachment follows the ellipse's own outline.
        rise = sac_v * (1.0 - np.sqrt(np.clip(1.0 - (u / sac_u) ** 2, 0.0, 1.0)))
        sac = np.maximum(sac, np.maximum(pushed_front + rise * 0.5, pushed_back + rise * 0.5))
        canvas.paint(canvas.inside(sac - 0.5), tone.cortex)
        turbulence = np.clip(self.noise(canvas, 4, (2.6, 2.6, 9.0)) - 0.35, 0.0, 1.6)
        canvas.paint(canvas.inside(sac), tone.csf * (1.0 - self._flow_void * turbulence))
        rootlet = ellipse(np.abs(u) - cord_u - 2.2, np.abs(v) - 1.8, 1.6, 0.45)
        canvas.paint(canvas.inside(np.maximum(rootlet, sac)) * np.float32(self._rootlets), tone.cord)

        cord = np.maximum(ellipse(u, v - centre, cord_u, cord_v), sac - 0.02)
        grain = self.noise(canvas, 5, (1.2, 1.2, 3.0))
        canvas.paint(canvas.inside(cord), tone.cord * (1.0 + 0.03 * grain))
        x, y = np.abs(u) / cord_u, (v - centre) / cord_v
        horn = np.minimum(ellipse(x - 0.24, y + 0.08 - 0.3 * x, 0.11, 0.46), ellipse(x, y, 0.28, 0.12))
        canvas.paint(canvas.inside(horn * cord_v), tone.grey_matter)
        fissure = ellipse(u, y + 0.85, 0.25, 0.3)
        canvas.paint(canvas.inside(np.maximum(fissure, cord)) * np.float32(0.5), tone.csf)
        core = ellipse(x - 0.15, y, 0.42, 0.52)
        canvas.paint(canvas.inside(core * cord_v), canvas.signal + lesion)
