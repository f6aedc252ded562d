"""Reports from the results of an earlier run, without grading again: what `stenosis-trt report` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.errors import OutputError
from stenosis_trt.engine.records import StudyHeader
from stenosis_trt.engine.reports.formats import STUDY_FORMATS
from stenosis_trt.engine.reports.making import MadeFormat
from stenosis_trt.engine.reports.study_report import Provenance, ReportOptions
from stenosis_trt.engine.runs.outputs import ResultStore, StudyRow
from stenosis_trt.engine.runs.reports import (
    RunReports,
    check_formats,
    compose_run_formats,
    formats_to_write,
    provenance_of_record,
)
from stenosis_trt.engine.support.hardware import usable_cores
from stenosis_trt.engine.support.progress import show_progress

_CHANGED = MadeFormat(
    (), "The images of the study are others than those that were graded.", "Grade the study again."
)
_RESUME = "Run `stenosis-trt grade` with --resume to its end."


@dataclass(frozen=True)
class ReportSummary:
    """Counts of reports.

    Attributes:
        studies: graded studies. made: studies whose reports were made; the others had them. failed_reports:
        studies of which a report could not be made; see errors.csv. display_path: the output folder as
        messages name it.
    """

    studies: int
    made: int
    failed_reports: int
    display_path: str

    @property
    def exit_code(self) -> int:
        """0 if there are studies, and all reports were made; 1 otherwise."""
        return 0 if self.studies and not self.failed_reports else 1


def report_results(
    out: Path,
    images: Sequence[Path] = (),
    formats: Sequence[str] = ("html",),
    options: ReportOptions | None = None,
    limits: ReadLimits | None = None,
    workers: int = 1,
) -> ReportSummary:
    """Write reports from the results of `grade`, besides those that it wrote.

    Args:
        out: output folder of `grade`.
        images: paths with the images of the studies; by default the paths that the results name.
        formats: names of `reports.formats.FORMATS`.
        options: options of the reports.
        limits: limits of reading.
        workers: processes that read headers.

    Raises:
        OutputError: the folder holds no results, or cannot be written; or a package is missing.
        InputError: the template of the report text cannot be used, or no process that reads files can start.
    """
    options, limits = options or ReportOptions(), limits or ReadLimits()
    check_formats(formats, options)
    with ResultStore.reopen(out) as store:
        state = store.state
        if state is None:
            raise OutputError(f"The run in {store.display_path} has written no tables.", _RESUME)
        written = formats_to_write(formats, state.formats)
        provenance = _provenance(store)
        rows = [row for row in store.rows(state.order) if row.study is not None and row.study.result]
        with (
            DicomReader(limits, workers) as reader,
            RunReports(store, written, options, limits, provenance, usable_cores()) as reports,
        ):
            if any(name in STUDY_FORMATS for name in written):
                found = _find_images(reader, rows, images)
                with show_progress("Making reports", "studies") as progress:
                    reports.on_made = lambda made: progress.advance(made, len(rows))
                    for row in rows:
                        study = found.get(row.key)
                        changed = study is not None and not store.has_images_of(study)
                        reports.submit(
                            None if changed else study, row.key, row.number, _CHANGED if changed else None
                        )
                    reports.finish()
        totals = store.write_tables(state.order, state.problems, written)
        compose_run_formats(store, state.order, written, options, provenance)
        return ReportSummary(len(rows), reports.made, totals.failed_reports, store.display_path)


def _provenance(store: ResultStore) -> Provenance:
    """Return what produced the results, from the record of the last run that graded something."""
    records = store.earlier_runs()
    if not records:
        raise OutputError(f"{store.display_path} has no run.json of a run that graded a study.", _RESUME)
    try:
        return provenance_of_record(records[-1])
    except (KeyError, TypeError) as error:
        raise OutputError(f"run.json in {store.display_path} does not say what graded.", _RESUME) from error


def _find_images(
    reader: DicomReader, rows: Sequence[StudyRow], images: Sequence[Path]
) -> dict[str, StudyHeader]:
    """Return the headers of the studies at the given paths, or at those of the results, by key."""
    paths = list(images) or [Path(row.study.path) for row in rows if row.study is not None]
    paths = [path for path in dict.fromkeys(paths) if path.exists()]
    if not paths:
        return {}
    with show_progress("Reading headers", "files") as progress:
        scan = reader.scan(paths, lambda done: progress.advance(done, 0))
    return {study.key: study for study in scan.studies}
