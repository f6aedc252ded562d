"""A reading process: answers requests for headers and pixels until its pipe is closed.

Started by `reader` as `python -m stenosis_trt.engine.dicom.reading_process FD LIMITS`. It runs under a cap of
its address space, so that a codec that asks for too much, or crashes, takes nothing else with it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.header import FileHeader, read_header
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.pixels import Stored, decode_frames
from stenosis_trt.engine.records import Stage

_CORRUPT = "Send or export the file again."


def describe(error: BaseException, stage: Stage) -> DicomError:
    """What went wrong with a file, in words, whatever was raised. No text of the error itself is
    passed on: it may quote the header."""
    if isinstance(error, DicomError):
        return error
    if isinstance(error, FileNotFoundError):
        return DicomError(
            stage, "The file went away while it was read.", "Grade the folder once copying is done."
        )
    if isinstance(error, PermissionError):
        return DicomError(stage, "The file may not be read.", "Give this user permission to read it.")
    if isinstance(error, IsADirectoryError):
        return DicomError(stage, "A folder stands where a file was.", "Grade the folder again.")
    if isinstance(error, MemoryError):
        return DicomError(stage, "Reading the file takes more memory than the limit.", "Raise the limit.")
    if isinstance(error, RecursionError):
        return DicomError(stage, "Sequences in the header are nested too deep.", _CORRUPT)
    if isinstance(error, NotImplementedError):
        return DicomError(
            stage, "The file's transfer syntax is not supported.", "Export it as explicit little endian."
        )
    return DicomError(stage, f"The file is broken ({type(error).__name__}).", _CORRUPT)


def _headers(paths: Sequence[Path], limits: ReadLimits) -> list[FileHeader | DicomError]:
    return [_header(path, limits) for path in paths]


def _header(path: Path, limits: ReadLimits) -> FileHeader | DicomError:
    try:
        return read_header(path, limits)
    except Exception as error:  # noqa: BLE001 - any broken file may raise anything; each becomes a row
        return describe(error, Stage.HEADER)


def _pixels(path: Path, indices: Sequence[int], limits: ReadLimits) -> list[Stored] | DicomError:
    try:
        return decode_frames(path, indices, limits)
    except Exception as error:  # noqa: BLE001 - any broken file may raise anything; each becomes a row
        return describe(error, Stage.PIXELS)


def _cap_memory(extra: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    cap = pages * os.sysconf("SC_PAGE_SIZE") + extra
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (cap if hard == resource.RLIM_INFINITY else min(cap, hard), hard))


def main() -> None:
    """Serve requests `(kind, arguments…)` on the connection whose descriptor is the first argument."""
    connection = Connection(int(sys.argv[1]))
    limits = ReadLimits(**json.loads(sys.argv[2]))
    _cap_memory(limits.decode_memory_bytes)
    while True:
        try:
            kind, *arguments = connection.recv()
        except EOFError:
            return
        if kind == "headers":
            connection.send(_headers(arguments[0], limits))
        else:
            path, indices = arguments
            connection.send(_pixels(path, indices, limits))


if __name__ == "__main__":
    main()
