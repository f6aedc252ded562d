"""The problems that `bench.kernels` times: one large batch, and what one study needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.kernels import launches
from stenosis_trt.kernels.descriptors import (
    describe_frames,
    describe_planes,
    preprocess_kernel,
    statistics_work,
)
from stenosis_trt.kernels.layouts import CORD, KEYPOINT, SELECTION, WINDOW
from stenosis_trt.kernels.region_batch import RegionBatch, SliceLayout

FloatArray = npt.NDArray[np.float64]

_SAGITTAL, _SAGITTAL_MM = (384, 384), 0.65
_AXIAL, _AXIAL_MM = (320, 320), 0.55
SAGITTAL_SLICES = 15
LEVEL_COUNT = 6
AXIAL_SLICES = 24
"""What one study brings: sagittal slices, regions of the grader, axial slices that cross the canal."""


@dataclass(frozen=True)
class KernelLaunch:
    """A kernel and its arguments: names of `Work.arrays`, or plain numbers."""

    kernel: str
    grids: launches.LaunchConfig
    arguments: tuple[str | int, ...]


@dataclass(frozen=True)
class KernelWorkload:
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
    launches: tuple[KernelLaunch, ...]
    bytes: int


@dataclass(frozen=True)
class InputBatch:
    """Network inputs to be cut: `sets` of slices, one a channel, and the affine of each input."""

    name: str
    sets: tuple[tuple[SliceLayout, ...], ...]
    affines: tuple[FloatArray, ...]
    spec: InputSpec


def _centred(shape: tuple[int, int], spacing: float, spec: InputSpec) -> FloatArray:
    """Affine of a region of `spec` around the middle of an image of square pixels, `spacing` mm wide."""
    scale = spec.spacing_mm / spacing
    middle = (np.array([shape[1], shape[0]]) - 1) / 2
    half = (np.array([spec.width, spec.height]) - 1) / 2
    return np.column_stack([np.eye(2) * scale, middle - scale * half])


def _slices(count: int, shape: tuple[int, int], first: int = 0) -> list[SliceLayout]:
    size = shape[0] * shape[1]
    return [SliceLayout(first + k * size, shape, shape[1], signed=False) for k in range(count)]


def preprocess_workload(cut: InputBatch, pixels: np.ndarray, dtype: npt.DTypeLike) -> KernelWorkload:
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
    return KernelWorkload(
        cut.name,
        arrays,
        (
            KernelLaunch("order_statistics_upper", statistics.launch, names),
            KernelLaunch("order_statistics_lower", statistics.launch, names),
            KernelLaunch(
                f"{kernel}_{suffix}",
                launches.preprocess_launch(kernel, len(table), spec.size),
                ("arena", "planes", "windows", "out", *spec.size),
            ),
        ),
        2 * used + out.nbytes,
    )


def _cuts(cut: InputBatch) -> RegionBatch:
    slices = list(dict.fromkeys(item for slices in cut.sets for item in slices))
    numbers = {item: number for number, item in enumerate(slices)}
    picks = np.array([[numbers[item] for item in channels] for channels in cut.sets])
    single_slice = cut.spec.channel_source == "slice"
    return RegionBatch(slices, picks, np.array(cut.affines), cut.spec.size, single_slice)


def large_batch(rng: np.random.Generator, dtype: npt.DTypeLike, count: int = 64) -> KernelWorkload:
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
    return preprocess_workload(InputBatch(name, sets, (affine,) * count, spec), pixels, dtype)


def study_input_batches(pack: Pack) -> tuple[InputBatch, InputBatch, InputBatch]:
    """What one study needs for the models of a pack: levels, grader and cord."""
    models = pack.models
    sagittal = _slices(SAGITTAL_SLICES, _SAGITTAL)
    axial = _slices(AXIAL_SLICES, _AXIAL, SAGITTAL_SLICES * _SAGITTAL[0] * _SAGITTAL[1])
    levels, grader, cord = (models[name].input for name in ("levels", "grader", "cord"))
    middle = SAGITTAL_SLICES // 2
    reach = grader.channels // 2
    neighbours = tuple(sagittal[middle - reach : middle - reach + grader.channels])
    seen = neighbours if grader.channel_source == "neighbours" else (sagittal[middle],) * grader.channels
    regions = [_centred(_SAGITTAL, _SAGITTAL_MM, grader) for _ in range(LEVEL_COUNT)]
    for number, affine in enumerate(regions):
        # The levels lie one below the other.
        affine[1, 2] += (number - (LEVEL_COUNT - 1) / 2) * 16.0 / _SAGITTAL_MM
    return (
        InputBatch(
            "levels",
            tuple((item,) * levels.channels for item in sagittal),
            (_centred(_SAGITTAL, _SAGITTAL_MM, levels),) * SAGITTAL_SLICES,
            levels,
        ),
        InputBatch("grader", (seen,) * LEVEL_COUNT, tuple(regions), grader),
        InputBatch(
            "cord",
            tuple((item,) * cord.channels for item in axial),
            (_centred(_AXIAL, _AXIAL_MM, cord),) * AXIAL_SLICES,
            cord,
        ),
    )


def study_pixels(rng: np.random.Generator) -> np.ndarray:
    """The arena of one study: its sagittal slices, then its axial ones."""
    size = SAGITTAL_SLICES * _SAGITTAL[0] * _SAGITTAL[1] + AXIAL_SLICES * _AXIAL[0] * _AXIAL[1]
    return rng.integers(0, 4096, size).astype(np.uint16)


def decode_workloads(rng: np.random.Generator, dtype: npt.DTypeLike) -> tuple[KernelWorkload, KernelWorkload]:
    """Levels and cords of one study from heatmaps."""
    suffix = "f16" if np.dtype(dtype) == np.float16 else "f32"
    affine = np.eye(2, 3) * 4.0
    frames = describe_frames(
        np.array([affine] * max(SAGITTAL_SLICES, AXIAL_SLICES)),
        np.array([np.eye(4)] * max(SAGITTAL_SLICES, AXIAL_SLICES)),
    )
    levels = rng.uniform(0, 1, (SAGITTAL_SLICES, LEVEL_COUNT, 64, 64)).astype(dtype)
    cords = rng.uniform(0, 1, (AXIAL_SLICES, 4, 64, 64)).astype(dtype)
    points = KEYPOINT.itemsize
    return (
        KernelWorkload(
            "levels",
            {
                "heatmaps": levels,
                "frames": frames[:SAGITTAL_SLICES],
                "points": np.zeros((SAGITTAL_SLICES, LEVEL_COUNT), KEYPOINT),
                "support": np.zeros((SAGITTAL_SLICES, LEVEL_COUNT, LEVEL_COUNT), np.float32),
            },
            (
                KernelLaunch(
                    f"decode_keypoints_{suffix}",
                    launches.decode_launch(SAGITTAL_SLICES, LEVEL_COUNT),
                    ("heatmaps", "frames", "points", "support", 64, 64),
                ),
            ),
            levels.nbytes + SAGITTAL_SLICES * LEVEL_COUNT * (points + 4 * LEVEL_COUNT),
        ),
        KernelWorkload(
            "cord",
            {
                "heatmaps": cords,
                "frames": frames[:AXIAL_SLICES],
                "points": np.zeros((AXIAL_SLICES, 4), KEYPOINT),
                "cords": np.zeros(AXIAL_SLICES, CORD),
            },
            (
                KernelLaunch(
                    f"cord_geometry_{suffix}",
                    launches.cord_launch(AXIAL_SLICES),
                    ("heatmaps", "frames", "points", "cords", 64, 64),
                ),
            ),
            cords.nbytes + AXIAL_SLICES * (4 * points + CORD.itemsize),
        ),
    )


def contrast_workload(rng: np.random.Generator, spec: InputSpec, dtype: npt.DTypeLike) -> KernelWorkload:
    """The contrast of the grader's inputs of one study."""
    suffix = "f16" if np.dtype(dtype) == np.float16 else "f32"
    inputs = rng.uniform(-2, 2, (LEVEL_COUNT, spec.channels, *spec.size)).astype(dtype)
    arrays = {
        "inputs": inputs,
        "stds": np.array(spec.std, np.float32),
        "contrasts": np.zeros(LEVEL_COUNT, np.float32),
    }
    pixels = spec.height * spec.width
    arguments = ("inputs", "stds", "contrasts", spec.channels, pixels)
    launch = KernelLaunch(f"input_contrast_{suffix}", launches.contrast_launch(LEVEL_COUNT), arguments)
    return KernelWorkload("contrast", arrays, (launch,), inputs.nbytes + arrays["contrasts"].nbytes)
