"""Artefacts of an acquisition: shading, ghosts, parallel imaging, zero-filling, 3-D partitions.

Each is applied to the image before it passes through k-space, so that limited resolution and the magnitude
act on it as on tissue. Zero-filling enlarges the spectrum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.slice_profile import through_thickness
from stenosis_trt.engine.geometry import FloatArray, SlicePose, Vector

ComplexArray = npt.NDArray[np.complex128]

_PARTITIONS = 8
_BRIGHT = (0.35, 0.65)
"""Signals, relative to CSF, from which tissue begins to leave ghosts, and leaves full ones."""


@dataclass(frozen=True)
class Shading:
    """Additional shading by the coil: a ramp and a blob, as the logarithm of a factor.

    Attributes:
        direction: unit vector of the ramp, LPS.
        centre: where the ramp is 0, LPS, mm.
        length: mm over which the ramp rises by `ramp`.
        ramp: rise of the logarithm.
        blob_centre, blob_width: centre and standard deviation of the blob, mm.
        blob: logarithm at the blob's centre.
    """

    direction: Vector
    centre: Vector
    length: float
    ramp: float
    blob_centre: Vector
    blob_width: float
    blob: float

    def factor(self, points: FloatArray) -> FloatArray:
        """Factor of the signal at points (..., 3), LPS, mm; float64 (...)."""
        along = (points - np.asarray(self.centre)) @ np.asarray(self.direction) / self.length
        away = np.linalg.norm(points - np.asarray(self.blob_centre), axis=-1) / self.blob_width
        # The coil's sensitivity levels off beyond the image for which the ramp is given.
        shade = self.ramp * np.clip(along, -0.75, 0.75) + self.blob * np.exp(-0.5 * away**2)
        return np.asarray(np.exp(shade))


@dataclass(frozen=True)
class Artefacts:
    """Artefacts of the slices of one series; the defaults are none.

    Attributes:
        volumetric: share of the rectangular profile of a 3-D slab, 0 to 1.
        interpolation: share of the written matrix that is zero-filled in k-space, 0 to below 1.
        acceleration: largest factor of the noise, 1 or more.
        ghosts: amplitude of the first copies of bright tissue.
        ghost_shift: distance of the first copies, as a share of the field of view along the phase encoding.
        shading: additional shading, or None.
    """

    volumetric: float = 0.0
    interpolation: float = 0.0
    acceleration: float = 1.0
    ghosts: float = 0.0
    ghost_shift: float = 0.2
    shading: Shading | None = None


NO_ARTEFACTS = Artefacts()


def depths(pose: SlicePose, artefacts: Artefacts) -> Iterator[tuple[float, float]]:
    """Yield (depth in mm along the normal, weight) as `through_thickness` does.

    Partitions of a 3-D slab are averaged with equal weights; their profiles overlap little.
    """
    if not artefacts.volumetric:
        yield from through_thickness(pose)
        return
    thickness = pose.thickness if pose.thickness is not None else 0.0
    places = (np.arange(_PARTITIONS) + 0.5) / _PARTITIONS - 0.5
    # The profile of a selective pulse, as in `through_thickness`, has the same width.
    selective = np.exp(-0.5 * (places / 0.3) ** 2)
    share = artefacts.volumetric
    weights = (1.0 - share) * selective / selective.sum() + share / _PARTITIONS
    yield from (
        (float(place * thickness), float(weight)) for place, weight in zip(places, weights, strict=True)
    )


def acquired_size(size: int, interpolation: float) -> int:
    """Acquired samples, an even number, of `size` written ones."""
    return max(round(size * (1.0 - interpolation) / 2.0) * 2, 16)


def acquired_pose(pose: SlicePose, artefacts: Artefacts) -> SlicePose:
    """The plane as sampled before zero-filling: fewer pixels, the same first pixel and field of view."""
    if not artefacts.interpolation:
        return pose
    rows, columns = (acquired_size(size, artefacts.interpolation) for size in (pose.rows, pose.columns))
    return replace(
        pose,
        rows=rows,
        columns=columns,
        row_spacing=pose.row_spacing * pose.rows / rows,
        column_spacing=pose.column_spacing * pose.columns / columns,
    )


def zero_filled(spectrum: ComplexArray, rows: int, columns: int) -> ComplexArray:
    """Enlarge a centred spectrum with zeros; the scale keeps the image's signal (norm "ortho")."""
    height, width = spectrum.shape
    if (height, width) == (rows, columns):
        return spectrum
    filled = np.zeros((rows, columns), dtype=spectrum.dtype)
    top, left = rows // 2 - height // 2, columns // 2 - width // 2
    filled[top : top + height, left : left + width] = spectrum
    filled *= np.sqrt(rows * columns / (height * width))
    return filled


def with_ghosts(
    image: FloatArray, artefacts: Artefacts, rng: np.random.Generator
) -> FloatArray | ComplexArray:
    """Add copies of bright tissue, shifted along the first axis and wrapped around: complex (rows, columns).

    Periodic movement and flow modulate the phase-encoding lines. First copies lie at `ghost_shift` on both
    sides, second copies of a third of their amplitude at twice the distance.
    """
    if not artefacts.ghosts:
        return image
    low, high = _BRIGHT
    moving = image * np.clip((image - low) / (high - low), 0.0, 1.0)
    result = image.astype(np.complex128)
    for order, amplitude in ((1, artefacts.ghosts), (2, artefacts.ghosts / 3.0)):
        shift = round(order * artefacts.ghost_shift * len(image))
        for signed in (shift, -shift):
            turn = np.exp(1j * rng.uniform(0.0, 2.0 * np.pi))
            result += amplitude * turn * np.roll(moving, signed, axis=0)
    return np.asarray(result)


def with_amplified_noise(
    image: FloatArray | ComplexArray, noise: float, artefacts: Artefacts, rng: np.random.Generator
) -> FloatArray | ComplexArray:
    """Add the noise of parallel imaging, complex (rows, columns): phase encoding along the first axis.

    The geometry factor rises from 1 at the edges to `acceleration` in the middle. Points that lay on each
    other before they were unfolded have the same noise (SENSE, Pruessmann et al., MRM 1999;42:952).

    Args:
        image: (rows, columns).
        noise: standard deviation in one channel of what the factor amplifies.
        artefacts: see `acceleration`.
        rng: draws the noise.
    """
    if artefacts.acceleration <= 1.0:
        return image
    rows, columns = image.shape
    y, x = np.linspace(-1.0, 1.0, rows)[:, None], np.linspace(-1.0, 1.0, columns)[None, :]
    factor = 1.0 + (artefacts.acceleration - 1.0) * np.exp(-0.5 * ((y / 0.42) ** 2 + (x / 0.9) ** 2))
    folded = rng.standard_normal((2, (rows + 1) // 2, columns))
    unfolded = np.concatenate([folded, folded], axis=1)[:, :rows]
    added = noise * np.sqrt(factor**2 - 1.0)
    return np.asarray(image + added * (unfolded[0] + 1j * unfolded[1]))
