"""The public Python API: `Grader` for studies in a program, `grade` for a folder of results.

Both are exported by `stenosis_trt.engine`, with the records and errors that they return and raise.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from stenosis_trt.engine.backends.base import Backend
from stenosis_trt.engine.backends.gpu.options import GpuOptions
from stenosis_trt.engine.backends.selection import announce, open_backend
from stenosis_trt.engine.dicom.find import check_paths
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.reader import DicomReader, Scan
from stenosis_trt.engine.errors import CannotGrade, InputError
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.grading.read_ahead import read_ahead, read_study
from stenosis_trt.engine.grading.study_grader import StudyGrader, pixel_memory
from stenosis_trt.engine.packs.pack import open_pack
from stenosis_trt.engine.packs.signature import TrustedKeys
from stenosis_trt.engine.records import LoadedStudy, Problem, StudyHeader, StudyResult
from stenosis_trt.engine.reports.formats import DEFAULT_FORMATS, parse_formats
from stenosis_trt.engine.reports.study_report import ReportOptions
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.engine.runs.start import start_run
from stenosis_trt.engine.runs.summary import RunSummary
from stenosis_trt.engine.runs.table_files import CsvFormat
from stenosis_trt.engine.support.closeable import Closeable

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class UngradedStudy:
    """A study that could not be graded, or a file that may have held an image and could not be read.

    Attributes:
        study_uid: Study Instance UID; "" where it is unknown, as for a file whose header cannot be read.
        path: folder of the study, or the file.
        problems: everything that went wrong, in order; the last one says why there is no result.
    """

    study_uid: str
    path: str
    problems: tuple[Problem, ...]

    @property
    def reason(self) -> str:
        """Why there is no result, as one sentence."""
        return self.problems[-1].reason

    @property
    def advice(self) -> str:
        """What to do about it, as one sentence."""
        return self.problems[-1].advice


class Grader(Closeable):
    """Grades studies with models that are opened once. Use it as a context manager, or call `close`.

    One call or stream runs at a time; another one raises RuntimeError. A Grader is not thread-safe.

    Args:
        pack: folder or zip of a model pack; "reference" for the pack that comes with the package.
        device: "auto", "cpu" or "gpu". "auto" takes the CPU where the GPU cannot be used, prints why, and
            keeps the reason in `backend_reason`; "gpu" raises DeviceError instead.
        precision: "fp32", "fp16", "int8", "bf16" (on a CPU) or "auto": on a GPU FP16, where the pack holds
            it, it passed the accuracy gate and plans exist; on a CPU the fastest that passed it on this
            machine, for each model, once `stenosis-trt build --device cpu` measured it; FP32 otherwise.
        threads: cores that the CPU backend uses; None for all.
        keep_identifiers: keep the PatientID in results; otherwise their `patient_id` is "".
        cpu_if_gpu_fails: grade a study on the CPU where the GPU fails on it, with the warning
            "graded_on_cpu"; otherwise the study is not graded.
        trust: keys of which one must have signed the pack; None to accept unsigned packs.
        limits: limits of reading; None for the default ones.
        gpu: how the GPU is used; None for the default options.

    Attributes:
        backend: "tensorrt", "onnxruntime" or "openvino".
        backend_reason: why this backend was chosen.
        precision: the precision that the models run in; "mixed" if they differ.

    Raises:
        PackError: the pack cannot be used, or is not signed as required.
        DeviceError: the device cannot be used.
    """

    def __init__(
        self,
        pack: StrPath = "reference",
        device: str = "auto",
        precision: str = "auto",
        *,
        threads: int | None = None,
        keep_identifiers: bool = False,
        cpu_if_gpu_fails: bool = False,
        trust: TrustedKeys | None = None,
        limits: ReadLimits | None = None,
        gpu: GpuOptions | None = None,
    ) -> None:
        self._limits, self._keep_identifiers = limits, keep_identifiers
        loaded = open_pack(pack, trust)
        with ExitStack() as stack:
            backend, decision = open_backend(loaded, device, precision, threads, gpu)
            stack.enter_context(closing(backend))
            announce(decision)
            self._backend = backend
            self._memory = stack.enter_context(pixel_memory(backend))
            self._readers: dict[int, DicomReader] = {}
            self._running = False
            self._reader_stack = stack.enter_context(ExitStack())
            self._pack = decision.pack_to_run(loaded)
            self._studies = StudyGrader(self._pack, backend, threads, cpu_if_gpu_fails)
            self._stack = stack.pop_all()
        self.backend, self.backend_reason = decision.backend, decision.reason
        self.precision = decision.precision

    def close(self) -> None:
        """Close the models, and end the processes that read files. Further calls do nothing."""
        self._stack.close()

    def __call__(self, study: StrPath) -> StudyResult:
        """Grade one study.

        Args:
            study: a folder, DICOMDIR or archive that holds exactly one study.

        Raises:
            CannotGrade: the study cannot be graded; `stage`, `reason` and `advice` say why.
            InputError: there is no study, or more than one.
            StenosisError: nothing can be graded, as `PackError` or `DeviceError`.
        """
        return self.grade_with_header(study)[0]

    def grade_with_header(self, study: StrPath) -> tuple[StudyResult, StudyHeader]:
        """Grade one study as a call does; return its header too, from which its reports are made."""
        with self._reader(1) as reader:
            scan = _scan_one(reader, study)
            (header,) = scan.studies
            (item,) = self._each(reader, scan.studies)
        if isinstance(item, UngradedStudy):
            raise CannotGrade(item.problems[-1].stage, item.reason, item.advice)
        if any(not problem.harmless and not problem.study_uid for problem in scan.problems):
            # A file whose header cannot be read may be a slice of this study.
            item = replace(item, warnings=tuple(dict.fromkeys((*item.warnings, "slices_unreadable"))))
        return item, header

    def read(self, study: StrPath) -> LoadedStudy:
        """Read one study without grading it: headers, choice of series, pixels.

        Args:
            study: a folder, DICOMDIR or archive that holds exactly one study.

        Returns:
            The slices of the chosen series, in memory of their own.

        Raises:
            CannotGrade, InputError: as for a call.
        """
        with self._reader(1) as reader:
            read = read_study(reader, _scan_one(reader, study).studies[0])
        if read.study is None:
            last = read.problems[-1]
            raise CannotGrade(last.stage, last.reason, last.advice)
        return read.study

    def grade_read(self, study: LoadedStudy) -> StudyResult:
        """Grade a study that `read` returned. No other series is tried, and the GPU is not replaced.

        Raises:
            CannotGrade, StenosisError: as for a call.
        """
        with self._reader(1):
            result = grade_study(study, self._pack, self._backend)
        return result if self._keep_identifiers else replace(result, patient_id="")

    @property
    def opened_backend(self) -> Backend:
        """The open backend, for measurements. Its interface may change."""
        return self._backend

    def stream(
        self, paths: StrPath | Iterable[StrPath], workers: int = 1
    ) -> Generator[StudyResult | UngradedStudy, None, None]:
        """Grade every study below some paths, in order of completion.

        The next study is read while one is graded. First come the files that could not be read at all.

        Args:
            paths: folders, files, DICOMDIRs or archives.
            workers: processes that read files.

        Yields:
            A result, or what could not be graded with its reason. Every study below the paths appears once.

        Raises:
            InputError: nothing is at any of the paths, or no process that reads files can be started.
        """
        with self._reader(workers) as reader:
            scan = reader.scan(_paths(paths))
            for problem in scan.problems:
                if not problem.harmless:
                    yield UngradedStudy(problem.study_uid, problem.path, (problem,))
            yield from self._each(reader, scan.studies)

    @contextmanager
    def _reader(self, workers: int) -> Iterator[DicomReader]:
        """A reader with so many processes. It is kept for the next call, unless Ctrl-C interrupted it."""
        if self._running:
            # Both would be read into the same memory.
            raise RuntimeError("This Grader runs a stream. Finish or close it first, or open another Grader.")
        if workers not in self._readers:
            reader = DicomReader(self._limits, workers, self._memory)
            self._readers[workers] = self._reader_stack.enter_context(reader)
        self._running = True
        try:
            yield self._readers[workers]
        except KeyboardInterrupt:
            self._readers.pop(workers).close()
            raise
        finally:
            self._running = False

    def _each(
        self, reader: DicomReader, studies: Sequence[StudyHeader]
    ) -> Iterator[StudyResult | UngradedStudy]:
        waiting = deque(sorted(studies, key=attrgetter("path", "key")))
        slots = self._memory.slots if self._memory else ()
        with closing(read_ahead(reader, waiting, slots, self._backend.prefetch)) as read_studies:
            for read in read_studies:
                result, problems = self._studies.grade(reader, read)
                if result is None:
                    yield UngradedStudy(read.header.study_uid, read.header.path, problems)
                else:
                    yield result if self._keep_identifiers else replace(result, patient_id="")


def grade(
    paths: StrPath | Iterable[StrPath],
    out: StrPath,
    *,
    pack: StrPath = "reference",
    device: str = "auto",
    precision: str = "auto",
    resume: bool = False,
    workers: int = 1,
    threads: int | None = None,
    keep_identifiers: bool = False,
    no_paths: bool = False,
    csv_format: CsvFormat | None = None,
    limits: ReadLimits | None = None,
    trust: TrustedKeys | None = None,
    gpu: GpuOptions | None = None,
    cpu_if_gpu_fails: bool = False,
    formats: Sequence[str] = DEFAULT_FORMATS,
    reports: ReportOptions | None = None,
) -> RunSummary:
    """Grade every study below some paths and write the results, as `stenosis-trt grade` does.

    Args:
        paths: folders, files, DICOMDIRs or archives.
        out: output folder; docs/results.md says what it then holds.
        pack, device, precision, threads, keep_identifiers, limits, trust, gpu, cpu_if_gpu_fails: as for
            `Grader`.
        resume: continue an earlier run in `out`, which may have been killed.
        workers: processes that read files.
        no_paths: write numbers and hashes instead of paths, which may name patients.
        csv_format: format of the CSV files; None for commas and decimal points.
        formats: what to write, of "csv", "json", "sr", "sc", "png", "gsps", "text", "html" and "parquet".
            errors.csv, studies.csv and run.json are always written.
        reports: options of the reports.

    Returns:
        Counts of the run. Studies that could not be graded are rows of errors.csv.

    Raises:
        InputError: nothing is at any of the paths, or no process that reads files can be started.
        PackError, DeviceError, OutputError: the run cannot start or continue.
    """
    options = GradeOptions(
        pack=pack,
        device=device,
        precision=precision,
        resume=resume,
        workers=workers,
        threads=threads,
        keep_identifiers=keep_identifiers,
        no_paths=no_paths,
        csv_format=csv_format or CsvFormat(),
        limits=limits or ReadLimits(),
        trust=trust,
        gpu=gpu or GpuOptions(),
        cpu_if_gpu_fails=cpu_if_gpu_fails,
        formats=parse_formats(",".join(formats)),
        reports=reports or ReportOptions(),
    )
    return start_run(_paths(paths), Path(out), options)


def _paths(paths: StrPath | Iterable[StrPath]) -> list[Path]:
    single = isinstance(paths, str | os.PathLike)
    found = [Path(paths)] if single else [Path(path) for path in paths]  # type: ignore[arg-type,union-attr]
    check_paths(found)
    return found


def _scan_one(reader: DicomReader, study: StrPath) -> Scan:
    """Scan a path that must hold exactly one study."""
    scan = reader.scan(_paths(study))
    if len(scan.studies) != 1:
        raise _not_one(study, scan)
    return scan


def _not_one(study: StrPath, scan: Scan) -> InputError:
    """The error of a folder that holds no study, or several."""
    if scan.studies:
        return InputError(
            f"{study} holds {len(scan.studies)} studies, not one.", "Give the folder of one, or use stream()."
        )
    lost = [problem for problem in scan.problems if not problem.harmless]
    if lost:
        return InputError(f"{study} holds no study that can be read: {lost[0].reason}", lost[0].advice)
    return InputError(f"{study} holds no DICOM images.", "Give the folder of a study.")
