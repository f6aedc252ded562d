"""Makers of reports that fail, for `ReportMaker`: worker processes import them."""

from __future__ import annotations

import os
import signal
import time

from stenosis_trt.engine.reports.making import MadeFormat, MadeReports, ReportTask


def die_on_the_first(task: ReportTask) -> MadeReports:
    """End the process for study 1; make nothing for the others."""
    if task.report.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return MadeReports(task.stamp, {"text": MadeFormat(("report.txt",))})


def hang_on_the_first(task: ReportTask) -> MadeReports:
    """Take too long for study 1."""
    if task.report.number == 1:
        time.sleep(600)
    return MadeReports(task.stamp, {"text": MadeFormat(("report.txt",))})


def die_once(task: ReportTask) -> MadeReports:
    """End the process the first time that study 1 is asked for."""
    if task.report.number == 1 and not task.place.parent.joinpath("died").exists():
        task.place.parent.joinpath("died").write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return MadeReports(task.stamp, {"text": MadeFormat(("report.txt",))})


def find_no_room(task: ReportTask) -> MadeReports:
    """Fail as on a full disk."""
    raise OSError(28, "No space left on device")


def lack_a_package(task: ReportTask) -> MadeReports:
    """Fail as where a library is not installed."""
    raise ModuleNotFoundError("No module named 'highdicom'", name="highdicom")
