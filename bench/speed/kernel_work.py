"""The problems that `bench.kernels` times: one large batch, and what one study needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.kernels import launches
from stenosis_trt.kernels.cuts import Cuts, Slice
from stenosis_trt.kernels.descriptors import (
    describe_frames,
    describe_planes,
    preprocess_kernel,
    statistics_work,
)
from stenosis_trt.kernels.layouts import CORD, KEYPOINT, LEVEL_CHOICE, SELECTION, WINDOW

FloatArray = npt.NDArray[np.float64]

_SAGITTAL, _SAGITTAL_MM = (384, 384), 0.65
_AXIAL, _AXIAL_MM = (320, 320), 0.55
SLICES = 15
LEVELS = 6
CORDS = 24
"""What one study brings: sagittal slices, regions of the grader, axial slices that cross the canal."""


@dataclass(frozen=True)
class Launch:
    """A kernel and its arguments: names of `Work.arrays`, or plain numbers."""

    kernel: str
    grids: launches.Grids
    arguments: tuple[str | int, ...]


@dataclass(frozen=True)
class Work:
    """Launches that belong together.

    Attributes:
        name: what it is called in the results.
        arrays: what kernels read and write, by name.
        launches: in order.
        bytes: that must move between device memory and the chip at least: each input read and each output
            written once.
    """

    name: str
    arrays: dict[str, np.ndarray]
    launches: tuple[Launch, ...]
    bytes: int


@dataclass(frozen=True)
class Cut:
    """Network inputs to be cut: `sets` of slices, one a channel, and the affine of each input."""

    name: str
    sets: tuple[tuple[Slice, ...], ...]
    affines: tuple[FloatArray, ...]
    spec: InputSpec


def _centred(shape: tuple[int, int], spacing: float, spec: InputSpec) -> FloatArray:
    """Affine of a region of `spec` around the middle of an image of square pixels, `spacing` mm wide."""
    scale = spec.spacing_mm / spacing
    middle = (np.array([shape[1], shape[0]]) - 1) / 2
    half = (np.array([spec.width, spec.height]) - 1) / 2
    return np.column_stack([np.eye(2) * scale, middle - scale * half])


def _slices(count: int, shape: tuple[int, int], first: int = 0) -> list[Slice]:
    size = shape[0] * shape[1]
    return [Slice(first + k * size, shape, shape[1], signed=False) for k in range(count)]


def cut_work(cut: Cut, pixels: np.ndarray, dtype: npt.DTypeLike) -> Work:
    """Windows and inputs of `cut` from the slices in `pixels`, the arena."""
    spec, suffix = cut.spec, "f16" if np.dtype(dtype) == np.float16 else "f32"
    cuts = _cuts(cut)
    statistics = statistics_work(cuts, spec.window_percentiles)
    table = describe_planes(cuts, spec.mean, spec.std)
    kernel = preprocess_kernel(table, cuts)
    out = np.zeros((len(cut.sets), spec.channels, *spec.size), dtype)
    arrays = {
        "arena": pixels,
        "regions": statistics.regions,
        "requests": statistics.requests,
        "selections": np.zeros(len(cut.sets), SELECTION),
        "windows": np.zeros(len(cut.sets), WINDOW),
        "planes": table,
        "out": out,
    }
    names = ("arena", "regions", "requests", "selections", "windows")
    used = int((statistics.regions["rows"].astype(np.int64) * statistics.regions["columns"]).sum())
    return Work(
        cut.name,
        arrays,
        (
            Launch("order_statistics_upper", statistics.grids, names),
            Launch("order_statistics_lower", statistics.grids, names),
            Launch(
                f"{kernel}_{suffix}",
                launches.preprocess_grids(kernel, len(table), spec.size),
                ("arena", "planes", "windows", "out", *spec.size),
            ),
        ),
        2 * used + out.nbytes,
    )


def _cuts(cut: Cut) -> Cuts:
    slices = list(dict.fromkeys(item for slices in cut.sets for item in slices))
    numbers = {item: number for number, item in enumerate(slices)}
    picks = np.array([[numbers[item] for item in channels] for channels in cut.sets])
    one_slice = cut.spec.channel_source == "slice"
    return Cuts(slices, picks, np.array(cut.affines), cut.spec.size, one_slice)


def large_batch(rng: np.random.Generator, dtype: npt.DTypeLike, count: int = 64) -> Work:
    """`count` slices of 512² to three channels of 456², the whole slice each."""
    shape = (512, 512)
    spec = InputSpec(
        height=456,
        width=456,
        spacing_mm=512 / 456,
        channels=3,
        channel_source="slice",
        plane="sagittal",
        window_percentiles=(1.0, 99.5),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        centre_offset_mm=(0.0, 0.0),
    )
    pixels = rng.integers(0, 4096, count * shape[0] * shape[1]).astype(np.uint16)
    sets = tuple((item,) * 3 for item in _slices(count, shape))
    affine = _centred(shape, 1.0, spec)
    name = f"{count} slices of 512² to 456²"
    return cut_work(Cut(name, sets, (affine,) * count, spec), pixels, dtype)


def study_cuts(pack: Pack) -> tuple[Cut, Cut, Cut]:
    """What one study needs for the models of a pack: levels, grader and cord."""
    models = pack.models
    sagittal = _slices(SLICES, _SAGITTAL)
    axial = _slices(CORDS, _AXIAL, SLICES * _SAGITTAL[0] * _SAGITTAL[1])
    levels, grader, cord = (models[name].input for name in ("levels", "grader", "cord"))
    middle = SLICES // 2
    reach = grader.channels // 2
    neighbours = tuple(sagittal[middle - reach : middle - reach + grader.channels])
    seen = neighbours if grader.channel_source == "neighbours" else (sagittal[middle],) * grader.channels
    regions = [_centred(_SAGITTAL, _SAGITTAL_MM, grader) for _ in range(LEVELS)]
    for number, affine in enumerate(regions):
        # The levels lie one below the other.
        affine[1, 2] += (number - (LEVELS - 1) / 2) * 16.0 / _SAGITTAL_MM
    return (
        Cut(
            "levels",
            tuple((item,) * levels.channels for item in sagittal),
            (_centred(_SAGITTAL, _SAGITTAL_MM, levels),) * SLICES,
            levels,
        ),
        Cut("grader", (seen,) * LEVELS, tuple(regions), grader),
        Cut(
            "cord",
            tuple((item,) * cord.channels for item in axial),
            (_centred(_AXIAL, _AXIAL_MM, cord),) * CORDS,
            cord,
        ),
    )


def study_pixels(rng: np.random.Generator) -> np.ndarray:
    """The arena of one study: its sagittal slices, then its axial ones."""
    size = SLICES * _SAGITTAL[0] * _SAGITTAL[1] + CORDS * _AXIAL[0] * _AXIAL[1]
    return rng.integers(0, 4096, size).astype(np.uint16)


def decode_work(rng: np.random.Generator, dtype: npt.DTypeLike) -> tuple[Work, Work, Work]:
    """Levels and cords of one study from heatmaps, and the slice of maximal compression of each level."""
    suffix = "f16" if np.dtype(dtype) == np.float16 else "f32"
    affine = np.eye(2, 3) * 4.0
    frames = describe_frames(
        np.array([affine] * max(SLICES, CORDS)), np.array([np.eye(4)] * max(SLICES, CORDS))
    )
    limits = launches.describe_limits(0.3, 60.0, (1.5, 12.0), (5.0, 20.0))
    levels = rng.uniform(0, 1, (SLICES, LEVELS, 64, 64)).astype(dtype)
    cords = rng.uniform(0, 1, (CORDS, 4, 64, 64)).astype(dtype)
    arcs = np.linspace(-10, 100, CORDS).astype(np.float32)
    points = KEYPOINT.itemsize
    return (
        Work(
            "levels",
            {
                "heatmaps": levels,
                "frames": frames[:SLICES],
                "points": np.zeros((SLICES, LEVELS), KEYPOINT),
                "support": np.zeros((SLICES, LEVELS, LEVELS), np.float32),
            },
            (
                Launch(
                    f"decode_keypoints_{suffix}",
                    launches.decode_grids(SLICES, LEVELS),
                    ("heatmaps", "frames", "points", "support", 64, 64),
                ),
            ),
            levels.nbytes + SLICES * LEVELS * (points + 4 * LEVELS),
        ),
        Work(
            "cord",
            {
                "heatmaps": cords,
                "frames": frames[:CORDS],
                "limits": limits[None],
                "points": np.zeros((CORDS, 4), KEYPOINT),
                "cords": np.zeros(CORDS, CORD),
            },
            (
                Launch(
                    f"cord_geometry_{suffix}",
                    launches.cord_grids(CORDS),
                    ("heatmaps", "frames", "limits", "points", "cords", 64, 64),
                ),
            ),
            cords.nbytes + CORDS * (4 * points + CORD.itemsize),
        ),
        Work(
            "compression",
            {
                "cords": np.zeros(CORDS, CORD),
                "arcs": arcs,
                "level_arcs": np.linspace(0, 90, LEVELS).astype(np.float32),
                "reaches": np.full(LEVELS, 6.0, np.float32),
                "choices": np.zeros(LEVELS, LEVEL_CHOICE),
            },
            (
                Launch(
                    "maximal_compression",
                    launches.level_grids(LEVELS),
                    ("cords", "arcs", CORDS, "level_arcs", "reaches", "choices"),
                ),
            ),
            CORDS * (CORD.itemsize + 4) + LEVELS * LEVEL_CHOICE.itemsize,
        ),
    )


def contrast_work(rng: np.random.Generator, spec: InputSpec, dtype: npt.DTypeLike) -> Work:
    """The contrast of the grader's inputs of one study."""
    suffix = "f16" if np.dtype(dtype) == np.float16 else "f32"
    inputs = rng.uniform(-2, 2, (LEVELS, spec.channels, *spec.size)).astype(dtype)
    arrays = {
        "inputs": inputs,
        "deviations": np.array(spec.std, np.float32),
        "contrasts": np.zeros(LEVELS, np.float32),
    }
    pixels = spec.height * spec.width
    arguments = ("inputs", "deviations", "contrasts", spec.channels, pixels)
    launch = Launch(f"input_contrast_{suffix}", launches.contrast_grids(LEVELS), arguments)
    return Work("contrast", arrays, (launch,), inputs.nbytes + arrays["contrasts"].nbytes)
