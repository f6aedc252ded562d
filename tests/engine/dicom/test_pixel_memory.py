"""Memory shared with reading processes: offsets of frames, lifetime, rejected answers."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stenosis_trt.engine.dicom.errors import DicomError, ReaderError
from stenosis_trt.engine.dicom.pixel_memory import (
    PixelMemory,
    PixelSlot,
    WrittenFrame,
    write_frame,
    written_frame,
)

_PAGE = 4096


@pytest.fixture
def memory() -> Iterator[PixelMemory]:
    with PixelMemory(3 * _PAGE - 100) as opened:
        yield opened


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _mappings() -> int:
    return Path("/proc/self/maps").read_text().count("stenosis-trt-pixels")


def test_slots_are_pages_of_one_block(memory: PixelMemory) -> None:
    assert [(slot.start, slot.nbytes) for slot in memory.slots] == [(0, 3 * _PAGE), (3 * _PAGE, 3 * _PAGE)]
    assert (memory.array.dtype, memory.array.shape) == (np.uint8, (6 * _PAGE,))
    assert memory.address % _PAGE == 0
    assert not memory.array.any()


def test_frames_lie_one_behind_the_other_at_multiples_of_256(memory: PixelMemory) -> None:
    for slot in memory.slots:
        ends = [slot.start]
        for number, shape in enumerate([(1, 1), (7, 19), (16, 8), (3, 43)], start=1):
            place = slot.reserve(shape, np.int16)
            assert place is not None
            assert (place.view.shape, place.view.dtype) == (shape, np.int16)
            assert place.view.ctypes.data == memory.address + place.offset
            assert place.view.ctypes.data % 256 == 0
            assert 0 <= place.offset - ends[-1] < 256
            assert memory.offset_of(place.view) == place.offset
            assert memory.slot_of(place.view) is slot
            place.view[:] = number
            shown = memory.array[place.offset : place.offset + place.view.nbytes].view(np.int16)
            assert (shown == number).all()
            ends.append(place.offset + place.view.nbytes)


def test_a_slot_takes_what_fits_and_is_free_again_after_a_reset(memory: PixelMemory) -> None:
    first, second = memory.slots
    assert first.reserve((3 * _PAGE + 1,), np.uint8) is None
    whole = first.reserve((3, _PAGE // 2), np.uint16)
    assert whole is not None
    assert first.reserve((1,), np.uint8) is None
    assert second.reserve((1,), np.uint8) is not None
    first.outside_slot = 4
    first.reset()
    again = first.reserve((1,), np.uint8)
    assert again is not None
    assert (again.offset, first.outside_slot) == (whole.offset, 0)


def test_an_array_that_lies_elsewhere_is_in_no_slot(memory: PixelMemory) -> None:
    with PixelMemory(_PAGE) as other:
        place = other.slots[0].reserve((4, 4), np.uint16)
        assert place is not None
        for array in (np.zeros((4, 4), np.uint16), place.view):
            assert memory.offset_of(array) is None
            assert memory.slot_of(array) is None


def test_what_a_slot_is_held_by_is_waited_for_once(memory: PixelMemory) -> None:
    slot, waited = memory.slots[0], []
    slot.add_release_wait(lambda: waited.append("one"))
    slot.add_release_wait(lambda: waited.append("other"))
    slot.reset()
    assert sorted(waited) == ["one", "other"]
    slot.reset()
    assert len(waited) == 2


def test_a_slot_whose_wait_fails_is_not_free(memory: PixelMemory) -> None:
    slot, fails = memory.slots[0], True

    def wait() -> None:
        if fails:
            raise RuntimeError("the device is gone")

    first = slot.reserve((1,), np.uint8)
    slot.add_release_wait(wait)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="gone"):
            slot.reset()
        second = slot.reserve((1,), np.uint8)
        assert first is not None
        assert second is not None
        assert second.offset > first.offset
    fails = False
    slot.reset()
    third = slot.reserve((1,), np.uint8)
    assert third is not None
    assert third.offset == first.offset


def test_arrays_stay_when_the_memory_is_closed_and_it_goes_with_the_last() -> None:
    before = _descriptors(), _mappings()
    memory = PixelMemory(_PAGE)
    place = memory.slots[1].reserve((4, 4), np.uint16)
    assert place is not None
    view = place.view
    view[:] = 77
    memory.close()
    with pytest.raises(ReaderError, match="Close the reader first"):
        _ = memory.descriptor
    del memory, place
    gc.collect()
    assert _mappings() == before[1] + 1
    assert (view == 77).all()
    del view
    gc.collect()
    assert (_descriptors(), _mappings()) == before


def test_memory_that_nobody_closed_leaves_nothing_behind() -> None:
    before = _descriptors(), _mappings()
    for _ in range(50):
        PixelMemory(_PAGE).slots[0].reserve((1,), np.uint8)
    gc.collect()
    assert (_descriptors(), _mappings()) == before


def test_who_has_the_descriptor_can_make_the_block_neither_shorter_nor_longer(memory: PixelMemory) -> None:
    for size in (0, _PAGE, 7 * _PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.descriptor, size)
    with pytest.raises(DicomError, match="cannot be written to shared memory"):
        write_frame(memory.descriptor, 6 * _PAGE, 100, np.ones((2, 2), np.uint16))
    assert os.fstat(memory.descriptor).st_size == memory.array.nbytes


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_what_is_written_by_descriptor_is_seen_in_its_place(memory: PixelMemory, dtype: type) -> None:
    place = memory.slots[1].reserve((5, 7), np.uint16)
    assert place is not None
    # Not contiguous, as what a codec gives may be.
    stored = np.arange(-35, 35).astype(dtype).reshape(7, 10)[:, ::2].T
    answer = write_frame(memory.descriptor, place.offset, place.view.nbytes, stored)
    assert answer == WrittenFrame(np.dtype(dtype).name, (5, 7), place.offset)
    seen = written_frame(place, answer)
    assert isinstance(seen, np.ndarray)
    assert (seen.dtype, seen.flags.c_contiguous) == (dtype, True)
    assert np.array_equal(seen, stored)
    assert memory.offset_of(seen) == place.offset
    rest = np.delete(memory.array, np.s_[place.offset : place.offset + 70])
    assert not rest.any()


def test_a_frame_that_is_too_large_for_its_place_is_not_written(memory: PixelMemory) -> None:
    assert write_frame(memory.descriptor, 0, 31, np.ones((4, 4), np.uint16)) is None
    assert not memory.array.any()


def test_a_frame_may_be_smaller_than_its_place(memory: PixelMemory) -> None:
    slot: PixelSlot = memory.slots[0]
    place = slot.reserve((5, 7), np.uint16)
    assert place is not None
    seen = written_frame(place, WrittenFrame("int16", (2, 3), place.offset))
    assert isinstance(seen, np.ndarray)
    assert (seen.shape, memory.offset_of(seen)) == ((2, 3), place.offset)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("uint16", (5, 8)),
        ("uint16", (1 << 40, 1 << 40)),
        ("uint16", (-5, -7)),
        ("uint16", (0, 7)),
        ("uint16", (35,)),
        ("uint16", (5, 7, 1)),
        ("uint16", (5.0, 7.0)),
        ("uint16", 35),
        ("uint8", (5, 7)),
        ("float64", (2, 2)),
        ("object", (2, 2)),
        (None, (5, 7)),
    ],
)
def test_an_answer_that_cannot_be_shows_nothing(memory: PixelMemory, dtype: str, shape: tuple[int]) -> None:
    place = memory.slots[0].reserve((5, 7), np.uint16)
    assert place is not None
    answer = written_frame(place, WrittenFrame(dtype, shape, place.offset))
    assert isinstance(answer, DicomError)
    assert "an invalid answer" in answer.reason


def test_a_python_without_memfd_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(ReaderError, match=r"no memfd_create here.* --device cpu"):
        PixelMemory(_PAGE)


def test_more_than_the_machine_has_is_refused_and_leaves_nothing_behind() -> None:
    before = _descriptors()
    with pytest.raises(ReaderError, match=r"half of the machine's memory. Ask for less"):
        PixelMemory(1 << 50)
    assert _descriptors() == before


def test_memory_that_the_system_refuses_is_said_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(descriptor: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    before = _descriptors()
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(
        ReaderError, match=r"8192 bytes for pixels cannot be allocated \(No space left on device\)"
    ):
        PixelMemory(_PAGE)
    assert _descriptors() == before


@pytest.mark.parametrize(("size", "slots"), [(0, 2), (-1, 2), (1, 0)])
def test_no_memory_is_a_mistake(size: int, slots: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        PixelMemory(size, slots)
