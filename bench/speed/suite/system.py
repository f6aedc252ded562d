"""System under test: a pack with its plans, studies, and backends."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.bench.phantom.dicom_files import write_study
from stenosis_trt.bench.speed.reading_time import large_study
from stenosis_trt.bench.speed.suite.copies import copy_studies
from stenosis_trt.bench.speed.suite.measurements import Repetition
from stenosis_trt.engine.backends.gpu.choice import choose_plans
from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.backends.tensorrt import TensorRtBackend
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.grading.read_ahead import read_study
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.build import BuildOutcome, BuildRequest, build_plans
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.engine.support.hardware import NvidiaDriver, query_nvidia_driver, usable_cores
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.support.workers import worker_pool
from stenosis_trt.engine.trt.flavours import BuildSettings

SEED = 515
"""Seed of the phantoms; the reference pack was not trained on it."""
QUICK_SECONDS = 240.0
_SECONDS_A_FIGURE, _QUICK_SECONDS_A_FIGURE = 20.0, 1.0

PeerNetwork = Callable[[int], Any]
"""Builds EfficientNet_B5 with a number of classes, as a torch.nn.Module with random weights."""


@dataclass(frozen=True)
class SuiteOptions:
    """Options of a run.

    Attributes:
        out: folder of the record. Intermediate files are in `out`/work and are reused.
        pack: folder of a pack. Plans are built in a copy of it.
        precisions: precisions to measure; () for all that the pack has.
        flavour: of TensorRT; None for the installed one that suits the GPU.
        batches: batch sizes that plans are built for.
        studies: number of phantoms graded by GPU and CPU.
        workers: numbers of reader processes.
        gaps_seconds: idle times before a study.
        scenarios: names; () for all.
        quick: stop after `QUICK_SECONDS`: fewer runs, and notes on what is left out.
        command: command line, for the record.
        phantoms: folder of existing studies, instead of `studies` phantoms.
        one_study: folder of an existing study, instead of the rendered one.
        peer: None without PyTorch.
    """

    out: Path
    pack: Path
    precisions: tuple[str, ...] = ()
    flavour: str | None = None
    batches: tuple[int, ...] = BuildSettings().batches
    studies: int = 100
    workers: tuple[int, ...] = (1, 2, 4, 8)
    gaps_seconds: tuple[float, ...] = (0.0, 0.1, 1.0, 10.0)
    scenarios: tuple[str, ...] = ()
    quick: bool = False
    command: str = ""
    phantoms: Path | None = None
    one_study: Path | None = None
    peer: PeerNetwork | None = field(default=None, compare=False)

    def repetition(self, runs: int, warm_up: int = 5) -> Repetition:
        """Repetitions of a call that is run `runs` times in a full run."""
        if self.quick:
            return Repetition(max(3, runs // 6), _QUICK_SECONDS_A_FIGURE, warm_up)
        return Repetition(runs, _SECONDS_A_FIGURE, warm_up)


class SystemUnderTest:
    """Pack, plans, studies and backends of the scenarios, created on first use.

    Attributes:
        options: see `SuiteOptions`.
        driver: NVIDIA driver of this machine, with its GPUs.
    """

    def __init__(self, options: SuiteOptions) -> None:
        """Find the driver; nothing else is opened."""
        self.options = options
        self.driver: NvidiaDriver = query_nvidia_driver()
        self._start = time.monotonic()
        self._chosen: dict[str, ChosenPlans] = {}

    @property
    def simulated(self) -> bool:
        """True if the GPU is simulated in software, as in the tests."""
        return any("stand-in" in gpu.name for gpu in self.driver.gpus)

    @property
    def seconds_left(self) -> float:
        """Time left of a quick run; infinite otherwise."""
        limit = QUICK_SECONDS if self.options.quick else float("inf")
        return limit - (time.monotonic() - self._start)

    @cached_property
    def work(self) -> Path:
        """Folder of intermediate files."""
        path = self.options.out / "work"
        path.mkdir(parents=True, exist_ok=True)
        return path

    @cached_property
    def pack(self) -> Pack:
        """Copy of the pack, in which plans are built.

        Raises:
            PackError: the pack cannot be loaded.
        """
        source = Pack.load(self.options.pack)
        if not source.path.is_dir():
            # Building into a zip is refused later, with advice.
            return source
        copy = self.work / f"pack-{source.sha256[:12]}"
        if not copy.is_dir():
            part = copy.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(source.path, part)
            part.rename(copy)
        return Pack.load(copy)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions to measure."""
        return self.options.precisions or self.pack.precisions

    @property
    def main_precision(self) -> str:
        """Precision of scenarios that measure only one: FP16 if it is measured, else the first."""
        return "fp16" if "fp16" in self.precisions else self.precisions[0]

    def build(self, precision: str) -> list[BuildOutcome]:
        """Build the missing plans of one precision.

        Raises:
            TensorRTError, PackError: see `build_plans`.
        """
        models = self.pack.models.values()
        wanted = {model.precision for model in models} if precision == "fp32" else {precision}
        request = BuildRequest(
            flavour=self.options.flavour,
            precisions=tuple(sorted(wanted)),
            settings=BuildSettings(batches=self.options.batches),
        )
        return list(build_plans(self.pack, request, self.driver, show_progress))

    def plans(self, precision: str) -> ChosenPlans:
        """Plans of one precision; missing ones are built.

        Raises:
            TensorRTError, PackError, CudaError: plans cannot be built or chosen.
        """
        if precision not in self._chosen:
            for outcome in self.build(precision):
                if outcome.plan is None:
                    raise RuntimeError(f"No plan of {outcome.model} in {precision}. {outcome.reason}")
            options = GpuOptions(flavour=self.options.flavour)
            self._chosen[precision] = choose_plans(self.pack, precision, options)
        return self._chosen[precision]

    @contextmanager
    def backend(self, precision: str, options: GpuOptions | None = None) -> Iterator[TensorRtBackend]:
        """Context of an open GPU backend."""
        chosen = self.plans(precision)
        with closing(TensorRtBackend(self.pack.in_precision(precision), chosen, options)) as backend:
            yield backend

    @cached_property
    def phantoms(self) -> Path:
        """Folder of the phantoms."""
        if self.options.phantoms is not None:
            return self.options.phantoms
        count = self.options.studies
        folder = self.work / f"phantoms-{SEED}-{count}"
        if _studies_in(folder) != count:
            shutil.rmtree(folder, ignore_errors=True)
            with show_progress("Making phantoms", "studies") as progress:
                options = PhantomOptions(count, SEED, workers=min(count, usable_cores()))
                write_studies(folder, options, progress.advance)
        return folder

    @contextmanager
    def many_studies(self, count: int) -> Iterator[Path]:
        """Context of a temporary folder of `count` studies: the phantoms and copies of them."""
        source = self.phantoms
        folder = self.work / f"copies-{count}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            copy_studies(source, folder, count)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @cached_property
    def one_study(self) -> Path:
        """Folder of the study that latency is measured on: 15 sagittal and 30 axial slices of 512²."""
        if self.options.one_study is not None:
            return self.options.one_study
        folder = self.work / "one_study"
        if not folder.is_dir():
            _make_large_study(folder)
        return folder

    def make_studies(self, phantoms: bool = True, one_study: bool = True) -> None:
        """Render missing studies now; the large one is rendered in a second process."""
        folder = self.work / "one_study"
        one_study = one_study and self.options.one_study is None and not folder.is_dir()
        with worker_pool(1) as workers:
            large = workers.submit(_make_large_study, folder) if one_study else None
            if phantoms:
                _ = self.phantoms
            if large is not None:
                large.result()

    @cached_property
    def loaded_study(self) -> LoadedStudy:
        """The study of `one_study`, loaded into memory."""
        with DicomReader(workers=min(8, usable_cores())) as reader:
            (header,) = reader.scan([self.one_study]).studies
            read = read_study(reader, header)
        if read.study is None or read.problems:
            raise RuntimeError(f"The study cannot be read: {read.problems}")
        return read.study


def _make_large_study(folder: Path) -> None:
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    write_study(large_study(), part, "explicit")
    part.rename(folder)


def _studies_in(folder: Path) -> int:
    """Number of complete studies that `write_studies` wrote to a folder."""
    try:
        with (folder / "truth.csv").open(newline="", encoding="utf-8") as rows:
            return len({row["study_uid"] for row in csv.DictReader(rows)})
    except FileNotFoundError:
        return 0
