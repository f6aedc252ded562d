"""Measure what reports cost on top of grading.

    python -m stenosis_trt.bench.speed.report_time --studies 20 --rounds 3 --out report_time.json

Phantoms are graded in new processes, in turn with the default formats and with all formats; a first run of
each warms the page cache. What counts is the ratio of a pair, since both meet the same load: times vary on
shared machines. Then each format of a study is made alone, in this process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.reports.formats import DEFAULT_FORMATS, FORMATS, STUDY_FORMATS, study_format
from stenosis_trt.engine.reports.images import read_images, referenced_frames
from stenosis_trt.engine.reports.study_report import ReportOptions, StudyReport
from stenosis_trt.engine.runs.outputs import ResultStore
from stenosis_trt.engine.runs.reports import provenance_of_record

_SEED = 808
_COMMAND = (sys.executable, "-c", "from stenosis_trt.engine.cli.app import main; main()")


def _grade(studies: Path, out: Path, formats: Sequence[str]) -> dict[str, float]:
    """Grade in a new process; return wall and processor seconds, those of its worker processes included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [*_COMMAND, "grade", str(studies), "--out", str(out), "--format", ",".join(formats)]
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_seconds": wall, "processor_seconds": processor}


def measure_runs(studies: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Grade `studies` with and without reports `rounds` times each, and return the figures."""
    runs: dict[str, list[dict[str, float]]] = {"tables": [], "all": []}
    for number in range(rounds + 1):
        for name, formats in (("tables", DEFAULT_FORMATS), ("all", FORMATS)):
            measured = _grade(studies, folder / f"{name}_{number}", formats)
            if number:
                runs[name].append(measured)
    ratios = {
        key: [full[key] / plain[key] for plain, full in zip(runs["tables"], runs["all"], strict=True)]
        for key in ("wall_seconds", "processor_seconds")
    }
    return {
        "formats": list(FORMATS),
        "runs": runs,
        "wall_ratios": ratios["wall_seconds"],
        "wall_ratio_median": round(statistics.median(ratios["wall_seconds"]), 3),
        "processor_ratio_median": round(statistics.median(ratios["processor_seconds"]), 3),
        "page_bytes": (folder / "all_1" / "report.html").stat().st_size,
    }


def measure_formats(studies: Path, out: Path) -> dict[str, float]:
    """Return the median processor milliseconds of a study for each format, and for reading its images.

    Args:
        studies: the images.
        out: results of them.
    """
    milliseconds: dict[str, list[float]] = {"images": [], **{name: [] for name in STUDY_FORMATS}}
    with ResultStore.reopen(out) as store, DicomReader() as reader:
        provenance = provenance_of_record(store.earlier_runs()[-1])
        headers = {study.key: study for study in reader.scan([studies]).studies}
        state = store.state
        for row in store.rows(state.order if state else ()):
            if row.study is None or row.study.result is None:
                continue
            result = row.study.result
            frames = referenced_frames(headers[row.key], result)
            start = time.process_time()
            images = read_images(result, frames, ReadLimits())
            milliseconds["images"].append(1e3 * (time.process_time() - start))
            report = StudyReport(row.number, row.reports.name, row.study.path, result, provenance, images)
            for name in STUDY_FORMATS:
                make = study_format(name)
                start = time.process_time()
                make(report, ReportOptions())
                milliseconds[name].append(1e3 * (time.process_time() - start))
    return {name: round(statistics.median(values), 1) for name, values in milliseconds.items() if values}


def main() -> None:
    """Print the figures as JSON; with `--out` write them to a file too."""
    parser = argparse.ArgumentParser(description="Cost of reports on top of grading phantom studies.")
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_studies(folder / "in", PhantomOptions(arguments.studies, _SEED, workers=2))
        figures: dict[str, Any] = {"studies": arguments.studies}
        figures |= measure_runs(folder / "in", folder, arguments.rounds)
        figures["processor_milliseconds_a_study"] = measure_formats(folder / "in", folder / "tables_1")
        figures["machine"] = json.loads((folder / "all_1" / "run.json").read_text(encoding="utf-8"))[
            "machine"
        ]
    text = json.dumps(figures, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
