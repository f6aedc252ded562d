"""The format "text": report.txt, a report in sentences to copy into a reporting system."""

from __future__ import annotations

from stenosis_trt.engine.reports.study_report import ReportOptions, StudyReport
from stenosis_trt.engine.reports.text.text_template import render_report

FILE_NAME = "report.txt"


def report_text(report: StudyReport, options: ReportOptions) -> str:
    """Return the report of a study as plain text, from the template of the options.

    Raises:
        CannotReport: the template cannot be rendered with this study.
    """
    return render_report(report, options.text_template)


def make(report: StudyReport, options: ReportOptions) -> dict[str, bytes]:
    """Return report.txt, UTF-8.

    Raises:
        CannotReport: the template of the options cannot be rendered with this study.
    """
    return {FILE_NAME: report_text(report, options).encode()}
