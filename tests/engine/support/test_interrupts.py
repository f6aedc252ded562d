"""Signals that end a run, and a disk without room: tables of what was graded, the reason, how to go on."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from altered_process import alter
from dying import children, default_signals, is_running, start_grading
from stand_in import write_studies
from time_limits import time_limit
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.support import interrupts

_STUDIES = 30


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny").path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_studies(tmp_path_factory.mktemp("studies"), _STUDIES)


def _kept(out: Path) -> list[Path]:
    return [
        path for path in (out / "studies").glob("*.json") if path.name not in ("made_with.json", "state.json")
    ]


def _wait_for(out: Path, studies: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while len(_kept(out)) < studies and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None
    assert len(_kept(out)) >= studies


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _check_tables(out: Path, finished: bool = False) -> int:
    """The tables hold what was graded; how many studies that is."""
    kept = len(_kept(out))
    assert len(_rows(out / "results.csv")) == kept * len(LEVELS)
    assert len((out / "results.jsonl").read_text().splitlines()) == kept
    record = json.loads((out / "run.json").read_text())
    assert (record["finished"], record["counts"]["graded"]) == (finished, kept)
    assert not list(out.rglob("*.part"))
    return kept


def _resume(folder: Path, out: Path, pack: Path) -> None:
    with start_grading(folder, out, pack, "--resume", stderr=subprocess.PIPE) as process:
        process.communicate(timeout=time_limit(120))
    assert process.returncode == 0
    rows = _rows(out / "results.csv")
    assert len(rows) == len({(row["study_uid"], row["level"]) for row in rows}) == _STUDIES * len(LEVELS)


_SIGNALS = [
    (signal.SIGINT, 130, "Interrupted"),
    (signal.SIGTERM, 143, "Ended by SIGTERM"),
    (signal.SIGHUP, 129, "Ended by SIGHUP"),
]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("number", "code", "words"), _SIGNALS)
def test_a_signal_ends_a_run_with_tables_of_what_it_graded(
    number: signal.Signals, code: int, words: str, times: int, folder: Path, pack: Path, tmp_path: Path
) -> None:
    """`timeout`, and a shell whose terminal is gone, send theirs twice at once."""
    out = tmp_path / "out"
    with start_grading(folder, out, pack, seconds=0.05, stderr=subprocess.PIPE) as process:
        _wait_for(out, 2, process)
        readers = children(process.pid)
        for _ in range(times):
            process.send_signal(number)
        _, said = process.communicate(timeout=time_limit(60))
    assert process.returncode == code
    assert said.splitlines()[-1] == f"{words}. What was graded is in {out}; --resume goes on from there."
    assert "Traceback" not in said
    assert 2 <= _check_tables(out) < _STUDIES
    assert readers
    assert not any(map(is_running, readers))
    if times == 1:
        _resume(folder, out, pack)


_HANGS = """
def {kind}(*arguments, real=reading_process.{kind}):
    if "study{study}/" in repr(arguments):
        open(os.path.join(os.path.dirname(__file__), "mark"), "w").close()
        time.sleep(100)
    return real(*arguments)

reading_process.{kind} = {kind}
"""


@pytest.mark.parametrize(
    ("kind", "study", "seconds"), [("headers", 0, 0), ("pixels", 1, 0), ("pixels", 1, 1)]
)
def test_a_signal_is_obeyed_while_a_file_hangs(
    kind: str,
    study: int,
    seconds: float,
    folder: Path,
    pack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`docker stop` kills after ten seconds; the time limit of a file is two minutes. Where a study takes a
    second, the signal meets its computation, and otherwise the wait for the file."""
    alter(tmp_path, monkeypatch, _HANGS.format(kind=kind, study=study))
    out = tmp_path / "out"
    options = {"environment": {"READING_PROCESS": "altered"}, "stderr": subprocess.PIPE}
    with start_grading(folder, out, pack, seconds=seconds, **options) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "mark").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        readers = children(process.pid)
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        _, said = process.communicate(timeout=time_limit(60))
    assert time.monotonic() - start < 40
    assert process.returncode == 143
    assert "Traceback" not in said
    _check_tables(out)
    assert readers
    assert not any(map(is_running, readers))


@pytest.mark.parametrize(("number", "code", "words"), _SIGNALS)
def test_a_signal_that_comes_while_the_tables_are_written_waits_for_them(
    number: signal.Signals, code: int, words: str, folder: Path, pack: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    kill = f"os.kill(os.getpid(), {int(number)})"
    with start_grading(folder, out, pack, in_write_tables=kill, stderr=subprocess.PIPE) as process:
        _, said = process.communicate(timeout=time_limit(120))
    assert process.returncode == code
    assert said.splitlines()[-1].startswith(words)
    assert _check_tables(out, finished=True) == _STUDIES


def test_a_second_signal_ends_a_run_at_once(folder: Path, pack: Path, tmp_path: Path) -> None:
    out, slow = tmp_path / "out", "open(os.environ['MARK'], 'w'); time.sleep(60)"
    mark = tmp_path / "mark"
    environment = {"MARK": str(mark)}
    process = start_grading(
        folder,
        out,
        pack,
        seconds=0.05,
        in_write_tables=slow,
        environment=environment,
        stderr=subprocess.DEVNULL,
    )
    _wait_for(out, 1, process)
    readers = children(process.pid)
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(interrupts._SAME_EVENT_SECONDS + 0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    deadline = time.monotonic() + 30
    while any(map(is_running, readers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, readers))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_from_the_start_stays_ignored(
    number: signal.Signals, folder: Path, pack: Path, tmp_path: Path
) -> None:
    """`nohup` ignores SIGHUP, and a shell SIGINT for what it runs in the background."""

    def ignoring() -> None:
        default_signals()
        signal.signal(number, signal.SIG_IGN)

    out = tmp_path / "out"
    options = {"stderr": subprocess.DEVNULL, "preexec_fn": ignoring}
    process = start_grading(folder, out, pack, seconds=0.02, **options)
    _wait_for(out, 2, process)
    process.send_signal(number)
    assert process.wait(120) == 0
    assert _check_tables(out, finished=True) == _STUDIES


def test_signals_are_held_back_and_come_at_the_end() -> None:
    noted: list[str] = []

    def work() -> None:
        with interrupts.defer_signals(lambda: noted.append("signal")):
            os.kill(os.getpid(), signal.SIGINT)
            noted.append("goes on")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        work()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert noted == ["signal", "goes on", "goes on"]


@dataclass(frozen=True)
class _SmallDisk:
    """A folder in which not all fits; `prepare` is run between fork and exec, `grow` makes room."""

    folder: Path
    prepare: Callable[[], None]
    grow: Callable[[], None]
    reason: str


def _small_files() -> None:
    default_signals()
    # Python ignores SIGXFSZ: the system then refuses to write, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, resource.RLIM_INFINITY))


@pytest.fixture(params=["a full disk", "files of limited size"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_SmallDisk]:
    """A file system of 96 KiB, where this user may mount one; a limit of the size of files otherwise."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "none", str(disk)]
    if (
        request.param == "a full disk"
        and os.geteuid() == 0
        and not subprocess.call(mount, stderr=subprocess.DEVNULL)
    ):
        grow = ["mount", "-o", "remount,size=10m", str(disk)]
        try:
            yield _SmallDisk(
                disk, default_signals, lambda: subprocess.check_call(grow), "No space left on device"
            )
        finally:
            subprocess.check_call(["umount", str(disk)])
    else:
        yield _SmallDisk(disk, _small_files, lambda: None, "File too large")


def test_a_full_disk_ends_a_run_with_what_fits_and_the_reason(
    small_disk: _SmallDisk, folder: Path, pack: Path
) -> None:
    out = small_disk.folder / "out"
    options = {"stderr": subprocess.PIPE, "preexec_fn": small_disk.prepare}
    with start_grading(folder, out, pack, **options) as process:
        _, said = process.communicate(timeout=time_limit(120))
    assert process.returncode == 2
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith(f"stenosis-trt: The output folder {out} cannot be written ({small_disk.reason}).")
    assert last.endswith("Make room, and give --resume to go on.")
    kept = _kept(out)
    assert kept
    for path in kept:
        assert len(json.loads(path.read_text())["result"]["levels"]) == len(LEVELS)
    for name in ("results.csv", "errors.csv"):
        if (out / name).exists():
            assert (out / name).read_text().endswith("\n")
            assert len(_rows(out / name)) % len(LEVELS) == 0
    small_disk.grow()
    _resume(folder, out, pack)
