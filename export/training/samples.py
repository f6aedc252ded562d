"""Augmented network inputs and targets drawn from rendered studies.

Inputs use the reference preprocessing of the run-time; augmentation changes the region's affine and window,
and the resulting image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.statistics.confusion import GRADE_COUNT
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.grading.level_search import LARGER
from stenosis_trt.engine.packs.crop import channel_slices, input_to_heatmap, slice_roi
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.records import LANDMARKS, LEVELS
from stenosis_trt.export.training.augmentation import (
    AugmentationRange,
    Float32,
    add_metal_artefact,
    augment_intensity,
    jittered_window,
    noise_image,
    reduce_field_of_view,
    rotate_and_zoom,
)
from stenosis_trt.export.training.rendering import (
    NOT_SHOWN,
    OPERATED,
    FloatArray,
    RenderedStudy,
    load_grades,
    load_rendered,
)
from stenosis_trt.kernels.reference import RegionSource, cord_geometry, preprocess_region

MID_PLANE_SIGMA_MM = 6.0
"""Standard deviation of the amplitude of a level's heatmap over the slice's distance from the mid-plane."""

_NECK_SHARE = 0.6
"""Share of regions of such images that are placed at the neck; the others lie anywhere."""

_OTHER_SHARE = 0.2
_OPERATED_SHARE = 0.5
"""Share of "other" that are operated levels, if there are any."""

_CORD_BLURRED_SHARE = 0.6
_CORD_WIDEST_BLUR = 1.8
"""Of the cord's images, whose edges decide about the ratio: volumes of 1 mm are less sharp than phantoms."""

_NARROW_SHARE = 0.5
"""Of the cord's images that are drawn from the narrowest slices of a study."""

_HEATMAP_SIGMA = 1.5
_CACHED_STUDIES = 600


class StudyStore:
    """Rendered studies by number, with a cache of the most recent."""

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise ValueError("There is no rendered study. Render some first.")
        self.paths = list(paths)
        self._cache: OrderedDict[int, RenderedStudy] = OrderedDict()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> RenderedStudy:
        if number not in self._cache:
            if len(self._cache) >= _CACHED_STUDIES:
                self._cache.popitem(last=False)
            self._cache[number] = load_rendered(self.paths[number])
        return self._cache[number]

    def draw(self, rng: np.random.Generator) -> RenderedStudy:
        """Draw a study uniformly."""
        return self[int(rng.integers(len(self.paths)))]


def patient_to_region(affine: FloatArray, pose: SlicePose, points: FloatArray) -> FloatArray:
    """Patient points (..., 3) → pixels (..., 2) of a region, through the inverse of its affine."""
    source = pose.to_pixels(points)[..., :2]
    return np.asarray((source - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T)


def gaussian_heatmaps(xy: FloatArray, amplitude: FloatArray, size: tuple[int, int], stride: int) -> Float32:
    """Gaussian targets, float32 (K, height / stride, width / stride).

    Args:
        xy: input pixels (K, 2); points outside of the input give an empty map.
        amplitude: peak values (K,).
        size: input (height, width).
        stride: input pixels per heatmap pixel.
    """
    rows, columns = np.arange(size[0] // stride), np.arange(size[1] // stride)
    centres = input_to_heatmap(xy, stride)
    across = np.exp(-0.5 * ((columns[None, :] - centres[:, 0:1]) / _HEATMAP_SIGMA) ** 2)
    down = np.exp(-0.5 * ((rows[None, :] - centres[:, 1:2]) / _HEATMAP_SIGMA) ** 2)
    inside = np.all((xy >= 0) & (xy < np.array([size[1], size[0]])), axis=1)
    peak = np.where(inside, amplitude, 0.0)
    return (peak[:, None, None] * down[:, :, None] * across[:, None, :]).astype(np.float32)


def sample_region(
    images: Sequence[npt.NDArray[np.uint16]], affine: FloatArray, spec: InputSpec, window: tuple[float, float]
) -> Float32:
    """Region as the network sees it, float32 (C, H, W), with one image per channel."""
    sources = [RegionSource(image) for image in images]
    return preprocess_region(sources, affine, (spec.height, spec.width), window, (spec.mean, spec.std))


def is_searched(pose: SlicePose, spec: InputSpec) -> bool:
    """True for images so much larger than the input that the neck has to be searched in them."""
    extent = max(pose.rows * pose.row_spacing, pose.columns * pose.column_spacing)
    return extent > spec.height * spec.spacing_mm * LARGER


def inside_image(pose: SlicePose, points: FloatArray) -> npt.NDArray[np.bool_]:
    """Which patient points (K, 3) are projected into a slice's image."""
    column, row = pose.to_pixels(points)[:, 0], pose.to_pixels(points)[:, 1]
    return np.asarray((column >= 0) & (column < pose.columns) & (row >= 0) & (row < pose.rows))


def _inside_field(xy: FloatArray, field: tuple[float, float, float, float]) -> npt.NDArray[np.bool_]:
    """Which pixels (K, 2) lie within a field of view from `reduce_field_of_view`."""
    low, high = np.array(field[:2]), np.array(field[2:])
    return np.asarray(((xy >= low) & (xy < high)).all(axis=1))


class LevelSamples:
    """Sagittal slices with heatmaps of six disc levels and four landmarks; one in eight has empty maps.

    Images that are larger than the input are seen at any place, others around their middle.
    """

    def __init__(self, store: StudyStore, spec: InputSpec, stride: int) -> None:
        self.store, self.spec, self.stride = store, spec, stride
        self.jitter = AugmentationRange(shift=28.0, angle=25.0, zoom=0.15)

    def __call__(self, rng: np.random.Generator) -> tuple[Float32, Float32]:
        spec, size = self.spec, (self.spec.height, self.spec.width)
        maps = len(LEVELS) + len(LANDMARKS)
        empty = np.zeros((maps, size[0] // self.stride, size[1] // self.stride), dtype=np.float32)
        kind = rng.random()
        if kind < 0.04:
            return noise_image(rng, spec), empty
        study = self.store.draw(rng)
        number = int(rng.integers(len(study.sagittal)))
        pose, image = study.sagittal_poses[number], study.sagittal[number]
        points = np.concatenate([study.level_points, study.landmark_points])
        shown = np.isfinite(points).all(axis=1)
        # Where a landmark is not shown, its map is empty.
        points = np.where(shown[:, None], points, study.level_points[0])
        centre = self._centre(rng, study, pose)
        turn = rng.uniform(-1, 1) * self.jitter.angle
        zoom = 1.0 + rng.uniform(-1, 1) * self.jitter.zoom
        distance = np.where(shown, study.mid_plane_distance[number], np.inf)
        amplitude = np.exp(-0.5 * (distance / MID_PLANE_SIGMA_MM) ** 2)
        if kind < 0.12:
            # Negative examples: vertebrae of lumbar size, or a rotated spine.
            lumbar = rng.random() < 0.6
            zoom = rng.uniform(1.7, 2.6) if lumbar else zoom
            turn = turn if lumbar else rng.choice([90.0, 180.0, 270.0])
            amplitude = np.zeros(maps)
        affine = rotate_and_zoom(slice_roi(pose, centre, spec), size, turn, zoom)
        window = jittered_window(rng, [image], affine, spec)
        xy = patient_to_region(affine, pose, points)
        region = augment_intensity(rng, sample_region([image], affine, spec, window), spec)
        region = add_metal_artefact(rng, region, xy[int(rng.integers(len(xy)))], (-1.0, 0.0), spec)
        region, field = reduce_field_of_view(rng, region, spec, 0.35)
        # Points outside of the field of view or of the image have an empty heatmap.
        amplitude = np.where(_inside_field(xy, field) & inside_image(pose, points), amplitude, 0.0)
        return np.ascontiguousarray(region, dtype=np.float32), gaussian_heatmaps(
            xy, amplitude, size, self.stride
        )

    def _centre(self, rng: np.random.Generator, study: RenderedStudy, pose: SlicePose) -> FloatArray:
        """Draw the centre of a region, LPS, mm: near the middle of the image, of the neck, or anywhere."""
        jitter = rng.uniform(-1, 1, 3) * self.jitter.shift
        if not is_searched(pose, self.spec):
            return np.asarray(pose.centre + jitter)
        if rng.random() < _NECK_SHARE:
            neck = np.array(study.level_points.mean(axis=0))
            return neck + jitter
        column, row = rng.uniform(0.0, [pose.columns, pose.rows])
        return np.asarray(pose.to_patient(np.array([column, row])))


class CordSamples:
    """Axial slices around the cord with heatmaps of its four points; one in ten shows no cord.

    Half of the others are drawn from the narrowest quarter of a study: a compressed cord is a few slices
    high, and its edge against a disc is the hardest to see.
    """

    def __init__(self, store: StudyStore, spec: InputSpec, stride: int) -> None:
        self.store, self.spec, self.stride = store, spec, stride
        self.jitter = AugmentationRange(shift=6.0, angle=12.0, zoom=0.12)

    def __call__(self, rng: np.random.Generator) -> tuple[Float32, Float32]:
        spec, size = self.spec, (self.spec.height, self.spec.width)
        empty = np.zeros((4, size[0] // self.stride, size[1] // self.stride), dtype=np.float32)
        kind = rng.random()
        if kind < 0.03:
            return noise_image(rng, spec), empty
        study = self.store.draw(rng)
        number = self._draw_slice(rng, study)
        pose, image, points = study.axial_poses[number], study.axial[number], study.cord_points[number]
        away = kind < 0.10
        angle = rng.uniform(0, 2 * np.pi)
        offset = np.array([np.cos(angle), np.sin(angle), 0.0]) * 45.0 if away else rng.uniform(-1, 1, 3) * 6.0
        affine = rotate_and_zoom(
            slice_roi(pose, points.mean(axis=0) + offset, spec),
            size,
            rng.uniform(-1, 1) * self.jitter.angle,
            1.0 + rng.uniform(-1, 1) * self.jitter.zoom,
        )
        window = jittered_window(rng, [image], affine, spec)
        region = augment_intensity(
            rng, sample_region([image], affine, spec, window), spec, _CORD_BLURRED_SHARE, _CORD_WIDEST_BLUR
        )
        xy = patient_to_region(affine, pose, points)
        region = add_metal_artefact(rng, region, xy.mean(axis=0), (0.0, -1.0), spec)
        region, field = reduce_field_of_view(rng, region, spec, 0.3)
        complete = bool(_inside_field(xy, field).all())
        amplitude = np.full(4, float(complete))
        return np.ascontiguousarray(region, dtype=np.float32), gaussian_heatmaps(
            xy, amplitude, size, self.stride
        )

    def _draw_slice(self, rng: np.random.Generator, study: RenderedStudy) -> int:
        count = len(study.axial)
        if rng.random() >= _NARROW_SHARE:
            return int(rng.integers(count))
        ratio = cord_geometry(study.cord_points, np.zeros((count, 3))).compression_ratio
        return int(np.argsort(ratio)[int(rng.integers(-(-count // 4)))])


class GraderSamples:
    """Regions around a level in sagittal slices, with the level's Kang grade.

    One in five belongs to the class "other", after the grades: nothing that can be graded, among it operated
    levels. Metal is nowhere else: with painted voids at graded levels, none of the operated ones was refused.
    """

    def __init__(self, store: StudyStore, spec: InputSpec) -> None:
        self.store, self.spec = store, spec
        self.jitter = AugmentationRange(shift=3.0, angle=12.0, zoom=0.10)
        # Grades are drawn uniformly, whatever their frequency in the studies.
        self._by_grade: list[list[tuple[int, int]]] = [[] for _ in range(GRADE_COUNT)]
        self._operated: list[tuple[int, int]] = []
        for number, path in enumerate(store.paths):
            for level, grade in enumerate(load_grades(path)):
                if grade == NOT_SHOWN:
                    continue
                members = self._operated if grade == OPERATED else self._by_grade[int(grade)]
                members.append((number, level))

    def __call__(self, rng: np.random.Generator) -> tuple[Float32, npt.NDArray[np.int64]]:
        if rng.random() < _OTHER_SHARE:
            return self._other(rng), np.asarray(GRADE_COUNT)
        grade = int(rng.integers(GRADE_COUNT))
        members = self._by_grade[grade]
        number, level = members[int(rng.integers(len(members)))]
        return self.draw(rng, self.store[number], level), np.asarray(grade)

    def draw(self, rng: np.random.Generator, study: RenderedStudy, level: int) -> Float32:
        """One augmented region of a level, float32 (C, H, W)."""
        centre = study.level_points[level] + rng.uniform(-1, 1, 3) * self.jitter.shift
        turn = rng.uniform(-1, 1) * self.jitter.angle
        zoom = 1.0 + rng.uniform(-1, 1) * self.jitter.zoom
        return self._region(rng, study, centre, turn, zoom)

    def _region(
        self, rng: np.random.Generator, study: RenderedStudy, centre: FloatArray, turn: float, zoom: float
    ) -> Float32:
        spec, size = self.spec, (self.spec.height, self.spec.width)
        planes = np.array([abs(float(pose.to_pixels(centre)[2])) for pose in study.sagittal_poses])
        nearest = int(np.argmin(planes + rng.normal(0.0, 0.4, len(planes))))
        chosen = channel_slices(nearest, len(study.sagittal), spec)
        if rng.random() < 0.5:
            chosen = chosen[::-1]
        images = [study.sagittal[k] for k in chosen]
        affine = rotate_and_zoom(slice_roi(study.sagittal_poses[nearest], centre, spec), size, turn, zoom)
        region = augment_intensity(
            rng, sample_region(images, affine, spec, jittered_window(rng, images, affine, spec)), spec
        )
        return reduce_field_of_view(rng, region, spec, 0.12)[0].astype(np.float32)

    def _other(self, rng: np.random.Generator) -> Float32:
        """Example of "other": an operated level, noise, another place or size, a turned region, inverted
        contrast, or an axial slice."""
        if self._operated and rng.random() < _OPERATED_SHARE:
            number, level = self._operated[int(rng.integers(len(self._operated)))]
            return self.draw(rng, self.store[number], level)
        spec, kind = self.spec, int(rng.integers(6))
        if kind == 0:
            return noise_image(rng, spec)
        study = self.store.draw(rng)
        level = int(rng.integers(len(study.grades)))
        centre, turn, zoom = study.level_points[level], rng.uniform(-1, 1) * self.jitter.angle, 1.0
        if kind == 1:
            # Far anterior or posterior of the spine.
            away = rng.choice([-1.0, 1.0]) * rng.uniform(28.0, 45.0)
            centre = centre + np.array([0.0, away, rng.uniform(-20.0, 20.0)])
        elif kind == 2:
            zoom = float(rng.choice([rng.uniform(1.9, 3.0), rng.uniform(0.3, 0.5)]))
        elif kind == 3:
            turn = turn + float(rng.choice([90.0, 180.0, 270.0]))
        elif kind == 4:
            return self._axial(rng, study)
        region = self._region(rng, study, centre, turn, zoom)
        # Inverted contrast, like another weighting.
        return -region if kind == 5 else region

    def _axial(self, rng: np.random.Generator, study: RenderedStudy) -> Float32:
        spec, size = replace(self.spec, plane="axial"), (self.spec.height, self.spec.width)
        number = int(rng.integers(len(study.axial)))
        image, pose = study.axial[number], study.axial_poses[number]
        centre = study.cord_points[number].mean(axis=0) + rng.uniform(-1, 1, 3) * 12.0
        affine = rotate_and_zoom(
            slice_roi(pose, centre, spec), size, rng.uniform(0.0, 360.0), rng.uniform(0.6, 1.4)
        )
        images = [image] * spec.channels
        return augment_intensity(
            rng, sample_region(images, affine, spec, jittered_window(rng, images, affine, spec)), spec
        )
