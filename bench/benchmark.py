"""`bench all`: run the sections of a benchmark one after the other, and write their record and its page.

The record is written again after each section, so that a run that is interrupted leaves what it measured.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stenosis_trt.bench.benchmark_options import (
    QUICK_PHANTOMS,
    SECTION_MODULES,
    BenchOptions,
    check_options,
    check_peers,
)
from stenosis_trt.bench.record.checking import checked_section
from stenosis_trt.bench.record.files import write_record
from stenosis_trt.bench.record.page import write_page
from stenosis_trt.bench.record.record import Absence, BenchRecord, Section
from stenosis_trt.bench.systems.busy import BusyWatch
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.machine import describe_machine, describe_versions, machine_slug
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.bench.systems.studies import BenchStudies, make_phantoms, studies_in
from stenosis_trt.engine.errors import NotWritten, StenosisError
from stenosis_trt.engine.packs.pack import Pack, open_pack
from stenosis_trt.engine.support.hardware import usable_cores

_ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MALLOC_ARENA_MAX",
)
"""Environment variables that change the speed of libraries."""

_log = logging.getLogger(__name__)


class RecordNotSaved(NotWritten):
    """The record, or its page, cannot be written after something was measured.

    Attributes:
        record: everything that was measured.
    """

    def __init__(self, reason: str, advice: str, record: BenchRecord) -> None:
        super().__init__(reason, advice)
        self.record = record


def run_benchmark(options: BenchOptions) -> tuple[BenchRecord, Path]:
    """Measure all sections and write the record and its page.

    A section that fails becomes one of the record's failures, and the others run.

    Returns:
        The record, and the path of its JSON file; the page lies beside it.

    Raises:
        StenosisError: before anything is measured: the output folder cannot be written, the pack, device or
            precision cannot be used, there are no studies, or a package is missing.
        RecordNotSaved: the disk is full; it has what was measured.
    """
    check_options(options)
    pack = open_pack(options.pack)
    given = studies_in(options.studies) if isinstance(options.studies, Path) else None
    product = _describe_product(options, pack)
    check_peers(options, pack, product["backend"] == "tensorrt", product["precision"])
    watch = BusyWatch()
    with TemporaryDirectory(prefix="stenosis-bench-") as folder:
        work = Path(folder)
        studies = given or _phantoms(options, work)
        started = datetime.now().astimezone()
        machine = describe_machine()
        record = BenchRecord(
            command=options.command,
            started=started.isoformat(timespec="seconds"),
            machine=machine,
            versions=describe_versions(),
            product=product,
            studies=studies.describe(),
            busy=watch.as_json(()),
            sections=(),
            settings=_settings(options),
        )
        path = _free_path(
            options.out, f"{started:%Y-%m-%d}-{machine_slug(machine['processor'], machine['cores'])}"
        )
        watch.watch_before()
        context = BenchContext(
            pack=pack,
            device=options.device,
            precision=options.precision,
            threads=options.threads,
            studies=studies.folders,
            work=work,
            seconds=0.0,
            say=options.say,
            official=options.official,
        )
        for name in options.names:
            record = _measured(record, name, context, options, watch, path)
    return record, path


def _describe_product(options: BenchOptions, pack: Pack) -> dict[str, Any]:
    """Open the product once, to find out now what cannot be used, and what runs each model."""
    context = BenchContext(
        pack, options.device, options.precision, options.threads, (), Path(), 0.0, options.say
    )
    with Product(context) as product:
        return {
            "pack": f"{pack.name} {pack.version}",
            "sha256": pack.sha256,
            "device": options.device,
            "backend": product.backend,
            "precision": product.precision,
            "requested_precision": options.precision,
            "model_runs_by": dict(product.model_runs_by),
            "threads": options.threads or usable_cores(),
        }


def _phantoms(options: BenchOptions, work: Path) -> BenchStudies:
    options.say("Making phantoms")
    if isinstance(options.studies, int):
        return make_phantoms(work, options.studies)
    return make_phantoms(work, QUICK_PHANTOMS) if options.quick else make_phantoms(work)


def _settings(options: BenchOptions) -> dict[str, Any]:
    return {
        "sections": list(options.names),
        "seconds": {name: round(options.seconds(name), 1) for name in options.names},
        "quick": options.quick,
        "official": options.official,
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }


def _measured(
    record: BenchRecord, name: str, context: BenchContext, options: BenchOptions, watch: BusyWatch, path: Path
) -> BenchRecord:
    """Measure a section and return the record with it, which is written."""
    seconds = options.seconds(name)
    options.say(f"Section {name}: about {seconds:.0f} s")
    before = record
    try:
        with watch.section(name):
            section = _measure(name, replace(context, seconds=seconds))
        record = replace(record, sections=(*record.sections, section))
    except KeyboardInterrupt:
        failures = (*record.failures, Absence(name, "The run was interrupted."))
        _save(_with_load(replace(record, failures=failures), watch), before, path)
        raise
    except Exception as error:  # noqa: BLE001 - one section's fault must not end the run
        _log.debug("Section %s failed", name, exc_info=True)
        reason = _reason(error)
        options.say(f"Section {name} failed: {reason}")
        record = replace(record, failures=(*record.failures, Absence(name, reason)))
    gc.collect()
    record = _with_load(record, watch)
    _save(record, before, path)
    return record


def _with_load(record: BenchRecord, watch: BusyWatch) -> BenchRecord:
    return replace(
        record, busy=watch.as_json([section.name for section in record.sections if section.figures])
    )


def _measure(name: str, context: BenchContext) -> Section:
    start = time.monotonic()
    measure: Callable[[BenchContext], Section] = importlib.import_module(SECTION_MODULES[name]).measure
    section = measure(context)
    return checked_section(replace(section, seconds=time.monotonic() - start))


def _reason(error: Exception) -> str:
    """Return one sentence about an error."""
    if isinstance(error, StenosisError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("stenosis_trt"):
        return f"The package {error.name} is not installed."
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _free_path(out: Path, stem: str) -> Path:
    """Return the JSON file of a run; a second run of one day gets a number."""
    number = 1
    path = out / f"{stem}.json"
    while path.exists() or path.with_suffix(".html").exists():
        number += 1
        path = out / f"{stem}-{number}.json"
    return path


def _save(record: BenchRecord, saved: BenchRecord, path: Path) -> None:
    """Write the record and its page. `saved` is what the file holds so far.

    Raises:
        RecordNotSaved: one of them cannot be written.
    """
    held = [section.name for section in saved.sections]
    new = [section.name for section in record.sections if section.name not in held]
    page = path.with_suffix(".html")
    try:
        write_record(path, record)
    except OSError as error:
        lost = f"what was measured of {_and(new)} is lost" if new else "nothing that was measured is lost"
        kept = f"; the file holds {_and(held)}" if held else ""
        raise RecordNotSaved(
            f"{path} cannot be written ({error.strerror or error}): {lost}{kept}.",
            "Make room, and measure again what is missing.",
            record,
        ) from error
    try:
        write_page(page, record)
    except OSError as error:
        raise RecordNotSaved(
            f"{page} cannot be written ({error.strerror or error}); {path.name} holds what was measured.",
            "Make room, and measure again what is missing.",
            record,
        ) from error


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
