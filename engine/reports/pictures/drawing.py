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
from typing import Literal

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.reports.pictures.grade_colours import GRADE_STYLES, GREYS, INK_LEVELS, PALETTE, Shape
from stenosis_trt.engine.reports.pictures.lettering import printable, text_coverage

Point = tuple[float, float]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Distance = Callable[[Floats, Floats], Floats]
"""Distance in pixels from a shape's edge, of x and y; negative inside."""
Align = Literal["left", "middle", "right"]

WHITE = GREYS - 1
LIGHT = round(0.78 * WHITE)
"""Grey of secondary text; 11 : 1 against black."""
DIM = round(0.45 * WHITE)
"""Grey of frames and rules."""

_HALO = 1.2
"""Width of the dark rim of what is drawn on an image, in pixels."""
_RIM = 2.2
"""Distance of a white rim from what it surrounds, in pixels."""
_TOP = INK_LEVELS - 1
"""Level of a full cover."""
_CAP_HEIGHT = 0.7
"""Height of capital letters and digits of the font, by its size."""


def _darker() -> Bytes:
    """Palette value of each value under a black cover of level k: (256, 16), as one row after the other."""
    value, level = np.arange(256)[:, None], np.arange(_TOP, -1, -1)[None, :]
    ink, of_ink = np.divmod(value - GREYS, INK_LEVELS)
    grey = np.rint(value * level / _TOP)
    coloured = GREYS + ink * INK_LEVELS + np.rint(of_ink * level / _TOP)
    return np.where(value < GREYS, grey, coloured).astype(np.uint8).ravel()


_UNDER_BLACK = _darker()


@lru_cache(maxsize=8)
def _under_grey(grey: int) -> Bytes:
    """Palette value of each value under a grey cover of level k, laid out as in `_darker`."""
    value, level = np.arange(256)[:, None], np.arange(INK_LEVELS)[None, :]
    start = np.where(value < GREYS, value, PALETTE.max(axis=1)[:, None] / 255 * WHITE)
    mixed = np.rint(start + (grey - start) * level / _TOP)
    return np.where(level > 0, mixed, value).astype(np.uint8).ravel()


@lru_cache(maxsize=8)
def _under_ink(ink: int) -> Bytes:
    """Palette value of each value under a coloured cover of level k: the colour's own level, on black."""
    value, level = np.arange(256)[:, None], np.arange(INK_LEVELS)[None, :]
    return np.where(level > 0, GREYS + ink * INK_LEVELS + level, value).astype(np.uint8).ravel()


@dataclass(frozen=True)
class _Mask:
    """Levels 0 to 15 of a shape or text and of its halo, uint8 (height, width).

    `left` and `top` are its corner: from the shape's centre, or from the start of the text's baseline.
    """

    core: Bytes
    halo: Bytes
    left: int
    top: int


@dataclass
class Canvas:
    """A picture that is being drawn. A `region` shares the pixels and clips what is drawn on it.

    Attributes:
        pixels: palette values, uint8 (height, width).
        texts: every text that was drawn, in order.
        halo: draw a halo around everything, as on an image.
    """

    pixels: Bytes
    texts: list[str] = field(default_factory=list)
    halo: bool = False

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
        """Fill the canvas from its upper left corner with grey values, 0 to 255, and draw with a halo."""
        rows, columns = min(grey.shape[0], self.height), min(grey.shape[1], self.width)
        # × 11 / 16: 0 to 255 becomes 0 to WHITE, faster than by a table.
        scaled = np.multiply(grey[:rows, :columns], 11, dtype=np.uint16)
        self.pixels[:rows, :columns] = (scaled + 8) >> 4
        self.halo = True

    def box(self, x: int, y: int, width: int, height: int, grey: int) -> None:
        """Fill a rectangle with a grey palette value."""
        self.pixels[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = grey

    def frame(self, grey: int = DIM) -> None:
        """Draw a line of one pixel along the edge."""
        self.pixels[[0, -1], :] = grey
        self.pixels[:, [0, -1]] = grey

    def line(
        self, start: Point, end: Point, ink: int | None, width: float = 1.6, dash: float | None = None
    ) -> None:
        """Draw a line with round ends.

        Args:
            start, end: the ends.
            ink: number of a colour, or None for white.
            width: in pixels.
            dash: length of the dashes and of the gaps between them; None for none.
        """
        (x0, y0), (x1, y1) = start, end
        length = math.hypot(x1 - x0, y1 - y0)
        if length == 0.0:
            return self.disc(start, width / 2, ink)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length

        def distance(x: Floats, y: Floats) -> Floats:
            u, v = x - np.float32(x0), y - np.float32(y0)
            along, off = u * dx + v * dy, v * dx - u * dy
            # Distance beyond the nearest end, of the line or of a dash.
            if dash is None:
                beyond = np.maximum(np.maximum(-along, along - length), 0.0)
            else:
                within = np.abs(np.mod(along, 2 * dash) - dash / 2) - dash / 2
                beyond = np.maximum(np.maximum(np.maximum(-along, along - length), within), 0.0)
            away: Floats = np.sqrt(off * off + beyond * beyond) - np.float32(width / 2)
            return away

        bounds = (min(x0, x1) - width, min(y0, y1) - width, max(x0, x1) + width, max(y0, y1) + width)
        self._paint(bounds, distance, ink)

    def disc(self, centre: Point, radius: float, ink: int | None) -> None:
        """Draw a filled circle."""
        x0, y0 = centre
        bounds = (x0 - radius, y0 - radius, x0 + radius, y0 + radius)
        self._paint(bounds, lambda x, y: np.hypot(x - x0, y - y0) - np.float32(radius), ink)

    def ring(self, centre: Point, radius: float, ink: int | None, width: float = 1.6) -> None:
        """Draw a circle."""
        x0, y0 = centre
        half, outer = np.float32(width / 2), radius + width / 2
        bounds = (x0 - outer, y0 - outer, x0 + outer, y0 + outer)
        self._paint(bounds, lambda x, y: np.abs(np.hypot(x - x0, y - y0) - np.float32(radius)) - half, ink)

    def chip(self, centre: Point, grade: int | None, radius: float = 10.0) -> None:
        """Draw the sign of a grade: its shape in its colour with its number; a dash without a grade."""
        x, y = round(centre[0]), round(centre[1])
        if grade is None:
            self.ring((x, y), radius * 0.85, None)
            self.line((x - radius * 0.35, y), (x + radius * 0.35, y), None)
            return
        style = GRADE_STYLES[grade]
        if style.rim:
            self._cover(x, y, _chip_mask(style.shape, radius, _RIM), _under_grey(WHITE))
        self._cover(x, y, _chip_mask(style.shape, radius), _under_ink(grade))
        self.texts.append(str(grade))
        digit = _text_mask(str(grade), round(radius * 1.55))
        height, width = digit.core.shape
        left, top = round(x - (width - 1) / 2), round(y - (height - 1) / 2)
        self._blend(left, top, digit.core, _UNDER_BLACK)

    def text(
        self, x: float, y: float, text: str, size: int = 15, grey: int = WHITE, align: Align = "left"
    ) -> int:
        """Write a line of text on a dark halo, with `y` at the middle of its capitals; return its width."""
        text = printable(text)
        self.texts.append(text)
        mask = _text_mask(text, size)
        width = int(mask.core.shape[1])
        left = round(x) - (0, width // 2, width)[("left", "middle", "right").index(align)] - mask.left
        top = round(y + _CAP_HEIGHT * size / 2)
        if self.halo:
            self._cover(left, top, mask, _under_grey(grey))
        else:
            self._lighten(left + mask.left, top + mask.top, _grey_text(text, size, grey))
        return width

    def _lighten(self, left: int, top: int, values: Bytes) -> None:
        """Draw grey values where they are brighter, which on black is the same as to cover and faster."""
        window, part = self._window(left, top, values)
        np.maximum(window, part, out=window)

    def _cover(self, x: int, y: int, mask: _Mask, table: Bytes) -> None:
        if self.halo:
            self._blend(x + mask.left, y + mask.top, mask.halo, _UNDER_BLACK)
        self._blend(x + mask.left, y + mask.top, mask.core, table)

    def _blend(self, left: int, top: int, levels: Bytes, table: Bytes) -> None:
        window, of_mask = self._window(left, top, levels)
        window[...] = _through(table, window, of_mask)

    def _window(self, left: int, top: int, mask: Bytes) -> tuple[Bytes, Bytes]:
        """Return the pixels below a mask, and the part of the mask that is on the canvas."""
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = (
            max(min(top + mask.shape[0], self.height), y0),
            max(min(left + mask.shape[1], self.width), x0),
        )
        return self.pixels[y0:y1, x0:x1], mask[y0 - top : y1 - top, x0 - left : x1 - left]

    def _paint(self, bounds: tuple[float, float, float, float], distance: Distance, ink: int | None) -> None:
        margin = (_HALO if self.halo else 0.0) + 1.0
        x0, y0 = max(math.floor(bounds[0] - margin), 0), max(math.floor(bounds[1] - margin), 0)
        x1 = min(math.ceil(bounds[2] + margin) + 1, self.width)
        y1 = min(math.ceil(bounds[3] + margin) + 1, self.height)
        if x0 >= x1 or y0 >= y1:
            return
        away = distance(*_grid(x0, y0, x1, y1))
        under = self.pixels[y0:y1, x0:x1]
        if self.halo:
            under = _through(_UNDER_BLACK, under, _levels(_HALO, away))
        table = _under_grey(WHITE) if ink is None else _under_ink(ink)
        self.pixels[y0:y1, x0:x1] = _through(table, under, _levels(0.0, away))


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


def _through(table: Bytes, under: Bytes, levels: Bytes) -> Bytes:
    """Look up values under covers of some levels."""
    index = np.left_shift(under, 4, dtype=np.uint16)
    index |= levels
    return table.take(index)


def _levels(outset: float, away: Floats) -> Bytes:
    """Levels of a shape that is `outset` pixels larger, from the distance of each pixel's centre."""
    cover = np.float32((outset + 0.5) * _TOP + 0.5) - away * np.float32(_TOP)
    levels: Bytes = np.clip(cover, 0, _TOP, out=cover).astype(np.uint8)
    return levels


def _grid(x0: int, y0: int, x1: int, y1: int) -> tuple[Floats, Floats]:
    return np.arange(x0, x1, dtype=np.float32)[None, :], np.arange(y0, y1, dtype=np.float32)[:, None]


@lru_cache(maxsize=32)
def _chip_mask(shape: Shape, radius: float, rim: float | None = None) -> _Mask:
    """Return a shape, or a line around it at a distance of `rim` pixels."""
    half = math.ceil(radius * 1.3 + _HALO + (rim or 0.0) + 1)
    away = _SHAPES[shape](*_grid(-half, -half, half + 1, half + 1), np.float32(radius))
    if rim is not None:
        away = np.abs(away - np.float32(rim)) - np.float32(0.5)
    return _Mask(_levels(0.0, away), _levels(_HALO, away), -half, -half)


def _octagon(x: Floats, y: Floats, radius: np.float32) -> Floats:
    straight, slanted = np.maximum(abs(x), abs(y)), (abs(x) + abs(y)) * np.float32(math.sqrt(0.5))
    away: Floats = np.maximum(straight, slanted) - radius * np.float32(0.96)
    return away


_SHAPES: dict[Shape, Callable[[Floats, Floats, np.float32], Floats]] = {
    "circle": lambda x, y, radius: np.hypot(x, y) - radius * np.float32(0.95),
    "square": lambda x, y, radius: np.maximum(abs(x), abs(y)) - radius * np.float32(0.85),
    "diamond": lambda x, y, radius: (
        (abs(x) + abs(y)) * np.float32(math.sqrt(0.5)) - radius * np.float32(0.88)
    ),
    "octagon": _octagon,
}
"""Distance from each shape around (0, 0); their areas are about equal."""


@lru_cache(maxsize=2048)
def _text_mask(text: str, size: int) -> _Mask:
    core, halo, left, top = text_coverage(text, size)
    return _Mask(_of_coverage(core), _of_coverage(halo), left, top)


@lru_cache(maxsize=2048)
def _grey_text(text: str, size: int, grey: int) -> Bytes:
    """Palette values of a text on black."""
    return _under_grey(grey).take(_text_mask(text, size).core)


def _of_coverage(coverage: Bytes) -> Bytes:
    return ((coverage.astype(np.uint16) * _TOP + 127) // 255).astype(np.uint8)
