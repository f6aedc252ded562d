"""Workloads of the kernel benchmark: one large batch, and the kernels of one study."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.kernels import launches
from stenosis_trt.kernels.descriptors import (
    describe_frames,
    describe_planes,
    preprocess_kernel,
    statistics_work,
)
from stenosis_trt.kernels.layouts import CORD, DIRECTION, KEYPOINT, SELECTION, WINDOW
from stenosis_trt.kernels.region_batch import RegionBatch, SliceLayout
from stenosis_trt.kernels.table import PEAKS

_SAGITTAL, _SAGITTAL_MM = (384, 384), 0.65
_AXIAL, _AXIAL_MM = (320, 320), 0.55
SAGITTAL_SLICES = 15
LEVEL_COUNT = 6
AXIAL_SLICES = 24
"""Size of one study: sagittal slices, grader regions, and axial slices that cross the canal."""


@dataclass(frozen=True)
class KernelLaunch:
    """A kernel with its grids and arguments: names of `KernelWorkload.arrays`, or numbers."""

    kernel: str
    grids: launches.LaunchConfig
    arguments: tuple[str | int, ...]


@dataclass(frozen=True)
class KernelWorkload:
    """A sequence of kernel launches.

    Attributes:
        name: in the results.
        arrays: input and output arrays by name.
        launches: in order.
        moved_bytes: minimum traffic of device memory: each input read and each output written once.
    """

    name: str
    arrays: dict[str, np.ndarray]
    launches: tuple[KernelLaunch, ...]
    moved_bytes: int


@dataclass(frozen=True)
class InputBatch:
    """Inputs of one model: the slices of each input's channels, each input's affine, and the input spec."""

    name: str
    slices: tuple[tuple[SliceLayout, ...], ...]
    affines: tuple[FloatArray, ...]
    spec: InputSpec


def _centred(shape: tuple[int, int], spacing: float, spec: InputSpec) -> FloatArray:
    """Affine (2, 3) of a region of `spec` at the centre of an image with square pixels of `spacing` mm."""
    scale = spec.spacing_mm / spacing
    middle = (np.array([shape[1], shape[0]]) - 1) / 2
    half = (np.array([spec.width, spec.height]) - 1) / 2
    return np.column_stack([np.eye(2) * scale, middle - scale * half])


def _slices(count: int, shape: tuple[int, int], first: int = 0) -> list[SliceLayout]:
    size = shape[0] * shape[1]
    return [SliceLayout(first + k * size, shape, shape[1], signed=False) for k in range(count)]


def preprocess_workload(batch: InputBatch, pixels: np.ndarray, dtype: npt.DTypeLike) -> KernelWorkload:
    """Compute windows and inputs of `batch` from the slices in `pixels`, the arena."""
    spec, suffix = batch.spec, "f16" if np.dtype(dtype) == np.float16 else "f32"
    regions = _region_batch(batch)
    statistics = statistics_work(regions, spec.window_percentiles)
    table = describe_planes(regions, spec.mean, spec.std)
    kernel = preprocess_kernel(table, regions)
    out = np.zeros((len(batch.slices), spec.channels, *spec.size), dtype)
    arrays = {
        "arena": pixels,
        "regions": statistics.regions,
        "requests": statistics.requests,
        "selections": np.zeros(len(batch.slices), SELECTION),
        "windows": np.zeros(len(batch.slices), WINDOW),
        "planes": table,
        "out": out,
    }
    names = ("arena", "regions", "requests", "selections", "windows")
    used = int((statistics.regions["rows"].astype(np.int64) * statistics.regions["columns"]).sum())
    return KernelWorkload(
        batch.name,
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


def _region_batch(batch: InputBatch) -> RegionBatch:
    slices = list(dict.fromkeys(item for slices in batch.slices for item in slices))
    numbers = {item: number for number, item in enumerate(slices)}
    indices = np.array([[numbers[item] for item in channels] for channels in batch.slices])
    single_slice = batch.spec.channel_source == "slice"
    return RegionBatch(slices, indices, np.array(batch.affines), batch.spec.size, single_slice)


def large_batch(rng: np.random.Generator, dtype: npt.DTypeLike, count: int = 64) -> KernelWorkload:
    """Resample `count` whole slices of 512² to three channels of 456²."""
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
    """Inputs of one study for the models of a pack: levels, grader and cord."""
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
        # Levels are 16 mm apart.
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
    """Arena of one study: its sagittal, then its axial slices, uint16 (N,)."""
    size = SAGITTAL_SLICES * _SAGITTAL[0] * _SAGITTAL[1] + AXIAL_SLICES * _AXIAL[0] * _AXIAL[1]
    return rng.integers(0, 4096, size).astype(np.uint16)


def decode_workloads(rng: np.random.Generator, dtype: npt.DTypeLike) -> tuple[KernelWorkload, KernelWorkload]:
    """Decode the levels and the cords of one study from heatmaps."""
    suffix = "f16" if np.dtype(dtype) == np.float16 else "f32"
    slices, axial = SAGITTAL_SLICES, AXIAL_SLICES
    count = max(slices, axial)
    frames = describe_frames(np.array([np.eye(2, 3) * 4.0] * count), np.array([np.eye(4)] * count))
    levels = {
        "heatmaps": rng.uniform(0, 1, (slices, LEVEL_COUNT, 64, 64)).astype(dtype),
        "frames": frames[:slices],
        "points": np.zeros((slices, LEVEL_COUNT, PEAKS), KEYPOINT),
        "support": np.zeros((slices, LEVEL_COUNT, LEVEL_COUNT), np.float32),
    }
    cords = {
        "heatmaps": rng.uniform(0, 1, (axial, 4, 64, 64)).astype(dtype),
        "frames": frames[:axial],
        "directions": np.array([([0.0, 0.0, -1.0],)] * axial, DIRECTION),
        "points": np.zeros((axial, 4), KEYPOINT),
        "cords": np.zeros(axial, CORD),
    }
    decode = KernelLaunch(
        f"decode_peaks_{suffix}", launches.decode_launch(slices, LEVEL_COUNT), (*levels, 64, 64)
    )
    measure = KernelLaunch(f"cord_geometry_{suffix}", launches.cord_launch(axial), (*cords, 64, 64))

    def moved(arrays: dict[str, np.ndarray], *outputs: str) -> int:
        return sum(arrays[name].nbytes for name in ("heatmaps", *outputs))

    return (
        KernelWorkload("levels", levels, (decode,), moved(levels, "points", "support")),
        KernelWorkload("cord", cords, (measure,), moved(cords, "points", "cords")),
    )


def contrast_workload(rng: np.random.Generator, spec: InputSpec, dtype: npt.DTypeLike) -> KernelWorkload:
    """Compute the contrast of the grader's inputs of one study."""
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
