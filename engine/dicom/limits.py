"""Limits on the size of files and their contents, checked before memory is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

from stenosis_trt.engine.support.sizes import SIZE_SYNTAX, format_size, parse_size

_MIB = 1 << 20


@dataclass(frozen=True)
class ReadLimits:
    """Limits of reading; a file beyond one is rejected and reported.

    Attributes:
        max_file_bytes: size on disk. Enhanced MR objects of a spine have tens of MB.
        max_frame_pixels: rows × columns. MR images have at most 2048²; the default is four times as many.
        max_frames: frames of one file.
        max_pixel_bytes: decoded size of one file: rows × columns × frames × bytes per pixel.
        max_series_bytes: decoded size of one selected series, 2 bytes per pixel. Series of two studies are in
            memory at once, one of them as floating point: with the default a run stays below 1.5 GB
            (measured). An isotropic cervical volume has 75 MB.
        max_inflated_bytes: inflated size of a deflated dataset.
        max_archive_bytes: unpacked size of one archive, nested archives included. A cervical examination has
            50 to 300 MB.
        max_archive_expansion: ratio of unpacked to packed size, checked above 256 MiB. Images compress to a
            third, empty ones to a hundredth.
        max_archive_members: files in one archive.
        max_header_bytes: everything before the pixel data. Enhanced MR objects have up to 10 kB a frame.
        max_sequence_depth: nesting of sequences. Enhanced MR objects have five levels.
        max_items: items of all sequences that are read. Enhanced MR objects have about ten a frame.
        decode_memory_bytes: address space of a reading process beyond that at its start; a codec that
            requests more fails with a MemoryError in its process. It must hold the pixels of a file and one
            decoded frame.
        timeout_seconds: longest wait for one answer of a reading process.
    """

    max_file_bytes: int = 2048 * _MIB
    max_frame_pixels: int = 16 * _MIB
    max_frames: int = 4096
    max_pixel_bytes: int = 512 * _MIB
    max_series_bytes: int = 128 * _MIB
    max_inflated_bytes: int = 256 * _MIB
    max_archive_bytes: int = 8192 * _MIB
    max_archive_expansion: int = 100
    max_archive_members: int = 100_000
    max_header_bytes: int = 64 * _MIB
    max_sequence_depth: int = 32
    max_items: int = 1 << 17
    decode_memory_bytes: int = 1024 * _MIB
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ValueError(f"The limit {name} is {value}. Give a positive number.")


def raise_limit(name: str, needed: int) -> str:
    """Return the advice for an exceeded limit: the option with a value that admits `needed`."""
    return f"Raise it with --read-limit {name}={_suggestion(name, needed)}."


def _suggestion(name: str, needed: int) -> str:
    if not name.endswith("_bytes"):
        return str(needed)
    size = max(1 << max(needed - 1, 1).bit_length(), 1 << 10)
    return format_size(size)


def limits_from_settings(settings: Iterable[str]) -> ReadLimits:
    """Return limits with some set as "name=value"; bytes may have the unit KiB, MiB or GiB.

    Raises:
        ValueError: there is no such limit or the value is invalid; the message says what is allowed.
    """
    kinds = {field.name: field.type for field in fields(ReadLimits)}
    values: dict[str, float] = {}
    for setting in settings:
        name, _, value = (part.strip() for part in setting.partition("="))
        if not value:
            raise ValueError(f"A limit is set as NAME=VALUE, and {setting!r} is not.")
        if name not in kinds:
            raise ValueError(f"There is no limit {name!r}. Give one of {', '.join(kinds)}.")
        values[name] = _value(name, value, whole=kinds[name] == "int")
    return ReadLimits(**values)  # type: ignore[arg-type]


def _value(name: str, text: str, whole: bool) -> float:
    try:
        if name.endswith("_bytes"):
            return parse_size(text)
        return int(text) if whole else float(text)
    except ValueError:
        number = "a whole number" if whole else "a number"
        expected = SIZE_SYNTAX if name.endswith("_bytes") else number
        raise ValueError(f"{text!r} cannot be {name}. Give {expected}.") from None
