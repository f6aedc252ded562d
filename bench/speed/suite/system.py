"""The system under test: a pack with its plans, studies, and the ways to open what computes them."""

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
from stenosis_trt.bench.speed.suite.pace import Repetition
from stenosis_trt.engine.backends.gpu.choice import choose_plans
from stenosis_trt.engine.backends.gpu.options import ChosenPlans, GpuOptions
from stenosis_trt.engine.backends.tensorrt import TensorRtBackend
from stenosis_trt.engine.cuda.device import Device, Stream
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
"""Of the phantoms: none that a model of the reference pack has seen."""
QUICK_SECONDS = 240.0
_SECONDS_A_FIGURE, _QUICK_SECONDS_A_FIGURE = 20.0, 1.0

PeerNetwork = Callable[[int], Any]
"""Makes EfficientNet_B5 with this many classes, as a torch.nn.Module with random weights."""


@dataclass(frozen=True)
class SuiteOptions:
    """What is measured, and how long.

    Attributes:
        out: folder of the record; what is made on the way lies in `out`/work, and is found again.
        pack: a pack's folder. It is copied, and plans are built in the copy.
        precisions: to measure, of `PRECISIONS`; () for all that the pack has.
        flavour: of TensorRT; None for what is installed and suits the GPU.
        batches: that plans are built for.
        studies: phantoms that are graded by GPU and CPU.
        workers: numbers of reading processes.
        gaps_seconds: of rest before a study.
        scenarios: names; () for all.
        quick: keep to `QUICK_SECONDS`: fewer runs, and what there is no time for is left out, and said.
        command: what was typed, for the record.
        phantoms: studies made before, a folder each, instead of `studies` that are made.
        one_study: a study's folder, instead of the one that is made.
        peer: None where there is no PyTorch.
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
        """How often something is timed, of which a full run is to have `runs`."""
        if self.quick:
            return Repetition(max(3, runs // 6), _QUICK_SECONDS_A_FIGURE, warm_up)
        return Repetition(runs, _SECONDS_A_FIGURE, warm_up)


class SystemUnderTest:
    """What scenarios measure on. Everything is made when it is first asked for.

    Attributes:
        options: see `SuiteOptions`.
        driver: of this machine, with its GPUs.
    """

    def __init__(self, options: SuiteOptions) -> None:
        """Nothing is opened yet."""
        self.options = options
        self.driver: NvidiaDriver = query_nvidia_driver()
        self._start = time.monotonic()
        self._chosen: dict[str, ChosenPlans] = {}

    @property
    def on_stand_in(self) -> bool:
        """Whether a program stands in for the GPU, as in the tests."""
        return any("stand-in" in gpu.name for gpu in self.driver.gpus)

    @property
    def seconds_left(self) -> float:
        """Until the time of a quick run is over."""
        limit = QUICK_SECONDS if self.options.quick else float("inf")
        return limit - (time.monotonic() - self._start)

    @cached_property
    def work(self) -> Path:
        """Folder of what is made on the way."""
        path = self.options.out / "work"
        path.mkdir(parents=True, exist_ok=True)
        return path

    @cached_property
    def pack(self) -> Pack:
        """The copy of the pack, in which plans are built.

        Raises:
            PackError: it is none.
        """
        source = Pack.load(self.options.pack)
        if not source.path.is_dir():
            # To build into a zip is refused, with what to do about it.
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
        """Those that are measured."""
        return self.options.precisions or self.pack.precisions

    @property
    def main_precision(self) -> str:
        """The one that what is measured once is measured in: FP16 where it is among them."""
        return "fp16" if "fp16" in self.precisions else self.precisions[0]

    def build(self, precision: str) -> list[BuildOutcome]:
        """Build the plans of one precision that are missing.

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
        """The plans of one precision, built where they are missing.

        Raises:
            TensorRTError, PackError, CudaError: they cannot be had; each says what to do.
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
        """The GPU backend, open while the context lasts."""
        chosen = self.plans(precision)
        with closing(TensorRtBackend(self.pack.in_precision(precision), chosen, options)) as backend:
            yield backend

    @cached_property
    def phantoms(self) -> Path:
        """Folder of the studies that GPU and CPU grade."""
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
        """Folder of `count` studies, the phantoms and copies of them, while the context lasts."""
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
        """Folder of what single studies are measured on: 15 sagittal and 30 axial slices of 512²."""
        if self.options.one_study is not None:
            return self.options.one_study
        folder = self.work / "one_study"
        if not folder.is_dir():
            _make_large_study(folder)
        return folder

    def make_studies(self, phantoms: bool = True, one_study: bool = True) -> None:
        """Make these studies now, where they are to be made: the large one in a process beside the others."""
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
        """The same study, read into arrays of its own."""
        with DicomReader(workers=min(8, usable_cores())) as reader:
            (header,) = reader.scan([self.one_study]).studies
            read = read_study(reader, header)
        if read.study is None or read.problems:
            raise RuntimeError(f"The study cannot be read: {read.problems}")
        return read.study


def computing_stream(backend: TensorRtBackend) -> tuple[Device, Stream]:
    """The device, and the stream that a backend computes on: where events are to be recorded."""
    return backend.device, backend.stream


def _make_large_study(folder: Path) -> None:
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    write_study(large_study(), part, "explicit")
    part.rename(folder)


def _studies_in(folder: Path) -> int:
    """How many whole studies `write_studies` left there."""
    try:
        with (folder / "truth.csv").open(newline="", encoding="utf-8") as rows:
            return len({row["study_uid"] for row in csv.DictReader(rows)})
    except FileNotFoundError:
        return 0
