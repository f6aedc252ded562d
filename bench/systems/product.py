"""The product as system under test: its own `Grader`, cut in three ways.

MLPerf leaves preprocessing out of its clock, which is the cut `models`. `device` starts with raw pixels in
memory, `whole` with files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.inputs import MODELS, StudyInputs, computed_inputs, recorded_inputs
from stenosis_trt.engine.api import Grader
from stenosis_trt.engine.backends.base import Backend, Float32Array, Pending
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.stepwise import StepwiseBackend
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.errors import InputError
from stenosis_trt.engine.records import LoadedStudy, StudyHeader, StudyResult
from stenosis_trt.engine.reports.formats import check_packages, study_format
from stenosis_trt.engine.reports.images import read_images, referenced_frames
from stenosis_trt.engine.reports.study_report import CannotReport, ReportOptions, StudyReport
from stenosis_trt.engine.runs.reports import provenance_of_run
from stenosis_trt.engine.support.closeable import Closeable

REPORT = "sr"
"""Format of the report that ends the cut `whole`."""


class Product(Closeable):
    """The product, opened once. Use it as a context manager.

    Calls take one study after the other, as `Grader` does; it is not thread-safe.

    Args:
        context: pack, device, precision and threads.

    Attributes:
        grader: the product's own.
        backend: "tensorrt" or "onnxruntime".
        precision: the precision that the models run in.
        model_runs_by: what runs each model.

    Raises:
        PackError, DeviceError: the pack or the device cannot be used.
        OutputError: what the report needs is not installed.
    """

    def __init__(self, context: BenchContext) -> None:
        check_packages((REPORT,))
        self._stack = ExitStack()
        self.grader = self._stack.enter_context(
            Grader(context.pack.path, context.device, context.precision, threads=context.threads)
        )
        self.backend, self.precision = self.grader.backend, self.grader.precision
        self.model_runs_by: Mapping[str, str] = _model_runs_by(self.grader.opened_backend)
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._provenance = provenance_of_run(context.pack, self.backend, self.precision, started)
        self._limits = ReadLimits()
        self._run_models: Callable[[StudyInputs], None] | None = None

    def close(self) -> None:
        """Close the models, and end the processes that read files. Further calls do nothing."""
        self._stack.close()

    def load(self, folder: Path) -> LoadedStudy:
        """Read a study without its models: headers, choice of series, pixels.

        Raises:
            CannotGrade, InputError: the folder does not hold one study that can be graded.
        """
        return self.grader.read(folder)

    def inputs(self, study: LoadedStudy) -> StudyInputs:
        """Grade a study and return the inputs that its networks were run on.

        On a GPU they are computed again on the host, for the regions that were requested.
        """
        backend = self.grader.opened_backend
        if isinstance(backend, StepwiseBackend):
            return recorded_inputs(backend, partial(self.grader.grade_read, study))
        from stenosis_trt.bench.speed.suite.device_time import requested_regions
        from stenosis_trt.engine.backends.tensorrt import TensorRtBackend

        assert isinstance(backend, TensorRtBackend)
        return computed_inputs(study, backend.pack, requested_regions(study, backend).rois)

    def models(self, inputs: StudyInputs) -> None:
        """Run the networks alone on the inputs of a study, and wait for their outputs.

        On a GPU the inputs are copied to the device by the first call for a study, and stay there.
        """
        if self._run_models is None:
            self._run_models = self._open_models()
        self._run_models(inputs)

    def device(self, study: LoadedStudy) -> StudyResult:
        """Grade a study whose raw pixels are in memory: to grades and ratios on the host."""
        return self.grader.grade_read(study)

    def whole(self, folder: Path) -> StudyResult:
        """Grade the files of a study, and make its DICOM SR in memory.

        Raises:
            CannotGrade, InputError: the study cannot be graded, or its report cannot be made.
        """
        result, header = self.grader.grade_with_header(folder)
        self.report(result, header)
        return result

    def report(self, result: StudyResult, header: StudyHeader) -> dict[str, bytes]:
        """Return the files of a study's DICOM SR by name.

        Raises:
            InputError: the study cannot have one.
        """
        try:
            images = read_images(result, referenced_frames(header, result), self._limits)
            report = StudyReport(1, "study", "", result, self._provenance, images)
            return study_format(REPORT)(report, ReportOptions())
        except CannotReport as error:
            raise InputError(error.reason, error.advice) from error

    def _open_models(self) -> Callable[[StudyInputs], None]:
        backend = self.grader.opened_backend
        if isinstance(backend, StepwiseBackend):
            return partial(_infer_all, backend)
        from stenosis_trt.bench.systems.gpu_models import GpuModels
        from stenosis_trt.engine.backends.gpu.choice import choose_plans
        from stenosis_trt.engine.backends.gpu.options import GpuOptions
        from stenosis_trt.engine.backends.tensorrt import TensorRtBackend

        assert isinstance(backend, TensorRtBackend)
        chosen = choose_plans(backend.pack, self.precision, GpuOptions())
        return self._stack.enter_context(GpuModels(backend.device, backend.pack, chosen)).run


def _model_runs_by(backend: Backend) -> dict[str, str]:
    """What computes each model, in words."""
    if isinstance(backend, CpuBackend):
        return {name: str(choice.arithmetic) for name, choice in backend.choices.items()}
    return dict.fromkeys(MODELS, backend.name)


def _infer_all(backend: StepwiseBackend, inputs: StudyInputs) -> None:
    """Run the networks as the pipeline does: the levels first, then grader and cord at the same time."""
    for names in (("levels",), ("grader", "cord")):
        running = [
            part
            for name in names
            if name in inputs.batches
            for part in _submitted(backend, name, inputs.batches[name])
        ]
        for part in running:
            part.result()


def _submitted(backend: StepwiseBackend, model: str, batch: Float32Array) -> Iterator[Pending[Float32Array]]:
    inference = backend.inference(model, len(batch))
    for first in range(0, len(batch), inference.part):
        yield inference.submit(batch[first : first + inference.part])
