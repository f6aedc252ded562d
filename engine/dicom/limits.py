"""How much of anything a file may have. Checked before memory is taken."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True)
class ReadLimits:
    """Limits of reading; a file beyond one is refused and reported.

    Attributes:
        max_file_bytes: size on disk. Enhanced MR objects of a spine have tens of MB.
        max_frame_pixels: rows × columns. MR images are at most 2048²; this leaves four times as many.
        max_frames: frames in one file.
        max_pixel_bytes: rows × columns × frames × bytes a pixel of one file, decoded.
        max_inflated_bytes: a deflated file's dataset, inflated.
        max_header_bytes: everything before the pixels. Enhanced MR objects take up to 10 kB a frame.
        max_sequence_depth: sequences one within the other. Enhanced MR objects have five.
        max_items: items of all sequences that are read. Enhanced MR objects have about ten a frame.
        decode_memory_bytes: address space that a reading process may take beyond what it has at its start;
            a codec that asks for more fails with a MemoryError in its own process. It must leave room for
            a whole file's pixels and for one decoded frame.
        timeout_seconds: longest wait for one answer of a reading process.
    """

    max_file_bytes: int = 2048 * _MIB
    max_frame_pixels: int = 16 * _MIB
    max_frames: int = 4096
    max_pixel_bytes: int = 512 * _MIB
    max_inflated_bytes: int = 256 * _MIB
    max_header_bytes: int = 64 * _MIB
    max_sequence_depth: int = 32
    max_items: int = 1 << 17
    decode_memory_bytes: int = 1024 * _MIB
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"The limit {name} is {value}. Give a positive number.")
