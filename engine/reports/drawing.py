"""A canvas of palette values: images, smoothed lines and shapes, and text.

A picture has one byte a pixel (see `grade_colours.PALETTE`), which is compressed three times as fast as RGB.
Colours are drawn on a dark halo, so that their smoothed edges only need levels between black and the colour;
the halo also makes them visible on bright images. Lines and shapes are computed from the distance to their
geometry and lie where they are told, not on the nearest pixel.

Coordinates are (x, y) with the centre of the first pixel at (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.reports.grade_colours import GRADE_STYLES, GREYS, INK_LEVELS, PALETTE, Shape
from stenosis_trt.engine.support.safe_text import escape_controls

if TYPE_CHECKING:
    from PIL import ImageFont

Point = tuple[float, float]
Bytes = npt.NDArray[np.uint8]
Distance = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Distance in pixels from a shape, of x and y."""
Align = Literal["left", "middle", "right"]

WHITE = GREYS - 1
LIGHT = round(0.78 * WHITE)
"""Grey of secondary text; 11 : 1 against black."""
DIM = round(0.45 * WHITE)
"""Grey of frames and rules."""

_HALO = 1.6
"""Width of the dark rim of what is drawn on an image, in pixels."""
_CAP_HEIGHT = 0.7
"""Height of capital letters and digits of the font, by its size."""

_GREY_INDEX = np.rint(np.linspace(0, WHITE, 256)).astype(np.uint8)
"""Palette value of a grey value 0 to 255."""


def _darker() -> Bytes:
    """Palette value (256, 16) of each value at brightness k / 15."""
    value, level = np.arange(256)[:, None], np.arange(INK_LEVELS)[None, :]
    ink, of_ink = np.divmod(value - GREYS, INK_LEVELS)
    grey = np.rint(value * level / (INK_LEVELS - 1))
    coloured = GREYS + ink * INK_LEVELS + np.rint(of_ink * level / (INK_LEVELS - 1))
    return np.where(value < GREYS, grey, coloured).astype(np.uint8)


_DARKER = _darker()
_AS_GREY = np.where(np.arange(256) < GREYS, np.arange(256), PALETTE.max(axis=1) / 255 * WHITE).astype(
    np.float32
)
"""Grey that a smoothed grey edge on each palette value starts from."""


@dataclass(frozen=True)
class _TextMask:
    """Coverage of a text, 0 to 1, float32 (height, width), and its corner from the start of the baseline."""

    core: npt.NDArray[np.float32]
    halo: npt.NDArray[np.float32]
    left: int
    top: int


@dataclass
class Canvas:
    """A picture that is being drawn. A `region` shares the pixels and clips what is drawn on it.

    Attributes:
        pixels: palette values, uint8 (height, width).
        texts: every text that was drawn, in order.
    """

    pixels: Bytes
    texts: list[str] = field(default_factory=list)

    @classmethod
    def blank(cls, width: int, height: int) -> Canvas:
        """Return a black canvas."""
        return cls(np.zeros((height, width), np.uint8))

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    def region(self, x: int, y: int, width: int, height: int) -> Canvas:
        """Return a part of the canvas with coordinates of its own."""
        return Canvas(self.pixels[y : y + height, x : x + width], self.texts)

    def image(self, grey: Bytes) -> None:
        """Fill the canvas from its upper left corner with grey values, 0 to 255."""
        rows, columns = min(grey.shape[0], self.height), min(grey.shape[1], self.width)
        self.pixels[:rows, :columns] = _GREY_INDEX[grey[:rows, :columns]]

    def box(self, x: int, y: int, width: int, height: int, grey: int) -> None:
        """Fill a rectangle with a grey palette value."""
        self.pixels[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = grey

    def frame(self, grey: int = DIM) -> None:
        """Draw a line of one pixel along the edge."""
        self.pixels[[0, -1], :] = grey
        self.pixels[:, [0, -1]] = grey

    def line(self, start: Point, end: Point, ink: int | None, width: float = 1.6, halo: bool = True) -> None:
        """Draw a line with round ends. `ink`: number of a colour, or None for white."""
        (x0, y0), (x1, y1) = start, end
        dx, dy = x1 - x0, y1 - y0
        squared = dx * dx + dy * dy

        def distance(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / squared, 0.0, 1.0) if squared else 0.0
            return np.hypot(x - x0 - along * dx, y - y0 - along * dy) - np.float32(width / 2)

        bounds = (min(x0, x1) - width, min(y0, y1) - width, max(x0, x1) + width, max(y0, y1) + width)
        self._paint(bounds, distance, ink, halo)

    def dashes(self, start: Point, end: Point, ink: int | None, dash: float = 5.0, gap: float = 5.0) -> None:
        """Draw a thin broken line."""
        length = math.dist(start, end)
        for at in np.arange(0.0, length, dash + gap):
            ends = [
                (
                    start[0] + (end[0] - start[0]) * share / length,
                    start[1] + (end[1] - start[1]) * share / length,
                )
                for share in (at, min(at + dash, length))
            ]
            self.line(ends[0], ends[1], ink, 1.0)

    def disc(self, centre: Point, radius: float, ink: int | None) -> None:
        """Draw a filled circle."""
        x0, y0 = centre
        bounds = (x0 - radius, y0 - radius, x0 + radius, y0 + radius)
        self._paint(bounds, lambda x, y: np.hypot(x - x0, y - y0) - np.float32(radius), ink, True)

    def ring(self, centre: Point, radius: float, ink: int | None, width: float = 1.6) -> None:
        """Draw a circle."""
        x0, y0 = centre
        half, outer = np.float32(width / 2), radius + width / 2
        bounds = (x0 - outer, y0 - outer, x0 + outer, y0 + outer)
        self._paint(
            bounds, lambda x, y: np.abs(np.hypot(x - x0, y - y0) - np.float32(radius)) - half, ink, True
        )

    def chip(self, centre: Point, grade: int | None, radius: float = 10.0) -> None:
        """Draw the sign of a grade: its shape in its colour with its number; a dash without a grade."""
        x, y = round(centre[0]), round(centre[1])
        if grade is None:
            self.ring((x, y), radius * 0.85, None)
            self.line((x - radius * 0.35, y), (x + radius * 0.35, y), None)
            return
        shape = _SHAPES[GRADE_STYLES[grade].shape]
        bounds = (x - radius, y - radius, x + radius, y + radius)
        self._paint(bounds, lambda u, v: shape(u - x, v - y, np.float32(radius)), grade, True)
        self._text_on(x, y, str(grade), round(radius * 1.55), dark=True)

    def text(
        self, x: float, y: float, text: str, size: int = 15, grey: int = WHITE, align: Align = "left"
    ) -> int:
        """Write a line of text on a dark halo, with `y` at the middle of its capitals; return its width."""
        text = printable(text)
        self.texts.append(text)
        mask = _text_mask(text, size)
        width = mask.core.shape[1]
        left = round(x) - (0, width // 2, width)[("left", "middle", "right").index(align)]
        top = round(y + _CAP_HEIGHT * size / 2) + mask.top
        self._cover(left, top, mask.halo, lambda under, cover: _shade(under, 1 - cover))
        self._cover(left, top, mask.core, lambda under, cover: _mix(under, cover, grey))
        return width

    def _text_on(self, x: int, y: int, text: str, size: int, dark: bool) -> None:
        """Write black text on a colour, centred."""
        self.texts.append(text)
        mask = _text_mask(text, size)
        height, width = mask.core.shape
        left, top = round(x - (width - 1) / 2), round(y - (height - 1) / 2)
        self._cover(left, top, mask.core, lambda under, cover: _shade(under, 1 - cover))

    def _cover(
        self,
        left: int,
        top: int,
        mask: npt.NDArray[np.float32],
        blend: Callable[[Bytes, npt.NDArray[np.float32]], Bytes],
    ) -> None:
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + mask.shape[0], self.height), min(left + mask.shape[1], self.width)
        if y0 < y1 and x0 < x1:
            cover = mask[y0 - top : y1 - top, x0 - left : x1 - left]
            self.pixels[y0:y1, x0:x1] = blend(self.pixels[y0:y1, x0:x1], cover)

    def _paint(
        self, bounds: tuple[float, float, float, float], distance: Distance, ink: int | None, halo: bool
    ) -> None:
        margin = _HALO + 1.5
        x0, y0 = max(math.floor(bounds[0] - margin), 0), max(math.floor(bounds[1] - margin), 0)
        x1 = min(math.ceil(bounds[2] + margin) + 1, self.width)
        y1 = min(math.ceil(bounds[3] + margin) + 1, self.height)
        if x0 >= x1 or y0 >= y1:
            return
        x, y = np.arange(x0, x1, dtype=np.float32)[None, :], np.arange(y0, y1, dtype=np.float32)[:, None]
        away = distance(x, y)
        under = self.pixels[y0:y1, x0:x1]
        if halo:
            under = _shade(under, 1 - np.clip(_HALO + 0.5 - away, 0.0, 1.0))
        cover = np.clip(np.float32(0.5) - away, 0.0, 1.0)
        if ink is None:
            under = _mix(under, cover, WHITE)
        else:
            level = np.rint(cover * (INK_LEVELS - 1)).astype(np.uint8)
            under = np.where(level > 0, np.uint8(GREYS + ink * INK_LEVELS) + level, under)
        self.pixels[y0:y1, x0:x1] = under


def printable(text: str) -> str:
    """Return a text in the characters that the font has: ASCII, anything else as an escape."""
    text = text.replace("\u2212", "-").replace("\u2013", "-")
    return escape_controls(text).encode("ascii", "backslashreplace").decode("ascii")


def text_width(text: str, size: int = 15) -> int:
    """Return the width of a text in pixels."""
    return int(_text_mask(printable(text), size).core.shape[1])


def wrapped(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels, at spaces."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _shade(under: Bytes, brightness: npt.NDArray[np.float32]) -> Bytes:
    return _DARKER[under, np.rint(brightness * (INK_LEVELS - 1)).astype(np.uint8)]


def _mix(under: Bytes, cover: npt.NDArray[np.float32], grey: int) -> Bytes:
    start = _AS_GREY[under]
    mixed = np.rint(start + (grey - start) * cover).astype(np.uint8)
    return np.where(cover > 0, mixed, under)


def _octagon(
    x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], radius: np.float32
) -> npt.NDArray[np.float32]:
    straight, slanted = np.maximum(abs(x), abs(y)), (abs(x) + abs(y)) * np.float32(math.sqrt(0.5))
    return np.maximum(straight, slanted) - radius * np.float32(0.96)


_SHAPES: dict[
    Shape, Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32], np.float32], npt.NDArray[np.float32]]
] = {
    "circle": lambda x, y, radius: np.hypot(x, y) - radius * np.float32(0.95),
    "square": lambda x, y, radius: np.maximum(abs(x), abs(y)) - radius * np.float32(0.85),
    "diamond": lambda x, y, radius: (
        (abs(x) + abs(y)) * np.float32(math.sqrt(0.5)) - radius * np.float32(0.88)
    ),
    "octagon": _octagon,
}
"""Distance from each shape of about the same area, around (0, 0)."""


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that Pillow brings, at a size in pixels; a font of the system may be missing or different."""
    from PIL import ImageFont

    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, which its own font needs.")
    return font


@lru_cache(maxsize=2048)
def _text_mask(text: str, size: int) -> _TextMask:
    from PIL import Image, ImageDraw, ImageFilter

    font = _font(size)
    x0, y0, x1, y1 = (round(value) for value in font.getbbox(text, anchor="ls"))
    # A margin for the halo, and for edges that getbbox rounds away.
    margin = 3
    image = Image.new("L", (max(x1 - x0, 1) + 2 * margin, max(y1 - y0, 1) + 2 * margin))
    ImageDraw.Draw(image).text((margin - x0, margin - y0), text, fill=255, font=font, anchor="ls")
    scale = np.float32(1 / 255)
    halo = np.asarray(image.filter(ImageFilter.MaxFilter(5))) * scale
    return _TextMask(np.asarray(image) * scale, halo, x0 - margin, y0 - margin)
