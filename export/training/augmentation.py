"""Augmentation of network inputs: geometry, window, intensity, field of view, noise and metal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.export.training.rendering import FloatArray
from stenosis_trt.kernels.reference import RegionSource, region_window

Float32 = npt.NDArray[np.floating]

_METAL_SHARE = 0.04


@dataclass(frozen=True)
class AugmentationRange:
    """Ranges of augmentation: `shift` in mm, `angle` in degrees, `zoom` as a fraction."""

    shift: float
    angle: float
    zoom: float


def rotate_and_zoom(affine: FloatArray, size: tuple[int, int], turn: float, zoom: float) -> FloatArray:
    """Rotate `affine` (output → source, (2, 3)) by `turn` degrees and zoom about the output's centre."""
    height, width = size
    angle = np.deg2rad(turn)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = centre - linear @ centre
    return np.column_stack([affine[:, :2] @ linear, affine[:, :2] @ offset + affine[:, 2]])


def jittered_window(
    rng: np.random.Generator, images: Sequence[npt.NDArray[np.uint16]], affine: FloatArray, spec: InputSpec
) -> tuple[float, float]:
    """Window of a region with random ends: the value that becomes 0, and the one that becomes 1."""
    low, high = region_window(
        [RegionSource(image) for image in images], affine, (spec.height, spec.width), spec.window_percentiles
    )
    width = high - low
    return low + width * rng.uniform(-0.06, 0.06), high + width * rng.uniform(-0.18, 0.18)


def augment_intensity(
    rng: np.random.Generator,
    image: Float32,
    spec: InputSpec,
    blurred_share: float = 0.25,
    widest_blur: float = 1.1,
) -> Float32:
    """Random gamma, blur, coil shading and noise.

    Args:
        rng: random generator.
        image: (C, H, W), windowed and normalised as in `spec`.
        spec: input of the network. Shaded images are windowed again, like a real image would be.
        blurred_share: share of the images that are blurred.
        widest_blur: largest standard deviation of the blur in pixels.
    """
    mean, std = (np.asarray(values, dtype=np.float32)[:, None, None] for values in (spec.mean, spec.std))
    unit = np.clip(image * std + mean, 0.0, 1.0)
    if rng.random() < 0.5:
        unit = unit ** rng.uniform(0.65, 1.9)
    if rng.random() < blurred_share:
        unit = ndimage.gaussian_filter(unit, (0, *[rng.uniform(0.3, widest_blur)] * 2))
    if rng.random() < 0.5:
        unit = unit * _shading(rng, image.shape[1:])
        unit = np.minimum(unit / max(float(np.percentile(unit, spec.window_percentiles[1])), 1e-3), 1.0)
    if rng.random() < 0.5:
        unit = unit + rng.standard_normal(unit.shape) * rng.uniform(0.005, 0.06)
    return np.ascontiguousarray((unit - mean) / std, dtype=np.float32)


def _shading(rng: np.random.Generator, size: tuple[int, ...]) -> FloatArray:
    """Sensitivity profile of a surface coil: a ramp with a bright area, (H, W)."""
    y, x = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij")
    ramp = y * rng.normal(0.0, 0.5) + x * rng.normal(0.0, 0.5)
    middle, width = rng.uniform(-0.7, 0.7, 2), rng.uniform(0.35, 1.2)
    around = np.exp(-0.5 * ((y - middle[0]) ** 2 + (x - middle[1]) ** 2) / width**2)
    return np.asarray(np.exp(ramp + rng.uniform(0.0, 1.8) * around))


def noise_image(rng: np.random.Generator, spec: InputSpec) -> Float32:
    """Negative example: noise of some grain, alone or in an ellipse."""
    field = ndimage.gaussian_filter(
        rng.standard_normal((spec.height, spec.width)), rng.choice([0.0, 1.0, 3.0, 8.0])
    )
    field = field / field.std() + rng.uniform(0.0, 2.0)
    if rng.random() < 0.5:
        y, x = np.mgrid[-1 : 1 : spec.height * 1j, -1 : 1 : spec.width * 1j]
        field = field * ((x / rng.uniform(0.4, 0.9)) ** 2 + (y / rng.uniform(0.4, 0.9)) ** 2 < 1)
    low, high = np.percentile(field, spec.window_percentiles)
    unit = np.clip((field - low) / max(high - low, 1e-6), 0.0, 1.0)
    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    return np.asarray((unit[None] - mean[:, None, None]) / std[:, None, None], dtype=np.float32)


def reduce_field_of_view(
    rng: np.random.Generator, image: Float32, spec: InputSpec, share: float
) -> tuple[Float32, tuple[float, float, float, float]]:
    """Randomly reduce the field of view; pixels outside are as dark as outside of a slice.

    Args:
        rng: random generator.
        image: (C, H, W).
        spec: input of the network.
        share: largest share of height or width removed on each side.

    Returns:
        The image, and its visible pixels (x0, y0, x1, y1).
    """
    height, width = spec.height, spec.width
    x0, y0, x1, y1 = 0.0, 0.0, float(width), float(height)
    if rng.random() < 0.4:
        cut_off = rng.uniform(0.0, share, 4) * (rng.random(4) < 0.5)
        x0, y0 = cut_off[0] * width, cut_off[1] * height
        x1, y1 = width * (1.0 - cut_off[2]), height * (1.0 - cut_off[3])
        shown = np.zeros((height, width), dtype=bool)
        shown[int(y0) : int(y1), int(x0) : int(x1)] = True
        image = np.where(shown, image, _empty_input(spec))
    return image, (x0, y0, x1, y1)


def add_metal_artefact(
    rng: np.random.Generator, image: Float32, beside: FloatArray, ahead: tuple[float, float], spec: InputSpec
) -> Float32:
    """Randomly add the signal void of a screw or plate in front of the canal, with a bright rim.

    Args:
        rng: random generator.
        image: (C, H, W).
        beside: pixel (2,) behind the void.
        ahead: unit vector to the anterior, in pixels.
        spec: input of the network.
    """
    if rng.random() >= _METAL_SHARE:
        return image
    away = np.array(ahead) * rng.uniform(13.0, 22.0) / spec.spacing_mm
    x0, y0 = beside + away + rng.normal(0.0, 3.0, 2) / spec.spacing_mm
    half = rng.uniform([3.0, 3.0], [8.0, 7.0]) / spec.spacing_mm
    y, x = np.mgrid[0 : spec.height, 0 : spec.width]
    radius = np.hypot((x - x0) / half[0], (y - y0) / half[1])
    edge = np.clip((1.0 - radius) * half.min() + 0.5, 0.0, 1.0)
    rim = np.exp(-0.5 * ((radius - 1.1) / 0.12) ** 2) * (
        np.sin(np.arctan2(y - y0, x - x0) + rng.uniform(0, 6.28)) > 0.3
    )
    dark = _empty_input(spec)
    return np.asarray(image + rng.uniform(0.5, 2.0) * rim - edge * (image - dark), dtype=np.float32)


def _empty_input(spec: InputSpec) -> Float32:
    """Network input of an empty image, float32 (C, 1, 1)."""
    value = -np.asarray(spec.mean, dtype=np.float32) / np.asarray(spec.std, dtype=np.float32)
    return np.asarray(value[:, None, None])
