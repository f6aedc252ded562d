"""Reports of a run: made study by study in worker processes, and composed at its end.

`grade` has them made while it grades, `stenosis-trt report` from the results of an earlier run. Both take the
result from `studies/`, so that both write the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import Cell, StudyHeader
from stenosis_trt.engine.reports.formats import FORMATS, STUDY_FORMATS, check_packages
from stenosis_trt.engine.reports.images import referenced_frames
from stenosis_trt.engine.reports.maker import ReportMaker
from stenosis_trt.engine.reports.making import MadeFormat, MadeReports, ReportTask, is_made
from stenosis_trt.engine.reports.page.html_study import PIECE, PIECE_FORMAT
from stenosis_trt.engine.reports.page.html_study import make as make_piece
from stenosis_trt.engine.reports.run_report import FailedStudy, RunCounts, RunReport
from stenosis_trt.engine.reports.study_report import Provenance, ReportOptions, StudyReport
from stenosis_trt.engine.reports.text.text_template import check_template
from stenosis_trt.engine.runs.output_folder import REPORT_HTML, RESULTS_PARQUET
from stenosis_trt.engine.runs.outputs import ResultStore, StudyRow
from stenosis_trt.engine.runs.stored_results import StoredStudy
from stenosis_trt.engine.support.closeable import Closeable
from stenosis_trt.engine.support.hardware import usable_cores
from stenosis_trt.engine.support.versions import package_version


def check_formats(formats: Collection[str], options: ReportOptions) -> None:
    """Check before long work that formats can be made.

    Raises:
        OutputError: a package is missing.
        InputError: the template of the report text cannot be used.
    """
    check_packages(formats)
    if options.text_template is not None:
        check_template(options.text_template)


def provenance_of_run(pack: Pack, backend: str, precision: str, started: str) -> Provenance:
    """Return the provenance of results that are being made."""
    return Provenance(
        pack_name=pack.name,
        pack_version=pack.version,
        pack_sha256=pack.sha256,
        intended_use=pack.intended_use,
        clinical_use=pack.clinical_use,
        software_version=package_version("stenosis-trt"),
        backend=backend,
        precision=precision,
        started=started,
    )


def provenance_of_record(record: Mapping[str, Any]) -> Provenance:
    """Return the provenance of results from the record of their run, as in run.json.

    Raises:
        KeyError, TypeError: the record is not one of a run.
    """
    pack = record["pack"]
    return Provenance(
        pack_name=str(pack["name"]),
        pack_version=str(pack["version"]),
        pack_sha256=str(pack["sha256"]),
        intended_use=str(pack.get("intended_use", "")),
        clinical_use=pack.get("clinical_use") is True,
        software_version=str(record["versions"]["stenosis-trt"]),
        backend=str(record["backend"]["backend"]),
        precision=str(record["options"]["precision"]),
        started=str(record["started"]),
    )


class RunReports(Closeable):
    """Has the reports of the studies of a run made. Use it as a context manager.

    Args:
        store: the output folder.
        formats: names of FORMATS.
        options: options of the reports.
        limits: limits of reading.
        provenance: what produced the results.
        workers: worker processes; None for half of the cores.

    Raises:
        OutputError: the output folder cannot be written.
    """

    def __init__(
        self,
        store: ResultStore,
        formats: Collection[str],
        options: ReportOptions,
        limits: ReadLimits,
        provenance: Provenance,
        workers: int | None = None,
    ) -> None:
        self._store, self._options, self._limits, self._provenance = store, options, limits, provenance
        self._formats = tuple(name for name in STUDY_FORMATS if name in formats)
        self._maker = ReportMaker(workers or max(1, usable_cores() // 2), self._count)
        self.made = 0
        """Studies whose reports were made."""
        self.on_made: Callable[[int], object] | None = None
        """Called with `made` after each study."""
        if self._formats:
            store.prepare_reports()

    def close(self) -> None:
        """End the workers, in the middle of what they do."""
        self._maker.close()

    def submit(
        self, study: StudyHeader | None, key: str, number: int, no_images: MadeFormat | None = None
    ) -> None:
        """Have the reports of a graded study made, unless they are there.

        Args:
            study: header of the study, to find its images; None where they are not available.
            key: key of the study.
            number: number of the study in the tables.
            no_images: why `study` is None.

        Raises:
            OutputError: the output folder cannot be written, or a package is missing.
        """
        stored = self._store.stored(key) if self._formats else None
        if stored is None or stored.result is None:
            return
        task = replace(self._task(study, key, number, stored), no_images=no_images)
        if not is_made(task):
            self._maker.submit(task)

    def _task(self, study: StudyHeader | None, key: str, number: int, stored: StoredStudy) -> ReportTask:
        assert stored.result is not None
        place = self._store.reports_place(key)
        path = _shown_path(self._store, stored)
        report = StudyReport(number, place.name, path, stored.result, self._provenance)
        frames = () if study is None else referenced_frames(study, stored.result)
        return ReportTask(report, frames, self._formats, self._options, self._limits, place)

    def finish(self) -> None:
        """Wait until all reports are made.

        Raises:
            OutputError: the output folder cannot be written, or a package is missing.
        """
        self._maker.finish()

    def _count(self, task: ReportTask, made: MadeReports) -> None:
        self.made += 1
        if self.on_made is not None:
            self.on_made(self.made)


def formats_to_write(asked: Iterable[str], earlier: Iterable[str]) -> tuple[str, ...]:
    """Return the formats of a run: what was asked for, and what the run that it resumes has written.

    Otherwise the files of the earlier run would not hold the studies of this one.
    """
    wanted = {*asked, *earlier}
    return tuple(name for name in FORMATS if name in wanted)


def compose_run_formats(
    store: ResultStore,
    order: Sequence[str],
    formats: Collection[str],
    options: ReportOptions,
    provenance: Provenance,
) -> None:
    """Write the formats of a whole run: the page, and the results as Parquet.

    Args:
        store: the output folder, with its tables and the reports of its studies.
        order: see `ResultStore.write_tables`.
        formats: names of FORMATS.
        options: options of the reports.
        provenance: what produced the results.

    Raises:
        OutputError: a file cannot be written.
    """
    if "html" in formats:
        from stenosis_trt.engine.reports.page.html_page import compose

        run = _run_report(store, order, provenance)
        with store.write_file(REPORT_HTML) as stream:
            graded = (row for row in store.rows(order) if _is_graded(row))
            compose(stream, run, (_html_piece(store, row, options, provenance) for row in graded))
    if "parquet" in formats:
        from stenosis_trt.engine.reports.parquet import compose as compose_parquet

        with store.replace_file(RESULTS_PARQUET) as part:
            compose_parquet(part, _result_rows(store.rows(order)))


def _is_graded(row: StudyRow) -> bool:
    return row.study is not None and row.study.result is not None


def _result_rows(rows: Iterable[StudyRow]) -> Iterator[dict[str, Cell]]:
    for row in rows:
        if row.study is not None and row.study.result is not None:
            for values in row.study.result.rows():
                yield {"study_number": row.number, **values}


def _run_report(store: ResultStore, order: Sequence[str], provenance: Provenance) -> RunReport:
    studies = graded = lost = 0
    failed = []
    for row in store.rows(order):
        studies += 1
        if row.study is None:
            continue
        lost += len(row.study.lost_images)
        if row.study.result is not None:
            graded += 1
            continue
        # The last problem is that of the study; those of its files come before it.
        problem = row.study.problems[-1]
        path = _shown_path(store, row.study)
        failed.append(FailedStudy(row.number, path, problem.reason, problem.advice))
    counts = RunCounts(studies, graded, len(failed), lost)
    return RunReport(store.run_key, provenance, counts, tuple(failed))


def _html_piece(store: ResultStore, row: StudyRow, options: ReportOptions, provenance: Provenance) -> bytes:
    """Return the piece of a study: the one that was made with pictures, or else one of the result alone."""
    assert row.study is not None
    assert row.study.result is not None
    piece = _made_piece(row.reports / PIECE)
    if piece is not None:
        return json.dumps({**piece, "number": row.number}).encode()
    path = _shown_path(store, row.study)
    report = StudyReport(row.number, row.reports.name, path, row.study.result, provenance)
    return make_piece(report, options)[PIECE]


def _shown_path(store: ResultStore, study: StoredStudy) -> str:
    """Return the path of a study as reports show it: folders are often named after patients."""
    return study.path if store.keeps_identifiers else ""


def _made_piece(path: Path) -> dict[str, Any] | None:
    """Return the piece in a file; None if none was made, as errors.csv says, or the file was changed."""
    try:
        piece = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return piece if isinstance(piece, dict) and piece.get("format") == PIECE_FORMAT else None
