"""Reads the images that a result refers to, for reports. Runs in a worker process with limited memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.pixels import open_pixels
from stenosis_trt.engine.dicom.whole_header import read_whole_header
from stenosis_trt.engine.geometry import SlicePose, Vector
from stenosis_trt.engine.records import FrameHeader, LevelResult, StudyHeader, StudyResult
from stenosis_trt.engine.reports.study_report import CannotReport, ReportImage, StudyImages

if TYPE_CHECKING:
    from pydicom import Dataset

_READ_AGAIN = "Check that the images of the study are still where they were, then run `stenosis-trt report`."

Reference = tuple[str, int | None]
"""SOP Instance UID and frame number of an image."""


def referenced_frames(study: StudyHeader, result: StudyResult) -> tuple[FrameHeader, ...]:
    """Return the frames of the graded series that the levels of a result refer to.

    Slices of one series may share a SOP Instance UID; then all of them are returned.
    """
    series = {result.sagittal_series_uid, *result.axial_series_uid.split(";")}
    wanted = {reference for level in result.levels for reference in _references(level)}
    frames = [
        frame
        for item in study.series
        if item.series_uid in series
        for frame in item.frames
        if (frame.sop_instance_uid, frame.frame_number) in wanted and frame.pose is not None
    ]
    return tuple(dict.fromkeys(frames))


def read_images(result: StudyResult, frames: Sequence[FrameHeader], limits: ReadLimits) -> StudyImages:
    """Decode the images that the levels of a result refer to, and read the attributes of their files.

    Where several slices share a SOP Instance UID, the one in whose plane the level lies is taken.

    Args:
        result: the result.
        frames: what `referenced_frames` returned.
        limits: limits of reading.

    Raises:
        CannotReport: an image is missing, or cannot be read any more.
    """
    reader = _Reader(limits)
    by_reference: dict[Reference, list[FrameHeader]] = {}
    for frame in frames:
        by_reference.setdefault((frame.sop_instance_uid, frame.frame_number), []).append(frame)
    sagittal: dict[str, ReportImage] = {}
    axial: dict[str, ReportImage] = {}
    for level in result.levels:
        if level.sagittal_sop_uid and level.point is not None:
            reference = level.sagittal_sop_uid, level.sagittal_frame_number
            sagittal[level.level] = reader.image(_nearest(by_reference, reference, [level.point]))
        if level.cord is not None:
            reference = level.cord.sop_instance_uid, level.cord.frame_number
            axial[level.level] = reader.image(_nearest(by_reference, reference, level.cord.points))
    return StudyImages(sagittal, axial)


def _references(level: LevelResult) -> Iterator[Reference]:
    if level.sagittal_sop_uid:
        yield level.sagittal_sop_uid, level.sagittal_frame_number
    if level.cord is not None:
        yield level.cord.sop_instance_uid, level.cord.frame_number


def _nearest(
    frames: Mapping[Reference, Sequence[FrameHeader]], reference: Reference, points: Sequence[Vector]
) -> tuple[FrameHeader, SlicePose]:
    """Return the frame with a reference; of several the one whose plane is nearest to `points`."""
    found = [(frame, frame.pose) for frame in frames.get(reference, ()) if frame.pose is not None]
    if not found:
        raise CannotReport("An image that the result refers to was not found.", _READ_AGAIN)

    def distance(item: tuple[FrameHeader, SlicePose]) -> float:
        return max(abs(float(item[1].to_pixels(np.asarray(point))[2])) for point in points)

    return min(found, key=distance)


class _Reader:
    """Reads each file and decodes each frame once."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._datasets: dict[Path, Dataset] = {}
        self._images: dict[tuple[Path, int], ReportImage] = {}

    def image(self, found: tuple[FrameHeader, SlicePose]) -> ReportImage:
        frame, pose = found
        key = frame.path, frame.index
        if key not in self._images:
            with open_pixels(frame.path, self._limits) as pixels:
                stored = pixels.decode(frame.index)
            if stored.shape != (pose.rows, pose.columns):
                raise CannotReport("An image has another size than when it was graded.", _READ_AGAIN)
            self._images[key] = ReportImage(frame, pose, stored, self._dataset(frame.path))
        return self._images[key]

    def _dataset(self, path: Path) -> Dataset:
        if path not in self._datasets:
            self._datasets[path] = read_whole_header(path)
        return self._datasets[path]
