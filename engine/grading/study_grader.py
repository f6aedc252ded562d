"""Grades one study after another with an open backend: series that fail are replaced by the next best one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.model_checks import ModelOutputError
from stenosis_trt.engine.dicom.pixel_memory import PixelMemory
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.errors import CannotGrade, DeviceError, PackError
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.grading.read_ahead import (
    ReadStudy,
    attempt_warnings,
    internal_error_problem,
    read_next_candidate,
)
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedStudy, Problem, Stage, StudyResult

GradeFunction = Callable[[LoadedStudy, Pack, Backend], StudyResult]


@contextmanager
def pixel_memory(backend: Backend) -> Iterator[PixelMemory | None]:
    """Shared memory that studies are decoded into; None where the backend has no use for it."""
    if not backend.reading_bytes:
        yield None
        return
    with PixelMemory(backend.reading_bytes) as memory:
        backend.set_reading_memory(memory)
        yield memory


class StudyGrader:
    """Grades studies that were read, with one pack on one backend.

    Args:
        pack: the models, in the precision that `backend` runs.
        backend: where to compute; the caller closes it.
        threads: for the CPU backend that replaces a GPU that fails; None for all cores.
        cpu_if_gpu_fails: grade a study on the CPU where the GPU fails on it.
        grade: the pipeline; tests replace it.

    Attributes:
        gpu_failures: the error of each study that was graded on the CPU instead of the GPU.
    """

    def __init__(
        self,
        pack: Pack,
        backend: Backend,
        threads: int | None = None,
        cpu_if_gpu_fails: bool = False,
        grade: GradeFunction = grade_study,
    ) -> None:
        self._pack, self._backend, self._grade = pack, backend, grade
        self._threads, self._cpu_if_gpu_fails = threads, cpu_if_gpu_fails
        self._cpu: CpuBackend | None = None
        self.gpu_failures: list[str] = []

    def grade(self, reader: DicomReader, read: ReadStudy) -> tuple[StudyResult | None, tuple[Problem, ...]]:
        """Grade one study.

        Args:
            reader: the reader that `read` came from; it reads the next series where one cannot be graded.
            read: the study, or the problems that it could not be read for.

        Returns:
            The result and the problems of single files; or None and the problems, of which the last one says
            why the study could not be graded.

        Raises:
            PackError: the pack became unusable, so that no other study can be graded either.
        """
        return self._on(self._backend, reader, read)

    def _on(
        self, backend: Backend, reader: DicomReader, read: ReadStudy
    ) -> tuple[StudyResult | None, tuple[Problem, ...]]:
        if read.study is None:
            return None, read.problems
        if isinstance(read.upload_error, DeviceError) and backend is self._backend:
            return self._without_gpu(reader, read, read.upload_error)
        try:
            result = self._grade(read.study, self._pack, backend)
            return result, (*read.problems, *attempt_warnings(read))
        except PackError:
            raise
        except DeviceError as error:
            return self._without_gpu(reader, read, error)
        except CannotGrade as error:
            # Another sagittal series may be the one that shows the neck.
            again = read_next_candidate(reader, read, error.stage, error.reason, error.advice)
            return self._on(backend, reader, again)
        except ModelOutputError as error:
            if self._cpu_if_gpu_fails and not isinstance(backend, CpuBackend):
                # Half precision overflows where FP32 may not.
                return self._without_gpu(reader, read, error)
            problem = _of_study(read, error.stage, error.reason, error.advice)
        except Exception as error:  # noqa: BLE001 - one study's fault must not end the batch
            problem = internal_error_problem(read.header, Stage.GRADE, error)
        return None, (*read.problems, problem)

    def _without_gpu(
        self, reader: DicomReader, read: ReadStudy, error: DeviceError | ModelOutputError
    ) -> tuple[StudyResult | None, tuple[Problem, ...]]:
        """Grade on the CPU what the GPU failed on, where that is allowed; else return the problem."""
        if not self._cpu_if_gpu_fails:
            problem = _of_study(read, Stage.GRADE, error.reason, error.advice)
            return None, (*read.problems, problem)
        self.gpu_failures.append(str(error))
        if self._cpu is None:
            self._cpu = CpuBackend(self._pack, self._threads)
        result, problems = self._on(self._cpu, reader, read)
        return (result and replace(result, warnings=(*result.warnings, "graded_on_cpu"))), problems


def _of_study(read: ReadStudy, stage: Stage, reason: str, advice: str) -> Problem:
    header = read.header
    return Problem(header.path, stage, f"cannot grade: {reason}", advice, header.study_uid, of_study=True)
