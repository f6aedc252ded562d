"""Where the pixels of studies lie for the kernels: one study is computed while the next is copied.

The arena is one piece of device memory in slots. A study's slices are copied into a free slot by a stream of
their own, all at once where they were read into page-locked memory; what computes waits for the event behind
the copy. Where machine and device share their memory, kernels can read what was read as it is.
"""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.backends.base import ReadingMemory, ReadingSlot
from stenosis_trt.engine.backends.gpu.block import align_up
from stenosis_trt.engine.backends.gpu.inputs import PlacedSlice
from stenosis_trt.engine.backends.gpu.memory import MemoryBudget
from stenosis_trt.engine.cuda.device import Device, Event, Stream
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.cuda.memory import RegisteredMemory
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy
from stenosis_trt.kernels.region_batch import SliceLayout

SLOTS = 2
SLOT_BYTES = 32 << 20
"""Of most studies: 15 sagittal and 30 axial slices of 512² take 24 MB."""

_PIXEL_BYTES = 2
_PIXELS = "pixels of two studies"


@dataclass
class _Slot:
    """`study` is the one whose pixels are in it or on their way, or None; `used` while it is computed; `turn`
    says which of two is there longer, 0 where it is empty."""

    first_byte: int
    ready: Event
    study: LoadedStudy | None = None
    used: bool = False
    places: tuple[PlacedSlice, ...] = ()
    turn: int = 0

    def empty(self) -> None:
        """What is in it is nobody's."""
        self.study, self.used, self.places, self.turn = None, False, (), 0


@dataclass(frozen=True)
class PlacedStudy:
    """A study's slices with their places.

    Attributes:
        sagittal, axial: its slices.
        address: that the places' offsets count from.
        ready: event behind the copy; None where nothing is copied.
        slot: of the arena; None likewise.
    """

    sagittal: tuple[PlacedSlice, ...]
    axial: tuple[PlacedSlice, ...]
    address: int
    ready: Event | None
    slot: int | None


class Arena:
    """Pixels of `SLOTS` studies on the device. Its methods may be called from several threads.

    Attributes:
        growth_count: how often a study was larger than its slot, so that all slots had to be made anew. What
            knows
            the address of a pixel forgets it then, also where `load` raised.
        mapped: whether kernels read page-locked memory of the machine as it is.
        copies: how many copies were made.
        stream: that copies.
    """

    def __init__(self, device: Device, budget: MemoryBudget, slot_bytes: int = SLOT_BYTES) -> None:
        """Take the memory.

        Raises:
            CudaError: there is not as much.
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
        """Page-lock the memory that studies are read into.

        Raises:
            CudaError: the driver refused.
        """
        with self._lock:
            if self._locked is not None:
                self._locked.close()
            self._memory, self._locked = memory, RegisteredMemory(self._device, memory.array)

    def prefetch(self, study: LoadedStudy) -> None:
        """Begin to copy a study that is loaded next, if there is room; else `load` will.

        Where both slots hold studies that were announced and not loaded, the earlier one is let go.

        Raises:
            CudaError: the driver refused.
        """
        with self._lock:
            slot = self._room()
            fits = not self._pixels.closed and _bytes_of(study) <= self._slot_bytes
            if slot is not None and fits and not self._as_it_is(study):
                self._copy(study, slot)

    def load(self, study: LoadedStudy) -> PlacedStudy:
        """Have a study's pixels where kernels find them, or on their way there; `release` it afterwards.

        Raises:
            CudaError: there is not as much memory, or the driver refused.
        """
        with self._lock:
            if self._as_it_is(study):
                assert self._locked is not None
                return _placed(study, self._in_memory(study, 0), self._locked.address, None, None)
            slot = next((item for item in self._slots if item.study is study), None)
            if slot is None:
                needed = max(_bytes_of(study), self._slot_bytes)
                if needed > self._slot_bytes or self._pixels.closed:
                    self._grow(needed)
                slot = self._room()
                if slot is None:
                    raise CudaError("Both slots of the arena are in use.", "Close a study before the next.")
                self._copy(study, slot)
            slot.used = True
            number = self._slots.index(slot)
            return _placed(study, slot.places, self._pixels.address, slot.ready, number)

    def release(self, placed: PlacedStudy) -> None:
        """Let another study have the slot. All that was computed of this one has been waited for."""
        if placed.slot is not None:
            with self._lock:
                self._slots[placed.slot].empty()

    def close(self) -> None:
        """Give the memory back, once nothing is copied any more, or nothing can be."""
        with suppress(CudaError), self._device.current():
            # Copies that nobody waited for. Whoever waits for one is told what went wrong with it.
            self.stream.synchronize()
        if self._locked is not None:
            self._locked.close()
        for slot in self._slots:
            slot.ready.close()
        self._pixels.close()
        self.stream.close()

    def _room(self) -> _Slot | None:
        """A slot for a study: an empty one, or the one whose study waits longest to be loaded; None where
        both are in use."""
        return min((item for item in self._slots if not item.used), key=lambda item: item.turn, default=None)

    def _as_it_is(self, study: LoadedStudy) -> bool:
        """Whether kernels read the study where it was read into."""
        return self.mapped and self._range(study) is not None

    def _range(self, study: LoadedStudy) -> tuple[int, int] | None:
        """The study's bytes in the memory that it was read into; None where a slice lies elsewhere."""
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

    def _in_memory(self, study: LoadedStudy, moved: int) -> tuple[PlacedSlice, ...]:
        """Places of slices as they lie in the memory that they were read into, so many bytes on."""
        assert self._memory is not None
        offsets = [self._memory.offset_of(item.stored) for item in _slices(study)]
        return tuple(
            PlacedSlice(item, _place(item, offset + moved))
            for item, offset in zip(_slices(study), offsets, strict=True)
            if offset is not None
        )

    def _copy(self, study: LoadedStudy, slot: _Slot) -> None:
        """Give the copy of a study to the stream."""
        together = self._range(study)
        # Until all of it is on its way, the slot is no study's.
        slot.empty()
        with self._device.current():
            if together is not None and together[1] - together[0] <= self._slot_bytes:
                assert self._memory is not None
                first, last = together
                self._pixels.copy_from(self._memory.array[first:last], self.stream, slot.first_byte)
                self.copies += 1
                slot.places = self._in_memory(study, slot.first_byte - first)
            else:
                slot.places = _behind_one_another(study, slot.first_byte)
                for item in slot.places:
                    stored = np.ascontiguousarray(item.slice.stored)
                    self._pixels.copy_from(stored, self.stream, item.place.offset * _PIXEL_BYTES)
                    self.copies += 1
            slot.ready.record(self.stream)
        slot.study, slot.turn = study, next(self._turns)
        for reading in self._sources(study):
            reading.add_release_wait(lambda: self._wait(slot.ready))

    def _sources(self, study: LoadedStudy) -> set[ReadingSlot]:
        """The slots that a study was read into: one, or none where it lies elsewhere as a whole."""
        memory = self._memory
        if memory is None:
            return set()
        slots = (memory.slot_of(item.stored) for item in _slices(study))
        return {slot for slot in slots if slot is not None}

    def _wait(self, event: Event) -> None:
        with self._device.current():
            event.synchronize()

    def _grow(self, needed: int) -> None:
        """Make slots that the study fits in. What was on its way to them is copied again when loaded.

        Where there is no memory for them, there are slots as before: the next study may be a smaller one.
        """
        if any(slot.used for slot in self._slots):
            raise CudaError("The arena cannot grow while a study is computed.", "Close it before the next.")
        with self._device.current():
            self.stream.synchronize()
        self.growth_count += 1
        self._pixels.close()
        try:
            self._make(align_up(needed))
        except CudaError:
            self._make(self._slot_bytes)
            raise

    def _make(self, slot_bytes: int) -> None:
        self._pixels = self._budget.buffer(SLOTS * slot_bytes, _PIXELS)
        self._slot_bytes = slot_bytes
        for number, slot in enumerate(self._slots):
            slot.empty()
            slot.first_byte = number * slot_bytes


def _slices(study: LoadedStudy) -> tuple[LoadedSlice, ...]:
    return (*study.sagittal, *study.axial)


def _bytes_of(study: LoadedStudy) -> int:
    return sum(align_up(item.stored.nbytes) for item in _slices(study))


def _behind_one_another(study: LoadedStudy, first_byte: int) -> tuple[PlacedSlice, ...]:
    places = []
    for item in _slices(study):
        places.append(PlacedSlice(item, _place(item, first_byte)))
        first_byte += align_up(item.stored.nbytes)
    return tuple(places)


def _placed(
    study: LoadedStudy,
    places: tuple[PlacedSlice, ...],
    address: int,
    ready: Event | None,
    slot: int | None,
) -> PlacedStudy:
    cut = len(study.sagittal)
    return PlacedStudy(places[:cut], places[cut:], address, ready, slot)


def _place(item: LoadedSlice, first_byte: int) -> SliceLayout:
    rows, columns = item.stored.shape
    return SliceLayout(
        offset=first_byte // _PIXEL_BYTES,
        shape=(rows, columns),
        pitch=columns,
        signed=item.stored.dtype == np.int16,
        slope=item.frame.slope,
        intercept=item.frame.intercept,
    )
