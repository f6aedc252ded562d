"""Scaling of reading: reading processes, number of files, copies, and transfer syntaxes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from stenosis_trt.bench.phantom.dicom_files import TRANSFER_SYNTAXES, write_study
from stenosis_trt.bench.phantom.study import sample_study
from stenosis_trt.bench.scaling.rounds import Curve, Point, measure_in_turn
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.grading.read_ahead import read_study

WORKERS = (1, 2, 4)
COPIES = (1, 2, 4)
_SEED = 1507
_GROWTH = 2
"""Each point of the number of files has so many times the studies of the one before."""


def worker_curve(context: BenchContext, seconds: float) -> Curve:
    """Time to read a study, headers and pixels, by reading processes."""
    folder = context.studies[0]
    with ExitStack() as stack:
        calls: dict[Point, Callable[[], object]] = {
            count: partial(read, stack.enter_context(DicomReader(workers=count)), folder) for count in WORKERS
        }
        times = measure_in_turn(calls, seconds)
    return Curve("workers", "a study's headers and pixels, reading processes:", "a study", times)


def read(reader: DicomReader, folder: Path) -> None:
    """Scan a folder that holds one study, and load its series.

    Raises:
        InputError: there is not exactly one study, or it cannot be read.
    """
    studies = reader.scan([folder]).studies
    if len(studies) != 1 or read_study(reader, studies[0]).study is None:
        raise InputError(f"{folder} does not hold one study that can be read.")


def file_curve(context: BenchContext, seconds: float) -> Curve:
    """Time to scan the headers of several studies, by number of files."""
    groups: list[tuple[Path, ...]] = []
    count = 1
    while count < len(context.studies):
        groups.append(context.studies[:count])
        count *= _GROWTH
    groups.append(context.studies)
    with DicomReader() as reader:
        calls: dict[Point, Callable[[], object]] = {
            sum(map(_files, group)): partial(_scan, reader, group) for group in groups
        }
        times = measure_in_turn(calls, seconds)
    return Curve("files", "scan of the headers, files:", "one reading process", times)


def copy_curve(context: BenchContext, seconds: float) -> Curve:
    """Time to scan one study, by how often each of its files is there."""
    with DicomReader() as reader:
        calls: dict[Point, Callable[[], object]] = {}
        for count in COPIES:
            folder = context.work / "copies" / str(count)
            for number in range(count):
                shutil.copytree(context.studies[0], folder / str(number))
            calls[count] = partial(_scan, reader, [folder])
        times = measure_in_turn(calls, seconds)
    shutil.rmtree(context.work / "copies")
    return Curve("copies", "scan of a study's headers, copies of each file:", "a study", times)


def syntax_curve(context: BenchContext, seconds: float) -> tuple[Curve, dict[str, int]]:
    """Time to read a phantom, headers and pixels, by transfer syntax; and the bytes of its files."""
    study = sample_study(_SEED, 0)
    sizes = {}
    with DicomReader() as reader:
        calls: dict[Point, Callable[[], object]] = {}
        for syntax in TRANSFER_SYNTAXES:
            folder = context.work / "syntaxes" / syntax
            write_study(study, folder, syntax)
            sizes[syntax] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            calls[syntax] = partial(read, reader, folder)
        times = measure_in_turn(calls, seconds)
    shutil.rmtree(context.work / "syntaxes")
    return Curve("compression", "a phantom's headers and pixels,", "a study", times), sizes


def _scan(reader: DicomReader, paths: Sequence[Path]) -> None:
    reader.scan(paths)


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
