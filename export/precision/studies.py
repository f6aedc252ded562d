"""Studies for calibration and validation: folders of studies, and synthetic ones that are cached."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import ModuleType

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
    """A folder of studies and its description for reports.

    Attributes:
        folder: the folder.
        source: in words, without the path.
        subjects: names of the persons whose volumes semi-synthetic studies are made from.
    """

    folder: Path
    source: str
    subjects: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[StudyCollection, ...]:
        """The collection itself, as the only part."""
        return (self,)


@dataclass(frozen=True)
class StudyCollections:
    """Several collections that are used as one."""

    parts: tuple[StudyCollection, ...]

    @property
    def source(self) -> str:
        """All of them in words."""
        return " and ".join(part.source for part in self.parts)


Studies = StudyCollection | StudyCollections


@dataclass(frozen=True)
class PhantomSet:
    """`studies` synthetic studies of a seed that nothing else uses."""

    studies: int
    seed: int


CALIBRATION_PHANTOMS = PhantomSet(8, 71)
VALIDATION_PHANTOMS = PhantomSet(20, 72)
"""Training uses seeds 1 to 3. Twenty studies have 120 levels, so one changed grade is 0.8 %."""
VALIDATION_SEMISYNTHETIC = PhantomSet(20, 74)


@dataclass(frozen=True)
class ValidationOptions:
    """Which studies the gate compares.

    Attributes:
        studies: folders of studies; none for `phantoms`.
        volumes: folder of the volumes of `bench.semisynthetic`, whose studies are added; None for no such
            studies.
        subjects: the subjects among the volumes; none for all.
        phantoms: the phantoms if no folder is given.
        semisynthetic: number and seed of the semi-synthetic studies.
    """

    studies: tuple[Path, ...] = ()
    volumes: Path | None = None
    subjects: tuple[str, ...] = ()
    phantoms: PhantomSet = VALIDATION_PHANTOMS
    semisynthetic: PhantomSet = VALIDATION_SEMISYNTHETIC

    def __post_init__(self) -> None:
        if self.subjects and self.volumes is None:
            raise ValueError("Subjects are given without their volumes. Give the folder of the volumes too.")

    def resolve(self) -> Studies:
        """Make what is synthetic and not in the cache, and return the studies.

        Raises:
            StudiesError: a folder or a volume does not exist, or a subject is unknown.
        """
        folders = self.studies or (None,)
        parts = [resolve_studies(folder, self.phantoms) for folder in folders]
        if self.volumes is not None:
            parts.append(cached_semisynthetic(self.semisynthetic, self.volumes, self.subjects))
        return parts[0] if len(parts) == 1 else StudyCollections(tuple(parts))


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
    name = f"{wanted.seed}-{wanted.studies}-{_code_hash(phantom)[:12]}"
    place = (cache or cache_folder() / "phantoms") / name
    options = phantom.PhantomOptions(wanted.studies, wanted.seed, workers=workers)
    _make_studies(place, options, f"Making {wanted.studies} phantoms, to be kept")
    return StudyCollection(place, f"{wanted.studies} phantoms of seed {wanted.seed}")


def cached_semisynthetic(
    wanted: PhantomSet,
    volumes: Path,
    subjects: tuple[str, ...] = (),
    cache: Path | None = None,
    workers: int = 2,
) -> StudyCollection:
    """Semi-synthetic studies from the cache; generated on first use.

    Args:
        wanted: number and seed.
        volumes: folder with one folder per subject.
        subjects: names of subjects, which take turns; none for all.
        cache, workers: see `cached_phantoms`.

    Raises:
        StudiesError: a subject is unknown, its volume does not exist, or nibabel is not installed.
    """
    try:
        from stenosis_trt.bench import semisynthetic
        from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
        from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS

        names = subjects or tuple(SUBJECTS)
        source = SemisyntheticSource(names, volumes)
    except ImportError as error:
        raise StudiesError(
            f"Volumes are read by {error.name}, which is not installed.",
            "Install it: pip install 'stenosis-trt[bench]'",
        ) from error
    except ValueError as error:
        raise StudiesError(str(error)) from error
    except OSError as error:
        raise StudiesError(
            f"There is no volume at {error.filename}.", "Give a folder with one folder a subject."
        ) from error
    depends_on = [
        *names,
        *(file_sha256(SUBJECTS[name].path(volumes)) for name in names),
        _code_hash(phantom),
        _code_hash(semisynthetic),
    ]
    key = hashlib.sha256("\n".join(depends_on).encode()).hexdigest()
    place = (cache or cache_folder() / "phantoms") / f"semi-{wanted.seed}-{wanted.studies}-{key[:12]}"
    options = phantom.PhantomOptions(wanted.studies, wanted.seed, workers=workers, source=source)
    _make_studies(place, options, f"Making {wanted.studies} semi-synthetic studies, to be kept")
    words = f"{wanted.studies} semi-synthetic studies of {', '.join(names)} (seed {wanted.seed})"
    return StudyCollection(place, words, names)


def _make_studies(place: Path, options: phantom.PhantomOptions, what: str) -> None:
    """Write a set of studies to a place in the cache, unless it is there."""
    if (place / _TRUTH).is_file():
        return
    with staged_directory(place) as part:
        with show_progress(what, "studies") as progress:
            phantom.write_studies(part, options, progress.advance)
        _move_into_place(part, place)


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


def loaded_studies(studies: Studies, what: str) -> Iterator[LoadedStudy]:
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
        folders = [part.folder for part in studies.parts]
        found = sorted(reader.scan(folders).studies, key=attrgetter("path", "key"))
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
            f"No study below {' or '.join(map(str, folders))} can be graded.",
            f"See what keeps it from that: stenosis-trt inspect {folders[0]}",
        )


def part_of(studies: Sequence[StudyCollection], study: LoadedStudy) -> StudyCollection | None:
    """The collection that a study was read from; None if it is none of these."""
    path = Path(study.header.path).resolve()
    for part in studies:
        folder = part.folder.resolve()
        if path.is_relative_to(folder if folder.is_dir() else folder.parent):
            return part
    return None


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


def _code_hash(package: ModuleType) -> str:
    """Hash of the code of a package that makes studies, so that a new version gives new ones."""
    sources = sorted(Path(str(package.__file__)).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
