"""Messages of a reading process: pixels are not copied into them, and broken ones do no harm."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from stenosis_trt.engine.dicom.channel import Channel, MessageError, unpickle_answer


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    channels = Channel(one.detach()), Channel(other.detach())
    yield channels
    for channel in channels:
        channel.close()


def _sent(ends: tuple[Channel, Channel], content: Any) -> Any:
    sender = threading.Thread(target=ends[0].send, args=(7, content, 10.0))
    sender.start()
    number, received = ends[1].receive(10.0, 1 << 24, unpickle_answer)
    sender.join()
    assert number == 7
    return received


def test_images_of_any_size_arrive_as_they_were_sent_and_aligned(ends: tuple[Channel, Channel]) -> None:
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (3, 5), (512, 512), (7, 33)]
    images = [rng.integers(0, 65536, shape).astype(np.uint16) for shape in shapes]
    images += [images[2].view(np.int16), images[2][::2, 1::3]]
    received = _sent(ends, [*images, ("text", 5, None)])
    assert received[-1] == ("text", 5, None)
    for image, arrived in zip(images, received[:-1], strict=True):
        assert arrived.dtype == image.dtype
        assert arrived.flags.aligned
        np.testing.assert_array_equal(arrived, image)


def test_pixels_stay_in_the_bytes_that_were_received(ends: tuple[Channel, Channel]) -> None:
    one, other = _sent(ends, [np.zeros((300, 300), np.uint16), np.ones((300, 300), np.uint16)])
    begins = [image.__array_interface__["data"][0] for image in (one, other)]
    assert begins[1] - begins[0] == one.nbytes, "one lies behind the other"


def _message(*numbers: int, pickled: bytes = b"", rest: bytes = b"") -> bytearray:
    return bytearray(struct.pack(f">{len(numbers)}Q", *numbers) + pickled + rest)


@pytest.mark.parametrize(
    "content",
    [
        bytearray(),
        _message(5),
        _message(0, 0),
        _message(1 << 63, 1 << 63),
        _message(0, 3, 1, 1),
        _message(4, 0, pickled=b"\x80\x05N."[:2]),
        # A buffer is asked for, and there is none; one that ends beyond the message.
        _message(4, 0, pickled=b"\x80\x05\x97."),
        _message(4, 1, 1 << 40, pickled=b"\x80\x05\x97."),
    ],
)
def test_a_broken_message_is_an_error_of_the_message(content: bytearray) -> None:
    with pytest.raises(MessageError):
        unpickle_answer(content)


class _Harm:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def test_what_is_not_allowed_in_an_answer_is_not_loaded(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(MessageError):
        _sent(ends, [np.zeros((2, 2), np.uint16), _Harm()])


def test_an_image_that_is_shorter_than_its_shape_is_refused(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stenosis_trt.engine.dicom import channel

    real = channel._packed

    def shortened(content: Any) -> list[Any]:
        start, *buffers = real(content)
        return [start, *buffers[:-2]]

    monkeypatch.setattr(channel, "_packed", shortened)
    with pytest.raises(MessageError):
        _sent(ends, [np.zeros((8, 8), np.uint16), np.zeros((8, 8), np.uint16)])
