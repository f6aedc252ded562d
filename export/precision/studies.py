"""Studies for calibration and validation: a folder of studies, or phantoms that are cached."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from stenosis_trt.bench import phantom
from stenosis_trt.engine.dicom.find import find_files
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.grading.read_ahead import read_ahead
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.engine.support.atomic_files import staged_directory
from stenosis_trt.engine.support.hashes import file_sha256
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.export.errors import StudiesError
from stenosis_trt.kernels.binaries import cache_folder

_TRUTH = "truth.csv"


@dataclass(frozen=True)
class StudyCollection:
    """A folder of studies and its description for reports."""

    folder: Path
    source: str


@dataclass(frozen=True)
class PhantomSet:
    """`studies` phantoms of a seed that nothing else uses."""

    studies: int
    seed: int


CALIBRATION_PHANTOMS = PhantomSet(8, 71)
VALIDATION_PHANTOMS = PhantomSet(20, 72)
"""Training uses seeds 1 to 3. Twenty studies have 120 levels, so one changed grade is 0.8 %."""


def resolve_studies(folder: Path | None, otherwise: PhantomSet) -> StudyCollection:
    """Studies of a folder, or phantoms if no folder is given.

    Raises:
        StudiesError: the folder does not exist.
    """
    if folder is None:
        return cached_phantoms(otherwise)
    if not folder.exists():
        raise StudiesError(f"There is nothing at {folder}.", "Give a folder of studies that is there.")
    # The path may contain the name of a hospital or patient, which must not get into a pack.
    return StudyCollection(folder, "a folder of studies")


def cached_phantoms(wanted: PhantomSet, cache: Path | None = None, workers: int = 2) -> StudyCollection:
    """Phantoms from the cache; generated on first use, which takes some seconds per study.

    Args:
        wanted: number and seed.
        cache: folder of the cache; None for the user's.
        workers: number of processes that generate them.
    """
    name = f"{wanted.seed}-{wanted.studies}-{_phantom_code_hash()[:12]}"
    place = (cache or cache_folder() / "phantoms") / name
    if not (place / _TRUTH).is_file():
        options = phantom.PhantomOptions(wanted.studies, wanted.seed, workers=workers)
        with staged_directory(place) as part:
            with show_progress(f"Making {wanted.studies} phantoms, to be kept", "studies") as progress:
                phantom.write_studies(part, options, progress.advance)
            _move_into_place(part, place)
    return StudyCollection(place, f"{wanted.studies} phantoms of seed {wanted.seed}")


def _move_into_place(part: Path, place: Path) -> None:
    """Move generated phantoms to their place; keeps an identical set that another process finished first."""
    try:
        os.replace(part, place)
    except OSError:
        if (place / _TRUTH).is_file():
            return
        # An incomplete set is in the way.
        shutil.rmtree(place)
        os.replace(part, place)


def loaded_studies(studies: StudyCollection, what: str) -> Iterator[LoadedStudy]:
    """Yield each study that the product would grade, read and selected as the product does.

    Args:
        studies: the studies to read.
        what: text of the progress bar; "" shows none.

    Raises:
        StudiesError: none of the studies can be used.
        ReaderError: reading cannot start.
    """
    used = 0
    with DicomReader(ReadLimits(), 1) as reader:
        found = sorted(reader.scan([studies.folder]).studies, key=attrgetter("path", "key"))
        with (
            show_progress(what, "studies") if what else nullcontext() as progress,
            closing(read_ahead(reader, deque(found))) as reads,
        ):
            for done, read in enumerate(reads, start=1):
                if read.study is not None:
                    used += 1
                    yield read.study
                if progress is not None:
                    progress.advance(done, len(found))
    if not used:
        raise StudiesError(
            f"No study below {studies.folder} can be graded.",
            f"See what keeps it from that: stenosis-trt inspect {studies.folder}",
        )


def content_hash(studies: Path) -> str:
    """SHA-256 over the contents of all files that reading these studies opens, whatever their names.

    Args:
        studies: a folder, walked through symbolic links as by the reader; a file; or a DICOMDIR, which is
            hashed with everything beside it.
    """
    dicomdir = studies.is_file() and studies.name.upper().startswith("DICOMDIR")
    found = find_files([studies.parent if dicomdir else studies], lambda _: [])
    files = [path for path in found if isinstance(path, Path)]
    hashes = sorted(file_sha256(path) for path in (*files, *([studies] if dicomdir else [])))
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _phantom_code_hash() -> str:
    """Hash of the phantom generator's code, so that a new version gives new phantoms."""
    sources = sorted(Path(phantom.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
