"""Contrast of an acquisition, and sizes of a patient that do not enter the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.engine.geometry import FloatArray

DENS_APEX_MM = 36.0
"""Distance of the apex of the dens above disc C2/3 along the canal, for a patient of scale 1."""


@dataclass(frozen=True)
class Signals:
    """Relative T2 signal of each tissue in one acquisition.

    Attributes:
        lesion: factor of the signal that a lesion adds to the cord.
        fat_suppression: share of the fat's signal that is suppressed; `fat` and `marrow` have it already.
    """

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
    lesion: float = 1.0
    fat_suppression: float = 0.0


def sample_signals(rng: np.random.Generator) -> Signals:
    """Draw the contrast of one T2 turbo spin echo acquisition."""
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


@dataclass(frozen=True)
class Traits:
    """Sizes and tissue properties of one patient. Lengths in mm.

    Attributes:
        c2_top, dens_top, c1: arc lengths along the canal.
        degeneration, disc_half: per disc, float64 (D,): degeneration from 0 to 1, half height.
        marrow, spinous: per vertebra, float64 (D + 1,): signal, relative length of the spinous process.
    """

    c2_top: float
    dens_top: float
    c1: float
    degeneration: FloatArray
    disc_half: FloatArray
    body_depth: float
    body_width: float
    marrow: FloatArray
    spinous: FloatArray
    skin_back: float
    fat_back: float
    neck_width: float
    neck_front: float
    epidural: float
    flow_void: float
    rootlets: float


def sample_traits(rng: np.random.Generator, anatomy: Anatomy, signals: Signals) -> Traits:
    """Draw the traits of a patient."""
    discs, scale = anatomy.discs, anatomy.scale
    degeneration = np.concatenate(
        [
            [item.degeneration for item in anatomy.stenoses],
            rng.uniform(0, 0.4, len(discs) - len(anatomy.stenoses)),
        ]
    )
    return Traits(
        # C2 extends upwards from disc C2/3, with the dens on top.
        c2_top=float(discs[0] - 20.0 * scale),
        dens_top=float(discs[0] - DENS_APEX_MM * scale),
        c1=float(discs[0] - 27.0 * scale),
        degeneration=degeneration,
        disc_half=rng.uniform(2.0, 2.9, len(discs)) * scale * (1.0 - 0.35 * degeneration),
        body_depth=rng.uniform(15.0, 17.5) * scale,
        body_width=rng.uniform(9.5, 12.0) * scale,
        marrow=signals.marrow * rng.uniform(0.85, 1.15, len(discs) + 1),
        spinous=rng.uniform(0.85, 1.15, len(discs) + 1),
        skin_back=rng.uniform(52.0, 72.0) * scale,
        fat_back=rng.uniform(5.0, 16.0),
        neck_width=rng.uniform(58.0, 72.0) * scale,
        neck_front=rng.uniform(52.0, 66.0) * scale,
        epidural=rng.uniform(0.3, 0.9),
        flow_void=rng.uniform(0.0, 0.45),
        rootlets=rng.uniform(0.2, 0.6),
    )
