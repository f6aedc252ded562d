"""A reading process that is lost, late or wrong: its late answers are never used."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered_process import alter
from dicom_factory import series
from pydicom.dataset import Dataset

from stenosis_trt.engine.dicom import process as process_module
from stenosis_trt.engine.dicom.errors import ReaderUnavailable
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.pixel_memory import PixelMemory
from stenosis_trt.engine.dicom.process import ProcessLost, ReadingProcess
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import Stage


def _numbered(content: Dataset, number: int) -> None:
    """Every pixel of an image is its number."""
    content.PixelData = np.full((256, 256), number, np.uint16).tobytes()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return series(tmp_path / "in", 6, _numbered)


@pytest.fixture
def process() -> Iterator[ReadingProcess]:
    started = ReadingProcess(ReadLimits())
    yield started
    started.close()


def _value(process: ReadingProcess, path: Path) -> int:
    (pixels,) = process.ask("pixels", path, [(0, None)])
    (value,) = np.unique(pixels)
    return int(value)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_answer_that_cannot_be_received_is_not_left_for_the_next_request(
    error: type[BaseException], process: ReadingProcess, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was: the next request got the pixels of the patient before, and every later one was one behind."""
    assert _value(process, files[1]) == 1

    def failing(content: bytearray) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(process_module, "unpickle_answer", failing)
        with pytest.raises(ReaderUnavailable if error is MemoryError else error):
            process.ask("pixels", files[2], [(0, None)])
        assert process.pid is None
    assert [_value(process, files[number]) for number in (3, 4, 5)] == [3, 4, 5]


_WRONG = {
    "the number of the request before": """
def send(self, number, content, seconds=None, real=Channel.send):
    real(self, number - 1 if number == 2 else number, content, seconds)

Channel.send = send
""",
    "the answer to the request before": """
held = []

def send(self, number, content, seconds=None, real=Channel.send):
    held.append((number, content))
    if number != 2:
        return real(self, number, content, seconds)
    while held:
        real(self, *held.pop(0))

Channel.send = send
""",
    "what is no pickle": """
def send(self, number, content, seconds=None, real=Channel.send):
    if number != 2:
        return real(self, number, content, seconds)
    self._socket.sendall(struct.pack(">QQ", number, 5) + b"hello")

Channel.send = send
""",
    "a call of the program's": """
class Call:
    def __reduce__(self):
        return os.system, ("touch " + os.path.join(os.path.dirname(__file__), "called"),)

def send(self, number, content, seconds=None, real=Channel.send):
    real(self, number, Call() if number == 2 else content, seconds)

Channel.send = send
""",
    "a message longer than any answer": """
def send(self, number, content, seconds=None, real=Channel.send):
    if number != 2:
        return real(self, number, content, seconds)
    self._socket.sendall(struct.pack(">QQ", number, 1 << 40))

Channel.send = send
""",
}


@pytest.mark.parametrize("answer", _WRONG)
def test_a_process_that_answers_what_cannot_be_is_stopped(
    answer: str, process: ReadingProcess, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter(tmp_path, monkeypatch, _WRONG[answer])
    assert _value(process, files[1]) == 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ProcessLost) as lost:
        process.ask("pixels", files[2], [(0, None)])
    assert (lost.value.wrong, lost.value.hung, process.pid) == (True, False, None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10, "KiB"
    assert not (tmp_path / "called").exists()
    assert [_value(process, files[number]) for number in (3, 4)] == [3, 4]


_OTHER_KINDS = [
    ("headers", "[[]]"),
    ("headers", "['header']"),
    ("headers", "[[{}] * 6]"),
    ("pixels", "[]"),
    ("pixels", "['pixels']"),
    ("dicomdir", "['DICOMDIR']"),
]


@pytest.mark.parametrize(("kind", "answers"), _OTHER_KINDS)
def test_answers_of_another_kind_become_the_problem_of_the_file(
    kind: str, answers: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word a slice would be missing, or the program would fail far from here."""
    alter(tmp_path, monkeypatch, f"reading_process.{kind} = lambda *arguments: iter({answers})")
    files[0].rename(tmp_path / "DICOMDIR")
    for path in files[3:]:
        path.unlink()
    with DicomReader() as reader:
        if kind == "dicomdir":
            problems = reader.scan([tmp_path / "DICOMDIR"]).problems
        else:
            scan = reader.scan([tmp_path / "in"])
            problems = scan.problems
            if kind == "pixels":
                slices, problems = reader.load(scan.studies[0].series[0].frames)
                assert slices == ()
    assert {problem.reason for problem in problems} == {
        "The reading process returned an invalid answer for the file."
    }
    assert len(problems) == (1 if kind == "dicomdir" else 2)


def test_a_frame_that_was_written_elsewhere_is_not_taken(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late answer names the place of an earlier request."""
    lines = """
def write_frame(memory, offset, capacity, stored, real=reading_process.write_frame):
    written = real(memory, offset, capacity, stored)
    return WrittenFrame(written.dtype, written.shape, offset - 131072) if stored[0, 0] == 3 else written

reading_process.write_frame = write_frame
"""
    alter(tmp_path, monkeypatch, lines)
    with PixelMemory(1 << 20) as memory, DicomReader(memory=memory) as reader:
        frames = reader.scan([tmp_path / "in"]).studies[0].series[0].frames
        slices, problems = reader.load(frames, memory.slots[0])
    assert [int(item.stored[0, 0]) for item in slices] == [0, 1, 2, 4, 5]
    assert [Path(problem.path) for problem in problems] == [files[3]]


_STARTS = {
    "a fork that the system refuses": (
        BlockingIOError(11, "Resource temporarily unavailable"),
        "temporarily",
    ),
    "no memory": (OSError(12, "Cannot allocate memory"), "Cannot allocate memory"),
}


@pytest.mark.parametrize("case", _STARTS)
def test_a_process_that_cannot_be_started_is_tried_again_after_a_while(
    case: str, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    error, words = _STARTS[case]
    failures: list[int] = []
    real = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> Any:
        if len(failures) < allowed:
            failures.append(1)
            raise error
        return real(*arguments, **options)

    waits: list[float] = []
    process = ReadingProcess(ReadLimits(), sleep=waits.append)
    monkeypatch.setattr(process_module.subprocess, "Popen", popen)
    before = _descriptors()
    allowed = 99
    with pytest.raises(ReaderUnavailable, match=words):
        process.ask("pixels", files[1], [(0, None)])
    assert waits == [0.5, 2.0]
    assert (len(failures), _descriptors()) == (3, before)
    allowed = len(failures) + 1
    assert _value(process, files[2]) == 2
    assert waits == [0.5, 2.0, 0.5]
    process.close()
    assert _descriptors() == before


def test_a_program_without_descriptors_says_so_and_leaves_none_open(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = ReadingProcess(ReadLimits(), sleep=lambda seconds: None)
    before = _descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for free in range(5):
        resource.setrlimit(resource.RLIMIT_NOFILE, (_lowest_free() + free, hard))
        try:
            with pytest.raises(ReaderUnavailable, match="Too many open files"):
                _value(process, files[1])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert _descriptors() == before
    assert _value(process, files[1]) == 1
    process.close()


def _lowest_free() -> int:
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    return next(number for number in range(len(used) + 1) if number not in used)


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(3)"])
def test_a_process_that_ends_while_it_starts_is_started_again(
    how: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter(tmp_path, monkeypatch, f"if once('first'):\n    {how}")
    waits: list[float] = []
    process = ReadingProcess(ReadLimits(), sleep=waits.append)
    assert _value(process, files[4]) == 4
    assert waits == [0.5]
    process.close()


def test_files_that_no_process_could_be_started_for_are_reported_and_the_others_read(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "_START_WAITS", ())
    monkeypatch.setattr("stenosis_trt.engine.dicom.reader._FILES_PER_REQUEST", 1)
    with DicomReader() as reader:
        reader.scan(files[:1])
        pid = reader._processes[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        real, refused = subprocess.Popen, [OSError(11, "Resource temporarily unavailable")]

        def popen(*arguments: Any, **options: Any) -> Any:
            if refused:
                raise refused.pop()
            return real(*arguments, **options)

        monkeypatch.setattr(process_module.subprocess, "Popen", popen)
        scan = reader.scan(files)
    assert len(scan.studies[0].series[0].frames) == 5
    (problem,) = scan.problems
    assert (problem.stage, problem.temporary, problem.harmless) == (Stage.HEADER, True, False)
    assert "cannot be started (Resource temporarily unavailable)" in problem.reason


def test_a_process_that_was_stopped_costs_no_slice(files: list[Path]) -> None:
    """What kept it from answering was not the file: it did not compute."""
    with DicomReader(ReadLimits(timeout_seconds=2.0)) as reader:
        frames = reader.scan([files[0].parent]).studies[0].series[0].frames
        pid = reader._processes[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        slices, problems = reader.load(frames)
        assert reader._processes[0].pid != pid
    assert ([int(item.stored[0, 0]) for item in slices], problems) == ([0, 1, 2, 3, 4, 5], ())


_IN_THE_MIDDLE = """
def send(self, number, content, seconds=None, real=Channel.send):
    if number != 2:
        return real(self, number, content, seconds)
    self._socket.sendall(struct.pack(">QQ", number, 1000) + b"half of it")
    os.kill(os.getpid(), signal.SIGSTOP)

Channel.send = send
"""


def test_a_process_that_stops_in_the_middle_of_an_answer_is_waited_for_as_long_as_the_limit_says(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter(tmp_path, monkeypatch, _IN_THE_MIDDLE)
    process = ReadingProcess(ReadLimits(timeout_seconds=0.5))
    assert _value(process, files[0]) == 0
    start = time.monotonic()
    with pytest.raises(ProcessLost) as lost:
        process.ask("pixels", files[1], [(0, None)])
    assert 0.4 < time.monotonic() - start < 60
    assert (lost.value.hung, lost.value.computed, process.pid) == (True, False, None)
    process.close()


def test_a_request_that_a_stopped_process_does_not_take_is_given_up(
    process: ReadingProcess, files: list[Path]
) -> None:
    assert _value(process, files[1]) == 1
    process._limits = ReadLimits(timeout_seconds=0.5)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(ProcessLost) as lost:
        process.ask("headers", [Path("/" + "long" * 1000)] * 2000)
    assert lost.value.hung


@pytest.mark.parametrize(
    ("does", "tries"), [("while True: pass", 1), ("os.kill(os.getpid(), signal.SIGSTOP)", 2)]
)
def test_a_file_that_keeps_its_process_computing_is_asked_for_once(
    does: str, tries: int, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f"def pixels(*arguments):\n    {does}\n    yield None\n\nreading_process.pixels = pixels"
    alter(tmp_path, monkeypatch, lines)
    asked: list[str] = []
    real = ReadingProcess.ask

    def ask(self: ReadingProcess, kind: str, *arguments: Any) -> list[Any]:
        asked.append(kind)
        return real(self, kind, *arguments)

    monkeypatch.setattr(ReadingProcess, "ask", ask)
    # A busy machine gives a process that computes a small share of a core.
    monkeypatch.setattr(process_module, "_COMPUTED_SHARE", 0.02)
    with DicomReader(ReadLimits(timeout_seconds=2.0)) as reader:
        frames = reader.scan(files[:1]).studies[0].series[0].frames
        slices, problems = reader.load(frames)
    assert slices == ()
    assert [(problem.temporary, problem.harmless) for problem in problems] == [(True, False)]
    assert "longer than the limit" in problems[0].reason
    assert asked.count("pixels") == tries


def test_the_address_space_of_a_process_is_known_without_proc() -> None:
    script = (
        "import mmap\nfrom pathlib import Path\n"
        "from stenosis_trt.engine.support.memory_limit import probed_address_space_bytes\n"
        "found = probed_address_space_bytes()\n"
        "print(found - int(Path('/proc/self/statm').read_text().split()[0]) * mmap.PAGESIZE)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert abs(int(answer.stdout)) < 4 << 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_job_does_not_reach_the_reading_process(
    number: signal.Signals, process: ReadingProcess, files: list[Path]
) -> None:
    assert _value(process, files[1]) == 1
    pid = process.pid
    assert pid is not None
    os.kill(pid, number)
    assert _value(process, files[2]) == 2
    assert process.pid == pid
    assert os.getpgid(pid) != os.getpgid(0), "Ctrl-C and a lost terminal reach the group of the program"


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_is_busy_in_a_decoder_ends_with_a_program_that_is_killed(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyDLL keeps Python's lock, so that no thread of the process can run: as a decoder in C may."""
    lines = """
import ctypes

def pixels(*arguments):
    print(os.getpid(), file=open(os.path.join(os.path.dirname(__file__), "pid"), "w"), flush=True)
    ctypes.PyDLL(None).sleep(60)
    yield None

reading_process.pixels = pixels
"""
    alter(tmp_path, monkeypatch, lines)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from stenosis_trt.engine.dicom import process\n"
        "process._MODULE = 'altered'\n"
        "from stenosis_trt.engine.dicom.limits import ReadLimits\n"
        "process.ReadingProcess(ReadLimits()).ask('pixels', Path(sys.argv[1]), [(0, None)])\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", program, str(files[0])])
    deadline = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pid = int((tmp_path / "pid").read_text())
    assert _runs(pid)
    killed.kill()
    killed.wait()
    deadline = time.monotonic() + 40
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(pid)
