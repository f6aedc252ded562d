"""Evaluate a pack on out-of-distribution images.

    python -m stenosis_trt.bench.accuracy.out_of_distribution ../shared/data --out figures.json

Two tests. First, volumes that are no T2 images of the cervical spine are resliced to the two clinical
protocols, with headers of a cervical T2 study, whole and in part, straight and tilted; the pack must not
grade them. Second, the grader alone is given regions of these volumes, of sagittal slices of a head, and of
noise, as if levels had been found there: which share does it reject, and for which share is it confident of
a grade?
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from stenosis_trt.bench.accuracy.acquired_requests import tilted
from stenosis_trt.bench.accuracy.real_anatomy import grade_acquired
from stenosis_trt.bench.semisynthetic.acquired import AcquiredStudy, acquire_volume
from stenosis_trt.bench.semisynthetic.canal import NiftiVolume
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.grading.pipeline import grade_probabilities
from stenosis_trt.engine.packs.crop import channel_slices, slice_roi
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.packs.pack import open_pack
from stenosis_trt.kernels.reference import RegionSource, preprocess_region, region_window

OOD_VOLUMES = {
    "lumbar spine": "volumes/lumbar_negative/t2_lumbar.nii.gz",
    "lumbar spine, one region": "volumes/tptbox_lumbar_masks/sub-mri_label-6_T2w.nii.gz",
    "cervical T2*": "volumes/axial_T2star/t2s_uncropped.nii.gz",
    "cervical gradient echo": "volumes/axial_nonT2/mt0.nii.gz",
}
OOD_HEAD_STUDY = "dicom/siemens_supine_HFS"

_PARTS = ((0.0, 1.0), (0.0, 0.7), (0.3, 1.0))
"""Lowest and highest height of the images, as shares of the volume's."""

_SHORTEST_MM = 105.0
"""Parts below this would be refused for their field of view, and are left out."""

_PITCHES_DEGREES = (-12.0, 0.0, 12.0)

_REGIONS = 40
_SEED = 9
_MIN_CONTRAST = 0.05
"""Standard deviation in the window below which the pipeline warns of an empty region."""
_CONFIDENT = 0.9

Pixels = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class OutOfDistributionResult:
    """Results for one kind of image.

    Attributes:
        kind: description of the images.
        studies: number of studies that were made of the volume; 0 if the images are no study.
        graded: how many of them were graded.
        regions: number of regions given to the grader alone.
        refused: share of the regions without a grade.
        sure: share of the regions with a grade of probability 0.9 or more.
    """

    kind: str
    studies: int
    graded: int
    regions: int
    refused: float
    sure: float


def _studies(name: str, volume: NiftiVolume) -> Iterator[AcquiredStudy]:
    """Yield the volume and its parts, straight and tilted, each as a study."""
    low, high = (float(corner[2]) for corner in volume.bounds)
    for first, last in _PARTS:
        if (first, last) != _PARTS[0] and (last - first) * (high - low) < _SHORTEST_MM:
            continue
        between = (low + first * (high - low), low + last * (high - low))
        for pitch in _PITCHES_DEGREES:
            study = acquire_volume(f"{name}, {first:g} to {last:g}, {pitch:g} degrees", volume, between)
            yield tilted(study, pitch, np.mean(volume.bounds, axis=0))


def _is_graded(study: AcquiredStudy, pack: Path | None) -> bool:
    with TemporaryDirectory() as folder:
        return grade_acquired(study, pack, Path(folder)) is not None


def _slices(study: AcquiredStudy) -> list[tuple[SlicePose, Pixels]]:
    return [(pose, study.slice_pixels(study.sagittal, k)) for k, pose in enumerate(study.sagittal.poses)]


def _head(folder: Path) -> list[tuple[SlicePose, Pixels]]:
    """Slices of the sagittal series of a head."""
    with DicomReader() as reader:
        series = next(
            series
            for study in reader.scan([folder]).studies
            for series in study.series
            if series.frames[0].pose is not None and series.frames[0].pose.orientation == "sagittal"
        )
        slices, _ = reader.load(series.frames)
    return [(item.pose, np.clip(item.stored, 0, None).astype(np.uint16)) for item in slices]


def _noise(rng: np.random.Generator) -> list[tuple[SlicePose, Pixels]]:
    pose = SlicePose((0.0, -80.0, 80.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0), 0.6, 0.6, 256, 256, 3.0)
    return [(pose, rng.integers(0, 4096, (256, 256)).astype(np.uint16)) for _ in range(3)]


def _regions(
    slices: list[tuple[SlicePose, Pixels]], spec: InputSpec, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.floating]]:
    """Yield random regions of the grader's size from the middle of the slices, without empty ones."""
    found = 0
    for _ in range(50 * _REGIONS):
        middle = int(rng.integers(len(slices)))
        pose, image = slices[middle]
        row, column = rng.uniform(0.2, 0.8, 2) * (pose.rows, pose.columns)
        affine = slice_roi(pose, pose.to_patient([column, row]), spec)
        images = [RegionSource(slices[k][1]) for k in channel_slices(middle, len(slices), spec)]
        size = (spec.height, spec.width)
        window = region_window(images, affine, size, spec.window_percentiles)
        region = preprocess_region(images, affine, size, window, (spec.mean, spec.std))
        contrast = float((region * np.asarray(spec.std)[:, None, None]).std())
        if image[int(row), int(column)] > 0 and contrast >= _MIN_CONTRAST:
            found += 1
            yield region
        if found == _REGIONS:
            return


def evaluate_out_of_distribution(data: Path, pack_path: Path | None) -> list[OutOfDistributionResult]:
    """Evaluate a pack on all out-of-distribution images.

    Args:
        data: folder with `volumes` and `dicom`.
        pack_path: None for the reference pack.

    Raises:
        OSError: a volume is missing.
        PackError: the pack cannot be used.
    """
    pack = open_pack(pack_path)
    rng = np.random.default_rng(_SEED)
    kinds: list[tuple[str, list[bool], list[tuple[SlicePose, Pixels]]]] = []
    for kind, file in OOD_VOLUMES.items():
        volume = NiftiVolume(data / file)
        graded = [_is_graded(study, pack_path) for study in _studies(kind, volume)]
        kinds.append((kind, graded, _slices(acquire_volume(kind, volume))))
    kinds += [("head", [], _head(data / OOD_HEAD_STUDY)), ("noise", [], _noise(rng))]
    spec, output = pack.models["grader"].input, pack.models["grader"].output
    found = []
    with closing(CpuBackend(pack)) as backend:
        for kind, graded, slices in kinds:
            batch = np.stack(list(_regions(slices, spec, rng))).astype(np.float32)
            classes = np.concatenate([backend.infer("grader", item[None]) for item in batch])
            regions = [grade_probabilities(row, output)[0] for row in classes]
            refused = float(np.mean([grades is None for grades in regions]))
            sure = float(np.mean([grades is not None and max(grades) >= _CONFIDENT for grades in regions]))
            found.append(OutOfDistributionResult(kind, len(graded), sum(graded), len(batch), refused, sure))
    return found


def main() -> None:
    """Evaluate a pack, print the results, and with `--out` write them as JSON."""
    parser = argparse.ArgumentParser(description="Evaluate a pack on out-of-distribution images.")
    parser.add_argument("data", type=Path, help="folder with volumes and dicom")
    parser.add_argument("--pack", type=Path, help="default: the reference pack")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    found = evaluate_out_of_distribution(arguments.data, arguments.pack)
    for item in found:
        print(
            f"{item.kind:26} {item.graded} of {item.studies} studies graded; "
            f"grader alone, {item.regions} regions:"
            f" {item.refused:.0%} refused, {item.sure:.0%} sure of a grade"
        )
    if arguments.out:
        arguments.out.write_text(
            json.dumps([asdict(item) for item in found], indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
