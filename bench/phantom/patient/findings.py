"""Findings of one patient: deformity, fluid and oedema in the cord, ossification, fusion, hardware.

Findings are drawn from `Conditions` before the anatomy, relative to it: a position along the canal counts
discs, 0 at C2/3, 0.5 in the middle of C3; sizes in the cord are shares of its half axes. What is drawn does
not depend on the strengths, so studies of several strengths differ in the strength alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stenosis_trt.bench.phantom.conditions import Conditions
from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.records import LEVELS

_FUSED_MM = 1.2
"""Height that a disc loses when it is fused, in mm."""


@dataclass(frozen=True)
class Deformity:
    """Bends that are added to the canal's curve.

    Attributes:
        kyphosis: degrees taken from the lordosis between C2/3 and C7/T1.
        apex: place of the kyphosis, in discs.
        scoliosis: amplitude of the coronal angle in degrees.
        wavelength, phase: of the side bend along the canal, in mm and radians.
    """

    kyphosis: float
    apex: float
    scoliosis: float
    wavelength: float
    phase: float


@dataclass(frozen=True)
class Syrinx:
    """A cavity in the cord.

    Attributes:
        centre: place in discs.
        length: in mm.
        half_u, half_v: half axes in the middle, as shares of those of the cord.
        offset_u, offset_v: of its centre from the cord's, in the same shares.
        taper: exponent of the ends; 2 for an ellipsoid, larger for a tube.
        beads: depth of its constrictions, as a share.
        bead_length: distance between them in mm.
    """

    centre: float
    length: float
    half_u: float
    half_v: float
    offset_u: float
    offset_v: float
    taper: float
    beads: float
    bead_length: float


@dataclass(frozen=True)
class Blob:
    """A part of an oedema; u and v are shares of the cord's half axes, s in mm from the disc.

    `strength` is the share of the oedema's signal.
    """

    u: float
    v: float
    s: float
    half_u: float
    half_v: float
    half_s: float
    strength: float


@dataclass(frozen=True)
class Ossification:
    """A band of bone behind vertebral bodies.

    Attributes:
        share: of the reserve, sac minus cord, that it takes.
        first: disc above the first body.
        bodies: number of bodies.
        continuous: it crosses the discs between them.
        width, side: width and centre across the canal in mm.
        taper: length of its ends in mm.
    """

    share: float
    first: int
    bodies: int
    continuous: bool
    width: float
    side: float
    taper: float

    def profile(self, s: FloatArray, discs: FloatArray) -> FloatArray:
        """Thickness along the canal relative to the full one, float64 (M,)."""
        margin = 3.0 if self.continuous else min(4.5, self.taper)
        top, bottom = discs[self.first : -1] + margin, discs[self.first + 1 :] - margin
        if self.continuous:
            top, bottom = top[:1], bottom[self.bodies - 1 : self.bodies]
        else:
            top, bottom = top[: self.bodies], bottom[: self.bodies]
        beyond = np.maximum(top[:, None] - s, s - bottom[:, None]).min(axis=0)
        share = 1.0 - np.clip(beyond / self.taper, 0.0, 1.0)
        return np.asarray(share * share * (3.0 - 2.0 * share))


@dataclass(frozen=True)
class Hardware:
    """Metal at the fused discs.

    Attributes:
        void: mm by which the signal void reaches beyond the metal.
        plate: a plate with screws; a cage in each disc otherwise.
        width: half width of the plate or cage in mm.
        screw_u: distance of the screws from the mid-line in mm.
        pile_up: direction along (v, s) in which signal piles up, a unit vector.
        rim: signal of the rim relative to CSF.
    """

    void: float
    plate: bool
    width: float
    screw_u: float
    pile_up: tuple[float, float]
    rim: float


@dataclass(frozen=True)
class Findings:
    """Findings of one patient; the defaults are none.

    Attributes:
        deformity: None for none.
        cord_depth, cord_width: factors of the diameters of the healthy cord.
        syrinx: None for none.
        oedema: signal relative to CSF that is added to the cord at deformed levels; 0 for none.
        patches: its shape at each level; empty for none.
        ossification: None for none.
        fused: indices of the fused discs, 0 for C2/3.
        hardware: metal at the fused discs.
    """

    deformity: Deformity | None = None
    cord_depth: float = 1.0
    cord_width: float = 1.0
    syrinx: Syrinx | None = None
    oedema: float = 0.0
    patches: tuple[tuple[Blob, ...], ...] = ()
    ossification: Ossification | None = None
    fused: tuple[int, ...] = ()
    hardware: Hardware | None = None

    def shortened(self, pitch: FloatArray) -> FloatArray:
        """`pitch`, distances between neighbouring discs in mm, less the height that fused discs lose."""
        lost = np.zeros(len(pitch) + 1)
        lost[list(self.fused)] = _FUSED_MM
        return np.asarray(pitch - (lost[:-1] + lost[1:]) / 2)


NO_FINDINGS = Findings()
"""A patient without findings."""


def draw_findings(conditions: Conditions, rng: np.random.Generator) -> Findings:
    """Draw the findings of a patient; `rng` is of `condition_rng(seed, index, "findings")`."""
    deformity = Deformity(
        kyphosis=conditions.kyphosis,
        apex=rng.uniform(1.5, 3.5),
        scoliosis=conditions.scoliosis,
        wavelength=rng.uniform(150.0, 230.0),
        phase=rng.uniform(0.0, 2.0 * np.pi),
    )
    syrinx = _draw_syrinx(rng, conditions.syrinx)
    patches = tuple(_draw_patch(rng) for _ in LEVELS)
    ossification = _draw_ossification(rng, conditions.ossification)
    hardware = _draw_hardware(rng, conditions.metal)
    # Metal holds at least one disc.
    discs = max(round(conditions.fusion), 1 if conditions.metal else 0)
    place = rng.random()
    first = 1 + int(place * (5 - discs))
    return Findings(
        deformity=deformity if conditions.kyphosis or conditions.scoliosis else None,
        cord_depth=conditions.cord_depth,
        cord_width=conditions.cord_width,
        syrinx=syrinx if conditions.syrinx else None,
        oedema=conditions.oedema,
        patches=patches if conditions.oedema else (),
        ossification=ossification if conditions.ossification else None,
        fused=tuple(range(first, first + discs)),
        hardware=hardware if conditions.metal else None,
    )


def _draw_syrinx(rng: np.random.Generator, share: float) -> Syrinx:
    """Draw a cavity between C3 and T1."""
    return Syrinx(
        centre=rng.uniform(0.5, 5.5),
        length=rng.uniform(15.0, 60.0),
        half_u=share * rng.uniform(0.75, 1.1),
        half_v=share * rng.uniform(0.9, 1.1),
        offset_u=rng.uniform(-0.12, 0.12),
        offset_v=rng.uniform(-0.12, 0.12),
        taper=rng.uniform(2.0, 5.0),
        beads=rng.uniform(0.0, 0.3),
        bead_length=rng.uniform(6.0, 14.0),
    )


def _draw_patch(rng: np.random.Generator) -> tuple[Blob, ...]:
    """Draw an oedema of 5 to 25 mm: blobs beside and above each other, or two spots in the grey matter."""
    half = rng.uniform(5.0, 25.0) / 2
    if rng.random() < 0.25:
        half_s, s = min(half, 7.0), rng.uniform(-1.5, 1.5)
        across, deep = rng.uniform(0.28, 0.36), rng.uniform(-0.15, 0.1)
        return tuple(
            Blob(
                u=sign * across,
                v=deep + rng.uniform(-0.05, 0.05),
                s=s + rng.uniform(-1.0, 1.0),
                half_u=rng.uniform(0.15, 0.22),
                half_v=rng.uniform(0.22, 0.36),
                half_s=half_s * rng.uniform(0.8, 1.0),
                strength=rng.uniform(1.0, 1.4),
            )
            for sign in (-1.0, 1.0)
        )
    # The first blob lies at the disc, the others anywhere within the length.
    blobs = [
        Blob(
            u=rng.uniform(-0.3, 0.3),
            v=rng.uniform(-0.25, 0.25),
            s=rng.uniform(-1.5, 1.5),
            half_u=rng.uniform(0.3, 0.55),
            half_v=rng.uniform(0.3, 0.55),
            half_s=max(half * rng.uniform(0.35, 0.7), 2.0),
            strength=1.0,
        )
    ]
    for _ in range(int(rng.integers(1, 4))):
        size = max(half * rng.uniform(0.25, 0.5), 1.5)
        reach = max(half - size, 0.0)
        blobs.append(
            Blob(
                u=rng.uniform(-0.5, 0.5),
                v=rng.uniform(-0.4, 0.4),
                s=rng.uniform(-reach, reach),
                half_u=rng.uniform(0.2, 0.45),
                half_v=rng.uniform(0.2, 0.5),
                half_s=size,
                strength=rng.uniform(0.6, 1.1),
            )
        )
    return tuple(blobs)


def _draw_ossification(rng: np.random.Generator, share: float) -> Ossification:
    """Draw a band behind one to three of the bodies C3 to C7."""
    bodies = int(rng.integers(1, 4))
    return Ossification(
        share=share,
        first=int(rng.integers(0, 6 - bodies)),
        bodies=bodies,
        continuous=bool(rng.random() < 0.6),
        width=rng.uniform(6.0, 14.0),
        side=float(np.clip(rng.normal(0.0, 0.8), -1.5, 1.5)),
        taper=rng.uniform(4.0, 8.0),
    )


def _draw_hardware(rng: np.random.Generator, void: float) -> Hardware:
    directions = ((0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0))
    return Hardware(
        void=void,
        plate=bool(rng.random() < 0.65),
        width=rng.uniform(6.5, 8.5),
        screw_u=rng.uniform(3.0, 5.0),
        pile_up=directions[int(rng.integers(4))],
        rim=rng.uniform(0.9, 1.5),
    )
