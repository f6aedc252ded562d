"""The studies of a benchmark run: phantoms that are made for it, or the folders of the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.engine.errors import InputError, NotWritten
from stenosis_trt.engine.support.hardware import usable_cores

SEED = 1515
"""Seed of the phantoms; the reference pack was not trained on it."""
STUDIES = 12
"""Number of phantoms."""


@dataclass(frozen=True)
class BenchStudies:
    """The studies of a run.

    Attributes:
        folders: folder of each study, sorted.
        source: where they come from, in words.
        seed: of the phantoms; None for studies of the user.
    """

    folders: tuple[Path, ...]
    source: str
    seed: int | None = None

    def describe(self) -> dict[str, Any]:
        """Return number, source, seed, files and bytes, as the record of a run holds them."""
        files = [path for folder in self.folders for path in folder.rglob("*") if path.is_file()]
        return {
            "studies": len(self.folders),
            "source": self.source,
            "seed": self.seed,
            "files": len(files),
            "bytes": sum(path.stat().st_size for path in files),
        }


def make_phantoms(
    work: Path, count: int = STUDIES, seed: int = SEED, progress: Callable[[int, int], None] | None = None
) -> BenchStudies:
    """Write phantom studies to the folder `phantoms` in `work`.

    Args:
        work: folder for temporary files; it must not hold phantoms yet.
        count: number of studies, at least 1.
        seed: of the set.
        progress: called with (studies written, studies to write).

    Raises:
        NotWritten: they cannot be written, for example because the disk is full.
        InputError: `count` or `seed` is not allowed.
    """
    out = work / "phantoms"
    try:
        options = PhantomOptions(count, seed, workers=min(count, usable_cores()))
    except ValueError as error:
        raise InputError(str(error)) from error
    try:
        write_studies(out, options, progress)
    except OSError as error:
        raise NotWritten(
            f"The phantoms of the benchmark cannot be written to {out} ({error.strerror or error}).",
            "Make room, or give another folder.",
        ) from error
    return BenchStudies(_study_folders(out), f"phantoms of seed {seed}", seed)


def studies_in(folder: Path) -> BenchStudies:
    """Return the studies of the user: one for each folder in `folder` that holds files.

    Raises:
        InputError: there is no such folder, or it holds no studies.
    """
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder}.", "Give a folder that holds one folder for each study."
        )
    folders = _study_folders(folder)
    if not folders:
        raise InputError(
            f"{folder} holds no studies.",
            "Give a folder that holds one folder for each study, or none to measure phantoms.",
        )
    return BenchStudies(folders, "the user's studies")


def _study_folders(folder: Path) -> tuple[Path, ...]:
    """Return the folders in `folder` that hold a file, at any depth. Hidden ones are left out."""
    return tuple(
        sorted(
            item
            for item in folder.iterdir()
            if item.is_dir()
            and not item.name.startswith(".")
            and any(path.is_file() for path in item.rglob("*"))
        )
    )
