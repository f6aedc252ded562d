"""Comparison of files that state one SOP Instance UID and position. Runs in a reading process."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stenosis_trt.engine.dicom.duplicates import Likeness
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.pixels import OpenPixels, open_pixels

_FIRST_BLOCK_BYTES, _BLOCK_BYTES = 1 << 14, 1 << 18
"""Most files that differ do so in their headers."""


def compare_files(one: Path, other: Path, frames: int, limits: ReadLimits) -> Likeness:
    """Return how alike two files are.

    Args:
        one, other: the files.
        frames: number of frames of both if their headers describe one image, else 0.
        limits: limits of reading.

    Raises:
        DicomError, OSError, and whatever a codec raises: one of the files cannot be read.
    """
    with one.open("rb", buffering=0) as first, other.open("rb", buffering=0) as second:
        size = os.fstat(first.fileno()).st_size
        if size == os.fstat(second.fileno()).st_size and _equal(first, second, size):
            return Likeness.EQUAL
    if not frames:
        return Likeness.DIFFERENT
    with ExitStack() as stack:
        opened = (
            stack.enter_context(open_pixels(one, limits)),
            stack.enter_context(open_pixels(other, limits)),
        )
        if _same_encoded(*opened) or all(
            np.array_equal(opened[0].decode(k), opened[1].decode(k)) for k in range(frames)
        ):
            return Likeness.SAME_IMAGE
    return Likeness.DIFFERENT


def _same_encoded(one: OpenPixels, other: OpenPixels) -> bool:
    """Return True if the pixels of two files are encoded alike, in equal bytes, and mean the same."""
    mine, theirs = one.layout.pixel_data, other.layout.pixel_data
    alike = (
        one.part.transfer_syntax == other.part.transfer_syntax
        and one.elements.values == other.elements.values
        and one.elements.sequences == other.elements.sequences
    )
    size = one.part.size - mine.value_offset
    if not alike or size != other.part.size - theirs.value_offset:
        return False
    one.part.stream.seek(mine.value_offset)
    other.part.stream.seek(theirs.value_offset)
    return _equal(one.part.stream, other.part.stream, size)


def _equal(one: BinaryIO, other: BinaryIO, size: int) -> bool:
    """Return True if the next `size` bytes of two streams are there and equal."""
    block = _FIRST_BLOCK_BYTES
    while size > 0:
        mine, theirs = one.read(min(block, size)), other.read(min(block, size))
        if not mine or mine != theirs:
            return False
        size, block = size - len(mine), _BLOCK_BYTES
    return True
