"""Messages between the reader and a reading process: numbered, of limited size, within a limited time.

A message is a header of 16 bytes (the number of the request that it belongs to and the length of its content,
two unsigned 64-bit integers) and its content, pickled.

A reading process parses files that may be hostile, so its answers are unpickled under a rule: they may hold
plain values, the records of this package, and pixels, and nothing else that pickle could call. The rule keeps
an answer from running code; it does not make a process harmless that a file has taken over, since that runs
with the rights of the user.
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
_TIMEVAL = struct.Struct("@ll")
_LONGEST_WAIT = 1 << 30
_RECORDS = ("stenosis_trt.engine.records", "stenosis_trt.engine.geometry")
_RECORDS_BELOW = "stenosis_trt.engine.dicom."
_PATHS = {("pathlib", "PosixPath"), ("pathlib._local", "PosixPath")}
_STORED = ("uint16", "int16")


class MessageError(Exception):
    """A message that cannot be: too long, cut off, or holding what it may not hold."""


class Channel:
    """One end of a connected stream socket. For one thread at a time.

    Its methods raise EOFError where the other end has gone, TimeoutError where the time is over, and OSError
    for what else the system refuses. After any exception the channel is not used again: a part of a message
    may be left in it.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def close(self) -> None:
        """Close this end; the other sees the end of the stream."""
        self._socket.close()

    def send(self, number: int, content: Any, seconds: float | None = None) -> None:
        """Send one message within `seconds`, or however long it takes."""
        stream = io.BytesIO()
        stream.write(bytes(_HEADER.size))
        _Pickler(stream, protocol=5).dump(content)
        message, deadline = stream.getbuffer(), _deadline(seconds)
        _HEADER.pack_into(message, 0, number, len(message) - _HEADER.size)
        done = 0
        while done < len(message):
            self._wait_until(deadline, socket.SO_SNDTIMEO)
            with suppress(BlockingIOError):
                done += self._socket.send(message[done:])

    def receive(
        self,
        seconds: float | None = None,
        limit: int | None = None,
        load: Callable[[bytearray], Any] | None = None,
    ) -> tuple[int, Any]:
        """Wait for one message, to its last byte.

        Args:
            seconds: how long; None for however long it takes.
            limit: the longest content, in bytes; no memory is taken for a longer one. None for any.
            load: makes the content of its bytes; by default `pickle.loads`, for messages that are trusted.

        Returns:
            The number of the request, and the content.

        Raises:
            MessageError: the content is longer than `limit`.
            Exception: what `load` raises.
        """
        deadline = _deadline(seconds)
        number, length = _HEADER.unpack(self._read(_HEADER.size, deadline))
        if limit is not None and length > limit:
            raise MessageError(f"A message of {length} bytes is over the limit of {limit}.")
        content = self._read(length, deadline)
        return number, (pickle.loads if load is None else load)(content)

    def _read(self, length: int, deadline: float | None) -> bytearray:
        content, done = bytearray(length), 0
        while done < length:
            self._wait_until(deadline, socket.SO_RCVTIMEO)
            with suppress(BlockingIOError):
                # In one call of the system, which ends early only when the time or the stream is over.
                received = self._socket.recv_into(memoryview(content)[done:], 0, socket.MSG_WAITALL)
                if not received:
                    raise EOFError
                done += received
        return content

    def _wait_until(self, deadline: float | None, option: int) -> None:
        """Have the system wait no longer than until `deadline`; it then gives what there is, or EAGAIN."""
        if deadline is None:
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        seconds = min(int(left), _LONGEST_WAIT)
        microseconds = max(1, int((left - int(left)) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(seconds, microseconds))


def unpickle_answer(content: bytearray) -> Any:
    """Unpickle what a reading process answered.

    Raises:
        MessageError: it holds what an answer may not hold, or is broken.
        MemoryError: there is not enough memory for it.
    """
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except MemoryError:
        raise
    except Exception as error:
        raise MessageError(f"An answer cannot be unpickled ({type(error).__name__}).") from error


def stored_values(dtype: str, shape: tuple[int, ...], content: bytes | bytearray) -> npt.NDArray[Any]:
    """Pixels out of a message: uint16 or int16 (rows, columns), in C order.

    Raises:
        ValueError: they cannot be pixels.
    """
    if dtype not in _STORED or len(shape) != 2:
        raise ValueError("An array in an answer is no image.")
    return np.frombuffer(content, dtype).reshape(shape)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray and obj.dtype.name in _STORED:
            content = pickle.PickleBuffer(np.ascontiguousarray(obj).data)
            return stored_values, (obj.dtype.name, obj.shape, content)
        if isinstance(obj, Enum):
            # Some versions of Python pickle members as a call of getattr, which an answer may not make.
            return type(obj), (obj.value,)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (__name__, stored_values.__name__):
            return stored_values
        if module in _RECORDS or module.startswith(_RECORDS_BELOW) or (module, name) in _PATHS:
            found = vars(importlib.import_module(module)).get(name)
            if (module, name) in _PATHS or _is_record(found, module):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} may not be in an answer.")


def _is_record(found: Any, module: str) -> bool:
    """Whether this is a class of `module` that holds values and does nothing."""
    return (
        isinstance(found, type)
        and found.__module__ == module
        and (dataclasses.is_dataclass(found) or issubclass(found, Enum | tuple | DicomError))
    )


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
