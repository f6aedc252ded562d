"""Rendering of training studies to disk, limited to the slices that training uses.

Sagittal slices are those around the mid-line; of tall images a window is stored (`windows`). Axial slices are
cropped around the cord before they are simulated, which is all that the cord network sees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.study import PhantomStudy, PlannedSeries, StudySource
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import LANDMARKS
from stenosis_trt.engine.support.atomic_files import atomic_write_binary
from stenosis_trt.engine.support.workers import worker_pool
from stenosis_trt.export.training.windows import draw_window

FloatArray = npt.NDArray[np.float64]

NOT_SHOWN = -2
"""Stored grade of a level that lies outside of the stored sagittal slices."""

_SHOWN_MARGIN_MM = 8.0
"""Least distance of a graded level from the edge of the image."""

_SAGITTAL_SLICES = 7
_AXIAL_SLICES = 14
_AXIAL_FIELD_MM = 96.0
_POSES = ("sagittal_poses", "axial_poses")

OPERATED = -1
"""Stored in place of the grade of a level where metal lies or hides it."""


@dataclass(frozen=True)
class RenderedStudy:
    """The rendered slices of a study with its truth.

    Attributes:
        sagittal, axial: stored values, uint16 (n, rows, columns).
        sagittal_poses, axial_poses: one pose per slice.
        level_points: LPS, mm, float64 (6, 3).
        landmark_points: the same of `engine.records.LANDMARKS`, float64 (4, 3); NaN where not shown.
        grades: Kang grades, int64 (6,); `OPERATED` or `NOT_SHOWN` for a level that must not be graded.
        cord_points: anterior, posterior, left, right on each axial slice, LPS, mm, float64 (n, 4, 3).
        mid_plane_distance: mm from each level point and landmark to each sagittal slice, float64 (n, 10).
    """

    sagittal: npt.NDArray[np.uint16]
    axial: npt.NDArray[np.uint16]
    sagittal_poses: tuple[SlicePose, ...]
    axial_poses: tuple[SlicePose, ...]
    level_points: FloatArray
    landmark_points: FloatArray
    grades: npt.NDArray[np.int64]
    cord_points: FloatArray
    mid_plane_distance: FloatArray


def _pose_to_row(pose: SlicePose) -> list[float]:
    thickness = pose.thickness if pose.thickness is not None else np.nan
    vectors = (*pose.origin, *pose.row_direction, *pose.column_direction)
    return [*vectors, pose.row_spacing, pose.column_spacing, pose.rows, pose.columns, thickness]


def _row_to_pose(row: FloatArray) -> SlicePose:
    x = [float(value) for value in row]
    return SlicePose(
        origin=(x[0], x[1], x[2]),
        row_direction=(x[3], x[4], x[5]),
        column_direction=(x[6], x[7], x[8]),
        row_spacing=x[9],
        column_spacing=x[10],
        rows=int(x[11]),
        columns=int(x[12]),
        thickness=None if np.isnan(x[13]) else x[13],
    )


def _crop_axial(pose: SlicePose, centre: FloatArray) -> SlicePose:
    """Crop of an axial plane to `_AXIAL_FIELD_MM` around a patient point, on the same pixel grid."""
    size = int(_AXIAL_FIELD_MM / pose.column_spacing) // 2 * 2
    column, row, _ = pose.to_pixels(centre)
    first = np.rint([column - size / 2, row - size / 2])
    x, y, z = pose.to_patient(first)
    return replace(pose, origin=(float(x), float(y), float(z)), rows=size, columns=size)


def _grades(anatomy: Anatomy, pose: SlicePose) -> npt.NDArray[np.int64]:
    """Grades of the levels, int64 (6,); `pose` is of a stored sagittal slice."""
    pairs = zip(anatomy.levels, anatomy.operated, strict=True)
    grades = np.array([OPERATED if operated else truth.grade for truth, operated in pairs], dtype=np.int64)
    at = pose.to_pixels(np.array([truth.point for truth in anatomy.levels]))[:, :2]
    size, spacing = np.array([pose.columns, pose.rows]), np.array([pose.column_spacing, pose.row_spacing])
    edge = np.minimum(at, size - 1 - at) * spacing
    return np.where(edge.min(axis=1) < _SHOWN_MARGIN_MM, NOT_SHOWN, grades)


def render(study: PhantomStudy) -> RenderedStudy:
    """Render the slices of one study that training uses. The choice depends only on the study's seed."""
    rng = np.random.default_rng([study.seed, study.index, 99])
    points = np.array([truth.point for truth in study.anatomy.levels])
    nowhere = (np.nan,) * 3
    landmarks = np.array([study.anatomy.landmarks.get(name, nowhere) for name in LANDMARKS])
    every = np.concatenate([points, landmarks])
    distance = np.abs(np.stack([pose.to_pixels(every)[:, 2] for pose in study.sagittal.poses]))
    middle = int(np.argmin(distance[:, : len(points)].mean(axis=1)))
    first = int(np.clip(middle - _SAGITTAL_SLICES // 2, 0, len(study.sagittal.poses) - _SAGITTAL_SLICES))
    kept = list(range(first, first + _SAGITTAL_SLICES))

    crossed = [(number, study.anatomy.cord_points(pose)) for number, pose in enumerate(study.axial.poses)]
    usable = [(number, cord) for number, cord in crossed if cord is not None]
    order = rng.permutation(len(usable))[:_AXIAL_SLICES]
    chosen = [usable[k] for k in sorted(order)]
    cuts = {number: _crop_axial(study.axial.poses[number], cord.mean(axis=0)) for number, cord in chosen}
    sizes = {(pose.rows, pose.columns) for pose in cuts.values()}
    if len(sizes) != 1:
        raise ValueError(
            "Axial cuts of one series differ in size. This is a fault of the phantom's protocol."
        )
    window = draw_window(rng, study.sagittal.poses[middle], study.anatomy)
    poses = tuple(cuts.get(number, pose) for number, pose in enumerate(study.axial.poses))
    axial: PlannedSeries = replace(study.axial, poses=poses)
    return RenderedStudy(
        sagittal=np.stack([window.pixels(study.slice_pixels(study.sagittal, number)) for number in kept]),
        axial=np.stack([study.slice_pixels(axial, number) for number, _ in chosen]),
        sagittal_poses=tuple(window.pose(study.sagittal.poses[number]) for number in kept),
        axial_poses=tuple(cuts[number] for number, _ in chosen),
        level_points=points,
        landmark_points=landmarks,
        grades=_grades(study.anatomy, window.pose(study.sagittal.poses[middle])),
        cord_points=np.stack([cord for _, cord in chosen]),
        mid_plane_distance=distance[kept],
    )


@dataclass(frozen=True)
class RenderedStudySet:
    """Studies of one source and seed, stored under the set's name."""

    name: str
    source: StudySource
    seed: int

    def path(self, folder: Path, index: int) -> Path:
        """File of study `index`."""
        return folder / f"{self.name}-{self.seed}-{index:05d}.npz"


def _render_to_disk(folder: Path, studies: RenderedStudySet, index: int) -> None:
    path = studies.path(folder, index)
    if path.exists():
        return
    item = render(studies.source.sample(studies.seed, index))
    with atomic_write_binary(path) as stream:
        poses = {name: [_pose_to_row(pose) for pose in getattr(item, name)] for name in _POSES}
        np.savez(stream, allow_pickle=False, **{**vars(item), **poses})


def render_set(folder: Path, studies: RenderedStudySet, indices: Iterable[int], workers: int) -> None:
    """Render the studies that are not on disk yet; can be interrupted and repeated."""
    folder.mkdir(parents=True, exist_ok=True)
    make = partial(_render_to_disk, folder, studies)
    with worker_pool(workers) as pool:
        for _ in pool.map_in_order(make, indices):
            continue


def load_rendered(path: Path) -> RenderedStudy:
    """Read a rendered study."""
    with np.load(path, allow_pickle=False) as stored:
        poses = {name: tuple(_row_to_pose(row) for row in stored[name]) for name in _POSES}
        return RenderedStudy(**{**stored, **poses})


def load_grades(path: Path) -> npt.NDArray[np.int64]:
    """Read only the grades of a rendered study, int64 (6,); negative for a level without one."""
    with np.load(path, allow_pickle=False) as stored:
        return np.asarray(stored["grades"], dtype=np.int64)
