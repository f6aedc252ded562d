"""The formats of reports, by the name that `--format` takes. A new format is one module and one line here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from typing import cast

from stenosis_trt.engine.errors import OutputError
from stenosis_trt.engine.reports.study_report import ReportOptions, StudyReport

TABLE_FORMATS = ("csv", "json")
"""Formats that `runs.tables` writes."""

STUDY_FORMATS = {
    "sr": "dicom.structured_report",
    "sc": "dicom.secondary_capture",
    "png": "pictures.overlay_png",
    "gsps": "dicom.presentation_state",
    "text": "text.report_text",
    "html": "page.html_study",
}
"""Formats of single studies, with the module that makes them."""

RUN_FORMATS = {"html": "page.html_page", "parquet": "parquet"}
"""Formats of a whole run, with the module that composes them."""

_PACKAGES = {
    "sr": ("jinja2",),
    "sc": ("PIL",),
    "png": ("PIL",),
    "text": ("jinja2",),
    "html": ("jinja2", "PIL"),
    "parquet": ("pyarrow",),
}
"""Packages of the extra `report` that a format needs."""
FORMATS = tuple(dict.fromkeys((*TABLE_FORMATS, *STUDY_FORMATS, *RUN_FORMATS)))
DEFAULT_FORMATS = TABLE_FORMATS

Make = Callable[[StudyReport, ReportOptions], dict[str, bytes]]


def parse_formats(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of formats, in the order of FORMATS.

    Raises:
        ValueError: a name is not one of FORMATS, or there is none.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"There is no format {name!r}. Give some of {', '.join(FORMATS)}.")
    if not names:
        raise ValueError(f"--format names no format. Give some of {', '.join(FORMATS)}.")
    return tuple(name for name in FORMATS if name in names)


def study_format(name: str) -> Make:
    """Return the function that makes a format of one study."""
    module = importlib.import_module(f"stenosis_trt.engine.reports.{STUDY_FORMATS[name]}")
    return cast(Make, module.make)


def check_packages(formats: Iterable[str]) -> None:
    """Check that what some formats need is installed.

    Raises:
        OutputError: a package is missing.
    """
    for name in formats:
        for package in _PACKAGES.get(name, ()):
            if importlib.util.find_spec(package) is None:
                raise missing_package(package)


def missing_package(name: str) -> OutputError:
    """Return the error of a package that is not installed."""
    return OutputError(
        f"A format of --format needs the package {name}, which is not installed.",
        "Install it: pip install 'stenosis-trt[report]'.",
    )
