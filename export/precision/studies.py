"""Studies to calibrate and validate on: a folder of them, or phantoms that are made once and kept."""

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
    """Studies below a folder, and what they are called where a person reads of them."""

    folder: Path
    source: str


@dataclass(frozen=True)
class PhantomSet:
    """`studies` phantoms of a seed that nothing else uses."""

    studies: int
    seed: int


CALIBRATION_PHANTOMS = PhantomSet(8, 71)
VALIDATION_PHANTOMS = PhantomSet(20, 72)
"""Training takes seeds 1 to 3. Twenty studies have 120 levels: one that changes its grade is 0.8 %."""


def resolve_studies(folder: Path | None, otherwise: PhantomSet) -> StudyCollection:
    """The studies of a folder, or phantoms where none is given.

    Raises:
        StudiesError: there is no such folder.
    """
    if folder is None:
        return cached_phantoms(otherwise)
    if not folder.exists():
        raise StudiesError(f"There is nothing at {folder}.", "Give a folder of studies that is there.")
    # A path may name a hospital or a person; a pack must not.
    return StudyCollection(folder, "a folder of studies")


def cached_phantoms(wanted: PhantomSet, cache: Path | None = None, workers: int = 2) -> StudyCollection:
    """Phantoms from the cache, made where they are not in it: minutes, since each takes some seconds.

    Args:
        wanted: how many of which seed.
        cache: folder that keeps them; None for the user's.
        workers: processes that make them.
    """
    name = f"{wanted.seed}-{wanted.studies}-{_phantom_sources()[:12]}"
    place = (cache or cache_folder() / "phantoms") / name
    if not (place / _TRUTH).is_file():
        options = phantom.PhantomOptions(wanted.studies, wanted.seed, workers=workers)
        with staged_directory(place) as part:
            with show_progress(f"Making {wanted.studies} phantoms, to be kept", "studies") as progress:
                phantom.write_studies(part, options, progress.advance)
            _put(part, place)
    return StudyCollection(place, f"{wanted.studies} phantoms of seed {wanted.seed}")


def _put(part: Path, place: Path) -> None:
    """Give phantoms their place. Another run that was quicker keeps it: its own are the same, and in use."""
    try:
        os.replace(part, place)
    except OSError:
        if (place / _TRUTH).is_file():
            return
        # What is there is no whole set.
        shutil.rmtree(place)
        os.replace(part, place)


def loaded_studies(studies: StudyCollection, what: str) -> Iterator[LoadedStudy]:
    """Each study that the product would grade, read and chosen as the product does.

    Args:
        studies: where they lie.
        what: is done with them, for the progress that is shown; "" shows none.

    Raises:
        StudiesError: none of them can be used.
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
    """SHA-256 over the contents of all files that reading these studies would meet, whatever they are called.

    Args:
        studies: a folder, walked through symbolic links as the reader walks it; a file; or a DICOMDIR, which
            counts with all that lies beside it.
    """
    dicomdir = studies.is_file() and studies.name.upper().startswith("DICOMDIR")
    found = find_files([studies.parent if dicomdir else studies], lambda _: [])
    files = [path for path in found if isinstance(path, Path)]
    hashes = sorted(file_sha256(path) for path in (*files, *([studies] if dicomdir else [])))
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _phantom_sources() -> str:
    """Hash of the code that makes phantoms: those of another version are other phantoms."""
    sources = sorted(Path(phantom.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
