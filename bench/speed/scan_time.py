"""Time reading the headers of many files, compared with pydicom and GDCM.

    python -m stenosis_trt.bench.speed.scan_time --files 5000 --workers 2 --out scan_time.json

Files of phantoms with UIDs of their own are scanned from the page cache, as `stenosis-trt grade` does, and
read by pydicom (`stop_before_pixels`) in as many processes and by `gdcm.Scanner` in one thread, where it is
installed. The three take turns, so that other load affects all alike: compare the ratios. Then folders are
scanned in which each file has a copy: byte for byte, and with another element changed.

Times are milliseconds per file. Processor time is that of this process, which also puts studies together, and
of the reading processes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.bench.speed.processes import processor_seconds
from stenosis_trt.bench.speed.suite.copies import copy_studies
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.runs.provenance import describe_machine, package_versions

_SEED = 1616
_PHANTOMS = 4
_CHUNK = 64
_TEXT, _OTHER_TEXT = b"Synthetic cervical spine", b"synthetic cervical spine"
"""StudyDescription of a phantom, and of a changed copy."""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class ScanFolders:
    """Folders to scan: files that are all different, each file twice, and each file with a changed copy."""

    different: Path
    equal_copies: Path
    changed_copies: Path


def write_folders(work: Path, files: int) -> ScanFolders:
    """Write about `files` files to each of three folders in `work`."""
    source = work / "phantoms"
    write_studies(source, PhantomOptions(_PHANTOMS, _SEED, workers=2))
    (source / "truth.csv").unlink(missing_ok=True)
    per_study = sum(path.is_file() for path in source.rglob("*")) / _PHANTOMS
    studies = max(1, math.ceil(files / per_study))
    found = ScanFolders(work / "different", work / "equal", work / "changed")
    copy_studies(source, found.different, studies)
    for folder in (found.equal_copies, found.changed_copies):
        copy_studies(source, folder / "a", max(1, studies // 2))
        for path in sorted(item for item in (folder / "a").rglob("*") if item.is_file()):
            data = path.read_bytes()
            copy = folder / "b" / path.relative_to(folder / "a")
            copy.parent.mkdir(parents=True, exist_ok=True)
            changed = folder is found.changed_copies
            copy.write_bytes(data.replace(_TEXT, _OTHER_TEXT) if changed else data)
    return found


def measure(folders: ScanFolders, workers: int, rounds: int) -> dict[str, Any]:
    """Scan the folders and return the figures."""
    files = sorted(path for path in folders.different.rglob("*") if path.is_file())
    with ExitStack() as stack:
        reader = stack.enter_context(DicomReader(workers=workers))
        reader.scan(files[: _CHUNK * workers])
        ways: dict[str, Callable[[], int]] = {
            "ours": partial(_scan, reader, folders.different),
            **_peers(stack, files, workers),
        }
        # Read once: pages are cached, and processes have imported what they need.
        for way in ways.values():
            way()
        times: dict[str, list[float]] = {name: [] for name in ways}
        own: list[tuple[float, float]] = []
        for _ in range(rounds):
            for name, way in ways.items():
                before = _processor(reader)
                start = time.perf_counter()
                count = way()
                times[name].append(1000 * (time.perf_counter() - start) / count)
                if name == "ours":
                    after = _processor(reader)
                    own.append((1000 * (after[0] - before[0]) / count, 1000 * (after[1] - before[1]) / count))
        copies = {
            name: _best(partial(_scan, reader, folder), rounds)
            for name, folder in (
                ("equal_copies", folders.equal_copies),
                ("changed_copies", folders.changed_copies),
            )
        }
    return {
        "machine": describe_machine(),
        "versions": package_versions(),
        "files": len(files),
        "workers": workers,
        "rounds": rounds,
        "ms_per_file": {name: _summary(values) for name, values in times.items()},
        "processor_ms_per_file": {
            "this_process": round(min(mine for mine, _ in own), 4),
            "reading_processes": round(min(theirs for _, theirs in own), 4),
        },
        "times_faster_than": {
            name: round(statistics.median(a / b for a, b in zip(values, times["ours"], strict=True)), 2)
            for name, values in times.items()
            if name != "ours"
        },
        "ms_per_file_with_copies": copies,
    }


def _scan(reader: DicomReader, folder: Path) -> int:
    found = reader.scan([folder])
    lost = [problem for problem in found.problems if not problem.harmless]
    if lost or not found.studies:
        raise RuntimeError(f"{folder} was not scanned as expected: {lost[:1]}")
    return found.files


def _processor(reader: DicomReader) -> tuple[float, float]:
    """Processor seconds of this process, and of the processes of a reader."""
    return time.process_time(), sum(map(processor_seconds, reader.process_ids))


def _best(way: Callable[[], int], rounds: int) -> dict[str, float]:
    values = []
    for _ in range(rounds):
        start = time.perf_counter()
        count = way()
        values.append(1000 * (time.perf_counter() - start) / count)
    return _summary(values)


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"min": round(min(values), 4), "median": round(statistics.median(values), 4)}


def _peers(stack: ExitStack, files: Sequence[Path], workers: int) -> dict[str, Callable[[], int]]:
    """Other readers of headers: name → function that reads the files and returns their number."""
    pool = stack.enter_context(ProcessPoolExecutor(workers))
    found: dict[str, Callable[[], int]] = {"pydicom": partial(_by_pydicom, pool, files)}
    try:
        import gdcm
    except ImportError:
        return found
    return {**found, "gdcm.Scanner": partial(_by_gdcm, gdcm, files)}


def _by_pydicom(pool: ProcessPoolExecutor, files: Sequence[Path]) -> int:
    chunks = [files[k : k + _CHUNK] for k in range(0, len(files), _CHUNK)]
    return sum(len(uids) for uids in pool.map(_uids_by_pydicom, chunks))


def _uids_by_pydicom(files: Sequence[Path]) -> list[tuple[str, ...]]:
    from pydicom import dcmread

    headers = (dcmread(path, stop_before_pixels=True) for path in files)
    return [tuple(str(header[name].value) for name in _UIDS) for header in headers]


def _by_gdcm(gdcm: Any, files: Sequence[Path]) -> int:
    scanner = gdcm.Scanner()
    tags = [gdcm.Tag(0x0020, 0x000D), gdcm.Tag(0x0020, 0x000E), gdcm.Tag(0x0008, 0x0018)]
    for tag in tags:
        scanner.AddTag(tag)
    names = list(map(str, files))
    if not scanner.Scan(names):
        raise RuntimeError("gdcm.Scanner cannot read the files.")
    return sum(scanner.IsKey(name) for name in names)


def main() -> None:
    """Print the figures as JSON; with `--out` write them to a file too."""
    parser = argparse.ArgumentParser(description="Time of reading headers.")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2, help="reading processes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="stenosis-bench-") as folder:
        folders = write_folders(Path(folder), arguments.files)
        figures = measure(folders, arguments.workers, arguments.rounds)
    text = json.dumps(figures, indent=2) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
