"""Options of a batch run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from stenosis_trt.engine.backends.gpu.options import GpuOptions
from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.packs.signature import TrustedKeys
from stenosis_trt.engine.reports.formats import DEFAULT_FORMATS
from stenosis_trt.engine.reports.study_report import ReportOptions
from stenosis_trt.engine.runs.table_files import CsvFormat


@dataclass(frozen=True)
class GradeOptions:
    """Options of a run.

    Attributes:
        pack: folder or zip of a model pack; None for the reference pack.
        device: one of `DEVICES` in `backends.selection`.
        precision: one of `PRECISIONS` in `packs.pack`, or "auto"; see `backends.selection.choose_backend`.
        resume: continue an earlier run in the output folder.
        workers: processes that read files.
        threads: threads of the CPU backend; None for all cores.
        keep_identifiers: write the PatientID to the results.
        no_paths: write numbers and hashes instead of paths.
        csv_format: format of the CSV files.
        limits: limits of reading.
        trust: keys of which one must have signed the pack; None to accept unsigned packs.
        gpu: how the GPU is used.
        cpu_if_gpu_fails: grade a study on the CPU where the GPU fails on it, instead of reporting it.
        formats: what to write, of `reports.formats.FORMATS`; errors.csv, studies.csv and run.json always are.
        reports: options of the reports.
    """

    pack: str | os.PathLike[str] | None = None
    device: str = "auto"
    precision: str = "auto"
    resume: bool = False
    workers: int = 1
    threads: int | None = None
    keep_identifiers: bool = False
    no_paths: bool = False
    csv_format: CsvFormat = field(default_factory=CsvFormat)
    limits: ReadLimits = field(default_factory=ReadLimits)
    trust: TrustedKeys | None = None
    gpu: GpuOptions = field(default_factory=GpuOptions)
    cpu_if_gpu_fails: bool = False
    formats: tuple[str, ...] = DEFAULT_FORMATS
    reports: ReportOptions = field(default_factory=ReportOptions)
