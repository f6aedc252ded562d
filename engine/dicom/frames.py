"""Attributes of one frame: pose, rescale, contrast and the key of its volume.

Enhanced objects store them in functional groups, per frame or shared; classic ones in the dataset itself
(DICOM PS3.3, C.7.6.16 and C.8.13).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from stenosis_trt.engine.dicom.elements import Elements
from stenosis_trt.engine.dicom.errors import EXPORT_AGAIN
from stenosis_trt.engine.dicom.layout import PixelLayout
from stenosis_trt.engine.geometry import SlicePose, Vector
from stenosis_trt.engine.records import Contrast

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"

# Functional group → the keywords read from it.
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
    "MRModifierSequence": ("InversionTimes", "SpectrallySelectedExcitation"),
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
    "ScanOptions",
    "SpectrallySelectedSuppression",
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

OWN_TIME_KEYWORDS = ("AcquisitionNumber", "AcquisitionDateTime", "AcquisitionTime", "TriggerTime")
"""Elements of a volume key in which the files of one series may differ: see `Frame.with_own_times`."""

_TIME = re.compile(r"(\d{2}(?:\d{2}){0,2})(\.\d*)?", re.ASCII)
_GEOMETRY = (
    ("PlanePositionSequence", "ImagePositionPatient", "position", 3),
    ("PlaneOrientationSequence", "ImageOrientationPatient", "orientation", 6),
    ("PixelMeasuresSequence", "PixelSpacing", "pixel spacing", 2),
)
_NUMBERS = {2: "two", 3: "three", 6: "six"}
_AXES_TOLERANCE = 5e-3
"""Tolerance of unit length and orthogonality; direction cosines with three decimals pass."""
_MAX_POSITION_MM = 10_000.0
_MIN_SPACING_MM, _MAX_SPACING_MM = 0.01, 20.0
"""mm: bounds of position and pixel spacing. Values beyond are not measurements and could overflow."""
_FAT_SUPPRESSED = frozenset({"FS", "FAT", "FAT_AND_WATER"})
"""Of Scan Options (PS3.3, C.8.3.1) and of Spectrally Selected Suppression (C.8.13.4)."""
_PULSES = {"SPIN": ("SE",), "GRADIENT": ("GR",), "BOTH": ("SE", "GR")}


class VolumeKey(NamedTuple):
    """Attributes that distinguish images at the same position, the most significant first."""

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
    """Looks up the attributes of a frame: in its own functional groups, the shared ones, or the dataset."""

    def __init__(self, dataset: Elements, index: int) -> None:
        self._dataset = dataset
        own, shared = dataset.items(_PER_FRAME), dataset.items(_SHARED)
        self._groups = (*own[index : index + 1], *shared[:1])

    def _sources(self, group: str) -> Iterator[Elements]:
        for groups in self._groups:
            yield from groups.items(group)[:1]
        yield self._dataset

    def numbers(self, group: str, keyword: str) -> tuple[float, ...]:
        """Return numbers from a functional group or, with the same keyword, the dataset; () if absent."""
        for source in self._sources(group):
            if keyword in source.values:
                return source.numbers(keyword)
        return ()

    def missing_geometry(self) -> tuple[str, str]:
        """Return reason and advice for a frame whose `pose` is None."""
        for group, keyword, name, count in _GEOMETRY:
            found = (source.values[keyword][1] for source in self._sources(group) if keyword in source.values)
            raw = next(found, b"")
            reason = f"The header has no usable {name}: {keyword}"
            if not raw.strip(b" \0"):
                advice = "Export the scanner's original images, not copies of the screen."
                return f"{reason} is absent.", advice
            if len(self.numbers(group, keyword)) == count:
                continue
            if b"," in raw:
                advice = "Export it again with decimal points in its numbers."
                return f"{reason} has commas that may not be decimal points.", advice
            return f"{reason} is not {_NUMBERS[count]} numbers.", EXPORT_AGAIN
        reason = (
            "The header has no usable position, orientation or pixel spacing: its numbers are implausible."
        )
        return reason, "Export the scanner's original images."

    def number(self, group: str, keyword: str, classic: str = "") -> float | None:
        """Return one number; `classic` is its keyword in classic objects if that differs."""
        found = self.numbers(group, keyword)
        if found:
            return found[0]
        return self._dataset.number(classic) if classic else None

    def texts(self, group: str, keyword: str, classic: str) -> tuple[str, ...]:
        """Return texts from a functional group, or from the dataset with the keyword `classic`."""
        for source in self._sources(group):
            if found := source.texts(keyword):
                return found
        return self._dataset.texts(classic)

    def pose(self, layout: PixelLayout) -> SlicePose | None:
        """Return the pose of the frame, or None if the header has no usable position, axes or spacing."""
        origin = self.origin()
        axes = self.numbers("PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = self.numbers("PixelMeasuresSequence", "PixelSpacing")
        if origin is None or len(axes) != 6 or len(spacing) != 2:
            return None
        if not _MIN_SPACING_MM <= min(spacing) <= max(spacing) <= _MAX_SPACING_MM:
            return None
        directions = _orthonormal(axes)
        if directions is None:
            return None
        thickness = self.number("PixelMeasuresSequence", "SliceThickness")
        return SlicePose(
            origin=origin,
            row_direction=directions[0],
            column_direction=directions[1],
            row_spacing=spacing[0],
            column_spacing=spacing[1],
            rows=layout.rows,
            columns=layout.columns,
            thickness=thickness if thickness is not None and thickness > 0 else None,
        )

    def origin(self) -> Vector | None:
        """Return the centre of the first pixel, LPS, mm; None if the header has no usable position."""
        position = self.numbers("PlanePositionSequence", "ImagePositionPatient")
        if len(position) != 3 or max(map(abs, position)) > _MAX_POSITION_MM:
            return None
        return position[0], position[1], position[2]

    def rescale(self, inverted: bool) -> tuple[float, float]:
        """Return slope and intercept, both negated for MONOCHROME1: a higher value is always brighter.

        The rescale is optional in MR images; a slope of 0 is treated as absent.
        """
        slope = self.number("PixelValueTransformationSequence", "RescaleSlope") or 1.0
        intercept = self.number("PixelValueTransformationSequence", "RescaleIntercept") or 0.0
        return (-slope, -intercept) if inverted else (slope, intercept)

    def anatomy(self) -> str:
        """Return the meaning of the coded anatomic region, or ""."""
        for source in self._sources("FrameAnatomySequence"):
            for region in source.items("AnatomicRegionSequence")[:1]:
                return region.text("CodeMeaning")
        return ""

    def volume_key(self) -> VolumeKey:
        """Return the attributes that distinguish this frame from others at the same position."""
        stack = self.texts("FrameContentSequence", "StackID", "StackID")
        temporal = self.number("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier")
        return VolumeKey(
            echo_time_ms=self.number("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
            kind=self.texts("MRImageFrameTypeSequence", "FrameType", "ImageType"),
            b_value=self.number("MRDiffusionSequence", "DiffusionBValue"),
            inversion_time_ms=self.number("MRModifierSequence", "InversionTimes", "InversionTime"),
            temporal_position=temporal,
            trigger_time_ms=self._dataset.number("TriggerTime"),
            acquisition=self._acquisition(),
            stack=stack[0] if stack else "",
            acquired=self.acquired(),
        )

    def with_own_times(self, key: VolumeKey) -> VolumeKey:
        """Return a volume key with what depends on OWN_TIME_KEYWORDS replaced by this frame's."""
        return key._replace(
            trigger_time_ms=self._dataset.number("TriggerTime"),
            acquisition=self._acquisition(),
            acquired=self.acquired(),
        )

    def _acquisition(self) -> float | None:
        return self.number("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber")

    def acquired(self) -> float | None:
        """Return the acquisition time as the number YYYYMMDDhhmmss, for comparison only.

        Without a date it is hhmmss; without a time it is None.
        """
        stamp = self.texts("FrameContentSequence", "FrameAcquisitionDateTime", "AcquisitionDateTime")
        texts = self._dataset.text
        found = _timestamp(stamp[0][:8], stamp[0][8:]) if stamp else None
        if found is None:
            found = _timestamp(texts("AcquisitionDate"), texts("AcquisitionTime"))
        return found if found is not None else _timestamp(texts("SeriesDate"), texts("SeriesTime"))

    def contrast(self) -> Contrast:
        """Return the contrast parameters of this frame."""
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
            fat_suppressed=self._is_fat_suppressed(),
        )

    def _is_fat_suppressed(self) -> bool:
        """Return True if the signal of fat is suppressed, or water alone is excited (PS3.3, C.8.13.5.4)."""
        dataset = self._dataset
        options = {*dataset.texts("ScanOptions"), *dataset.texts("SpectrallySelectedSuppression")}
        excited = self.texts(
            "MRModifierSequence", "SpectrallySelectedExcitation", "SpectrallySelectedExcitation"
        )
        return bool(options & _FAT_SUPPRESSED) or "WATER" in excited


def _timestamp(date: str, time: str) -> float | None:
    """Return a date and a time of day (DICOM PS3.5, 6.2: DA and TM) as one number."""
    digits, clock = date.replace(".", ""), _TIME.match(time.replace(":", ""))
    if clock is None:
        return None
    whole, fraction = clock.groups()
    day = int(digits) if len(digits) == 8 and digits.isdecimal() and digits.isascii() else 0
    return day * 1e6 + float(whole.ljust(6, "0") + (fraction or ""))


def _orthonormal(axes: tuple[float, ...]) -> tuple[Vector, Vector] | None:
    """Return row and column direction as orthonormal vectors, or None if they deviate too far from that."""
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
