"""What a header says of each of its frames: where it lies, how it is scaled, what it belongs to.

Enhanced objects say it in functional groups, per frame or shared; classic ones in the dataset itself
(DICOM PS3.3, C.7.6.16 and C.8.13).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from stenosis_trt.engine.dicom.elements import Elements
from stenosis_trt.engine.dicom.layout import PixelLayout
from stenosis_trt.engine.geometry import SlicePose, Vector
from stenosis_trt.engine.records import Contrast

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"

# Functional group → what is read from it.
_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameContentSequence": (
        "StackID",
        "TemporalPositionIndex",
        "FrameAcquisitionNumber",
        "FrameAcquisitionDateTime",
    ),
    "MREchoSequence": ("EffectiveEchoTime",),
    "MRTimingAndRelatedParametersSequence": ("RepetitionTime", "FlipAngle", "EchoTrainLength"),
    "MRModifierSequence": ("InversionTimes",),
    "MRImageFrameTypeSequence": ("FrameType",),
    "MRDiffusionSequence": ("DiffusionBValue",),
    "FrameAnatomySequence": ("AnatomicRegionSequence", "CodeMeaning"),
}
_CLASSIC = (
    "EchoTime",
    "InversionTime",
    "ImageType",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "AcquisitionDateTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "SeriesDate",
    "SeriesTime",
    "TriggerTime",
    "ScanningSequence",
    "SequenceVariant",
    "SequenceName",
    "PulseSequenceName",
    "EchoPulseSequence",
    "EchoPlanarPulseSequence",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
)
FRAME_KEYWORDS = (
    _SHARED,
    _PER_FRAME,
    *_GROUPS,
    *(name for group in _GROUPS.values() for name in group),
    *_CLASSIC,
)

_TIME = re.compile(r"(\d{2}(?:\d{2}){0,2})(\.\d*)?", re.ASCII)
_AXES_TOLERANCE = 5e-3
"""How far the axes may be from unit length and from square: directions with three decimals still pass."""
_FARTHEST = 10_000.0
_FINEST, _COARSEST = 0.01, 20.0
"""mm: no scanner reaches farther, and no image of a patient is finer or coarser. Numbers beyond are no
measurements, and lengths of 1e200 mm cannot be computed with."""
_PULSES = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}


class VolumeKey(NamedTuple):
    """What tells images of one place apart, the most telling first."""

    echo_time_ms: float | None
    kind: tuple[str, ...]
    b_value: float | None
    inversion_time_ms: float | None
    temporal_position: float | None
    trigger_time_ms: float | None
    acquisition: float | None
    stack: str
    acquired: float | None


class Frame:
    """Looks a frame's values up: in its own functional groups, the shared ones, or the dataset."""

    def __init__(self, dataset: Elements, index: int) -> None:
        self._dataset = dataset
        own, shared = dataset.items(_PER_FRAME), dataset.items(_SHARED)
        self._groups = (*own[index : index + 1], *shared[:1])

    def _places(self, group: str) -> Iterator[Elements]:
        for groups in self._groups:
            yield from groups.items(group)[:1]
        yield self._dataset

    def numbers(self, group: str, keyword: str) -> tuple[float, ...]:
        """Numbers from a functional group or, under the same keyword, the dataset; () where none are."""
        for place in self._places(group):
            if keyword in place.values:
                return place.numbers(keyword)
        return ()

    def written(self, group: str, keyword: str) -> bytes:
        """The value field that `numbers` reads; b"" where there is none."""
        found = (place.values[keyword][1] for place in self._places(group) if keyword in place.values)
        return next(found, b"")

    def number(self, group: str, keyword: str, classic: str = "") -> float | None:
        """One number; `classic` is its keyword in the dataset where that differs."""
        found = self.numbers(group, keyword)
        if found:
            return found[0]
        return self._dataset.number(classic) if classic else None

    def texts(self, group: str, keyword: str, classic: str) -> tuple[str, ...]:
        """Texts from a functional group, or from the dataset under the keyword `classic`."""
        for place in self._places(group):
            if found := place.texts(keyword):
                return found
        return self._dataset.texts(classic)

    def pose(self, layout: PixelLayout) -> SlicePose | None:
        """Where the frame lies, or None where the header does not say so usably."""
        position = self.numbers("PlanePositionSequence", "ImagePositionPatient")
        axes = self.numbers("PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = self.numbers("PixelMeasuresSequence", "PixelSpacing")
        if len(position) != 3 or len(axes) != 6 or len(spacing) != 2:
            return None
        if max(map(abs, position)) > _FARTHEST or not _FINEST <= min(spacing) <= max(spacing) <= _COARSEST:
            return None
        directions = _square(axes)
        if directions is None:
            return None
        thickness = self.number("PixelMeasuresSequence", "SliceThickness")
        return SlicePose(
            origin=(position[0], position[1], position[2]),
            row_direction=directions[0],
            column_direction=directions[1],
            row_spacing=spacing[0],
            column_spacing=spacing[1],
            rows=layout.rows,
            columns=layout.columns,
            thickness=thickness if thickness is not None and thickness > 0 else None,
        )

    def rescale(self, inverted: bool) -> tuple[float, float]:
        """Slope and intercept; both negated for MONOCHROME1, so that a higher value is always brighter.

        An MR image need not have a rescale; a slope of 0 would make it blank and counts as none.
        """
        slope = self.number("PixelValueTransformationSequence", "RescaleSlope") or 1.0
        intercept = self.number("PixelValueTransformationSequence", "RescaleIntercept") or 0.0
        return (-slope, -intercept) if inverted else (slope, intercept)

    def anatomy(self) -> str:
        """What the coded anatomic region is called; "" where there is none."""
        for place in self._places("FrameAnatomySequence"):
            for region in place.items("AnatomicRegionSequence")[:1]:
                return region.text("CodeMeaning")
        return ""

    def volume_key(self) -> VolumeKey:
        """What tells this frame from others at its place."""
        stack = self.texts("FrameContentSequence", "StackID", "StackID")
        acquisition = self.number("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber")
        temporal = self.number("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier")
        return VolumeKey(
            echo_time_ms=self.number("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
            kind=self.texts("MRImageFrameTypeSequence", "FrameType", "ImageType"),
            b_value=self.number("MRDiffusionSequence", "DiffusionBValue"),
            inversion_time_ms=self.number("MRModifierSequence", "InversionTimes", "InversionTime"),
            temporal_position=temporal,
            trigger_time_ms=self._dataset.number("TriggerTime"),
            acquisition=acquisition,
            stack=stack[0] if stack else "",
            acquired=self.acquired(),
        )

    def acquired(self) -> float | None:
        """When the frame was acquired, as the number YYYYMMDDhhmmss: for comparing, and for nothing else.

        Without a date it is hhmmss; None where no time is given.
        """
        stamp = self.texts("FrameContentSequence", "FrameAcquisitionDateTime", "AcquisitionDateTime")
        texts = self._dataset.text
        found = _moment(stamp[0][:8], stamp[0][8:]) if stamp else None
        if found is None:
            found = _moment(texts("AcquisitionDate"), texts("AcquisitionTime"))
        return found if found is not None else _moment(texts("SeriesDate"), texts("SeriesTime"))

    def contrast(self) -> Contrast:
        """Contrast as this frame has it."""
        dataset, timing = self._dataset, "MRTimingAndRelatedParametersSequence"
        key = self.volume_key()
        train = self.number(timing, "EchoTrainLength")
        sequence = dataset.texts("ScanningSequence")
        if not sequence:
            sequence = _PULSES.get(dataset.text("EchoPulseSequence"), ())
            if dataset.text("EchoPlanarPulseSequence") == "YES":
                sequence = (*sequence, "EP")
        return Contrast(
            echo_time_ms=key.echo_time_ms,
            repetition_time_ms=self.number(timing, "RepetitionTime"),
            inversion_time_ms=key.inversion_time_ms,
            flip_angle_degrees=self.number(timing, "FlipAngle"),
            echo_train_length=int(train) if train is not None else None,
            scanning_sequence=sequence,
            sequence_variant=dataset.texts("SequenceVariant"),
            sequence_name=dataset.text("SequenceName") or dataset.text("PulseSequenceName"),
            contrast_agent=bool(
                dataset.text("ContrastBolusAgent") or dataset.items("ContrastBolusAgentSequence")
            ),
        )


def _moment(date: str, time: str) -> float | None:
    """A date and a time of day (DICOM PS3.5, 6.2: DA and TM) as one number."""
    digits, clock = date.replace(".", ""), _TIME.match(time.replace(":", ""))
    if clock is None:
        return None
    whole, fraction = clock.groups()
    day = int(digits) if len(digits) == 8 and digits.isdecimal() and digits.isascii() else 0
    return day * 1e6 + float(whole.ljust(6, "0") + (fraction or ""))


def _square(axes: tuple[float, ...]) -> tuple[Vector, Vector] | None:
    """Row and column direction as unit vectors at right angles; None where they are far from that."""
    row, column = axes[:3], axes[3:]
    across, down = math.hypot(*row), math.hypot(*column)
    product = math.fsum(a * b for a, b in zip(row, column, strict=True))
    if max(abs(across - 1), abs(down - 1), abs(product)) > _AXES_TOLERANCE:
        return None
    first = tuple(x / across for x in row)
    overlap = product / across
    rest = tuple(b - overlap * a for a, b in zip(first, column, strict=True))
    length = math.hypot(*rest)
    second = tuple(x / length for x in rest)
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])
