"""Reading processes are replaced when lost, only the faulty file is blamed, and none is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from altered_process import alter
from dicom_factory import dataset, enhanced, series, write

from stenosis_trt.engine.dicom import process as process_module
from stenosis_trt.engine.dicom import reader as reader_module
from stenosis_trt.engine.dicom.errors import ReaderError
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.process import ProcessLost
from stenosis_trt.engine.dicom.reader import DicomReader


def _pids(reader: DicomReader) -> list[int]:
    return [process.pid for process in reader._processes if process.pid is not None]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_killed_between_requests_is_replaced_and_costs_no_file(tmp_path: Path) -> None:
    series(tmp_path, 5)
    with DicomReader() as reader:
        frames = reader.scan([tmp_path]).studies[0].series[0].frames
        (before,) = _pids(reader)
        os.kill(before, signal.SIGKILL)
        slices, problems = reader.load(frames)
        assert (len(slices), problems) == (5, ())
        assert _pids(reader) != [before]


class _Deadly:
    """Pretends that some files kill or hang the process that reads them."""

    def __init__(self, hung: bool) -> None:
        self.hung = hung

    def __call__(self, process: process_module.ReadingProcess, kind: str, *arguments: object) -> list[object]:
        if "deadly" in repr(arguments):
            process.stop()
            raise ProcessLost(self.hung)
        return self.real(process, kind, *arguments)

    real = staticmethod(process_module.ReadingProcess.ask)


@pytest.mark.parametrize(
    ("hung", "words"), [(False, "crashed the reading process"), (True, "longer than the limit")]
)
def test_a_file_that_ends_its_process_is_found_among_many(
    hung: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = series(tmp_path, 20)
    paths[7].rename(tmp_path / "deadly.dcm")
    deadly = _Deadly(hung)
    monkeypatch.setattr(process_module.ReadingProcess, "ask", lambda *arguments: deadly(*arguments))
    with DicomReader() as reader:
        scan = reader.scan([tmp_path])
    assert len(scan.studies[0].series[0].frames) == 19
    assert [Path(problem.path).name for problem in scan.problems] == ["deadly.dcm"]
    assert words in scan.problems[0].reason


def test_a_frame_that_ends_its_process_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "many.dcm", enhanced([3.3 * number for number in range(9)]))
    real = process_module.ReadingProcess.ask

    def ask(self: process_module.ReadingProcess, kind: str, *arguments: Any) -> list[Any]:
        if kind == "pixels" and 4 in [index for index, _ in arguments[1]]:
            self.stop()
            raise ProcessLost(hung=False)
        return real(self, kind, *arguments)

    monkeypatch.setattr(process_module.ReadingProcess, "ask", ask)
    with DicomReader() as reader:
        frames = reader.scan([tmp_path]).studies[0].series[0].frames
        slices, problems = reader.load(frames)
    assert [item.frame.index for item in slices] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert [problem.reason for problem in problems] == [
        "1 of 9 frames cannot be decoded: Reading the file crashed the reading process."
    ]


def test_a_file_whose_every_frame_ends_a_process_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "many.dcm", enhanced([3.3 * number for number in range(40)]))
    real = process_module.ReadingProcess.ask
    asked: list[int] = []

    def ask(self: process_module.ReadingProcess, kind: str, *arguments: Any) -> list[Any]:
        if kind == "pixels":
            asked.append(1)
            raise ProcessLost(hung=False)
        return real(self, kind, *arguments)

    monkeypatch.setattr(process_module.ReadingProcess, "ask", ask)
    with DicomReader() as reader:
        slices, problems = reader.load(reader.scan([tmp_path]).studies[0].series[0].frames)
    assert slices == ()
    assert len(problems) == 1
    assert len(asked) < 12


def test_a_request_that_takes_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path / "in", 1)
    alter(tmp_path, monkeypatch, "reading_process.pixels = lambda *arguments: time.sleep(600)")
    with DicomReader(ReadLimits(timeout_seconds=2.0)) as reader:
        scan = reader.scan([tmp_path / "in"])
        (pid,) = _pids(reader)
        start = time.monotonic()
        slices, problems = reader.load(scan.studies[0].series[0].frames)
        assert time.monotonic() - start < 100
    assert slices == ()
    assert "longer than the limit" in problems[0].reason
    assert not _runs(pid)


def test_a_process_that_cannot_start_is_said_at_once_and_blamed_on_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series(tmp_path, 3)
    monkeypatch.setattr(process_module, "_START_WAITS", (0.01, 0.02))
    monkeypatch.setattr(process_module, "_MODULE", "stenosis_trt.engine.dicom.no_such_module")
    with DicomReader() as reader, pytest.raises(ReaderError, match=r"does not start .* to see why"):
        reader.scan([tmp_path])


def test_no_process_is_left_behind(tmp_path: Path) -> None:
    series(tmp_path, 3)
    with DicomReader(workers=2) as reader:
        reader.scan([tmp_path])
        pids = _pids(reader)
    assert pids
    assert not any(_runs(pid) for pid in pids)
    with pytest.raises(ReaderError, match="closed"):
        reader.scan([tmp_path])


def test_processes_end_with_a_program_that_is_killed(tmp_path: Path) -> None:
    series(tmp_path, 3)
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from stenosis_trt.engine.dicom.reader import DicomReader\n"
        "reader = DicomReader()\nreader.scan([Path(sys.argv[1])])\n"
        "print(reader._processes[0].pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        pid = int(killed.stdout.readline())
        killed.kill()
    deadline = time.monotonic() + 10
    while _runs(pid) and not _is_zombie(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(pid) or _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Ended, and not yet waited for by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in the foreground: a shell ignores SIGINT for what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_does_not_reach_the_reading_process(interruptible: None, tmp_path: Path) -> None:
    series(tmp_path, 2)
    with DicomReader() as reader:
        reader.scan([tmp_path])
        (pid,) = _pids(reader)
        os.kill(pid, signal.SIGINT)
        assert len(reader.scan([tmp_path]).studies) == 1
        assert _pids(reader) == [pid]


def test_a_folder_named_like_a_module_does_not_disturb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series(tmp_path / "in", 2)
    for name in ("dl", "pydicom", "numpy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong one')\n")
    monkeypatch.chdir(tmp_path)
    with DicomReader() as reader:
        scan = reader.scan([Path("in")])
        slices, problems = reader.load(scan.studies[0].series[0].frames)
    assert (len(slices), problems) == (2, ())
    assert scan.studies[0].path == str(tmp_path / "in")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    for number in range(300):
        tags = {"Rows": 4, "Columns": 4, "PixelData": b"\0" * 32}
        write(tmp_path / f"{number:03d}.dcm", dataset(number, **tags))
    return tmp_path


def test_several_processes_find_what_one_finds(many: Path) -> None:
    counts: list[int] = []
    with DicomReader() as one, DicomReader(workers=3) as three:
        assert one.scan([many], counts.append) == three.scan([many])
        assert len(_pids(three)) > 1
    assert counts[-1] == 300
    assert counts == sorted(counts)


def test_threads_may_share_a_reader(many: Path) -> None:
    with DicomReader(workers=2) as reader:
        frames = reader.scan([many]).studies[0].series[0].frames[:60]
        loaded: list[int] = []

        def load() -> None:
            loaded.append(len(reader.load(frames)[0]))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert loaded == [60] * 4


def test_a_scan_that_is_interrupted_reads_little_more(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_FILES_PER_REQUEST", 2)
    asked: list[str] = []
    real = process_module.ReadingProcess.ask

    def ask(self: process_module.ReadingProcess, kind: str, *arguments: object) -> list[object]:
        asked.append(kind)
        return real(self, kind, *arguments)

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process_module.ReadingProcess, "ask", ask)
    with DicomReader() as reader, pytest.raises(KeyboardInterrupt):
        reader.scan([many], interrupt)
    assert len(asked) < 10


def test_zero_workers_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        DicomReader(workers=0)
