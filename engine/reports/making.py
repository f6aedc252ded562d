"""Makes the report files of one study. Runs in a worker process, since it reads files and decodes images."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.records import FrameHeader, Problem, Stage
from stenosis_trt.engine.reports.formats import study_format
from stenosis_trt.engine.reports.images import read_images
from stenosis_trt.engine.reports.study_report import CannotReport, ReportOptions, StudyReport
from stenosis_trt.engine.support.atomic_files import (
    recover_directory,
    replace_directory,
    staged_directory,
    write_bytes_atomically,
)
from stenosis_trt.engine.support.memory_limit import limit_memory

_LOG = logging.getLogger(__name__)
MADE = "made.json"
"""Says what a folder of reports holds, and from what it was made."""
_NO_IMAGES = "The images of the study were not found."
_CHECK_FILES = "Check the files of the study, then run `stenosis-trt report`."
_GIVE_IMAGES = "Give the folder of the images: stenosis-trt report RESULTS IMAGES."


@dataclass(frozen=True)
class ReportTask:
    """A study whose reports are to be made.

    Attributes:
        report: the study, without images.
        frames: frames that the result refers to; empty where the images are not available.
        formats: names of STUDY_FORMATS.
        options: options of the reports.
        limits: limits of reading.
        place: folder to write; it is replaced as a whole.
        no_images: why `frames` is empty.
    """

    report: StudyReport
    frames: tuple[FrameHeader, ...]
    formats: tuple[str, ...]
    options: ReportOptions
    limits: ReadLimits
    place: Path
    no_images: MadeFormat | None = None

    @property
    def stamp(self) -> str:
        """Hash of what decides the content of the reports."""
        report = self.report
        provenance = {key: value for key, value in asdict(report.provenance).items() if key != "started"}
        template = self.options.text_template
        content = [
            report.number,
            report.path,
            asdict(replace(report.result, seconds={})),
            provenance,
            self.options.sr_for,
            None if template is None else hashlib.sha256(template.read_bytes()).hexdigest(),
            bool(self.frames),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class MadeFormat:
    """What was made of one format: names of files, or why there are none."""

    files: tuple[str, ...] = ()
    reason: str = ""
    advice: str = ""


@dataclass(frozen=True)
class MadeReports:
    """Content of made.json: `ReportTask.stamp`, and what was made of each format."""

    stamp: str
    formats: dict[str, MadeFormat] = field(default_factory=dict)

    def problems(self, study_path: str, study_uid: str) -> list[Problem]:
        """Return the rows of errors.csv: one for the formats that have the same reason."""
        by_reason: dict[tuple[str, str], list[str]] = {}
        for name, made in self.formats.items():
            if made.reason:
                by_reason.setdefault((made.reason, made.advice), []).append(name)
        return [
            Problem(
                study_path,
                Stage.REPORT,
                f"no {', '.join(names)}: {reason}",
                advice,
                study_uid,
                of_study=False,
            )
            for (reason, advice), names in by_reason.items()
        ]


def read_made(place: Path) -> MadeReports | None:
    """Return what a folder of reports holds; None if there is none, or its made.json is not valid."""
    try:
        recover_directory(place)
        content = json.loads((place / MADE).read_text(encoding="utf-8"))
        formats = {
            str(name): MadeFormat(tuple(map(str, made["files"])), str(made["reason"]), str(made["advice"]))
            for name, made in content["formats"].items()
        }
        return MadeReports(str(content["stamp"]), formats)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def is_made(task: ReportTask) -> bool:
    """Return True if the folder holds all formats of the task, made from the same result."""
    made = read_made(task.place)
    if made is None or made.stamp != task.stamp:
        return False
    return all(name in made.formats and not made.formats[name].reason for name in task.formats) and all(
        (task.place / name).is_file() for item in made.formats.values() for name in item.files
    )


def make_reports(task: ReportTask) -> MadeReports:
    """Make the formats of a study and replace its folder.

    A format that cannot be made leaves its reason in the answer, and the others are made.

    Raises:
        OSError: the folder cannot be written.
    """
    _limit_memory_once(task.limits.decode_memory_bytes)
    report, no_images = _with_images(task)
    files: dict[str, bytes] = {}
    formats: dict[str, MadeFormat] = {}
    for name in task.formats:
        made = _make(name, report, task.options)
        # Without images, the reason why there are none is what helps.
        formats[name] = no_images if no_images and made[0].reason else made[0]
        files.update(made[1])
    result = MadeReports(task.stamp, formats)
    write_reports(task.place, files, result)
    return result


def _with_images(task: ReportTask) -> tuple[StudyReport, MadeFormat | None]:
    """Return the study with its images, or without and the reason."""
    report = task.report
    if not task.frames:
        return report, task.no_images or MadeFormat((), _NO_IMAGES, _GIVE_IMAGES)
    try:
        return replace(report, images=read_images(report.result, task.frames, task.limits)), None
    except CannotReport as error:
        return report, MadeFormat((), error.reason, error.advice)
    except Exception as error:  # noqa: BLE001 - a file that changed may raise anything; it becomes a row
        return report, MadeFormat((), _describe(error), _CHECK_FILES)


def _make(name: str, report: StudyReport, options: ReportOptions) -> tuple[MadeFormat, Mapping[str, bytes]]:
    """Make one format; return what was made, and the files."""
    try:
        files = study_format(name)(report, options)
    except CannotReport as error:
        return MadeFormat((), error.reason, error.advice), {}
    except ModuleNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - one study's fault must not end the run
        return MadeFormat((), _describe(error), "Run it with `--verbose` and report what it prints."), {}
    return MadeFormat(tuple(files)), files


def _describe(error: Exception) -> str:
    """Return a reason without the error's text, which may quote the header."""
    _LOG.debug("a report failed", exc_info=True)
    if isinstance(error, DicomError):
        return error.reason
    if isinstance(error, OSError):
        return f"A file of the study cannot be read ({error.strerror or type(error).__name__})."
    return f"The program failed ({type(error).__name__})."


def write_reports(place: Path, files: Mapping[str, bytes], made: MadeReports) -> None:
    """Replace the folder of a study's reports.

    Raises:
        OSError: it cannot be written.
    """
    content: dict[str, Any] = asdict(made)
    with staged_directory(place) as part:
        part.mkdir()
        for name, data in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            with (part / name).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        write_bytes_atomically(part / MADE, (json.dumps(content, indent=1) + "\n").encode())
        if place.exists():
            replace_directory(part, place)
        else:
            os.rename(part, place)


@cache
def _limit_memory_once(extra: int) -> None:
    limit_memory(extra)
