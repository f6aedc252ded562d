"""Colour, shape and name of each Kang grade, and the palette that pictures are drawn with.

The colours get darker from grade 0 to grade 3, so that their order shows in grey print. With deuteranopia,
protanopia or tritanopia any two differ by at least 25 units of CIELAB, and the lightness of neighbours by 9;
tests hold it. No picture relies on colours: every grade has a shape and its number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]
Shape = Literal["circle", "square", "diamond", "octagon"]


@dataclass(frozen=True)
class GradeStyle:
    """How a Kang grade is shown.

    Attributes:
        grade: the grade. name: its severity.
        colour: sRGB, 0 to 255. shape: of its sign.
        rim: a white line runs around the sign, so that the darkest colour is noticed in grey print, too.
    """

    grade: int
    name: str
    colour: Colour
    shape: Shape
    rim: bool = False

    @property
    def css(self) -> str:
        """The colour as `#rrggbb`."""
        return "#{:02x}{:02x}{:02x}".format(*self.colour)


GRADE_STYLES: tuple[GradeStyle, ...] = (
    GradeStyle(0, "none", (210, 252, 255), "circle"),
    GradeStyle(1, "mild", (250, 205, 8), "square"),
    GradeStyle(2, "moderate", (220, 134, 36), "diamond"),
    GradeStyle(3, "severe", (230, 32, 110), "octagon", rim=True),
)
"""By grade."""

MEASUREMENT_COLOUR: Colour = (125, 240, 140)
"""Of diameters and points of the cord: none of the grades'."""

GREYS = 176
"""Palette entries 0 to 175 are grey, from black to white."""
INK_LEVELS = 16
"""Entries of each colour, from black to the colour: the levels of its smoothed edge on black."""

MEASUREMENT_INK = len(GRADE_STYLES)
"""Number of the measurements' colour; a grade's ink is its number."""


def _palette() -> npt.NDArray[np.uint8]:
    greys = np.repeat(np.linspace(0.0, 255.0, GREYS)[:, None], 3, axis=1)
    colours = [style.colour for style in GRADE_STYLES] + [MEASUREMENT_COLOUR]
    levels = np.linspace(0.0, 1.0, INK_LEVELS)[:, None]
    inks = [levels * np.array(colour) for colour in colours]
    palette: npt.NDArray[np.uint8] = np.rint(np.concatenate([greys, *inks])).astype(np.uint8)
    return palette


PALETTE = _palette()
"""sRGB colours of the 256 values of a picture's pixels, uint8 (256, 3)."""
