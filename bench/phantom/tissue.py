"""What T2 signal the anatomy gives at any point of the canal's coordinates.

Structures are painted one over the other, each with an edge as soft as the pixels are wide, so that a
point sample stands for a pixel. Signal is relative to CSF at 1.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from stenosis_trt.bench.phantom.anatomy import Anatomy
from stenosis_trt.bench.phantom.canal_contents import CanalContents
from stenosis_trt.bench.phantom.shapes import Array, Canvas, Positions
from stenosis_trt.bench.phantom.soft_tissue import SoftTissue
from stenosis_trt.bench.phantom.texture import Texture
from stenosis_trt.bench.phantom.tissue_traits import Signals, sample_traits
from stenosis_trt.bench.phantom.vertebrae import Vertebrae


class TissueSource(Protocol):
    """Signal at points given in canal coordinates; `Tissues` paints it."""

    def surroundings(self, u: Array, v: Array, s: Array, edge: float) -> Array: ...

    def with_spine(self, surroundings: Array, u: Array, v: Array, s: Array, edge: float) -> Array: ...


class Tissues:
    """Signal of one anatomy under one acquisition's contrast, at points given in canal coordinates."""

    def __init__(self, anatomy: Anatomy, signals: Signals) -> None:
        self.anatomy, self.signals = anatomy, signals
        rng = np.random.default_rng(anatomy.texture_seed)
        self.texture = Texture(rng)
        self._traits = sample_traits(rng, anatomy, signals)
        self._soft = SoftTissue(anatomy, signals, self._traits, self.texture)
        self._bones = Vertebrae(anatomy, signals, self._traits, self.texture)
        self._canal = CanalContents(anatomy, signals, self._traits, self.texture)

    def surroundings(self, u: Array, v: Array, s: Array, edge: float) -> Array:
        """Signal of everything but the spine; it changes little through a slice.

        Args:
            u, v, s: canal coordinates in mm, flat float32 (N,).
            edge: width in mm over which outlines fade.

        Returns:
            float32 (N,).
        """
        canvas = Canvas(u, v, s, edge)
        self._soft.paint(canvas)
        return canvas.signal

    def with_spine(self, surroundings: Array, u: Array, v: Array, s: Array, edge: float) -> Array:
        """`surroundings` with vertebrae, canal and cord painted over, float32 (N,). Arguments as there."""
        canvas = Canvas(u, v, s, edge)
        canvas.signal = surroundings.copy()
        canvas.on((np.abs(u) < 27) & (v > -34) & (v < 62), self._spine)
        return canvas.signal

    def _spine(self, canvas: Canvas, _: Positions) -> None:
        self._bones.paint(canvas)
        wide = 16 + 8 * (canvas.s < self._traits.c1)
        canvas.on((np.abs(canvas.v) < 19) & (np.abs(canvas.u) < wide), self._canal.paint)
