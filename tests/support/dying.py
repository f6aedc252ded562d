"""The command line in a process that is to be ended, or whose streams are broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_RUN = """
import os, signal, sys, time
from stenosis_trt.engine.cli import grade as command

def patched(real=command.exit_on_error):
    import stand_in
    from stenosis_trt.engine.dicom import process
    from stenosis_trt.engine.runs import batch, outputs

    command.exit_on_error = real
    process._MODULE = os.environ.get("READING_PROCESS", process._MODULE)

    def grade(study, pack, backend):
        time.sleep(float(os.environ["SECONDS_A_STUDY"]))
        return stand_in.grade(study, pack, backend)

    batch.grade_paths.__defaults__ = (grade,)
    write_tables = outputs.ResultStore.write_tables

    def slow(store, order, problems, formats):
        {in_write_tables}
        return write_tables(store, order, problems, formats)

    outputs.ResultStore.write_tables = slow
    return real()

# The first thing that the command calls.
command.exit_on_error = patched
from stenosis_trt.engine.cli import main
main()
"""


def default_signals() -> None:
    """Between fork and exec: signals as a shell leaves them in the foreground. In the background it ignores
    SIGINT, and a program that ignores a signal leaves it so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start_grading(
    folder: Path,
    out: Path,
    pack: Path,
    *more: str,
    seconds: float = 0.0,
    in_write_tables: str = "pass",
    redirections: str = "",
    environment: dict[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[str]:
    """Start `stenosis-trt grade` with a stand-in for the networks.

    Args:
        folder, out, pack, more: what it is called with.
        seconds: that each study takes.
        in_write_tables: run each time before the tables are written.
        redirections: of a shell.
        environment: beside the one of the tests.
        options: of Popen.
    """
    script = _RUN.format(in_write_tables=in_write_tables)
    command = [sys.executable, "-c", script, "grade", str(folder), "--out", str(out), "--pack", str(pack)]
    search = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    variables = {"PYTHONPATH": search, "SECONDS_A_STUDY": str(seconds)}
    return subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *command, "--device", "cpu", *more],
        env={**os.environ, **variables, **(environment or {})},
        text=True,
        **{"preexec_fn": default_signals, **options},
    )


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for found in lists for child in found.read_text().split()]


def is_running(pid: int) -> bool:
    """Whether a process has not ended, as one has that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
