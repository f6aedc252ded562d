"""Memory into which the reading processes write pixels, and which a GPU can copy from as it is.

One block, divided into slots; a slot holds the slices of one study. The reading processes have the block as
an open descriptor and not in their address space: they decode in memory of their own, and write each frame to
where the reader asked for it.

What that protects from: a codec that writes where it should not reaches no other frame's pixels. A process
that dies leaves at most its own frame half written, and that is not handed out. The block can be made neither
shorter nor longer, and the reader looks at nothing but what it reserved, whatever a process answers.

A slot is given to the next study only when no process can still write to it for the last one: whoever asked
for a frame has its answer, or has stopped the process and waited for its end (`ReadingProcess.stop`). Once
the system reports that end, all threads of the process are gone and none of its system calls is under way.

What it does not protect from: a file that takes over a process, by a fault of a codec, could write to all of
the block, and has worse to do: the process runs with the rights of the user.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.dicom.errors import DicomError, ReaderError
from stenosis_trt.engine.records import Stage

ALIGNMENT = 256
"""Bytes. Every frame begins at a multiple: what copies and kernels of GPUs like best."""

_STORED = ("uint16", "int16")


class ReservedFrame(NamedTuple):
    """Room for one frame: its first byte, from the block's beginning on, and an array of unknown content."""

    offset: int
    view: npt.NDArray[Any]


@dataclass(frozen=True)
class WrittenFrame:
    """A reading process's answer: the frame is at `offset`, where it was asked for, as `dtype` in C order of
    `shape`."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class PixelSlot:
    """A part of the block for the frames of one study, one after the other. For one thread at a time.

    Attributes:
        start: its first byte, from the block's beginning on.
        nbytes: its size.
        outside_slot: frames since the last `reset` that were read and did not fit: each has an array of its
        own.
    """

    def __init__(self, block: npt.NDArray[np.uint8], start: int, nbytes: int) -> None:
        self._block, self._used = block, 0
        self._waits: list[Callable[[], None]] = []
        self.start, self.nbytes, self.outside_slot = start, nbytes, 0

    def reserve(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> ReservedFrame | None:
        """Reserve room for an array; None where what is left does not hold it."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > self.nbytes - self._used:
            return None
        offset = self.start + self._used
        self._used = min(self.nbytes, _rounded_up(self._used + size, ALIGNMENT))
        return ReservedFrame(offset, self._block[offset : offset + size].view(dtype).reshape(shape))

    def add_release_wait(self, wait: Callable[[], None]) -> None:
        """Have the next `reset` call `wait` first: it returns once a copy that is under way has ended."""
        self._waits.append(wait)

    def reset(self) -> None:
        """Make all of it free. What was placed is overwritten from now on.

        Raises:
            Whatever a `wait` given to `hold` raises; then the slot is as before, and not free.
        """
        while self._waits:
            self._waits[-1]()
            self._waits.pop()
        self._used = self.outside_slot = 0


class PixelMemory:
    """A block shared with the reading processes, in slots. Use it as a context manager, around its reader.

    All of it is taken at once, so that reading takes no more later, and it begins at a page. It stays where
    it is as long as there is an array that shows a part of it, also after `close`: whoever page-locks it
    keeps `array` until that is undone.

    Attributes:
        array: all of it, uint8 (bytes,).
        slots: its parts, of equal size.
    """

    def __init__(self, slot_bytes: int, slots: int = 2) -> None:
        """Take memory for `slots` slots of `slot_bytes` bytes each, rounded up to whole pages.

        Raises:
            ValueError: no slot, or none with anything in it.
            ReaderError: the system cannot share memory, or has not as much.
        """
        if slot_bytes < 1 or slots < 1:
            raise ValueError(f"{slots} slots of {slot_bytes} bytes were asked for. Ask for at least 1 of 1.")
        size = _rounded_up(slot_bytes, mmap.PAGESIZE)
        self._descriptor, mapping = _shared(slots * size)
        self._close = weakref.finalize(self, os.close, self._descriptor)
        # The mapping goes with the last array that shows a part of it.
        self.array: npt.NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)
        self.slots = tuple(PixelSlot(self.array, number * size, size) for number in range(slots))

    def __enter__(self) -> PixelMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Share it with no more processes. Arrays that lie in it stay valid."""
        self._close()

    @property
    def descriptor(self) -> int:
        """What a process writes to it by.

        Raises:
            ReaderError: it was closed.
        """
        if not self._close.alive:
            raise ReaderError("The pixel memory was closed before its reader.", "Close the reader first.")
        return self._descriptor

    @property
    def address(self) -> int:
        """Where it begins, for the CPU."""
        return _address(self.array)

    def offset_of(self, array: npt.NDArray[Any]) -> int | None:
        """A contiguous array's first byte, from the block's beginning on; None where it lies elsewhere."""
        offset = _address(array) - self.address
        return offset if 0 <= offset <= self.array.nbytes - array.nbytes else None

    def slot_of(self, array: npt.NDArray[Any]) -> PixelSlot | None:
        """The slot that an array lies in; None where it lies elsewhere."""
        offset = self.offset_of(array)
        return None if offset is None else self.slots[offset // self.slots[0].nbytes]


def write_frame(descriptor: int, offset: int, capacity: int, stored: npt.NDArray[Any]) -> WrittenFrame | None:
    """Write a frame to the block, from a reading process. None where it takes more than `capacity` bytes.

    Raises:
        DicomError: the system refused.
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


def written_frame(place: ReservedFrame, written: WrittenFrame) -> npt.NDArray[Any] | DicomError:
    """The frame that a reading process says it wrote to `place`.

    Returns:
        A part of the place, uint16 or int16 (rows, columns); a DicomError where the frame cannot be there,
        since it was written elsewhere, is something else, or is too large.
    """
    shape = written.shape
    known = written.offset == place.offset
    known = known and written.dtype in _STORED and isinstance(shape, tuple) and len(shape) == 2
    known = known and all(type(length) is int and length > 0 for length in shape)
    if not known or math.prod(shape) * 2 > place.view.nbytes:
        return invalid_answer_error()
    room: npt.NDArray[Any] = place.view.reshape(-1).view(written.dtype)
    return room[: math.prod(shape)].reshape(shape)


def invalid_answer_error(stage: Stage = Stage.PIXELS) -> DicomError:
    """What is said of a file whose reading process answered what cannot be."""
    reason = "The process that read the file gave an answer that cannot be."
    return DicomError(stage, reason, "The file is broken: send or export it again.", temporary=True)


def _shared(size: int) -> tuple[int, mmap.mmap]:
    """A file in memory: its descriptor, and its content.

    All of it is there, and it can become neither longer nor shorter: with a shorter one, a look at what is
    gone would end the program.
    """
    if not hasattr(os, "memfd_create"):
        raise ReaderError(
            "Memory cannot be shared with the processes that read files: Python has no memfd_create here.",
            "Use Linux and a Python that was built with glibc 2.27 or later, or --device cpu.",
        )
    # It is where memfd_create is.
    import fcntl

    if size > os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2:
        # The system would go on trying, and end programs to have it.
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
        reason = f"{size} bytes for pixels cannot be had ({error.strerror})."
        raise ReaderError(reason, "Free memory, or ask for less.") from error


def _rounded_up(size: int, step: int) -> int:
    return -(-size // step) * step


def _address(array: npt.NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
