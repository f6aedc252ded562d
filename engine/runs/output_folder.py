"""The output folder of a run as a place: who may write to it, and which results it may hold."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from stenosis_trt.engine.errors import NotWritten, OutputError
from stenosis_trt.engine.runs.path_names import PathNames
from stenosis_trt.engine.runs.stored_results import DamagedFile, read_fingerprint
from stenosis_trt.engine.support.atomic_files import (
    PARTIAL_SUFFIX,
    atomic_write,
    staged_directory,
    write_text_atomically,
)
from stenosis_trt.engine.support.closeable import Closeable

RESULTS_CSV, RESULTS_JSONL, ERRORS_CSV, RUN_JSON = "results.csv", "results.jsonl", "errors.csv", "run.json"
STUDIES_CSV, REPORT_HTML, RESULTS_PARQUET = "studies.csv", "report.html", "results.parquet"
OUTPUT_FILES = (RESULTS_CSV, RESULTS_JSONL, ERRORS_CSV, STUDIES_CSV, RUN_JSON, REPORT_HTML, RESULTS_PARQUET)
STUDIES, REPORTS = "studies", "reports"
FINGERPRINT, STATE = "made_with.json", "state.json"
GRADED = ".json"
_SETTINGS = {"identifiers": "setting of --keep-identifiers", "paths": "setting of --no-paths"}
"""Names of keys of the result fingerprint in messages, where they differ from the key."""
OTHER_OUT = "Give another --out."

_Content = TypeVar("_Content")


class OutputFolder(Closeable):
    """An output folder that no other run writes to, whose results all have one fingerprint.

    Args:
        out: the folder; created if it does not exist.
        result_fingerprint: what decides the results; see `provenance`.
        resume: the folder may hold results with the same fingerprint.
        names: how messages name paths.

    Raises:
        OutputError: the folder holds results and `resume` is False, or results with another fingerprint;
            another run is writing there; or it cannot be written.
    """

    def __init__(
        self, out: Path, result_fingerprint: Mapping[str, Any], resume: bool, names: PathNames
    ) -> None:
        self.out, self._names = out, names
        self._studies = out / STUDIES
        self._fingerprint_file = self._studies / FINGERPRINT
        self._lock = -1
        with self._write_errors(OTHER_OUT):
            self._studies.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._studies, os.O_RDONLY)
        try:
            self._take_lock()
            self._check_compatible(result_fingerprint, resume)
            with self._write_errors(OTHER_OUT):
                for part in [*out.glob(f".*{PARTIAL_SUFFIX}"), *self._studies.glob(f".*{PARTIAL_SUFFIX}")]:
                    _remove(part)
                text = json.dumps(result_fingerprint, indent=2, sort_keys=True) + "\n"
                write_text_atomically(self._fingerprint_file, text)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def display_path(self) -> str:
        """The folder as messages name it."""
        return self._names.of_folder(self.out)

    def _take_lock(self) -> None:
        with self._write_errors(OTHER_OUT):
            try:
                # The kernel releases the lock when the process ends, even if it is killed.
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"Another run is writing to {self.display_path}.",
                    "Wait for its end, or give another --out.",
                ) from error

    def _check_compatible(self, fingerprint: Mapping[str, Any], resume: bool) -> None:
        """Raise OutputError where the run would overwrite files, or mix results."""
        present = [name for name in OUTPUT_FILES if os.path.lexists(self.out / name)]
        if not self._fingerprint_file.exists():
            if present:
                raise OutputError(
                    f"{self.display_path} holds a {present[0]} that no run left there.", OTHER_OUT
                )
            return
        if not resume:
            ours = {self._fingerprint_file, self._studies / STATE}
            if present or any(path not in ours for path in self._studies.glob(f"*{GRADED}")):
                raise OutputError(
                    f"{self.display_path} already holds results.",
                    "Give --resume to go on with them, or another --out.",
                )
            return
        before = self._read(read_fingerprint, self._fingerprint_file, OTHER_OUT)
        differs = sorted(key for key in {*before, *fingerprint} if before.get(key) != fingerprint.get(key))
        if differs:
            raise OutputError(
                f"The results in {self.display_path} were made with another "
                f"{', '.join(_SETTINGS.get(key, key) for key in differs)}.",
                "Give another --out, or the same pack, versions, device and settings as before.",
            )

    @contextmanager
    def _write_errors(self, advice: str = "Make room, and give --resume to go on.") -> Iterator[None]:
        """Turn an OSError into NotWritten."""
        try:
            yield
        except OSError as error:
            raise NotWritten(
                f"The output folder {self.display_path} cannot be written ({error.strerror}).", advice
            ) from error

    def _read(self, read: Callable[[Path], _Content], path: Path, advice: str) -> _Content:
        """Read a file of the folder; turn DamagedFile into OutputError."""
        try:
            return read(path)
        except DamagedFile as error:
            raise OutputError(
                f"{path.relative_to(self.out)} in {self.display_path} {error}", advice
            ) from error

    @contextmanager
    def write_file(self, name: str) -> Iterator[TextIO]:
        """Open a text file of the folder; see `atomic_write`.

        Raises:
            NotWritten: it cannot be written.
        """
        with self._write_errors(), atomic_write(self.out / name) as stream:
            yield stream

    @contextmanager
    def replace_file(self, name: str) -> Iterator[Path]:
        """Give a path to write, whose file then replaces `name` in the folder.

        Raises:
            NotWritten: it cannot be written.
        """
        with self._write_errors(), staged_directory(self.out / name) as part:
            yield part
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(part, self.out / name)


def _remove(part: Path) -> None:
    """Remove a file or folder that a run that was killed left half written."""
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part)
    else:
        part.unlink()
