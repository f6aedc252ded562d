"""Replacement of pixel padding: pixels without signal that must not affect windows, statistics or networks.

Padding is replaced by the black of the slice when it is decoded, so that the CPU path and the kernels read
the same bytes and need no mask. Black is the first percentile of the other pixels (the 99th if higher stored
values are darker): it lies at the low end of the windows, as air does, and does not shift that end.
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
_MAX_DARKER_SHARE = 1 / 8
"""Padding darker than black by at most this share of the other pixels' range is kept: zeros around an image
are treated alike with and without the attribute."""

_MIN_BORDER_SHARE = 0.01
"""Least share of the slice's border pixels that undeclared padding has."""
_MIN_IMAGE_SHARE = 0.1
"""Least share of the slice that is not padding."""


@dataclass(frozen=True)
class Padding:
    """Declared padding: the 16 bits of PixelPaddingValue and of PixelPaddingRangeLimit (or the value again).

    Their value representation, US or SS, is often wrong; PixelRepresentation decides (PS3.3, C.7.5.1.1.2).
    """

    value: int
    limit: int

    def mask(self, stored: Stored, cells: npt.NDArray[np.generic], bits: int) -> Mask:
        """Return the mask of padding, bool (rows, columns).

        Args:
            stored: stored values.
            cells: the same pixels with all allocated bits.
            bits: BitsStored. Padding outside their range is searched in `cells`.
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
    """Return the declared padding, from elements that include PADDING_KEYWORDS, or None."""
    value, limit = (_raw_bits(elements, keyword) for keyword in PADDING_KEYWORDS)
    if value is None:
        return None
    return Padding(value, value if limit is None else limit)


def without_padding(
    stored: Stored, cells: npt.NDArray[np.generic], padding: Padding | None, bits: int, higher_is_darker: bool
) -> Stored:
    """Return a slice with its padding, declared or recognised, set to black.

    Args:
        stored: stored values, uint16 or int16 (rows, columns); may be modified.
        cells, bits: see `Padding.mask`.
        padding: the declared padding.
        higher_is_darker: True for MONOCHROME1 or a negative rescale slope.
    """
    if padding is not None:
        _blacken(stored, padding.mask(stored, cells, bits), higher_is_darker)
    for value in (int(stored.min()), int(stored.max())):
        if value == 0 and not higher_is_darker:
            # The background of an image without padding.
            continue
        mask = _undeclared(stored, value)
        if mask is not None:
            _blacken(stored, mask, higher_is_darker)
    return stored


def _undeclared(stored: Stored, value: int) -> Mask | None:
    """Return the mask of an extreme value if it is undeclared padding, else None.

    Padding lies at the border, and no other pixel is in the half of the value range next to it. Signal has no
    such gap: below saturated pixels there are others of similar value.
    """
    edges = np.concatenate([stored[0], stored[-1], stored[:, 0], stored[:, -1]])
    if np.count_nonzero(edges == value) < _MIN_BORDER_SHARE * edges.size:
        return None
    low, high = int(stored.min()), int(stored.max())
    mask = np.asarray(stored == value)
    others = stored[~mask]
    if others.size < _MIN_IMAGE_SHARE * stored.size or others.min() == others.max():
        return None
    nearest = int(others.min()) if value == low else int(others.max())
    return mask if 2 * abs(nearest - value) > high - low else None


def _blacken(stored: Stored, mask: Mask, higher_is_darker: bool) -> None:
    """Set the pixels of a mask to the black of the slice."""
    if not mask.any():
        return
    others = stored[~mask]
    if not others.size:
        # A constant slice is empty. Otherwise the declared range covers the image and is ignored.
        if (stored == stored[0, 0]).all():
            stored[:] = np.iinfo(stored.dtype).max if higher_is_darker else 0
        return
    rank = round(_BLACK_PERCENTILE / 100.0 * (others.size - 1))
    if higher_is_darker:
        rank = others.size - 1 - rank
    black = int(np.partition(others, rank)[rank])
    padding = stored[mask]
    room = _MAX_DARKER_SHARE * (int(others.max()) - int(others.min()))
    darker = int(padding.min()) - black if higher_is_darker else black - int(padding.max())
    farthest = int(padding.max()) - black if higher_is_darker else black - int(padding.min())
    if darker < 0 or farthest > room:
        stored[mask] = black


def _raw_bits(elements: Elements, keyword: str) -> int | None:
    """Return the lower 16 bits of a value of 2 or 4 bytes, else None."""
    _, raw = elements.values.get(keyword, (b"", b""))
    kind = {2: "H", 4: "L"}.get(len(raw))
    return None if kind is None else int(struct.unpack(elements.byte_order + kind, raw)[0]) & 0xFFFF


def _as_number(raw: int, signed: bool) -> int:
    return raw - (1 << 16) if signed and raw >= 1 << 15 else raw
