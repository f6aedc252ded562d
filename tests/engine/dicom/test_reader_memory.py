"""Slices decoded into shared memory equal those decoded without, even if a process is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered_process import alter
from dicom_factory import compressed, dataset, enhanced, series, write
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from shared_data import shared_data

from stenosis_trt.engine.dicom import process as process_module
from stenosis_trt.engine.dicom.errors import ReaderError
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.pixel_memory import PixelMemory, PixelSlot, WrittenFrame
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import FrameHeader, LoadedSlice, Problem

_MIB = 1 << 20
_FRAME = 256 * 256 * 2
_COMPRESSED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)
_NATIVE = (ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


@pytest.fixture
def memory() -> Iterator[PixelMemory]:
    with PixelMemory(8 * _MIB) as opened:
        yield opened


@pytest.fixture
def reader(memory: PixelMemory) -> Iterator[DicomReader]:
    with DicomReader(memory=memory) as opened:
        yield opened


def _frames(reader: DicomReader, path: Path) -> tuple[FrameHeader, ...]:
    (study,) = reader.scan([path]).studies
    return study.series[0].frames


def _same(one: Sequence[LoadedSlice], other: Sequence[LoadedSlice]) -> bool:
    return [item.frame for item in one] == [item.frame for item in other] and all(
        left.stored.dtype == right.stored.dtype and np.array_equal(left.stored, right.stored)
        for left, right in zip(one, other, strict=True)
    )


def _offsets(memory: PixelMemory, slices: Sequence[LoadedSlice]) -> list[int | None]:
    return [memory.offset_of(item.stored) for item in slices]


@pytest.mark.parametrize("syntax", [*_NATIVE, *_COMPRESSED])
def test_slices_in_shared_memory_are_those_of_ordinary_arrays(
    syntax: str, reader: DicomReader, memory: PixelMemory, tmp_path: Path
) -> None:
    for number in range(9):
        values = np.random.default_rng(number).integers(-2000, 2000, (41, 33), dtype=np.int16)
        tags = {"Rows": 41, "Columns": 33, "PixelRepresentation": number % 2, "PixelData": values.tobytes()}
        content = dataset(number, **tags, BitsStored=16 - number % 2, HighBit=15 - number % 2)
        path = tmp_path / f"{number}.dcm"
        write(path, compressed(content, syntax) if syntax in _COMPRESSED else content, syntax)
    slot = memory.slots[1]
    frames = _frames(reader, tmp_path)
    ordinary, _ = reader.load(frames)
    shared, problems = reader.load(frames, slot)
    assert problems == ()
    assert len(shared) == 9
    assert {item.stored.dtype.name for item in shared} == {"uint16", "int16"}
    assert _same(shared, ordinary)
    assert all(memory.slot_of(item.stored) is slot for item in shared)
    assert all(item.stored.ctypes.data % 256 == 0 for item in shared)
    assert all(item.stored.flags.c_contiguous for item in shared)
    assert _offsets(memory, ordinary) == [None] * 9
    assert slot.outside_slot == 0


def test_frames_of_one_file_have_a_place_each(
    reader: DicomReader, memory: PixelMemory, tmp_path: Path
) -> None:
    write(tmp_path / "many.dcm", enhanced([3.3 * number for number in range(40)]))
    slices, problems = reader.load(_frames(reader, tmp_path), memory.slots[0])
    assert problems == ()
    assert [int(item.stored.max()) for item in slices] == list(range(40))
    assert sorted(filter(None, _offsets(memory, slices))) == [64 * 64 * 2 * k for k in range(1, 40)]


def test_a_second_series_lies_behind_the_first(
    reader: DicomReader, memory: PixelMemory, tmp_path: Path
) -> None:
    series(tmp_path, 6)
    frames = _frames(reader, tmp_path)
    first, _ = reader.load(frames[:2], memory.slots[0])
    second, _ = reader.load(frames[2:], memory.slots[0])
    assert _offsets(memory, [*first, *second]) == [_FRAME * k for k in range(6)]
    assert _same([*first, *second], reader.load(frames)[0])


@pytest.mark.parametrize("size", [2 * _FRAME + 4096, 100])
def test_what_does_not_fit_gets_arrays_of_its_own_and_is_counted(size: int, tmp_path: Path) -> None:
    series(tmp_path, 5)
    with PixelMemory(size) as memory, DicomReader(memory=memory) as reader:
        frames = _frames(reader, tmp_path)
        slot = memory.slots[0]
        slices, problems = reader.load(frames, slot)
        fit = slot.nbytes // _FRAME
        assert _offsets(memory, slices) == [_FRAME * k if k < fit else None for k in range(5)]
        assert (slot.outside_slot, problems) == (5 - fit, ())
        assert _same(slices, reader.load(frames)[0])


def test_an_image_that_is_larger_than_its_header_was_comes_back_in_an_array(
    reader: DicomReader, memory: PixelMemory, tmp_path: Path
) -> None:
    paths = series(tmp_path, 3)
    frames = _frames(reader, tmp_path)
    larger = np.arange(300 * 300, dtype=np.uint16).reshape(300, 300) % 4096
    write(paths[1], dataset(1, Rows=300, Columns=300, PixelData=larger.tobytes()))
    slices, _ = reader.load(frames, memory.slots[0])
    assert _offsets(memory, slices) == [0, None, 2 * _FRAME]
    assert np.array_equal(slices[1].stored, larger)
    assert memory.slots[0].outside_slot == 1


def test_a_broken_file_costs_itself(reader: DicomReader, memory: PixelMemory, tmp_path: Path) -> None:
    for number in range(9):
        content = compressed(dataset(number), JPEG2000Lossless)
        write(tmp_path / f"{number}.dcm", content, JPEG2000Lossless)
    frames = _frames(reader, tmp_path)
    whole = frames[4].path.read_bytes()
    frames[4].path.write_bytes(whole[:-20_000] + bytes(20_000))
    slices, problems = reader.load(frames, memory.slots[0])
    ordinary, same_problems = reader.load(frames)
    assert _same(slices, ordinary)
    assert [item.frame for item in slices] == [*frames[:4], *frames[5:]]
    assert problems == same_problems
    assert [problem.path for problem in problems] == [str(frames[4].path)]
    assert memory.slots[0].outside_slot == 0


_DIES = """
def write_frame(memory, offset, capacity, stored, real=reading_process.write_frame):
    if stored[0, 0] == 4095:
        real(memory, offset, capacity, stored[:128])
        os.kill(os.getpid(), signal.SIGKILL)
    return real(memory, offset, capacity, stored)

reading_process.write_frame = write_frame
"""


@pytest.mark.parametrize("workers", [1, 3])
def test_a_process_that_dies_while_it_writes_costs_its_frame(
    workers: int, memory: PixelMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadly(content: Dataset, number: int) -> None:
        values = np.full((256, 256), 4095 if number == 7 else number, np.uint16)
        content.PixelData = values.tobytes()

    paths = series(tmp_path / "in", 12, deadly)
    alter(tmp_path, monkeypatch, _DIES)
    with DicomReader(workers=workers, memory=memory) as reader:
        frames = _frames(reader, tmp_path / "in")
        slices, problems = reader.load(frames, memory.slots[0])
    assert [int(item.stored.min()) for item in slices] == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    assert [int(item.stored.max()) for item in slices] == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    assert all(memory.slot_of(item.stored) is memory.slots[0] for item in slices)
    assert [problem.path for problem in problems] == [str(paths[7])]
    assert "crashed the reading process" in problems[0].reason


@pytest.mark.parametrize(
    "answer",
    [
        "WrittenFrame('uint16', (257, 256), arguments[1])",
        "WrittenFrame('uint8', (9, 9), arguments[1])",
        "WrittenFrame('uint16', (-1, 256), arguments[1])",
    ],
)
def test_what_a_process_says_it_wrote_elsewhere_is_not_looked_at(
    answer: str, memory: PixelMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series(tmp_path / "in", 3)
    alter(tmp_path, monkeypatch, f"reading_process.write_frame = lambda *arguments: {answer}")
    with DicomReader(memory=memory) as reader:
        slices, problems = reader.load(_frames(reader, tmp_path / "in"), memory.slots[0])
    assert slices == ()
    assert [problem.reason for problem in problems] == [
        "The reading process returned an invalid answer for the file."
    ] * 3


def test_a_process_that_says_it_wrote_what_had_no_place_is_not_believed(
    reader: DicomReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series(tmp_path, 1)
    frames = _frames(reader, tmp_path)
    monkeypatch.setattr(DicomReader, "_ask", lambda *arguments: [WrittenFrame("uint16", (2, 2), 0)])
    slices, problems = reader.load(frames)
    assert slices == ()
    assert "invalid answer" in problems[0].reason


def test_a_process_that_is_started_again_writes_to_the_same_memory(
    reader: DicomReader, memory: PixelMemory, tmp_path: Path
) -> None:
    series(tmp_path, 5)
    frames = _frames(reader, tmp_path)
    first, _ = reader.load(frames, memory.slots[0])
    (before,) = [process.pid for process in reader._processes]
    assert before is not None
    os.kill(before, signal.SIGKILL)
    second, problems = reader.load(frames, memory.slots[1])
    assert [process.pid for process in reader._processes] != [before]
    assert problems == ()
    assert _same(first, second)
    assert _offsets(memory, second) == [memory.slots[1].start + _FRAME * k for k in range(5)]


def test_files_of_one_frame_share_requests(
    reader: DicomReader, memory: PixelMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series(tmp_path, 24)
    frames = _frames(reader, tmp_path)
    asked: list[tuple[str, int]] = []
    real = process_module.ReadingProcess.ask

    def ask(self: process_module.ReadingProcess, kind: str, *arguments: Any) -> list[Any]:
        asked.append((kind, len(arguments[0]) if kind == "images" else 1))
        return real(self, kind, *arguments)

    monkeypatch.setattr(process_module.ReadingProcess, "ask", ask)
    slices, _ = reader.load(frames, memory.slots[0])
    assert asked == [("images", 8)] * 3
    asked.clear()
    ordinary, _ = reader.load(frames)
    assert asked == [("images", 8)] * 3, "also if the pixels are part of the answer"
    assert _same(slices, ordinary)
    asked.clear()
    monkeypatch.setattr(reader, "limits", replace(reader.limits, max_frame_pixels=3 * _FRAME // 2))
    reader.load(frames)
    assert asked == [("images", 3)] * 8, "an answer is not longer than the largest frame that is allowed"


def test_files_of_one_and_of_many_frames_come_in_the_order_asked_for(
    reader: DicomReader, memory: PixelMemory, tmp_path: Path
) -> None:
    series(tmp_path / "one", 9)
    write(tmp_path / "many" / "many.dcm", enhanced([3.3 * number for number in range(5)]))
    one, many = _frames(reader, tmp_path / "one"), _frames(reader, tmp_path / "many")
    frames = [*one[:4], many[3], *one[4:6], many[0], many[1], *one[6:]]
    slices, problems = reader.load(frames, memory.slots[0])
    assert [item.frame for item in slices] == frames
    assert _same(slices, reader.load(frames)[0])
    assert problems == ()


def test_the_memory_does_not_count_towards_what_decoding_may_take(tmp_path: Path) -> None:
    series(tmp_path, 3)
    limits = ReadLimits(decode_memory_bytes=48 * _MIB)
    with PixelMemory(64 * _MIB) as memory, DicomReader(limits, memory=memory) as reader:
        slices, problems = reader.load(_frames(reader, tmp_path), memory.slots[1])
    assert (len(slices), problems) == (3, ())
    assert memory.slots[1].outside_slot == 0


def test_a_slot_of_other_memory_is_a_mistake(reader: DicomReader, tmp_path: Path) -> None:
    with PixelMemory(_FRAME) as other, DicomReader() as plain:
        for wrong in (reader, plain):
            with pytest.raises(ValueError, match="not of the memory"):
                wrong.load([], other.slots[0])


def test_memory_that_is_closed_before_its_reader_is_said(tmp_path: Path) -> None:
    series(tmp_path, 1)
    memory = PixelMemory(_FRAME)
    memory.close()
    with DicomReader(memory=memory) as reader, pytest.raises(ReaderError, match="Close the reader first"):
        reader.scan([tmp_path])


def _held(pid: int | str) -> tuple[int, int]:
    """Descriptors that a process has, and how often it has shared memory mapped."""
    mapped = Path(f"/proc/{pid}/maps").read_text().count("stenosis-trt-pixels")
    return len(os.listdir(f"/proc/{pid}/fd")), mapped


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_many_studies_leave_no_descriptor_and_no_memory_behind(
    reader: DicomReader, memory: PixelMemory, tmp_path: Path
) -> None:
    series(tmp_path, 10)
    frames = _frames(reader, tmp_path)

    def read(studies: int) -> None:
        for number in range(studies):
            slot: PixelSlot = memory.slots[number % 2]
            slot.reset()
            slices, problems = reader.load(frames, slot)
            assert (len(slices), problems, slot.outside_slot) == (10, (), 0)

    read(20)
    (pid,) = [process.pid for process in reader._processes]
    assert pid is not None
    before, resident = (_held("self"), _held(pid)), _resident()
    read(200)
    assert (_held("self"), _held(pid)) == before
    assert _held(pid)[1] == 0, "a codec has nothing of it within its reach"
    # One study takes 1.3 MB: 200 of them would be seen.
    assert _resident() - resident < 16 * _MIB


@pytest.mark.shared_data
def test_every_real_image_is_the_same_in_shared_memory() -> None:
    compared = 0
    with PixelMemory(48 * _MIB) as memory, DicomReader(workers=2, memory=memory) as reader:
        scan = reader.scan([shared_data("dicom")])
        for number, found in enumerate(item for study in scan.studies for item in study.series):
            slot = memory.slots[number % 2]
            slot.reset()
            shared: tuple[tuple[LoadedSlice, ...], tuple[Problem, ...]] = reader.load(found.frames, slot)
            ordinary = reader.load(found.frames)
            assert _same(shared[0], ordinary[0]), found.frames[0].path
            assert shared[1] == ordinary[1]
            assert slot.outside_slot == 0
            compared += len(shared[0])
    assert compared > 190
