"""Shared memory for pixels: reading processes write to it, and a GPU can copy from it directly.

One block is divided into slots, each for the slices of one study. The reading processes have the block as an
open descriptor, not in their address space: they decode into their own memory and write each frame to the
offset that the reader reserved.

Protection: a codec that writes out of bounds cannot reach the pixels of other frames. A process that dies
leaves at most its own frame incomplete, which is not used. The size of the block is sealed, and the reader
accesses only what it reserved, whatever a process answers. A slot is reused only when no process can still
write to it: each request was answered, or its process was stopped and waited for (`ReadingProcess.stop`),
after which none of its threads and system calls is running.

Not protected: a file that takes over a reading process by a fault of a codec can write to the whole block;
the process has the rights of the user.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.dicom.errors import DicomError, ReaderError
from stenosis_trt.engine.records import Stage
from stenosis_trt.engine.support.closeable import Closeable

ALIGNMENT = 256
"""Bytes. Frames start at multiples of it, for fast GPU copies and kernels."""

_STORED = ("uint16", "int16")


class ReservedFrame(NamedTuple):
    """Memory reserved for one frame: its offset in the block, and an uninitialised array."""

    offset: int
    view: npt.NDArray[Any]


@dataclass(frozen=True)
class WrittenFrame:
    """Answer of a reading process: the frame was written to `offset`, in C order."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class PixelSlot:
    """A part of the block for the frames of one study. For one thread at a time.

    Attributes:
        start: offset in the block.
        nbytes: size in bytes.
        outside_slot: frames read since the last `reset` that did not fit and have an array of their own.
    """

    def __init__(self, block: npt.NDArray[np.uint8], start: int, nbytes: int) -> None:
        self._block, self._used = block, 0
        self._waits: list[Callable[[], None]] = []
        self.start, self.nbytes, self.outside_slot = start, nbytes, 0

    def reserve(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> ReservedFrame | None:
        """Reserve memory for an array; return None if it does not fit into the rest of the slot."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > self.nbytes - self._used:
            return None
        offset = self.start + self._used
        self._used = min(self.nbytes, _rounded_up(self._used + size, ALIGNMENT))
        return ReservedFrame(offset, self._block[offset : offset + size].view(dtype).reshape(shape))

    def add_release_wait(self, wait: Callable[[], None]) -> None:
        """Let the next `reset` call `wait` first, which returns when a copy from the slot has ended."""
        self._waits.append(wait)

    def reset(self) -> None:
        """Release all reserved memory, after the waits added by `add_release_wait`.

        Raises:
            Exception: what a wait raises; the slot is then not released.
        """
        while self._waits:
            self._waits[-1]()
            self._waits.pop()
        self._used = self.outside_slot = 0


class PixelMemory(Closeable):
    """A block of memory shared with the reading processes. Use it as a context manager, around its reader.

    The block is allocated at once, page-aligned, and stays mapped while an array refers to a part of it, even
    after `close`: keep `array` as long as the memory is page-locked.

    Attributes:
        array: the block, uint8 (bytes,).
        slots: its parts, of equal size.
    """

    def __init__(self, slot_bytes: int, slots: int = 2) -> None:
        """Allocate `slots` slots of `slot_bytes` bytes each, rounded up to whole pages.

        Raises:
            ValueError: `slots` or `slot_bytes` is less than 1.
            ReaderError: the system does not support shared memory, or has not enough of it.
        """
        if slot_bytes < 1 or slots < 1:
            raise ValueError(f"{slots} slots of {slot_bytes} bytes were asked for. Ask for at least 1 of 1.")
        size = _rounded_up(slot_bytes, mmap.PAGESIZE)
        self._descriptor, mapping = _shared(slots * size)
        self._close = weakref.finalize(self, os.close, self._descriptor)
        # The mapping is removed with the last array that refers to it.
        self.array: npt.NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)
        self.slots = tuple(PixelSlot(self.array, number * size, size) for number in range(slots))

    def close(self) -> None:
        """Close the descriptor. Existing arrays stay valid."""
        self._close()

    @property
    def descriptor(self) -> int:
        """Descriptor that a reading process writes to.

        Raises:
            ReaderError: the memory was closed.
        """
        if not self._close.alive:
            raise ReaderError("The pixel memory was closed before its reader.", "Close the reader first.")
        return self._descriptor

    @property
    def address(self) -> int:
        """Address of the block on the CPU."""
        return _address(self.array)

    def offset_of(self, array: npt.NDArray[Any]) -> int | None:
        """Return the offset of a contiguous array in the block, or None if it lies elsewhere."""
        offset = _address(array) - self.address
        return offset if 0 <= offset <= self.array.nbytes - array.nbytes else None

    def slot_of(self, array: npt.NDArray[Any]) -> PixelSlot | None:
        """Return the slot that an array lies in, or None if it lies elsewhere."""
        offset = self.offset_of(array)
        return None if offset is None else self.slots[offset // self.slots[0].nbytes]


def write_frame(descriptor: int, offset: int, capacity: int, stored: npt.NDArray[Any]) -> WrittenFrame | None:
    """Write a frame to the block, in a reading process; return None if it exceeds `capacity` bytes.

    Raises:
        DicomError: the system call failed.
    """
    if stored.nbytes > capacity:
        return None
    left, start = np.ascontiguousarray(stored).data.cast("B"), offset
    try:
        while left:
            done = os.pwrite(descriptor, left, offset)
            left, offset = left[done:], offset + done
    except OSError as error:
        reason = f"The pixels cannot be written to shared memory ({error.strerror})."
        raise DicomError(
            Stage.PIXELS, reason, "Report it with the output of `stenosis-trt doctor`."
        ) from error
    return WrittenFrame(stored.dtype.name, stored.shape, start)


def written_frame(reserved: ReservedFrame, written: WrittenFrame) -> npt.NDArray[Any] | DicomError:
    """Return the frame that a reading process reports as written.

    Args:
        reserved: the memory reserved for the frame.
        written: the answer of the process.

    Returns:
        A view of the reserved memory, uint16 or int16 (rows, columns); a DicomError if offset, dtype or shape
        are invalid.
    """
    shape = written.shape
    valid = written.offset == reserved.offset
    valid = valid and written.dtype in _STORED and isinstance(shape, tuple) and len(shape) == 2
    valid = valid and all(type(length) is int and length > 0 for length in shape)
    if not valid or math.prod(shape) * 2 > reserved.view.nbytes:
        return invalid_answer_error()
    pixels: npt.NDArray[Any] = reserved.view.reshape(-1).view(written.dtype)
    return pixels[: math.prod(shape)].reshape(shape)


def invalid_answer_error(stage: Stage = Stage.PIXELS) -> DicomError:
    """Return the error of a file whose reading process gave an invalid answer."""
    reason = "The reading process returned an invalid answer for the file."
    return DicomError(stage, reason, "The file is broken: send or export it again.", temporary=True)


def _shared(size: int) -> tuple[int, mmap.mmap]:
    """Create a file in memory; return its descriptor and mapping.

    It is fully allocated and its size is sealed: access beyond the end of a truncated file would kill the
    program.
    """
    if not hasattr(os, "memfd_create"):
        raise ReaderError(
            "Memory cannot be shared with the processes that read files: Python has no memfd_create here.",
            "Use Linux and a Python that was built with glibc 2.27 or later, or --device cpu.",
        )
    # Available wherever memfd_create is.
    import fcntl

    if size > os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2:
        # The system would swap and kill other programs to provide it.
        reason = f"{size} bytes for pixels are more than half of the machine's memory."
        raise ReaderError(reason, "Ask for less.")
    descriptor = os.memfd_create("stenosis-trt-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        os.posix_fallocate(descriptor, 0, size)
        fcntl.fcntl(
            descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        )
        return descriptor, mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    except OSError as error:
        os.close(descriptor)
        reason = f"{size} bytes for pixels cannot be allocated ({error.strerror})."
        raise ReaderError(reason, "Free memory, or ask for less.") from error


def _rounded_up(size: int, step: int) -> int:
    return -(-size // step) * step


def _address(array: npt.NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
