"""Why a frame has no usable position, orientation or pixel spacing, in words."""

from __future__ import annotations

from stenosis_trt.engine.dicom.frames import Frame

_ELEMENTS = (
    ("PlanePositionSequence", "ImagePositionPatient", "position", 3),
    ("PlaneOrientationSequence", "ImageOrientationPatient", "orientation", 6),
    ("PixelMeasuresSequence", "PixelSpacing", "pixel spacing", 2),
)
_NUMBERS = {2: "two", 3: "three", 6: "six"}


def missing_geometry(frame: Frame) -> tuple[str, str]:
    """Reason and advice for a frame whose `pose` is None."""
    for group, keyword, name, count in _ELEMENTS:
        written = frame.written(group, keyword)
        if not written.strip(b" \0"):
            reason = f"The header has no usable {name}: {keyword} is absent."
            return reason, "Export the scanner's original images, not copies of the screen."
        found = len(frame.numbers(group, keyword))
        if found == count:
            continue
        if b"," in written:
            reason = f"The header has no usable {name}: {keyword} has commas that may not be decimal points."
            return reason, "Export it again with decimal points in its numbers."
        reason = f"The header has no usable {name}: {keyword} is not {_NUMBERS[count]} numbers."
        return reason, "Send or export the file again."
    reason = (
        "The header has no usable position, orientation or pixel spacing: its numbers cannot be an image's."
    )
    return reason, "Export the scanner's original images."
