"""Reading ahead: the slot of each study, its lifetime, and failures of the `on_read` hook."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import series
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from stenosis_trt.engine.dicom.pixel_memory import PixelMemory, PixelSlot
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.grading.read_ahead import ReadStudy, read_ahead, read_study
from stenosis_trt.engine.records import LoadedStudy, StudyHeader

_SLICES = 6
_STUDIES = 6
_WAIT = 30.0
_SLOT_BYTES = _SLICES * 256 * 256 * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies 1 to 6, every pixel of each the study's number."""
    root = tmp_path_factory.mktemp("studies")
    for study in range(1, _STUDIES + 1):

        def change(content: Dataset, index: int, study: int = study) -> None:
            content.StudyInstanceUID = generate_uid(entropy_srcs=["study", str(study)])
            content.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(study)])
            content.SOPInstanceUID = generate_uid(entropy_srcs=["image", str(study), str(index)])
            content.PixelData = np.full((256, 256), study, np.uint16).tobytes()

        series(root / f"study{study}", _SLICES, change)
    return root


@pytest.fixture
def memory() -> Iterator[PixelMemory]:
    with PixelMemory(_SLOT_BYTES) as opened:
        yield opened


@pytest.fixture
def reader(memory: PixelMemory) -> Iterator[DicomReader]:
    with DicomReader(memory=memory) as opened:
        yield opened


def _headers(reader: DicomReader, folder: Path) -> deque[StudyHeader]:
    return deque(sorted(reader.scan([folder]).studies, key=lambda study: study.path))


def _number(study: LoadedStudy | StudyHeader) -> int:
    header = study.header if isinstance(study, LoadedStudy) else study
    return int(header.path[-1])


def _values(study: LoadedStudy) -> set[int]:
    return {int(value) for item in study.sagittal for value in np.unique(item.stored)}


def _loaded(read: ReadStudy) -> LoadedStudy:
    assert read.study is not None, read.problems
    assert len(read.study.sagittal) == _SLICES
    return read.study


class _Log:
    """What happened, in order, in both threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.events: list[str] = []

    def note(self, event: str) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, event: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: event in self.events, _WAIT), f"no {event!r}"

    def at(self, event: str) -> int:
        return self.events.index(event)


@pytest.mark.parametrize("slots", [2, 3])
def test_a_study_stays_as_it_is_while_the_next_is_read_and_until_it_is_done_with(
    slots: int, folder: Path
) -> None:
    log = _Log()
    with PixelMemory(_SLOT_BYTES, slots) as memory, DicomReader(memory=memory) as reader:
        for slot, name in zip(memory.slots, "ABC", strict=False):
            _note_resets(slot, name, log)
        headers = _headers(reader, folder)
        studies = read_ahead(reader, headers, memory.slots, lambda study: log.note(f"read {_number(study)}"))
        for number, read in enumerate(studies, start=1):
            study = _loaded(read)
            assert (_number(study), read.upload_error, read.outside_slot) == (number, None, 0)
            slot = memory.slots[(number - 1) % slots]
            assert {memory.slot_of(item.stored) for item in study.sagittal} == {slot}
            assert _values(study) == {number}
            if number < _STUDIES:
                log.wait_for(f"read {number + 1}")
            assert _values(study) == {number}, "the next one was written over it"
            log.note(f"done {number}")
    for number in range(1, _STUDIES - 1):
        resets = [k for k, event in enumerate(log.events) if event.startswith("reset ")]
        # The study after the next one: its slot is made free for it when this one is done with.
        assert resets[number + 1] > log.at(f"done {number}")
        assert log.at(f"done {number + 1}") > log.at(f"read {number + 2}")
    assert [event for event in log.events if event.startswith("reset ")] == [
        f"reset {'ABC'[number % slots]}" for number in range(_STUDIES)
    ]


def _note_resets(slot: PixelSlot, name: str, log: _Log) -> None:
    reset = slot.reset

    def noted() -> None:
        log.note(f"reset {name}")
        reset()

    slot.reset = noted  # type: ignore[method-assign]


def test_a_held_slot_is_not_overwritten(reader: DicomReader, memory: PixelMemory, folder: Path) -> None:
    log, copied, waits = _Log(), threading.Event(), threading.Event()

    def wait() -> None:
        waits.set()
        assert copied.wait(_WAIT)

    with closing(
        read_ahead(
            reader, _headers(reader, folder), memory.slots, lambda study: log.note(f"read {_number(study)}")
        )
    ) as studies:
        first = _loaded(next(studies))
        memory.slots[0].add_release_wait(wait)
        second = _loaded(next(studies))
        # Its copy goes on, though the caller has asked for the next study.
        assert waits.wait(_WAIT)
        assert _values(first) == {1}
        assert "read 3" not in log.events
        assert _values(second) == {2}
        copied.set()
        log.wait_for("read 3")
        assert _values(first) == {3}, "the third is where the first was"
        assert _values(second) == {2}


def test_an_error_while_waiting_for_a_slot_is_returned_with_the_study(
    reader: DicomReader, memory: PixelMemory, folder: Path
) -> None:
    called: list[int] = []

    def wait() -> None:
        raise RuntimeError("the device is gone")

    with closing(
        read_ahead(
            reader, _headers(reader, folder), memory.slots, lambda study: called.append(_number(study))
        )
    ) as studies:
        first = _loaded(next(studies))
        memory.slots[0].add_release_wait(wait)
        assert next(studies).upload_error is None
        third = next(studies)
        assert _values(_loaded(third)) == {3}
        assert _values(first) == {1}, "something may still copy from it"
        assert memory.slot_of(_loaded(third).sagittal[0].stored) is None
        assert str(third.upload_error) == "the device is gone"
        assert 3 not in called


def test_an_error_of_the_hook_is_returned_with_its_study_and_the_next_ones_are_read(
    reader: DicomReader, memory: PixelMemory, folder: Path
) -> None:
    def on_read(study: LoadedStudy) -> None:
        assert _values(study) == {_number(study)}
        if _number(study) == 2:
            raise RuntimeError("no copy of this one")

    reads = []
    for read in read_ahead(reader, _headers(reader, folder), memory.slots, on_read):
        assert _values(_loaded(read)) == {_number(read.header)}
        reads.append((_number(read.header), read.problems, str(read.upload_error or "")))
    assert reads == [(k, (), "no copy of this one" if k == 2 else "") for k in range(1, _STUDIES + 1)]


def test_the_hook_is_called_in_the_thread_that_reads(
    reader: DicomReader, memory: PixelMemory, folder: Path
) -> None:
    threads: set[str] = set()
    for _ in read_ahead(
        reader,
        _headers(reader, folder),
        memory.slots,
        lambda study: threads.add(threading.current_thread().name),
    ):
        pass
    assert threads == {"read_0"}


def test_the_hook_is_not_called_for_a_study_that_cannot_be_graded(
    reader: DicomReader, memory: PixelMemory, folder: Path
) -> None:
    header = _headers(reader, folder)[0]
    called: list[LoadedStudy] = []
    few = StudyHeader(header.study_uid, header.path, ())
    read = read_study(reader, few, memory.slots[0], called.append)
    assert (read.study, called) == (None, [])
    assert read.problems


def test_slices_that_do_not_fit_their_slot_are_counted(folder: Path) -> None:
    with PixelMemory(_SLOT_BYTES // 2) as memory, DicomReader(memory=memory) as reader:
        for read in read_ahead(reader, _headers(reader, folder), memory.slots):
            study = _loaded(read)
            assert read.outside_slot == _SLICES // 2
            assert _values(study) == {_number(study)}


def test_without_slots_every_study_has_arrays_of_its_own(folder: Path) -> None:
    with DicomReader() as reader:
        studies = [_loaded(read) for read in read_ahead(reader, _headers(reader, folder))]
    assert [_values(study) for study in studies] == [{number} for number in range(1, _STUDIES + 1)]


def test_one_slot_is_not_enough(reader: DicomReader, memory: PixelMemory) -> None:
    with pytest.raises(ValueError, match="takes 2 slots, and 1 was given"):
        next(read_ahead(reader, deque(), memory.slots[:1]))


def test_nothing_is_read_once_the_caller_has_stopped(
    reader: DicomReader, memory: PixelMemory, folder: Path
) -> None:
    log, before = _Log(), threading.active_count()
    headers = _headers(reader, folder)
    with closing(
        read_ahead(reader, headers, memory.slots, lambda study: log.note(f"read {_number(study)}"))
    ) as studies:
        next(studies)
    stopped = list(log.events)
    assert threading.active_count() == before
    assert stopped in (["read 1"], ["read 1", "read 2"])
    assert len(headers) == _STUDIES - 2
