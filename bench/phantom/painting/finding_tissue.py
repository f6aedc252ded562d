"""Paint findings over the signal of a patient: one definition for phantoms and semi-synthetic studies."""

from __future__ import annotations

import numpy as np

from stenosis_trt.bench.phantom.painting.texture import Texture
from stenosis_trt.bench.phantom.painting.tissue import TissueSource
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.patient.findings import Blob, Ossification, Syrinx
from stenosis_trt.bench.phantom.patient.hardware import BODY_DEPTH_MM, Implant
from stenosis_trt.bench.phantom.shapes import Array, Canvas, Mask, Positions, ellipse

_EDGE_GRAIN = (0, (1.6, 1.6, 4.0))
_VOID_GRAIN = (1, (3.5, 3.5, 3.5))
_BONE_GRAIN = (2, (1.2, 1.2, 2.5))
"""(channel of the texture, grain in mm along u, v and s)."""
_ENDPLATE_MM = 3.4
"""From the middle of a disc to marrow, for an adult of scale 1."""
_DURA_MM = 0.4
_RIM_MM = 1.2
"""Width of the rim in which signal piles up, beyond a void of 0 mm; it grows with the void."""
_DISTORTION_MM = 5.0
"""Distance over which distortion around a void decays."""


def with_findings(tissues: TissueSource, anatomy: Anatomy, signals: Signals) -> TissueSource:
    """`tissues` with the patient's findings painted; `tissues` itself where nothing is to be painted.

    Args:
        tissues: the patient without what `anatomy.findings` paints.
        anatomy: the patient.
        signals: contrast of the acquisition.
    """
    found = anatomy.findings
    painted = (found.syrinx, found.patches, found.ossification, found.fused, found.hardware)
    return FindingTissues(tissues, anatomy, signals) if any(painted) else tissues


class FindingTissues:
    """Signal of a patient with findings; a `TissueSource`."""

    def __init__(self, tissues: TissueSource, anatomy: Anatomy, signals: Signals) -> None:
        self._tissues, self._anatomy, self._signals = tissues, anatomy, signals
        found, discs = anatomy.findings, anatomy.discs
        self._texture = Texture(np.random.default_rng([anatomy.texture_seed, 2]))
        half = [anatomy.cord_transverse / 2, anatomy.cord_ap / 2, anatomy.cord_centre]
        self._cord = np.stack(half).astype(np.float32)
        profiles = [anatomy.sac_ap / 2, anatomy.sac_transverse / 2, anatomy.canal_ap / 2]
        profiles += [anatomy.encroach_anterior, anatomy.side, anatomy.breadth]
        self._canal = np.stack(profiles).astype(np.float32)
        self._patches = tuple(
            (level.s, patch)
            for level, patch in zip(anatomy.levels, found.patches, strict=False)
            if level.grade == 3
        )
        self._implant = None
        if found.hardware is not None:
            self._implant = Implant(found, anatomy.curve.s, discs, anatomy.canal_ap, anatomy.scale)

    def surroundings(self, u: Array, v: Array, s: Array, edge: float) -> Array:
        """See `TissueSource`."""
        return self._tissues.surroundings(u, v, s, edge)

    def with_spine(self, surroundings: Array, u: Array, v: Array, s: Array, edge: float) -> Array:
        """Signal with the findings, float32 (N,); arguments as in `TissueSource`."""
        found, discs = self._anatomy.findings, self._anatomy.discs
        canvas = Canvas(u, v, s, edge)
        if self._implant is None:
            canvas.signal = self._tissues.with_spine(surroundings, u, v, s, edge)
        else:
            near, distance = self._around(self._implant, canvas)
            shown_v, shown_s = self._distorted(self._implant, canvas, near, distance)
            canvas.signal = self._tissues.with_spine(surroundings, u, shown_v, shown_s, edge)
        for disc in found.fused:
            self._fuse(canvas, surroundings, float(discs[disc]))
        if found.ossification is not None:
            self._ossify(canvas, found.ossification)
        if found.syrinx is not None:
            self._fill_syrinx(canvas, found.syrinx)
        for place, patch in self._patches:
            self._raise(canvas, place, patch)
        if self._implant is not None:
            self._void(canvas, self._implant, near, distance)
        return canvas.signal

    def _rows(self, s: Array) -> Positions:
        return self._anatomy.curve.index(s)

    def _in_cord(self, part: Canvas) -> tuple[Array, Array, Array, Array]:
        """Offset from the cord's centre in shares of its half axes, its half AP and the distance to it."""
        half_u, half_v, centre = self._cord.take(self._rows(part.s), axis=1)
        outline = ellipse(part.u, part.v - centre, half_u, half_v)
        return part.u / half_u, (part.v - centre) / half_v, half_v, outline

    def _fill_syrinx(self, canvas: Canvas, syrinx: Syrinx) -> None:
        discs = self._anatomy.discs
        centre = np.float32(np.interp(syrinx.centre, np.arange(len(discs)), discs))

        def cavity(part: Canvas, _: Positions) -> None:
            x, y, half_v, outline = self._in_cord(part)
            along = np.abs(part.s - centre) / np.float32(syrinx.length / 2)
            size = np.maximum(1.0 - np.minimum(along, 1.0) ** syrinx.taper, 1e-4) ** (1 / syrinx.taper)
            size = size * (1.0 - syrinx.beads * np.sin(np.pi * (part.s - centre) / syrinx.bead_length) ** 2)
            inner = ellipse(
                x - syrinx.offset_u, y - syrinx.offset_v, syrinx.half_u * size, syrinx.half_v * size
            )
            # A rim of cord is left around it.
            inside = np.maximum(np.maximum(inner * half_v, outline + 0.5), (along - 1.0) * syrinx.length / 2)
            part.fill(inside, self._signals.csf)

        canvas.paint_on(self._near_cord(canvas, float(centre), syrinx.length / 2), cavity)

    def _near_cord(self, canvas: Canvas, place: float, reach: float) -> Mask:
        wide, deep = 1.05 * float(self._cord[0].max()), float((self._cord[1] + np.abs(self._cord[2])).max())
        across = (np.abs(canvas.u) < wide) & (np.abs(canvas.v) < deep + 1.0)
        return np.asarray(across & (np.abs(canvas.s - np.float32(place)) < reach))

    def _raise(self, canvas: Canvas, place: float, patch: tuple[Blob, ...]) -> None:
        """Add the signal of an oedema: the strongest of its blobs at each point, with an uneven edge."""
        reach = max(abs(blob.s) + 1.5 * blob.half_s for blob in patch)

        def oedema(part: Canvas, _: Positions) -> None:
            x, y, _half, outline = self._in_cord(part)
            uneven = 1.0 + 0.15 * np.clip(self._texture.noise(part, *_EDGE_GRAIN), -1.8, 1.8)
            weight = np.zeros_like(part.signal)
            for blob in patch:
                a, b = (x - blob.u) / blob.half_u, (y - blob.v) / blob.half_v
                c = (part.s - np.float32(place + blob.s)) / np.float32(blob.half_s)
                radius = np.sqrt(a * a + b * b + c * c) * uneven
                covered = blob.strength * np.clip((1.2 - radius) / 0.4, 0.0, 1.0)
                weight = np.maximum(weight, covered.astype(np.float32))
            gain = weight * part.coverage(outline + 0.3) * np.float32(self._anatomy.findings.oedema)
            gain *= np.float32(self._signals.lesion)
            part.signal += gain

        canvas.paint_on(self._near_cord(canvas, place, reach), oedema)

    def _ossify(self, canvas: Canvas, band: Ossification) -> None:
        """Fill what the band takes of the sac with bone, from the canal's front wall to the dura."""
        discs = self._anatomy.discs
        first, last = discs[band.first] - band.taper, discs[band.first + band.bodies] + band.taper
        near = (np.abs(canvas.u - band.side) < band.width) & (canvas.v < 6.0) & (canvas.v > -15.0)
        near &= (canvas.s > first) & (canvas.s < last)
        profile = band.profile(self._anatomy.curve.s, discs).astype(np.float32)

        def bone(part: Canvas, _: Positions) -> None:
            row = self._rows(part.s)
            sac_v, sac_u, canal_v, front, side, breadth = self._canal.take(row, axis=1)
            u = part.u
            lean = np.exp(0.5 * (side / breadth) ** 2 - 0.5 * ((u - side) / breadth) ** 2)
            out = np.sqrt(np.clip(1.0 - (u / sac_u) ** 2, 0.0, 1.0))
            # The sac's front as phantoms and deformed subjects have it; the further one forwards is bone.
            pushed = np.minimum(
                out * (front * lean - sac_v), front * lean - sac_v + 0.5 * sac_v * (1.0 - out)
            )
            wall = -canal_v * out - 1.3
            across = np.abs(u - band.side) - band.width / 2
            depth = np.maximum(part.v - pushed + _DURA_MM, wall - part.v)
            thin = 0.15 - profile.take(row)
            grain = np.clip(self._texture.noise(part, *_BONE_GRAIN), -2.0, 2.0)
            inside = np.maximum(np.maximum(depth, across), thin * 4.0)
            part.fill(inside, self._signals.cortex * (1.0 + 0.15 * grain))

        canvas.paint_on(near, bone)

    def _fuse(self, canvas: Canvas, surroundings: Array, disc: float) -> None:
        """Replace a disc by the marrow of both neighbours, mirrored at the endplates and blended."""
        anatomy = self._anatomy
        scale = anatomy.scale
        half = _ENDPLATE_MM * scale
        wall = float(self._canal[2][self._rows(np.array([disc]))[0]]) + 1.0
        middle = -wall - BODY_DEPTH_MM * scale / 2
        half_v, half_u = BODY_DEPTH_MM * scale / 2 - 0.8, 9.0 * scale

        def outline(u: Array, v: Array, s: Array) -> Array:
            # Discs slope slightly forwards.
            offset = s - disc + 0.1 * (v - middle)
            return np.maximum(ellipse(u, v - middle, half_u, half_v), np.abs(offset) - half).astype(
                np.float32
            )

        near = np.flatnonzero(outline(canvas.u, canvas.v, canvas.s) < canvas.fade + 0.5)

        def marrow(part: Canvas, where: Positions) -> None:
            offset = part.s - np.float32(disc) + np.float32(0.1) * (part.v - np.float32(middle))
            share = np.clip(0.5 + offset / (2 * half), 0.0, 1.0).astype(np.float32)
            around = surroundings.take(where)
            signal = np.zeros_like(part.signal)
            for sign, weight in ((-1.0, 1.0 - share), (1.0, share)):
                beyond = np.float32(disc + sign * half) + np.float32(sign) * np.abs(offset - sign * half)
                beyond = beyond.astype(np.float32)
                signal += weight * self._tissues.with_spine(around, part.u, part.v, beyond, part.edge)
            edge = outline(part.u, part.v, part.s)
            part.paint(np.clip(0.5 - edge, 0.0, 1.0).astype(np.float32), signal)

        canvas.paint_on(near, marrow)

    def _around(self, implant: Implant, canvas: Canvas) -> tuple[Positions, Array]:
        """Points near the metal, and their distance beyond the void, float32."""
        reach = implant.void + 3.0 * _DISTORTION_MM
        discs = self._anatomy.discs[list(self._anatomy.findings.fused)]
        first, last = discs[0] - 14.0 - reach, discs[-1] + 14.0 + reach
        box = (np.abs(canvas.u) < 9.0 + reach) & (canvas.v < reach) & (canvas.v > -35.0 - reach)
        near = np.flatnonzero(box & (canvas.s > first) & (canvas.s < last))
        part = Canvas(canvas.u.take(near), canvas.v.take(near), canvas.s.take(near), canvas.edge)
        uneven = np.clip(self._texture.noise(part, *_VOID_GRAIN), -2.0, 2.0)
        beyond = implant.distance(part.u, part.v, part.s) - implant.void * (1.0 + 0.22 * uneven)
        return near, np.asarray(beyond, dtype=np.float32)

    def _distorted(
        self, implant: Implant, canvas: Canvas, near: Positions, distance: Array
    ) -> tuple[Array, Array]:
        """v and s of the tissue that is shown at each point: displaced along the read-out near the void."""
        amount = 0.15 * implant.void * np.exp(-np.maximum(distance, 0.0) / _DISTORTION_MM)
        amount *= np.clip(3.0 - distance / _DISTORTION_MM, 0.0, 1.0)
        shown = []
        for axis, direction in zip((canvas.v, canvas.s), implant.hardware.pile_up, strict=True):
            moved = axis.copy()
            moved[near] += (direction * amount).astype(np.float32)
            shown.append(moved)
        return shown[0], shown[1]

    def _void(self, canvas: Canvas, implant: Implant, near: Positions, distance: Array) -> None:
        """Paint the rim where signal piles up, then the void."""
        close = distance < 4.0 + 0.3 * implant.void

        def metal(part: Canvas, _: Positions) -> None:
            beyond = distance[close]
            direction_v, direction_s = (np.float32(x) for x in implant.hardware.pile_up)
            step = np.float32(1.0)
            ahead, behind = (
                implant.distance(part.u, part.v + sign * direction_v, part.s + sign * direction_s)
                for sign in (step, -step)
            )
            facing = np.clip((ahead - behind) / 2, 0.0, 1.0)
            width = _RIM_MM + 0.15 * implant.void
            rim = np.clip(0.5 - (np.abs(beyond - width / 2) - width / 2) / max(part.edge, 0.6), 0.0, 1.0)
            bright = np.maximum(part.signal, implant.hardware.rim * (0.4 + 0.6 * part.signal))
            part.paint((rim * facing**2).astype(np.float32), bright)
            part.fill(beyond, self._signals.air)

        canvas.paint_on(near[close], metal)
