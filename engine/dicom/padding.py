"""Pixel padding: pixels that were never acquired, which no window, statistic or network may take for signal.

They are given the slice's own black once, where it is decoded: the CPU's path and the kernels then read the
same bytes, and need no mask. Black is the first percentile of the other pixels (the 99th where higher stored
values are darker): padding lies at the low end of the windows, as the outside of an image does, and does not
move that end.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.dicom.elements import Elements

Stored = npt.NDArray[np.uint16] | npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]

PADDING_KEYWORDS = ("PixelPaddingValue", "PixelPaddingRangeLimit")

_BLACK_PERCENTILE = 1.0
_BLACK_ALREADY = 1 / 8
"""Padding that is darker than black by at most this share of the other pixels' range stays as it is: zeros
around an image are the same with the attribute and without."""

_BORDER_SHARE = 0.01
"""Share of the slice's outermost pixels that undeclared padding takes at least."""
_IMAGE_SHARE = 0.1
"""Share of the slice that must be left for something to be its padding."""


@dataclass(frozen=True)
class Padding:
    """Declared padding: the 16 bits of PixelPaddingValue and PixelPaddingRangeLimit, or of the value twice.

    Their value representation is US or SS and often the wrong one of the two. They are read as pixels are, by
    PixelRepresentation (DICOM PS3.3, C.7.5.1.1.2).
    """

    value: int
    limit: int

    def mask(self, stored: Stored, cells: npt.NDArray[np.generic], bits: int) -> Mask:
        """Which pixels are padding, bool (rows, columns).

        Args:
            stored: decoded values.
            cells: the same pixels with all bits that were allocated.
            bits: how many are stored. Padding beyond their range is looked for in `cells`.
        """
        signed = stored.dtype == np.int16
        low, high = sorted(_as_number(raw, signed) for raw in (self.value, self.limit))
        lowest, highest = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        if lowest <= low and high <= highest:
            return (stored >= low) & (stored <= high)
        whole = cells.view(cells.dtype.str.replace("i", "u")).astype(np.uint16)
        found = whole.view(np.int16) if signed else whole
        return np.asarray((found >= low) & (found <= high))


def declared_padding(elements: Elements) -> Padding | None:
    """What a header declares, from elements that include PADDING_KEYWORDS; None where it has no value."""
    value, limit = (_raw_bits(elements, keyword) for keyword in PADDING_KEYWORDS)
    if value is None:
        return None
    return Padding(value, value if limit is None else limit)


def without_padding(
    stored: Stored,
    cells: npt.NDArray[np.generic],
    padding: Padding | None,
    bits: int,
    higher_is_darker: bool,
) -> Stored:
    """A slice whose padding, declared or recognised, is black.

    Args:
        stored: decoded values, uint16 or int16 (rows, columns). It may be written to.
        cells, bits: see `Padding.mask`.
        padding: what the header declares.
        higher_is_darker: whether a higher stored value is darker: MONOCHROME1, or a negative rescale slope.
    """
    if padding is not None:
        _blacken(stored, padding.mask(stored, cells, bits), higher_is_darker)
    for value in (int(stored.min()), int(stored.max())):
        if value == 0 and not higher_is_darker:
            # The black of an image without padding.
            continue
        mask = _undeclared(stored, value)
        if mask is not None:
            _blacken(stored, mask, higher_is_darker)
    return stored


def _undeclared(stored: Stored, value: int) -> Mask | None:
    """Where an extreme value is padding though no header says so, or None.

    It has to lie at the border, and no other pixel in the half of the slice's range that is nearest to it.
    Signal has no such gap: where it is saturated, other pixels lie just below.
    """
    edges = np.concatenate([stored[0], stored[-1], stored[:, 0], stored[:, -1]])
    if np.count_nonzero(edges == value) < _BORDER_SHARE * edges.size:
        return None
    low, high = int(stored.min()), int(stored.max())
    mask = np.asarray(stored == value)
    others = stored[~mask]
    if others.size < _IMAGE_SHARE * stored.size or others.min() == others.max():
        return None
    nearest = int(others.min()) if value == low else int(others.max())
    return mask if 2 * abs(nearest - value) > high - low else None


def _blacken(stored: Stored, mask: Mask, higher_is_darker: bool) -> None:
    """Give the pixels of a mask the slice's black."""
    if not mask.any():
        return
    others = stored[~mask]
    if not others.size:
        # An empty slice is of one value. Else the header declares the image itself to be padding.
        if (stored == stored[0, 0]).all():
            stored[:] = np.iinfo(stored.dtype).max if higher_is_darker else 0
        return
    rank = round(_BLACK_PERCENTILE / 100.0 * (others.size - 1))
    if higher_is_darker:
        rank = others.size - 1 - rank
    black = int(np.partition(others, rank)[rank])
    padding = stored[mask]
    room = _BLACK_ALREADY * (int(others.max()) - int(others.min()))
    darker = int(padding.min()) - black if higher_is_darker else black - int(padding.max())
    farthest = int(padding.max()) - black if higher_is_darker else black - int(padding.min())
    if darker < 0 or farthest > room:
        stored[mask] = black


def _raw_bits(elements: Elements, keyword: str) -> int | None:
    """The value's 16 bits, whatever its value representation; None where there is none that could be it."""
    _, raw = elements.values.get(keyword, (b"", b""))
    kind = {2: "H", 4: "L"}.get(len(raw))
    return None if kind is None else int(struct.unpack(elements.byte_order + kind, raw)[0]) & 0xFFFF


def _as_number(raw: int, signed: bool) -> int:
    return raw - (1 << 16) if signed and raw >= 1 << 15 else raw
