"""A reading process: answers requests for headers and pixels until its connection is closed.

Started by `process` as `python -m stenosis_trt.engine.dicom.reading_process FD LIMITS [MEMORY]`, where MEMORY
is the descriptor of a `PixelMemory`. It runs under a cap of its address space, so that a codec that asks for
too much, or crashes, takes nothing else with it. Shared memory is not mapped: the cap need not allow for it.
"""

from __future__ import annotations

import json
import mmap
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stenosis_trt.engine.dicom.dicomdir import list_dicomdir
from stenosis_trt.engine.dicom.errors import DicomError
from stenosis_trt.engine.dicom.header import FileHeader, read_header
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.dicom.pixel_memory import Written, write
from stenosis_trt.engine.dicom.pixels import OpenPixels, Stored, open_pixels
from stenosis_trt.engine.records import Stage

READY = "ready"
END = None
"""Follows the last answer to a request."""

_EXPORT_AGAIN = "Send or export the file again."
_LARGEST_ADDRESS_SPACE, _PROBE_BYTES = 1 << 47, 1 << 20
"""Bytes that a process can have at most, and how exactly its size is found without /proc."""


def describe(error: BaseException, stage: Stage, limits: ReadLimits) -> DicomError:
    """What went wrong with a file, in words, whatever was raised.

    No text of the error itself is passed on: it may quote the header.
    """
    if isinstance(error, DicomError):
        return DicomError(stage, error.reason, error.advice, error.harmless, error.study_uid)
    if isinstance(error, FileNotFoundError):
        return DicomError(
            stage, "The file went away while it was read.", "Grade the folder once copying is done."
        )
    if isinstance(error, PermissionError):
        return DicomError(stage, "The file may not be read.", "Give this user permission to read it.")
    if isinstance(error, IsADirectoryError):
        return DicomError(stage, "A folder stands where a file was.", "Grade the folder again.")
    if isinstance(error, MemoryError):
        advice = raise_limit("decode_memory_bytes", 2 * limits.decode_memory_bytes)
        return DicomError(stage, "Reading the file takes more memory than the limit.", advice)
    if isinstance(error, OSError):
        return DicomError(
            stage, f"The file cannot be read ({error.strerror or type(error).__name__}).", "Check the disk."
        )
    return DicomError(stage, f"The file is broken ({type(error).__name__}).", _EXPORT_AGAIN)


def headers(paths: Sequence[Path], limits: ReadLimits) -> Iterator[list[FileHeader | DicomError]]:
    """All headers in one answer."""
    yield [_header(path, limits) for path in paths]


def _header(path: Path, limits: ReadLimits) -> FileHeader | DicomError:
    try:
        return read_header(path, limits)
    except Exception as error:  # noqa: BLE001 - a broken file may raise anything; it becomes a row
        return describe(error, Stage.HEADER, limits)


Room = tuple[int, int] | None
"""Where a frame's pixels go in shared memory: its first byte there, and how many it may take."""


def pixels(
    memory: int | None, path: Path, frames: Sequence[tuple[int, Room]], limits: ReadLimits
) -> Iterator[Stored | Written | DicomError]:
    """One answer a frame, or a single one where the file as a whole cannot be used.

    Args:
        memory: descriptor of the shared memory, or None where there is none.
        path: the file.
        frames: the index of each frame, 0-based, and its room. One without, or for which it is too small, is
            answered with its pixels.
        limits: of the file.
    """
    try:
        with open_pixels(path, limits) as opened:
            for index, room in frames:
                yield _frame(opened, index, memory, room, limits)
    except Exception as error:  # noqa: BLE001 - a broken file may raise anything; it becomes a row
        yield describe(error, Stage.PIXELS, limits)


def images(
    memory: int | None, files: Sequence[tuple[Path, int, Room]], limits: ReadLimits
) -> Iterator[list[Stored | Written | DicomError]]:
    """What `pixels` answers for files of which one frame each is wanted, in one answer."""
    yield [next(pixels(memory, path, [(index, room)], limits)) for path, index, room in files]


def _frame(
    opened: OpenPixels, index: int, memory: int | None, room: Room, limits: ReadLimits
) -> Stored | Written | DicomError:
    try:
        stored = opened.decode(index)
        written = None if memory is None or room is None else write(memory, *room, stored)
        return stored if written is None else written
    except BaseException as error:  # noqa: BLE001 - a codec may raise anything, and one in Rust no Exception
        return describe(error, Stage.PIXELS, limits)


def dicomdir(path: Path, limits: ReadLimits) -> Iterator[list[tuple[str, ...]] | DicomError]:
    """What a DICOMDIR lists, in one answer."""
    try:
        yield list_dicomdir(path, limits)
    except Exception as error:  # noqa: BLE001 - a broken file may raise anything; it becomes a row
        yield describe(error, Stage.FIND, limits)


def _address_space_bytes() -> int:
    """Size of this process's address space, also where /proc is not mounted."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    except OSError:
        return _probed_address_space_bytes()


def _probed_address_space_bytes() -> int:
    """The lowest limit of the address space under which a page can still be mapped."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    too_low, enough = 0, _LARGEST_ADDRESS_SPACE if hard == resource.RLIM_INFINITY else hard
    try:
        while enough - too_low > _PROBE_BYTES:
            middle = (too_low + enough) // 2
            resource.setrlimit(resource.RLIMIT_AS, (middle, hard))
            try:
                mmap.mmap(-1, mmap.PAGESIZE).close()
                enough = middle
            except (OSError, MemoryError):
                too_low = middle
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return enough


def _cap_memory(extra: int) -> None:
    cap = _address_space_bytes() + extra
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (cap if hard == resource.RLIM_INFINITY else min(cap, hard), hard))
    # A codec that crashes must not leave a patient's image in a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Serve requests `(kind, *arguments)` on the connection whose descriptor is the first argument."""
    # An interrupt from the keyboard reaches the whole process group; the reader decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    limits = ReadLimits(**json.loads(sys.argv[2]))
    memory = int(sys.argv[3]) if len(sys.argv) > 3 else None
    requests: dict[str, Any] = {"headers": headers, "dicomdir": dicomdir}
    requests |= {"pixels": partial(pixels, memory), "images": partial(images, memory)}
    _cap_memory(limits.decode_memory_bytes)
    try:
        connection.send(READY)
        while True:
            kind, *arguments = connection.recv()
            for answer in requests[kind](*arguments, limits):
                connection.send(answer)
            connection.send(END)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The reader has gone.
        return


if __name__ == "__main__":
    main()
