"""A reading process: answers requests for headers and pixels until its channel is closed.

Started by `process` as `python -m stenosis_trt.engine.dicom.reading_process CHANNEL LIFELINE LIMITS [MEMORY]`
with descriptors of the channel, of a pipe that nobody writes to and that is closed when the program ends, and
of a `PixelMemory`. It runs under a cap of its address space, so that a codec that asks for
too much, or crashes, takes nothing else with it. Shared memory is not mapped: the cap need not allow for it.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.engine.dicom.archives import ArchiveMember, RefusedMember, unpack
from stenosis_trt.engine.dicom.channel import Channel
from stenosis_trt.engine.dicom.dicomdir import list_dicomdir
from stenosis_trt.engine.dicom.errors import ArchiveFound, DicomError
from stenosis_trt.engine.dicom.header import FileHeader, read_header
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.dicom.pixel_memory import WrittenFrame, write_frame
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
    if isinstance(error, ArchiveFound):
        return error
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


def headers(
    paths: Sequence[Path], identity_key: bytes, limits: ReadLimits
) -> Iterator[list[FileHeader | DicomError]]:
    """All headers in one answer; what they say of the patient only as digests under `identity_key`."""
    yield [_header(path, identity_key, limits) for path in paths]


def _header(path: Path, identity_key: bytes, limits: ReadLimits) -> FileHeader | DicomError:
    try:
        return read_header(path, limits, identity_key)
    except Exception as error:  # noqa: BLE001 - a broken file may raise anything; it becomes a row
        return describe(error, Stage.HEADER, limits)


Room = tuple[int, int] | None
"""Where a frame's pixels go in shared memory: its first byte there, and how many it may take."""


def pixels(
    memory: int | None, path: Path, frames: Sequence[tuple[int, Room]], limits: ReadLimits
) -> Iterator[Stored | WrittenFrame | DicomError]:
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
) -> Iterator[list[Stored | WrittenFrame | DicomError]]:
    """What `pixels` answers for files of which one frame each is wanted, in one answer."""
    yield [next(pixels(memory, path, [(index, room)], limits)) for path, index, room in files]


def _frame(
    opened: OpenPixels, index: int, memory: int | None, room: Room, limits: ReadLimits
) -> Stored | WrittenFrame | DicomError:
    try:
        stored = opened.decode(index)
        written = None if memory is None or room is None else write_frame(memory, *room, stored)
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


def archive(
    path: Path, kind: str, folder: Path, limits: ReadLimits
) -> Iterator[ArchiveMember | RefusedMember | DicomError]:
    """What `unpack` yields, an answer each; a DicomError where nothing of the archive is to be used."""
    try:
        yield from unpack(path, kind, folder, limits)
    except Exception as error:  # noqa: BLE001 - a broken file may raise anything; it becomes a row
        yield describe(error, Stage.HEADER, limits)


def same_pixels(one: Path, other: Path, frames: int, limits: ReadLimits) -> Iterator[bool]:
    """Whether two files of so many frames hold the same stored values, in one answer; False where one of them
    cannot be decoded."""
    try:
        with open_pixels(one, limits) as first, open_pixels(other, limits) as second:
            yield all(np.array_equal(first.decode(k), second.decode(k)) for k in range(frames))
    except Exception:  # noqa: BLE001 - what cannot be compared is not the same
        yield False


def _cap_memory(extra: int) -> None:
    cap = _address_space_bytes() + extra
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (cap if hard == resource.RLIM_INFINITY else min(cap, hard), hard))
    # A codec that crashes must not leave a patient's image in a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with(lifeline: int) -> None:
    """Have the system end this process when the other end of `lifeline` is closed, also in the middle of a
    decoder. Where the system cannot, the process ends when it next answers."""
    with suppress(OSError):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        # The system then sends SIGIO when the pipe's state changes; by default that ends a process.
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def main() -> None:
    """Serve requests `(kind, *arguments)` on the channel; every answer has its request's number."""
    # A terminal sends signals to the program's group, and a scheduler to all processes of a job; the reader
    # decides when this one ends. A session of its own would take it out of what `nice` is relative to.
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _end_with(int(sys.argv[2]))
    channel = Channel(int(sys.argv[1]))
    limits = ReadLimits(**json.loads(sys.argv[3]))
    memory = int(sys.argv[4]) if len(sys.argv) > 4 else None
    requests: dict[str, Any] = {"headers": headers, "dicomdir": dicomdir, "archive": archive}
    requests |= {"pixels": partial(pixels, memory), "images": partial(images, memory)}
    requests["same_pixels"] = same_pixels
    _cap_memory(limits.decode_memory_bytes)
    try:
        channel.send(0, READY)
        while True:
            request, (kind, *arguments) = channel.receive()
            for answer in requests[kind](*arguments, limits):
                channel.send(request, answer)
            channel.send(request, END)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The reader has gone.
        return


if __name__ == "__main__":
    main()
