"""Real isotropic T2 volumes, resampled to DICOM series of the two clinical protocols."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from dicom_factory import dataset, write
from pydicom.uid import generate_uid
from scipy import ndimage

_SAGITTAL = (np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0]))
_AXIAL = (np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
_DEPTHS = (-0.33, 0.0, 0.33)


class Volume:
    """A NIfTI volume that can be sampled at LPS points."""

    def __init__(self, path: Path) -> None:
        image = nibabel.load(path)
        self.data = np.asarray(image.dataobj, dtype=np.float32)
        # NIfTI's axes are RAS; DICOM's are LPS.
        self.to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
        self.from_lps = np.linalg.inv(self.to_lps)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest LPS coordinates, mm."""
        corners = np.array(np.meshgrid(*[(0, size - 1) for size in self.data.shape])).reshape(3, -1)
        points = (self.to_lps @ np.vstack([corners, np.ones(8)]))[:3]
        return points.min(axis=1), points.max(axis=1)

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Trilinear values at LPS points (..., 3); 0 outside."""
        voxels = points @ self.from_lps[:3, :3].T + self.from_lps[:3, 3]
        return ndimage.map_coordinates(self.data, np.moveaxis(voxels, -1, 0), order=1, mode="constant")


def write_series(volume: Volume, folder: Path, plane: str, spacing: float, distance: float, name: str) -> int:
    """Cut the whole volume into one series and return its number of slices."""
    across, down = _SAGITTAL if plane == "sagittal" else _AXIAL
    normal = np.cross(across, down)
    low, high = volume.bounds
    centre, extent = (low + high) / 2, high - low
    columns, rows, slices = (
        int(abs(extent @ direction) / step)
        for direction, step in ((across, spacing), (down, spacing), (normal, distance))
    )
    grid = (
        np.stack(np.meshgrid(np.arange(columns) - columns / 2, np.arange(rows) - rows / 2), axis=-1) * spacing
    )
    plane_points = grid[..., :1] * across + grid[..., 1:] * down
    peak = float(np.percentile(volume.data, 99.9))
    for number in range(slices):
        middle = centre + normal * (number - (slices - 1) / 2) * distance
        image = np.mean(
            [volume.sample(plane_points + middle + normal * depth * distance) for depth in _DEPTHS], 0
        )
        stored = np.clip(image / peak * 2000, 0, 4095).astype(np.uint16)
        content = dataset(
            number,
            StudyInstanceUID=generate_uid(entropy_srcs=[name]),
            SeriesInstanceUID=generate_uid(entropy_srcs=[name, plane]),
            SOPInstanceUID=generate_uid(entropy_srcs=[name, plane, str(number)]),
            FrameOfReferenceUID=generate_uid(entropy_srcs=[name, "frame"]),
            SeriesDescription=f"t2_tse_{plane[:3]}",
            ImageOrientationPatient=[*across, *down],
            ImagePositionPatient=[round(float(x), 4) for x in plane_points[0, 0] + middle],
            PixelSpacing=[spacing, spacing],
            SliceThickness=distance,
            Rows=rows,
            Columns=columns,
            PixelData=stored.tobytes(),
        )
        write(folder / f"{plane}_{number:03d}.dcm", content)
    return slices


def write_study(path: Path, folder: Path, name: str) -> None:
    """Both protocols of one volume: 0.6 × 0.6 × 3.3 mm sagittal and 0.5 × 0.5 × 3.5 mm axial."""
    volume = Volume(path)
    write_series(volume, folder, "sagittal", 0.6, 3.3, name)
    write_series(volume, folder, "axial", 0.5, 3.5, name)
