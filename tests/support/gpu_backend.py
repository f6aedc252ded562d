"""The GPU backend with a tiny pack, in a process that `fake_gpu` started."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.base import Roi
from stenosis_trt.engine.backends.gpu.choice import choose_plans
from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.backends.tensorrt import TensorRtBackend
from stenosis_trt.engine.packs.crop import slice_roi
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.build import BuildRequest, build_plans
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.engine.support.hardware import query_nvidia_driver
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.trt.flavours import BuildSettings


def plans_for(pack: Pack, batches: tuple[int, ...]) -> ChosenPlans:
    """A pack's plans, built for these batches."""
    request = BuildRequest(flavour="tensorrt", settings=BuildSettings(batches=batches))
    for outcome in build_plans(pack, request, query_nvidia_driver(), show_progress):
        assert outcome.plan is not None, outcome.reason
    return choose_plans(pack, "fp32", GpuOptions(flavour="tensorrt"))


@contextmanager
def tiny_backend(batches: tuple[int, ...], options: GpuOptions | None = None) -> Iterator[TensorRtBackend]:
    """The backend, with plans for these batches."""
    with tempfile.TemporaryDirectory() as folder:
        pack = write_tiny_pack(Path(folder) / "tiny")
        with closing(TensorRtBackend(pack, plans_for(pack, batches), options)) as backend:
            yield backend


def grading(study: LoadedStudy, pack: Pack) -> list[Roi]:
    """A region in the middle of the sagittal slices, for the grader."""
    pose = study.sagittal[4].pose
    return [Roi((3, 4, 5), slice_roi(pose, pose.centre, pack.models["grader"].input))]
