"""Inputs for checking an export: random noise, and regions of real slices cut by the product's preprocessing.

The regions depend on no network, so any network can be checked on any study: the centre of sagittal slices
for the levels model, places along the mid-line for the grader, the centre of axial slices for the cord model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.engine.backends.base import Float32Array, Roi
from stenosis_trt.engine.backends.stepwise import StepwiseBackend
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.grading.read_ahead import read_ahead
from stenosis_trt.engine.packs.crop import slice_roi
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.engine.records import LoadedSlice, LoadedStudy
from stenosis_trt.export.errors import ExportError

PHANTOM_SEED = 3
"""Differs from the training and validation seeds 1 and 2 of the reference pack."""
_PHANTOMS = 2
_STUDIES = 8
"""Studies of a folder that are used; more do not make the check stricter."""
_INPUTS = 16
"""Inputs per network, spread over the studies."""
_PLACES_MM = (-30.0, 0.0, 30.0)


def slice_inputs(
    studies: Path | None, specs: Mapping[str, InputSpec], backend: StepwiseBackend
) -> dict[str, Float32Array]:
    """Cut inputs for each network from studies.

    Args:
        studies: a folder; None for phantoms.
        specs: input specifications of "levels", "grader" and "cord".
        backend: preprocesses the regions.

    Returns:
        Float32 (N ≤ 16, C, H, W) per network. Networks without input are left out: the cord model if no study
        has axial slices.

    Raises:
        ExportError: no study can be used.
    """
    with _study_folder(studies) as folder, DicomReader() as reader:
        scan = reader.scan([folder])
        loaded = [item.study for item in read_ahead(reader, deque(scan.studies[:_STUDIES])) if item.study]
    if not loaded:
        raise ExportError(
            f"No study in {studies} can be used to check the export.",
            "`stenosis-trt inspect` says why; leave out --check-studies to take phantoms.",
        )
    inputs = {}
    for name, spec in specs.items():
        share = -(-_INPUTS // len(loaded))
        batches = [_crop(name, study, spec, backend, share) for study in loaded]
        whole = np.concatenate(batches)[:_INPUTS]
        if len(whole):
            inputs[name] = whole
    return inputs


def random_inputs(spec: InputSpec, count: int = 4) -> Float32Array:
    """Uniform noise over the window, normalised, float32 (count, C, H, W); the same on every call."""
    shape = (count, spec.channels, spec.height, spec.width)
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    return np.asarray((noise - mean) / std, dtype=np.float32)


@contextmanager
def _study_folder(studies: Path | None) -> Iterator[Path]:
    if studies is not None:
        yield studies
        return
    with TemporaryDirectory(prefix="stenosis-check-") as made:
        write_studies(Path(made) / "phantoms", PhantomOptions(_PHANTOMS, PHANTOM_SEED))
        yield Path(made) / "phantoms"


def _crop(
    name: str, study: LoadedStudy, spec: InputSpec, backend: StepwiseBackend, count: int
) -> Float32Array:
    slices = study.axial if name == "cord" else study.sagittal
    rois = _regions(name, slices, spec, count)
    if not rois:
        return np.empty((0, spec.channels, spec.height, spec.width), dtype=np.float32)
    return backend.preprocess(slices, rois, spec)


def _regions(name: str, slices: Sequence[LoadedSlice], spec: InputSpec, count: int) -> list[Roi]:
    places = _PLACES_MM if name == "grader" else (0.0,)
    middle = len(slices) // 2
    # The grader's regions are taken from the middle outwards: those beside the spine are mostly black.
    order = sorted(range(len(slices)), key=lambda k: abs(k - middle))
    spread = order if name == "grader" else order[:: max(1, len(order) // count)]
    half = spec.channels // 2 if spec.channel_source == "neighbours" else 0
    rois = []
    for index in spread:
        around = range(index - half, index + half + 1) if half else (index,) * spec.channels
        channels = tuple(int(np.clip(k, 0, len(slices) - 1)) for k in around)
        pose = slices[index].pose
        centres = (pose.centre + np.array([0.0, 0.0, place]) for place in places)
        rois += [Roi(channels, slice_roi(pose, centre, spec)) for centre in centres]
    return rois[:count]
