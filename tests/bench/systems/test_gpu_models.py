"""The networks alone on a GPU, on the stand-ins for the driver and for TensorRT."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import on_the_fake_gpu
from gpu_backend import plans_for
from made_study import hills, made_study
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.systems.gpu_models import GpuModels
from stenosis_trt.bench.systems.inputs import computed_inputs
from stenosis_trt.engine.backends.base import Roi
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.cuda.device import Device
from stenosis_trt.engine.packs.crop import slice_roi


@pytest.mark.slow
@on_the_fake_gpu(with_kernels=True)
def test_the_plans_alone_answer_as_the_cpu_does_for_the_same_inputs() -> None:
    """More inputs than the largest batch, in parts; the second run comes from captured graphs."""
    study = made_study(fill=hills)
    with tempfile.TemporaryDirectory() as folder:
        pack = write_tiny_pack(Path(folder) / "tiny")
        rois = {}
        for name, slices, channels in (
            ("levels", study.sagittal, (0,)),
            ("grader", study.sagittal, (3, 4, 5)),
            ("cord", study.axial, (7,)),
        ):
            pose = slices[channels[len(channels) // 2]].pose
            roi = Roi(channels, slice_roi(pose, pose.centre, pack.models[name].input))
            rois[name] = [roi] * {"levels": 7, "grader": 1, "cord": 2}[name]
        inputs = computed_inputs(study, pack, rois)
        with (
            closing(CpuBackend(pack, threads=1)) as cpu,
            Device() as device,
            GpuModels(device, pack, plans_for(pack, (2, 5))) as models,
        ):
            expected = {name: cpu.infer(name, batch) for name, batch in inputs.batches.items()}
            for _ in range(2):
                models.run(inputs)
                found = models.outputs(inputs)
                assert set(found) == {"levels", "grader", "cord"}
                for name, values in found.items():
                    assert values.shape == expected[name].shape
                    assert np.allclose(values, expected[name], atol=1e-5)
