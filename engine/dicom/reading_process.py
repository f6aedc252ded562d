"""A reading process: answers requests for headers and pixels until its channel is closed.

`process` starts it as `python -m stenosis_trt.engine.dicom.reading_process CHANNEL LIFELINE LIMITS [MEMORY]`
with the descriptors of the channel, of a pipe whose closing tells that the program has ended, and of a
`PixelMemory`. Its address space is limited, so that a codec that requests too much memory or crashes affects
nothing else. The shared memory is not mapped and does not count.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from stenosis_trt.engine.dicom.archive_types import ArchiveMember, RefusedMember
from stenosis_trt.engine.dicom.channel import Channel
from stenosis_trt.engine.dicom.copies import compare_files
from stenosis_trt.engine.dicom.dicomdir import list_dicomdir
from stenosis_trt.engine.dicom.duplicates import Likeness
from stenosis_trt.engine.dicom.errors import EXPORT_AGAIN, ArchiveFound, DicomError
from stenosis_trt.engine.dicom.header import FileHeader, HeaderReader
from stenosis_trt.engine.dicom.limits import ReadLimits, raise_limit
from stenosis_trt.engine.dicom.padding import Stored
from stenosis_trt.engine.dicom.pixel_memory import WrittenFrame, write_frame
from stenosis_trt.engine.dicom.pixels import OpenPixels, open_pixels
from stenosis_trt.engine.records import Stage
from stenosis_trt.engine.support.memory_limit import limit_memory

READY = "ready"
END = None
"""Sent after the last answer to a request."""


def describe(error: BaseException, stage: Stage, limits: ReadLimits) -> DicomError:
    """Return the DicomError for any exception raised while a file was read.

    The text of the exception is dropped, since it may quote the header.
    """
    if isinstance(error, ArchiveFound):
        return error
    if isinstance(error, DicomError):
        return DicomError(stage, error.reason, error.advice, error.harmless, error.study_uid)
    if isinstance(error, FileNotFoundError):
        return DicomError(
            stage, "The file was removed while it was read.", "Grade the folder once copying is done."
        )
    if isinstance(error, PermissionError):
        return DicomError(
            stage, "Permission to read the file is denied.", "Give this user permission to read it."
        )
    if isinstance(error, IsADirectoryError):
        return DicomError(stage, "The file was replaced by a folder.", "Grade the folder again.")
    if isinstance(error, MemoryError):
        advice = raise_limit("decode_memory_bytes", 2 * limits.decode_memory_bytes)
        return DicomError(stage, "Reading the file takes more memory than the limit.", advice)
    if isinstance(error, OSError):
        return DicomError(
            stage, f"The file cannot be read ({error.strerror or type(error).__name__}).", "Check the disk."
        )
    return DicomError(stage, f"The file is broken ({type(error).__name__}).", EXPORT_AGAIN)


def headers(
    paths: Sequence[Path], identity_key: bytes, limits: ReadLimits
) -> Iterator[list[FileHeader | DicomError]]:
    """Answer with all headers; patient attributes are digests with `identity_key`."""
    reader = _header_reader(identity_key, limits)
    yield [_header(path, reader, limits) for path in paths]


@lru_cache(1)
def _header_reader(identity_key: bytes, limits: ReadLimits) -> HeaderReader:
    """Return the reader of all requests of one `DicomReader`."""
    return HeaderReader(limits, identity_key)


def _header(path: Path, reader: HeaderReader, limits: ReadLimits) -> FileHeader | DicomError:
    try:
        return reader.read(path)
    except Exception as error:  # noqa: BLE001 - a broken file may raise anything; it becomes a row
        return describe(error, Stage.HEADER, limits)


Room = tuple[int, int] | None
"""Offset and size in bytes of the shared memory reserved for a frame, or None."""


def pixels(
    memory: int | None, path: Path, frames: Sequence[tuple[int, Room]], limits: ReadLimits
) -> Iterator[Stored | WrittenFrame | DicomError]:
    """Answer once for each frame, or once if the file as a whole cannot be used.

    Args:
        memory: descriptor of the shared memory, or None.
        path: the file.
        frames: index of each frame, counted from 0, and its room. The answer to a frame that does not fit
            into its room, or has none, contains the pixels.
        limits: limits of reading.
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
    """Answer once with the frames of several files, one frame each; see `pixels`."""
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
    """Answer with the references of a DICOMDIR."""
    try:
        yield list_dicomdir(path, limits)
    except Exception as error:  # noqa: BLE001 - a broken file may raise anything; it becomes a row
        yield describe(error, Stage.FIND, limits)


def archive(
    path: Path, kind: str, folder: Path, limits: ReadLimits
) -> Iterator[ArchiveMember | RefusedMember | DicomError]:
    """Answer with each item that `unpack` yields; with a DicomError if the archive must not be used."""
    from stenosis_trt.engine.dicom.archives import unpack

    try:
        yield from unpack(path, kind, folder, limits)
    except Exception as error:  # noqa: BLE001 - a broken file may raise anything; it becomes a row
        yield describe(error, Stage.HEADER, limits)


def copies(pairs: Sequence[tuple[Path, Path, int]], limits: ReadLimits) -> Iterator[Likeness]:
    """Answer for each pair of files how alike they are; see `compare_files`."""
    for pair in pairs:
        yield _likeness(pair, limits)


def _likeness(pair: tuple[Path, Path, int], limits: ReadLimits) -> Likeness:
    try:
        return compare_files(*pair, limits)
    except BaseException:  # noqa: BLE001 - a codec may raise anything; a broken file is like no other
        return Likeness.DIFFERENT


def _end_with_lifeline(lifeline: int) -> None:
    """Let the system end this process when the other end of `lifeline` is closed, even within a decoder. If
    that is not supported, the process ends with its next answer."""
    with suppress(OSError):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        # The system then sends SIGIO when the pipe is closed, which ends the process by default.
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def main() -> None:
    """Serve requests `(kind, *arguments)` on the channel; each answer carries the number of its request."""
    # Terminals signal the process group and schedulers all processes of a job, but the reader decides when
    # this process ends. A new session would change the scheduling group that `nice` refers to.
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _end_with_lifeline(int(sys.argv[2]))
    channel = Channel(int(sys.argv[1]))
    limits = ReadLimits(**json.loads(sys.argv[3]))
    memory = int(sys.argv[4]) if len(sys.argv) > 4 else None
    requests: dict[str, Any] = {"headers": headers, "dicomdir": dicomdir, "archive": archive}
    requests |= {"pixels": partial(pixels, memory), "images": partial(images, memory)}
    requests["copies"] = copies
    limit_memory(limits.decode_memory_bytes)
    try:
        channel.send(0, READY)
        while True:
            request, (kind, *arguments) = channel.receive()
            for answer in requests[kind](*arguments, limits):
                channel.send(request, answer)
            channel.send(request, END)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The reader has closed the channel.
        return


if __name__ == "__main__":
    main()
