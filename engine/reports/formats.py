"""The formats of reports, by the name that `--format` takes. A new format is one module and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from stenosis_trt.engine.reports.study_report import ReportOptions, StudyReport

TABLE_FORMATS = ("csv", "json")
"""Formats that `runs.tables` writes."""

STUDY_FORMATS = {
    "sr": "structured_report",
    "sc": "secondary_capture",
    "png": "overlay_png",
    "gsps": "presentation_state",
    "text": "report_text",
    "html": "html_study",
}
"""Formats of single studies, with the module that makes them."""

RUN_FORMATS = {"html": "html_page", "parquet": "parquet"}
"""Formats of a whole run, with the module that composes them."""

FORMATS = tuple(dict.fromkeys((*TABLE_FORMATS, *STUDY_FORMATS, *RUN_FORMATS)))
DEFAULT_FORMATS = TABLE_FORMATS

Make = Callable[[StudyReport, ReportOptions], dict[str, bytes]]


def study_format(name: str) -> Make:
    """Return the function that makes a format of one study."""
    module = importlib.import_module(f"stenosis_trt.engine.reports.{STUDY_FORMATS[name]}")
    return cast(Make, module.make)
