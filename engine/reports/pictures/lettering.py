"""Letters of pictures: the font that Pillow brings, and what it has no letters for."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.support.safe_text import escape_controls

if TYPE_CHECKING:
    from PIL import ImageFont

_MARGIN = 3
"""Around a text in pixels: for its halo, and for edges that the font's bounding box rounds away."""
_HALO_SIZE = 5
"""Width of the square that each pixel of a text spreads to in its halo."""


@lru_cache(maxsize=2048)
def printable(text: str) -> str:
    """Return a text in the characters that the font has, which are those of ASCII.

    Letters lose their accents; other characters become escapes.
    """
    plain = unicodedata.normalize("NFKD", text.replace("\u2212", "-").replace("\u2013", "-"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return escape_controls(plain).encode("ascii", "backslashreplace").decode("ascii")


def text_coverage(text: str, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], int, int]:
    """Return how far a text covers each pixel.

    Args:
        text: what `printable` returned.
        size: size of the font in pixels.

    Returns:
        Coverage of the text and of its halo, 0 to 255, uint8 (height, width); and column and row of their
        first pixel, from the start of the baseline.
    """
    from PIL import Image, ImageDraw, ImageFilter

    font = _font(size)
    x0, y0, x1, y1 = (round(value) for value in font.getbbox(text, anchor="ls"))
    image = Image.new("L", (max(x1 - x0, 1) + 2 * _MARGIN, max(y1 - y0, 1) + 2 * _MARGIN))
    ImageDraw.Draw(image).text((_MARGIN - x0, _MARGIN - y0), text, fill=255, font=font, anchor="ls")
    halo = image.filter(ImageFilter.MaxFilter(_HALO_SIZE))
    return np.asarray(image), np.asarray(halo), x0 - _MARGIN, y0 - _MARGIN


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that Pillow brings, at a size in pixels; a font of the system may be missing or different."""
    from PIL import ImageFont

    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, which its own font needs.")
    return font
