"""Simulate MR acquisition of an anatomy: protocols, slice profile, coil, k-space, noise.

A slice is sampled at several depths through its thickness and averaged. The image then passes through
k-space: limited resolution causes truncation ringing, noise is Gaussian in both channels and hence Rician in
magnitude, and motion is a phase error between phase-encoding lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.phantom.painting.tissue import TissueSource
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals, sample_signals
from stenosis_trt.bench.phantom.patient.anatomy import Anatomy
from stenosis_trt.bench.phantom.scan.artefacts import (
    NO_ARTEFACTS,
    Artefacts,
    acquired_pose,
    depths,
    with_amplified_noise,
    with_ghosts,
    zero_filled,
)
from stenosis_trt.engine.geometry import FloatArray, SlicePose

Array = npt.NDArray[np.float32]

_COARSE_PIXELS = 4
"""Spacing in pixels of the grid on which canal coordinates are computed; interpolation between its points is
exact to 0.02 mm."""


@dataclass(frozen=True)
class SeriesProtocol:
    """Sampling parameters of one series. Lengths in mm; times in ms."""

    plane: str
    rows: int
    columns: int
    pixel_spacing: float
    thickness: float
    slice_distance: float
    slices: int
    echo_time_ms: float
    repetition_time_ms: float
    echo_train_length: int
    fat_suppressed: bool = False


@dataclass(frozen=True)
class Scanner:
    """Contrast, noise, resolution, motion and coil of one acquisition.

    Attributes:
        signals: relative T2 signal of each tissue.
        noise: standard deviation of the noise in one channel, relative to the signal of CSF.
        resolution: share of k-space that is acquired, (0, 1].
        motion: amplitude of the phase error between lines, in radians; 0 for none.
        coil_depth: decay length of the coil's sensitivity to the front, in mm.
        coil_length: standard deviation of the sensitivity from head to foot, in mm.
        gain: stored value of a signal of 1.
        phase_along_rows: the phase-encoding lines are the image's rows.
        artefacts: what an ordinary acquisition lacks.
    """

    signals: Signals
    noise: float
    resolution: float
    motion: float
    coil_depth: float
    coil_length: float
    gain: float
    phase_along_rows: bool
    artefacts: Artefacts = NO_ARTEFACTS


def sample_sagittal_protocol(rng: np.random.Generator) -> SeriesProtocol:
    """Draw a sagittal T2 TSE protocol: 11–15 slices, 0.5–0.8 mm in plane, 3–4 mm thick, gap of 0–12 %."""
    spacing = round(float(rng.uniform(0.5, 0.8)), 3)
    thickness = round(float(rng.uniform(3.0, 4.0)), 1)
    size = round(float(rng.uniform(215.0, 260.0)) / spacing / 16.0) * 16
    return SeriesProtocol(
        plane="sagittal",
        rows=size,
        columns=size,
        pixel_spacing=spacing,
        thickness=thickness,
        slice_distance=round(thickness * float(rng.uniform(1.0, 1.12)), 2),
        slices=int(rng.choice([11, 13, 15])),
        echo_time_ms=round(float(rng.uniform(85, 120)), 1),
        repetition_time_ms=round(float(rng.uniform(2800, 4500)), 0),
        echo_train_length=int(rng.integers(14, 26)),
    )


def sample_axial_protocol(rng: np.random.Generator) -> SeriesProtocol:
    """Draw an axial T2 TSE protocol: at most 36 slices, 0.4–0.7 mm in plane, 3–4 mm thick."""
    spacing = round(float(rng.uniform(0.4, 0.7)), 3)
    thickness = round(float(rng.uniform(3.0, 4.0)), 1)
    size = round(float(rng.uniform(150.0, 190.0)) / spacing / 16.0) * 16
    return SeriesProtocol(
        plane="axial",
        rows=size,
        columns=size,
        pixel_spacing=spacing,
        thickness=thickness,
        slice_distance=round(thickness * float(rng.uniform(1.0, 1.1)), 2),
        slices=36,
        echo_time_ms=round(float(rng.uniform(85, 125)), 1),
        repetition_time_ms=round(float(rng.uniform(3500, 6500)), 0),
        echo_train_length=int(rng.integers(12, 24)),
    )


def sample_scanner(rng: np.random.Generator) -> Scanner:
    """Draw contrast, coil and artefacts of one acquisition; three in ten show motion."""
    return Scanner(
        signals=sample_signals(rng),
        noise=float(rng.uniform(0.008, 0.038)),
        resolution=float(rng.uniform(0.72, 1.0)),
        motion=float(max(0.0, rng.normal(-0.1, 0.18))),
        coil_depth=float(rng.uniform(70.0, 200.0)),
        coil_length=float(rng.uniform(130.0, 240.0)),
        gain=float(rng.uniform(500.0, 1600.0)),
        phase_along_rows=bool(rng.random() < 0.5),
    )


def _pose(centre: FloatArray, across: FloatArray, down: FloatArray, protocol: SeriesProtocol) -> SlicePose:
    half_width = (protocol.columns - 1) / 2 * protocol.pixel_spacing
    half_height = (protocol.rows - 1) / 2 * protocol.pixel_spacing
    origin = centre - across * half_width - down * half_height
    return SlicePose(
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        row_direction=(float(across[0]), float(across[1]), float(across[2])),
        column_direction=(float(down[0]), float(down[1]), float(down[2])),
        row_spacing=protocol.pixel_spacing,
        column_spacing=protocol.pixel_spacing,
        rows=protocol.rows,
        columns=protocol.columns,
        thickness=protocol.thickness,
    )


def plan_sagittal(anatomy: Anatomy, protocol: SeriesProtocol, rng: np.random.Generator) -> list[SlicePose]:
    """Place sagittal slices along the cervical canal, slightly off the mid-line, as a radiographer does."""
    curve = anatomy.curve
    top, bottom = (curve.to_patient(0.0, 0.0, anatomy.discs[k]) for k in (0, 5))
    down = (bottom - top) / np.linalg.norm(bottom - top)
    left = curve.lateral[curve.index(0.0)] + rng.normal(0.0, 0.02, 3)
    # The stack is turned about the feet–head axis and leaned sideways with the spine, not in its own plane.
    left = left - np.array([0.0, 0.0, 1.0]) * (left[2] + left[0] * down[0] / down[2])
    left /= np.linalg.norm(left)
    across = np.cross([0.0, 0.0, 1.0], left)
    across /= np.linalg.norm(across)
    vertical = np.cross(left, across)
    vertical = vertical if vertical[2] < 0 else -vertical
    middle = curve.to_patient(0.0, rng.normal(-4.0, 6.0), rng.normal(6.0, 7.0)) + left * rng.normal(0.0, 1.2)
    first = -(protocol.slices - 1) / 2
    return [
        _pose(middle + left * (first + k) * protocol.slice_distance, across, vertical, protocol)
        for k in range(protocol.slices)
    ]


def _axial_pose(
    anatomy: Anatomy, at: FloatArray, down: FloatArray, protocol: SeriesProtocol, jitter: FloatArray
) -> SlicePose:
    """An axial slice through `at` whose normal is `down`, its columns along the patient's left."""
    curve_left = anatomy.curve.lateral[anatomy.curve.index(0.0)]
    across = curve_left - down * float(curve_left @ down)
    across /= np.linalg.norm(across)
    back = np.cross(across, down)
    centre = at + across * jitter[0] + back * jitter[1]
    return _pose(centre, across, back, protocol)


def plan_axial(anatomy: Anatomy, protocol: SeriesProtocol, rng: np.random.Generator) -> list[SlicePose]:
    """Place axial slices: one stack from C2 to T1, or one block of 4–6 slices tilted to each disc.

    Returns:
        20–36 poses.
    """
    curve = anatomy.curve
    jitter = rng.normal([0.0, 0.0], [3.0, 8.0])
    poses = []
    if rng.random() < 0.5:
        per_disc = int(rng.integers(4, 7))
        for disc in anatomy.discs[:6]:
            down = curve.tangent[curve.index(disc)] + rng.normal(0.0, 0.04, 3)
            down /= np.linalg.norm(down)
            start = curve.to_patient(0.0, 0.0, disc + rng.normal(0.0, 0.8))
            for k in range(per_disc):
                step = (k - (per_disc - 1) / 2) * protocol.slice_distance
                poses.append(_axial_pose(anatomy, start + down * step, down, protocol, jitter))
        return poses
    down = curve.tangent[curve.index(anatomy.discs[2:4].mean())] + rng.normal(0.0, 0.03, 3)
    down /= np.linalg.norm(down)
    top = curve.to_patient(0.0, 0.0, anatomy.discs[0] - rng.uniform(3.0, 8.0))
    bottom = curve.to_patient(0.0, 0.0, anatomy.discs[5] + rng.uniform(3.0, 8.0))
    length = float((bottom - top) @ down)
    count = int(np.clip(round(length / protocol.slice_distance) + 1, 20, 36))
    for k in range(count):
        depth = (k - (count - 1) / 2) * protocol.slice_distance
        # The stack follows the canal's slant so that the cord stays near the middle of each image.
        poses.append(_axial_pose(anatomy, (top + bottom) / 2 + down * depth, down, protocol, jitter))
    return poses


def _canal_plane(anatomy: Anatomy, pose: SlicePose, depth: float) -> Array:
    """Canal coordinates of a plane's pixels, `depth` mm along its normal, float32 (3, rows × columns)."""
    columns = np.arange(0, pose.columns + _COARSE_PIXELS, _COARSE_PIXELS)
    rows = np.arange(0, pose.rows + _COARSE_PIXELS, _COARSE_PIXELS)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1)
    coarse = anatomy.curve.to_canal(pose.to_patient(grid) + depth * pose.normal).astype(np.float32)
    plane = np.empty((3, pose.rows, pose.columns), dtype=np.float32)
    for k in range(3):
        # Interpolation adds whole rows, so it runs along the first axis; columns are transposed for it.
        along_rows = _interpolate(np.ascontiguousarray(coarse[..., k]), pose.rows)
        plane[k] = _interpolate(np.ascontiguousarray(along_rows.T), pose.columns).T
    return plane.reshape(3, -1)


def _interpolate(knots: Array, count: int) -> Array:
    """Interpolate `count` rows linearly along the first axis, between knots `_COARSE_PIXELS` rows apart.

    BLAS is avoided: its threads spin between slices, and its rounding depends on the processor.
    """
    low, high = knots[:-1], knots[1:]
    rows = np.empty((len(low), _COARSE_PIXELS, *knots.shape[1:]), dtype=np.float32)
    rows[:, 0] = low
    for step in range(1, _COARSE_PIXELS):
        share = step / _COARSE_PIXELS
        # One rounding per knot, as with fused multiply-add.
        first = low * np.float32(1 - share)
        rows[:, step] = first + high.astype(np.float64) * share
    return rows.reshape(-1, *knots.shape[1:])[:count]


def _coil(pose: SlicePose, scanner: Scanner) -> Array:
    """Sensitivity of a posterior spine coil, float32 (rows, columns): falls to the front and to both ends."""
    points = plane_points(pose)
    depth = np.exp((points[..., 1] - 40.0) / scanner.coil_depth)
    length = np.exp(-0.5 * (points[..., 2] / scanner.coil_length) ** 2)
    shading = np.asarray(np.clip(depth, 0.0, 1.5) * length, dtype=np.float32)
    if scanner.artefacts.shading is not None:
        shading *= scanner.artefacts.shading.factor(points)
    return shading


def plane_points(pose: SlicePose) -> FloatArray:
    """Patient points (LPS, mm) of a slice's pixels, float64 (rows, columns, 3)."""
    return pose.to_patient(_pixel_grid(pose.rows, pose.columns))


@lru_cache(maxsize=2)
def _pixel_grid(rows: int, columns: int) -> FloatArray:
    """(column, row) of each pixel, float64 (rows, columns, 2); cached for the slices of a series."""
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).astype(np.float64)
    grid.flags.writeable = False
    return grid


def _through_k_space(
    image: FloatArray, pose: SlicePose, scanner: Scanner, rng: np.random.Generator, own: np.random.Generator
) -> FloatArray:
    """Magnitude image after limited resolution, complex noise and motion between phase-encoding lines.

    Args:
        image: as sampled, (rows, columns).
        pose: of the image to be written; its matrix is larger where k-space is zero-filled.
        scanner: noise, resolution, motion and artefacts.
        rng: draws noise and motion.
        own: draws what artefacts need.
    """
    size = (pose.rows, pose.columns)
    if not scanner.phase_along_rows:
        image, size = np.ascontiguousarray(image.T), size[::-1]
    disturbed = with_ghosts(image, scanner.artefacts, own)
    disturbed = with_amplified_noise(disturbed, scanner.noise, scanner.artefacts, own)
    rows, columns = image.shape
    spectrum = np.fft.fftshift(np.fft.fft2(disturbed, norm="ortho"))
    if scanner.motion > 0.0:
        # Breathing and swallowing: a phase error that oscillates over 6 to 25 lines.
        lines = np.arange(rows)
        phase = scanner.motion * np.sin(2 * np.pi * lines / rng.uniform(6.0, 25.0) + rng.uniform(0, 6.28))
        spectrum *= np.exp(1j * phase)[:, None]
    noise = rng.standard_normal((2, rows, columns))
    noise *= scanner.noise
    taper = _taper(rows, columns, scanner.resolution)
    for channel, added in zip((spectrum.real, spectrum.imag), noise, strict=True):
        channel += added
        channel *= taper
    spectrum = zero_filled(spectrum, *size)
    magnitude = np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum), norm="ortho"))
    return np.asarray(magnitude if scanner.phase_along_rows else magnitude.T)


@lru_cache(maxsize=2)
def _taper(rows: int, columns: int, resolution: float) -> FloatArray:
    """Apodisation of k-space, float64 (rows, columns), 0 beyond the resolution; cached for a series."""
    kept_rows = int(rows * resolution) // 2 * 2
    kept_columns = int(columns * min(1.0, resolution * 1.15)) // 2 * 2
    mask_rows = np.abs(np.arange(rows) - rows // 2) <= kept_rows / 2
    mask_columns = np.abs(np.arange(columns) - columns // 2) <= kept_columns / 2
    mask = mask_rows[:, None] & mask_columns[None, :]
    taper = (
        np.cos(np.linspace(-1, 1, rows) * 0.8)[:, None] * np.cos(np.linspace(-1, 1, columns) * 0.8)[None, :]
    ) * mask
    taper.flags.writeable = False
    return np.asarray(taper)


def acquire(
    anatomy: Anatomy,
    tissues: TissueSource,
    pose: SlicePose,
    scanner: Scanner,
    rng: np.random.Generator,
    own: np.random.Generator,
) -> npt.NDArray[np.uint16]:
    """Acquire one slice: stored values, uint16 (rows, columns), of 12 bits.

    Args:
        anatomy: the patient.
        tissues: signal at points of the patient.
        pose: the slice's plane, spacing and thickness.
        scanner: noise, coil, gain and artefacts.
        rng: draws motion and noise.
        own: draws what artefacts need; an ordinary scanner draws nothing.
    """
    sampled = acquired_pose(pose, scanner.artefacts)
    edge = sampled.column_spacing
    image = np.zeros(sampled.rows * sampled.columns, dtype=np.float32)
    u, v, s = _canal_plane(anatomy, sampled, 0.0)
    surroundings = tissues.surroundings(u, v, s, edge)
    for depth, weight in depths(sampled, scanner.artefacts):
        u, v, s = _canal_plane(anatomy, sampled, depth)
        image += np.float32(weight) * tissues.with_spine(surroundings, u, v, s, edge)
    shaded = image.reshape(sampled.rows, sampled.columns) * _coil(sampled, scanner)
    magnitude = _through_k_space(shaded.astype(np.float64), pose, scanner, rng, own)
    return np.clip(np.rint(magnitude * scanner.gain), 0, 4095).astype(np.uint16)
