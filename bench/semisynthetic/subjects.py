"""Source volumes of semi-synthetic studies, with manual marks.

Marks are patient coordinates (LPS, mm). The cord's centre is marked on a few transverse planes from the first
to the last that show it; `canal` traces the exact curve. Each disc is marked on the straightened volume,
where its mid-plane meets the anterior wall of the canal; marks were checked against the vertebral labels of
the volumes that have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stenosis_trt.engine.geometry import FloatArray, Vector

_C4_C5 = 2


@dataclass(frozen=True)
class Subject:
    """One volume.

    Attributes:
        name: its folder below the volumes.
        file: the T2 volume in that folder.
        cord: approximate centre of the cord, LPS, mm, head to foot.
        discs: points where the mid-planes of C2/3 … T3/4 meet the canal's anterior wall, LPS, mm.
        dens_base: middle of the dark line between the body of C2 and the dens, LPS, mm.
        dens_apex: apex of the dens; None where the volume ends below it.
        mask: manual mask of the cord on the volume's grid, or "".
    """

    name: str
    file: str
    cord: tuple[Vector, ...]
    discs: tuple[Vector, ...]
    dens_base: Vector
    dens_apex: Vector | None = None
    mask: str = ""

    def path(self, volumes: Path) -> Path:
        """Path of the T2 volume below the folder of all volumes."""
        return volumes / self.name / self.file

    @property
    def disc_points(self) -> FloatArray:
        """`discs` as float64 (N, 3)."""
        return np.array(self.discs, dtype=np.float64)

    @property
    def origin(self) -> FloatArray:
        """Point of C4/5, float64 (3,), at which arc length along the canal is 0."""
        return np.asarray(self.disc_points[_C4_C5])


def _points(text: str) -> tuple[Vector, ...]:
    """Parse points that are separated by commas."""
    return tuple((float(x), float(y), float(z)) for x, y, z in map(str.split, text.split(",")))


SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject(
            name="errsm_11",
            file="t2.nii.gz",
            cord=_points(
                "0.7 -13.4 84.2, -0.1 -14.6 63.2, -1.0 -16.1 41.2, -1.4 -15.8 19.2, -3.0 -12.1 -1.8, "
                "-4.9 -2.2 -22.8, -5.7 13.0 -44.8, -5.2 29.2 -66.8, -4.5 40.9 -87.8, -4.2 49.8 -108.8, "
                "-4.3 57.3 -130.8"
            ),
            discs=_points(
                "-0.8 -24.6 47.0, -1.3 -23.4 28.9, -2.0 -23.1 12.0, -3.2 -20.8 -2.7, -4.4 -15.8 -16.9, "
                "-5.4 -6.4 -31.3, -5.8 6.7 -47.5, -5.5 22.3 -65.1, -4.5 34.3 -84.9"
            ),
            dens_base=(-0.5, -33.0, 62.8),
            mask="t2_manual_segmentation.nii.gz",
        ),
        Subject(
            name="errsm_18",
            file="t2.nii.gz",
            cord=_points(
                "0.8 -4.1 71.1, 0.4 0.3 50.1, -0.5 4.3 28.1, -1.7 8.6 7.1, -1.7 13.6 -14.9, "
                "-1.8 18.7 -35.9, -0.7 25.1 -56.9, 0.0 32.1 -78.9, -0.2 38.9 -99.9, -0.1 44.6 -121.9, "
                "0.0 49.4 -142.9"
            ),
            discs=_points(
                "0.2 -7.1 35.6, -0.9 -1.5 16.6, -1.7 3.5 -1.6, -1.8 7.5 -18.8, -1.7 10.1 -34.9, "
                "-1.0 14.3 -52.9, -0.3 21.6 -71.8, 0.3 29.5 -92.3, 0.2 36.1 -112.0"
            ),
            dens_base=(0.5, -19.0, 47.0),
            dens_apex=(0.5, -18.0, 63.5),
            mask="t2_manual_segmentation.nii.gz",
        ),
        Subject(
            name="errsm_20",
            file="t2.nii.gz",
            cord=_points(
                "-4.8 -8.6 82.1, -5.4 -16.6 63.1, -5.8 -21.6 38.1, -6.3 -23.6 13.1, -6.8 -22.6 -1.9, "
                "-7.8 -15.6 -16.9, -8.8 -3.6 -31.9, -10.8 12.4 -51.9, -12.8 27.4 -71.9, -13.8 41.4 -91.9, "
                "-14.8 48.4 -101.9"
            ),
            discs=_points(
                "-4.6 -25.2 55.5, -5.2 -28.5 36.7, -5.7 -31.5 19.0, -6.3 -31.7 3.9, -6.9 -29.1 -11.4, "
                "-7.6 -21.3 -27.5, -7.7 -8.5 -43.5, -8.1 8.2 -59.8, -7.5 22.2 -76.4"
            ),
            dens_base=(-4.4, -30.5, 71.2),
        ),
        Subject(
            name="errsm_30",
            file="t2.nii.gz",
            cord=_points(
                "6.2 -1.8 54.7, 6.4 -1.8 25.7, 6.7 -0.8 0.7, 6.2 1.2 -17.3, 5.2 6.2 -34.3, "
                "3.9 13.2 -49.3, 3.2 21.2 -64.3, 2.7 32.2 -84.3, 2.2 42.2 -104.3, 1.9 49.2 -124.3, "
                "1.7 52.2 -139.3"
            ),
            discs=_points(
                "6.4 -8.1 34.1, 7.1 -7.8 14.6, 7.4 -6.9 -2.9, 7.1 -5.2 -18.4, 6.6 -2.2 -33.3, "
                "6.1 4.3 -49.0, 5.5 14.6 -65.9, 4.5 25.9 -84.2, 2.9 35.3 -102.6"
            ),
            dens_base=(6.2, -16.0, 49.2),
        ),
        Subject(
            name="PAM50_small",
            file="PAM50_small_t2.nii.gz",
            cord=_points(
                "0.0 -0.3 225.0, 0.0 -0.3 205.0, 0.0 -0.3 185.0, 0.0 -0.3 165.0, 0.0 -0.3 145.0, "
                "0.0 -0.3 125.0, 0.0 -0.3 105.0, 0.0 -0.3 85.0, 0.0 -0.3 65.0, 0.0 -0.3 45.0, "
                "0.0 -0.3 25.0, 0.0 -0.3 5.0"
            ),
            discs=_points(
                "0.0 -10.0 179.5, 0.0 -9.0 161.5, 0.0 -8.0 143.5, 0.0 -8.0 127.5, 0.0 -10.0 111.5, "
                "0.0 -10.0 93.5, 0.0 -10.0 71.5, 0.0 -8.0 49.5, 0.0 -8.0 25.5"
            ),
            dens_base=(0.0, -18.0, 195.5),
            dens_apex=(0.0, -16.5, 217.5),
            mask="PAM50_small_cord.nii.gz",
        ),
    )
}
