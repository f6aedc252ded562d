"""Device memory for the pixels of studies: one study is computed while the next is copied.

The arena is one allocation that is divided into slots. A separate stream copies the slices of a study to a
free slot, in one copy if they lie in page-locked reading memory; the computation waits for an event after the
copy. If host and device share memory, kernels can read the reading memory in place.
"""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.backends.base import ReadingMemory, ReadingSlot
from stenosis_trt.engine.backends.gpu.inputs import PlacedSlice
from stenosis_trt.engine.backends.gpu.memory import MemoryBudget
from stenosis_trt.engine.backends.gpu.mirrored_arrays import align_up
from stenosis_trt.engine.backends.gpu.options import SLOT_BYTES
from stenosis_trt.engine.cuda.device import Device, Event, Stream
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.cuda.memory import RegisteredMemory
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy
from stenosis_trt.kernels.region_batch import SliceLayout

SLOTS = 2

_PIXEL_BYTES = 2
_PIXELS = "pixels of two studies"


@dataclass
class _Slot:
    """A slot. `study` is the one whose pixels are or will be in it; `used` is True while it is computed;
    `turn` orders the slots by age, 0 if empty."""

    first_byte: int
    ready: Event
    study: LoadedStudy | None = None
    used: bool = False
    places: tuple[PlacedSlice, ...] = ()
    turn: int = 0

    def empty(self) -> None:
        """Mark the slot as empty."""
        self.study, self.used, self.places, self.turn = None, False, (), 0


@dataclass(frozen=True)
class PlacedStudy:
    """The slices of a study with their layouts in the arena.

    Attributes:
        sagittal, axial: slices of the two series.
        address: device address that the offsets of the layouts refer to.
        ready: event after the copy; None if nothing is copied.
        slot: index of the slot; None if nothing is copied.
    """

    sagittal: tuple[PlacedSlice, ...]
    axial: tuple[PlacedSlice, ...]
    address: int
    ready: Event | None
    slot: int | None


class Arena:
    """Pixels of `SLOTS` studies on the device. Thread-safe.

    Attributes:
        growth_count: number of reallocations for a study larger than its slot. Each invalidates all device
            addresses of pixels, even if `load` raised.
        mapped: True if kernels read the reading memory in place.
        copies: number of copies.
        stream: stream of the copies.
    """

    def __init__(self, device: Device, budget: MemoryBudget, slot_bytes: int = SLOT_BYTES) -> None:
        """Allocate the memory.

        Raises:
            CudaError: memory is short.
        """
        self._device, self._budget = device, budget
        self._lock = threading.Lock()
        self.stream = Stream(device)
        self._slot_bytes = align_up(slot_bytes)
        self._pixels = budget.buffer(SLOTS * self._slot_bytes, _PIXELS)
        self._slots = [
            _Slot(number * self._slot_bytes, Event(device, timing=False)) for number in range(SLOTS)
        ]
        self._memory: ReadingMemory | None = None
        self._locked: RegisteredMemory | None = None
        self._turns = itertools.count(1)
        self.mapped = False
        self.growth_count = self.copies = 0

    def set_reading_memory(self, memory: ReadingMemory) -> None:
        """Page-lock the reading memory.

        Raises:
            CudaError: a driver call failed.
        """
        with self._lock:
            if self._locked is not None:
                self._locked.close()
            self._memory, self._locked = memory, RegisteredMemory(self._device, memory.array)

    def prefetch(self, study: LoadedStudy) -> None:
        """Start to copy the study that is loaded next, if a slot is free; else `load` copies it.

        If both slots hold prefetched studies that were not loaded, the older one is replaced.

        Raises:
            CudaError: a driver call failed.
        """
        with self._lock:
            slot = self._free_slot()
            fits = not self._pixels.closed and _bytes_of(study) <= self._slot_bytes
            if slot is not None and fits and not self._reads_in_layout(study):
                self._copy(study, slot)

    def load(self, study: LoadedStudy) -> PlacedStudy:
        """Make the pixels of a study accessible to kernels, after `PlacedStudy.ready`. Call `release` later.

        Raises:
            CudaError: memory is short, or a driver call failed.
        """
        with self._lock:
            if self._reads_in_layout(study):
                assert self._locked is not None
                return _placed(study, self._layouts_in_memory(study, 0), self._locked.address, None, None)
            slot = next((item for item in self._slots if item.study is study), None)
            if slot is None:
                needed = max(_bytes_of(study), self._slot_bytes)
                if needed > self._slot_bytes or self._pixels.closed:
                    self._grow(needed)
                slot = self._free_slot()
                if slot is None:
                    raise CudaError("Both slots of the arena are in use.", "Close a study before the next.")
                self._copy(study, slot)
            slot.used = True
            number = self._slots.index(slot)
            return _placed(study, slot.places, self._pixels.address, slot.ready, number)

    def release(self, placed: PlacedStudy) -> None:
        """Free the slot of a study. All work on it must be finished."""
        if placed.slot is not None:
            with self._lock:
                self._slots[placed.slot].empty()

    def close(self) -> None:
        """Free the memory after pending copies have finished or failed."""
        with suppress(CudaError), self._device.current():
            # Errors of copies are raised where they are waited for.
            self.stream.synchronize()
        if self._locked is not None:
            self._locked.close()
        for slot in self._slots:
            slot.ready.close()
        self._pixels.close()
        self.stream.close()

    def _free_slot(self) -> _Slot | None:
        """Find a slot for a study: an empty one, else the oldest that is not in use; None if all are."""
        return min((item for item in self._slots if not item.used), key=lambda item: item.turn, default=None)

    def _reads_in_layout(self, study: LoadedStudy) -> bool:
        """True if kernels read the study in place."""
        return self.mapped and self._range(study) is not None

    def _range(self, study: LoadedStudy) -> tuple[int, int] | None:
        """First and last byte of a study in the reading memory; None if a slice lies outside."""
        if self._memory is None:
            return None
        first, last = [], []
        for item in _slices(study):
            offset = self._memory.offset_of(item.stored)
            if offset is None or not item.stored.flags.c_contiguous:
                return None
            first.append(offset)
            last.append(offset + item.stored.nbytes)
        return min(first), max(last)

    def _layouts_in_memory(self, study: LoadedStudy, moved: int) -> tuple[PlacedSlice, ...]:
        """Slices with their layout in the reading memory, shifted by `moved` bytes."""
        assert self._memory is not None
        offsets = [self._memory.offset_of(item.stored) for item in _slices(study)]
        return tuple(
            PlacedSlice(item, _layout(item, offset + moved))
            for item, offset in zip(_slices(study), offsets, strict=True)
            if offset is not None
        )

    def _copy(self, study: LoadedStudy, slot: _Slot) -> None:
        """Enqueue the copy of a study."""
        together = self._range(study)
        # The slot stays empty until all copies are enqueued.
        slot.empty()
        with self._device.current():
            if together is not None and together[1] - together[0] <= self._slot_bytes:
                assert self._memory is not None
                first, last = together
                self._pixels.copy_from(self._memory.array[first:last], self.stream, slot.first_byte)
                self.copies += 1
                slot.places = self._layouts_in_memory(study, slot.first_byte - first)
            else:
                slot.places = _consecutive_layouts(study, slot.first_byte)
                for item in slot.places:
                    stored = np.ascontiguousarray(item.slice.stored)
                    self._pixels.copy_from(stored, self.stream, item.layout.offset * _PIXEL_BYTES)
                    self.copies += 1
            slot.ready.record(self.stream)
        slot.study, slot.turn = study, next(self._turns)
        for reading in self._reading_slots(study):
            reading.add_release_wait(lambda: self._wait(slot.ready))

    def _reading_slots(self, study: LoadedStudy) -> set[ReadingSlot]:
        """Slots of the reading memory that hold slices of a study."""
        memory = self._memory
        if memory is None:
            return set()
        slots = (memory.slot_of(item.stored) for item in _slices(study))
        return {slot for slot in slots if slot is not None}

    def _wait(self, event: Event) -> None:
        with self._device.current():
            event.synchronize()

    def _grow(self, needed: int) -> None:
        """Reallocate the slots with a size of at least `needed`. Prefetched studies are copied again.

        If memory is short, slots of the old size are allocated: the next study may be smaller.
        """
        if any(slot.used for slot in self._slots):
            raise CudaError(
                "The arena cannot be reallocated while a study is computed.", "Close it before the next."
            )
        with self._device.current():
            self.stream.synchronize()
        self.growth_count += 1
        self._pixels.close()
        try:
            self._allocate(align_up(needed))
        except CudaError:
            self._allocate(self._slot_bytes)
            raise

    def _allocate(self, slot_bytes: int) -> None:
        self._pixels = self._budget.buffer(SLOTS * slot_bytes, _PIXELS)
        self._slot_bytes = slot_bytes
        for number, slot in enumerate(self._slots):
            slot.empty()
            slot.first_byte = number * slot_bytes


def _slices(study: LoadedStudy) -> tuple[LoadedSlice, ...]:
    return (*study.sagittal, *study.axial)


def _bytes_of(study: LoadedStudy) -> int:
    return sum(align_up(item.stored.nbytes) for item in _slices(study))


def _consecutive_layouts(study: LoadedStudy, first_byte: int) -> tuple[PlacedSlice, ...]:
    places = []
    for item in _slices(study):
        places.append(PlacedSlice(item, _layout(item, first_byte)))
        first_byte += align_up(item.stored.nbytes)
    return tuple(places)


def _placed(
    study: LoadedStudy, places: tuple[PlacedSlice, ...], address: int, ready: Event | None, slot: int | None
) -> PlacedStudy:
    cut = len(study.sagittal)
    return PlacedStudy(places[:cut], places[cut:], address, ready, slot)


def _layout(item: LoadedSlice, first_byte: int) -> SliceLayout:
    rows, columns = item.stored.shape
    return SliceLayout(
        offset=first_byte // _PIXEL_BYTES,
        shape=(rows, columns),
        pitch=columns,
        signed=item.stored.dtype == np.int16,
        slope=item.frame.slope,
        intercept=item.frame.intercept,
    )
