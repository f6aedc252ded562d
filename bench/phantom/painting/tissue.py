"""T2 signal of an anatomy at points given in canal coordinates.

Structures are painted over each other. Their edges fade over one pixel width, so that a point sample
approximates the pixel's mean. Signal is relative to CSF at 1.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from stenosis_trt.bench.phantom.painting.canal_contents import CanalContents
from stenosis_trt.bench.phantom.painting.soft_tissue import SoftTissue
from stenosis_trt.bench.phantom.painting.texture import Texture
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals, sample_traits
from stenosis_trt.bench.phantom.painting.vertebrae import Vertebrae
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.shapes import Array, Canvas, Positions


class TissueSource(Protocol):
    """Interface of tissue models: signal at points given in canal coordinates. See `Tissues`."""

    def surroundings(self, u: Array, v: Array, s: Array, edge: float) -> Array: ...

    def with_spine(self, surroundings: Array, u: Array, v: Array, s: Array, edge: float) -> Array: ...


class Tissues:
    """Painted signal of one anatomy with one acquisition's contrast."""

    def __init__(self, anatomy: Anatomy, signals: Signals) -> None:
        self.anatomy, self.signals = anatomy, signals
        rng = np.random.default_rng(anatomy.texture_seed)
        self.texture = Texture(rng)
        self._traits = sample_traits(rng, anatomy, signals)
        self._soft = SoftTissue(anatomy, signals, self._traits, self.texture)
        self._bones = Vertebrae(anatomy, signals, self._traits, self.texture)
        self._canal = CanalContents(anatomy, signals, self._traits, self.texture)

    def surroundings(self, u: Array, v: Array, s: Array, edge: float) -> Array:
        """Signal around the spine, float32 (N,). It varies little through a slice's thickness.

        Args:
            u, v, s: canal coordinates in mm, flat float32 (N,).
            edge: width in mm over which outlines fade.
        """
        canvas = Canvas(u, v, s, edge)
        self._soft.paint(canvas)
        return canvas.signal

    def with_spine(self, surroundings: Array, u: Array, v: Array, s: Array, edge: float) -> Array:
        """`surroundings` with vertebrae, canal and cord painted over it, float32 (N,). Arguments as there."""
        canvas = Canvas(u, v, s, edge)
        canvas.signal = surroundings.copy()
        canvas.paint_on((np.abs(u) < 27) & (v > -34) & (v < 62), self._spine)
        return canvas.signal

    def _spine(self, canvas: Canvas, _: Positions) -> None:
        self._bones.paint(canvas)
        wide = 16 + 8 * (canvas.s < self._traits.c1)
        canvas.paint_on((np.abs(canvas.v) < 19) & (np.abs(canvas.u) < wide), self._canal.paint)
