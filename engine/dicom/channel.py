"""Messages between the reader and a reading process, with limits on size and time.

A message has a header of 16 bytes (request number and content length) and content: the length of the pickle,
the number of buffers and the size of each, then the pickle and the buffers, which hold pixels and are not
copied into the pickle. Numbers are big-endian and have 64 bits; each buffer begins at a multiple of 16 bytes.

A reading process parses files that may be hostile, so its answers are unpickled with an allow-list: plain
values, the records of this package and pixels. An answer can therefore not execute code. A file that takes
over the reading process still has the rights of the user.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import pickle
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.dicom.errors import DicomError

_HEADER = struct.Struct(">QQ")
_ALIGNMENT = 16
_TIMEVAL = struct.Struct("@ll")
_MAX_WAIT_SECONDS = 1 << 30
_RECORD_MODULES = ("stenosis_trt.engine.records", "stenosis_trt.engine.geometry")
_RECORD_PACKAGE = "stenosis_trt.engine.dicom."
_PATH_CLASSES = {("pathlib", "PosixPath"), ("pathlib._local", "PosixPath")}
_STORED = ("uint16", "int16")


class MessageError(Exception):
    """A message that is too long, truncated, or contains a type that is not allowed."""


class Channel:
    """One end of a connected stream socket. For one thread at a time.

    Methods raise EOFError if the other end was closed, TimeoutError, or another OSError. Do not use the
    channel after an exception: it may hold part of a message.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def close(self) -> None:
        """Close this end; the other sees the end of the stream."""
        self._socket.close()

    def send(self, number: int, content: Any, seconds: float | None = None) -> None:
        """Send one message within `seconds`, or without time limit."""
        start, *buffers = _packed(content)
        length = len(start) + sum(map(len, buffers))
        deadline = _deadline(seconds)
        for part in (_HEADER.pack(number, length) + start, *buffers):
            done = 0
            while done < len(part):
                self._wait_until(deadline, socket.SO_SNDTIMEO)
                with suppress(BlockingIOError):
                    done += self._socket.send(part[done:])

    def receive(
        self,
        seconds: float | None = None,
        limit: int | None = None,
        load: Callable[[bytearray], Any] | None = None,
    ) -> tuple[int, Any]:
        """Receive one complete message.

        Args:
            seconds: time limit, or None.
            limit: longest content in bytes, or None; no memory is allocated for a longer one.
            load: deserialises the content; by default without an allow-list, for trusted messages.

        Returns:
            The number of the request and the content.

        Raises:
            MessageError: the content is longer than `limit`.
            Exception: what `load` raises.
        """
        deadline = _deadline(seconds)
        number, length = _HEADER.unpack(self._read(_HEADER.size, deadline))
        if limit is not None and length > limit:
            raise MessageError(f"A message of {length} bytes is over the limit of {limit}.")
        content = self._read(length, deadline)
        return number, (_unpacked if load is None else load)(content)

    def _read(self, length: int, deadline: float | None) -> bytearray:
        content, done = bytearray(length), 0
        while done < length:
            self._wait_until(deadline, socket.SO_RCVTIMEO)
            with suppress(BlockingIOError):
                # One system call, which returns early only at the time limit or the end of the stream.
                received = self._socket.recv_into(memoryview(content)[done:], 0, socket.MSG_WAITALL)
                if not received:
                    raise EOFError
                done += received
        return content

    def _wait_until(self, deadline: float | None, option: int) -> None:
        """Set the socket's timeout to `deadline`; a call then returns partial data or fails with EAGAIN."""
        if deadline is None:
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        seconds = min(int(left), _MAX_WAIT_SECONDS)
        microseconds = max(1, int((left - int(left)) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(seconds, microseconds))


def unpickle_answer(content: bytearray) -> Any:
    """Unpickle the answer of a reading process.

    Raises:
        MessageError: the answer is broken or contains a type that is not allowed.
        MemoryError: there is not enough memory for it.
    """
    try:
        return _unpacked(content, _Unpickler)
    except MemoryError:
        raise
    except Exception as error:
        raise MessageError(f"An answer cannot be unpickled ({type(error).__name__}).") from error


def stored_values(dtype: str, shape: tuple[int, ...], content: memoryview) -> npt.NDArray[Any]:
    """Return the pixels of a message: uint16 or int16 (rows, columns), in C order.

    Raises:
        ValueError: dtype or shape are not those of pixels.
    """
    if dtype not in _STORED or len(shape) != 2:
        raise ValueError("An array in an answer is no image.")
    return np.frombuffer(content, dtype).reshape(shape)


def _packed(content: Any) -> list[memoryview | bytes]:
    """Return the content of a message in parts that are sent one after another."""
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(content)
    views = [buffer.raw() for buffer in buffers]
    numbers = (stream.tell(), len(views), *map(len, views))
    start = struct.pack(f">{len(numbers)}Q", *numbers) + stream.getbuffer()
    parts: list[memoryview | bytes] = [start + bytes(-len(start) % _ALIGNMENT)]
    for view in views:
        parts += [view, bytes(-len(view) % _ALIGNMENT)]
    return parts


def _unpacked(content: bytearray, unpickler: type[pickle.Unpickler] = pickle.Unpickler) -> Any:
    """Inverse of `_packed`, from the parts in one piece. Arrays refer to it.

    Raises:
        Exception: the content is broken.
    """
    view = memoryview(content)
    length, count = struct.unpack_from(">2Q", view)
    if count > len(content):
        raise ValueError("A message has more buffers than bytes.")
    begin = struct.calcsize(f">{2 + count}Q")
    sizes = struct.unpack_from(f">{count}Q", view, struct.calcsize(">2Q"))
    place = _aligned(begin + length)
    buffers = []
    for size in sizes:
        if size > len(content) - place:
            raise ValueError("A buffer of a message ends beyond it.")
        buffers.append(view[place : place + size])
        place = _aligned(place + size)
    return unpickler(io.BytesIO(view[begin : begin + length]), buffers=buffers).load()


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray and obj.dtype.name in _STORED:
            content = pickle.PickleBuffer(np.ascontiguousarray(obj).data)
            return stored_values, (obj.dtype.name, obj.shape, content)
        if isinstance(obj, Enum):
            # Some Python versions pickle members as a call of getattr, which is not allowed in an answer.
            return type(obj), (obj.value,)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (__name__, stored_values.__name__):
            return stored_values
        if module in _RECORD_MODULES or module.startswith(_RECORD_PACKAGE) or (module, name) in _PATH_CLASSES:
            found = vars(importlib.import_module(module)).get(name)
            if (module, name) in _PATH_CLASSES or _is_record(found, module):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} may not be in an answer.")


def _is_record(found: Any, module: str) -> bool:
    """Return True for a class of `module` that only holds values."""
    return (
        isinstance(found, type)
        and found.__module__ == module
        and (dataclasses.is_dataclass(found) or issubclass(found, Enum | tuple | DicomError))
    )


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
