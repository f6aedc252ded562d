"""Quantisation of a pack: converts its models to FP16 and INT8 and publishes what passes the gate."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.keys import PrivateKey
from stenosis_trt.engine.packs.pack import PRECISIONS, SCHEMA, SHARED_WEIGHTS_SCHEMA, Pack
from stenosis_trt.engine.plans.signing import sign_pack
from stenosis_trt.engine.support.atomic_files import check_writable, staged_directory, write_bytes_atomically
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.export.packs.shared_weights import share_weights
from stenosis_trt.export.precision.calibration import INPUTS_PER_MODEL, CalibrationSet, calibration_set
from stenosis_trt.export.precision.candidates import single_model_candidates, variant_file, write_candidate
from stenosis_trt.export.precision.convert import (
    ConvertedModel,
    Int8Options,
    require_modelopt,
    to_fp16,
    to_int8,
)
from stenosis_trt.export.precision.evaluation import SearchTask
from stenosis_trt.export.precision.gate import Gate
from stenosis_trt.export.precision.gate_result import GateLimits, GateResult
from stenosis_trt.export.precision.rewrites import REWRITE_MODES, RewrittenModel, rewrite_squeeze_excite
from stenosis_trt.export.precision.search import SearchOptions, search_mixed_precision
from stenosis_trt.export.precision.studies import (
    CALIBRATION_PHANTOMS,
    VALIDATION_PHANTOMS,
    StudyCollection,
    loaded_studies,
    resolve_studies,
)

CONVERTIBLE_PRECISIONS = PRECISIONS[1:]
_VERSIONS = ("stenosis-trt", "nvidia-modelopt", "onnx", "onnxruntime")


@dataclass(frozen=True)
class QuantiseOptions:
    """Options of `quantise_pack`.

    Attributes:
        precisions: some of `CONVERTIBLE_PRECISIONS`.
        int8: options of the INT8 conversion.
        limits: limits of the gate.
        calibration_inputs: number of calibration inputs per model.
        calibration_studies, validation_studies: folders of studies; None for phantoms.
        squeeze_excite_rewrite: one of `rewrites.REWRITE_MODES`, for INT8.
        signing_key: signs the new pack.
        search: options of the mixed-precision search if INT8 fails; None for no search.
    """

    precisions: tuple[str, ...] = CONVERTIBLE_PRECISIONS
    int8: Int8Options = field(default_factory=Int8Options)
    limits: GateLimits = field(default_factory=GateLimits)
    calibration_inputs: int = INPUTS_PER_MODEL
    calibration_studies: Path | None = None
    validation_studies: Path | None = None
    squeeze_excite_rewrite: str = REWRITE_MODES[0]
    signing_key: PrivateKey | None = None
    search: SearchOptions | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.precisions if name not in CONVERTIBLE_PRECISIONS]
        if unknown or not self.precisions:
            raise ValueError(
                f"There is no precision {', '.join(unknown) or 'asked for'}. "
                f"Give {' or '.join(CONVERTIBLE_PRECISIONS)}, or both with a comma between."
            )
        if self.calibration_inputs < 1:
            raise ValueError(f"{self.calibration_inputs} inputs are too few to calibrate on. Give 1 or more.")
        if self.squeeze_excite_rewrite not in REWRITE_MODES:
            raise ValueError(
                f"Rewrites can be {', '.join(REWRITE_MODES)}, not {self.squeeze_excite_rewrite!r}."
            )
        if self.search is not None and "int8" not in self.precisions:
            raise ValueError("Only INT8 is searched. Give int8 among the precisions, or do not search.")


@dataclass(frozen=True)
class QuantisationResult:
    """Result of `quantise_pack`.

    Attributes:
        pack: the new pack, or the original one before it is written.
        outcomes: gate result per precision.
        by_model: for each failed precision, the gate result of each model alone.
        without_rewrites: precisions that pass only without the graph rewrites.
        search: record of the search as JSON data; None without one.
    """

    pack: Pack
    outcomes: Mapping[str, GateResult]
    by_model: Mapping[str, Mapping[str, GateResult]]
    without_rewrites: tuple[str, ...] = ()
    search: Mapping[str, Any] | None = None


def quantise_pack(pack: Pack, out: Path, options: QuantiseOptions) -> QuantisationResult:
    """Convert a pack's models, measure them, and write the pack with every precision that passes to `out`.

    Raises:
        PrecisionError: ModelOpt is not installed or cannot convert a model.
        StudiesError: there are no studies to calibrate or validate on.
        PackError: the pack cannot be used.
        OSError: `out` exists or cannot be written.
    """
    require_modelopt()
    _refuse_existing(out)
    studies = resolve_studies(options.calibration_studies, CALIBRATION_PHANTOMS)
    calibration = calibration_set(pack, studies, options.calibration_inputs)
    made = convert_models(pack, calibration, options)
    validation = resolve_studies(options.validation_studies, VALIDATION_PHANTOMS)
    quantised = measure_precisions(pack, made, validation, options.limits)
    if options.squeeze_excite_rewrite == REWRITE_MODES[0]:
        quantised, made = retry_without_rewrites(quantised, made, validation, options.limits)
    if options.search is not None and "int8" in quantised.by_model:
        quantised, made = search_failed_int8(quantised, made, calibration, (validation, studies), options)
    how = {**conversion_record(options, calibration), "search": quantised.search}
    written = write_variants(out, quantised, made, how, options.signing_key)
    return replace(quantised, pack=written)


def repeat_gate(pack: Pack, validate: Path | None, limits: GateLimits | None = None) -> dict[str, GateResult]:
    """Measure the precisions that a pack contains again; returns a gate result for each.

    Raises:
        StudiesError, PackError: see `quantise_pack`.
    """
    candidates = {name: pack.in_precision(name) for name in pack.precisions[1:]}
    studies = resolve_studies(validate, VALIDATION_PHANTOMS)
    gate = Gate(pack, lambda what: loaded_studies(studies, what), studies.source, limits)
    return _run_gate(gate, candidates)


ConvertedModels = dict[str, ConvertedModel]
"""Models of a pack in one precision, by name."""


def measure_precisions(
    pack: Pack, made: Mapping[str, ConvertedModels], validation: StudyCollection, limits: GateLimits
) -> QuantisationResult:
    """Run the gate on each precision and, where it fails, on each of its models alone. Writes nothing.

    Raises:
        StudiesError, PackError: see `quantise_pack`.
    """
    with TemporaryDirectory(prefix="stenosis-gate-") as work:
        candidates = {
            name: write_candidate(
                pack, Path(work) / name, name, {key: model.data for key, model in models.items()}
            )
            for name, models in made.items()
        }
        gate = Gate(pack, lambda what: loaded_studies(validation, what), validation.source, limits)
        outcomes = _run_gate(gate, candidates)
        by_model = {
            name: _run_gate(gate, single_model_candidates(pack, candidates[name], name))
            for name, outcome in outcomes.items()
            if not outcome.passed
        }
    return QuantisationResult(pack, outcomes, by_model)


def retry_without_rewrites(
    found: QuantisationResult,
    made: Mapping[str, ConvertedModels],
    validation: StudyCollection,
    limits: GateLimits,
) -> tuple[QuantisationResult, dict[str, ConvertedModels]]:
    """Measure failed precisions again without the graph rewrites, if a rewritten model alone fails.

    Args:
        found: gate results of `made`.
        made: models per precision.
        validation, limits: studies and limits that `found` was measured with.

    Returns:
        `found` and `made`, updated for the precisions that pass without rewrites.

    Raises:
        StudiesError, PackError: see `quantise_pack`.
    """
    plain: dict[str, ConvertedModels] = {}
    for precision, alone in found.by_model.items():
        models = made[precision]
        before = {
            name: model.without_rewrite for name, model in models.items() if isinstance(model, RewrittenModel)
        }
        if not all(alone[name].passed for name in before):
            plain[precision] = {**models, **before}
    tried = measure_precisions(found.pack, plain, validation, limits)
    passed = tuple(name for name, outcome in tried.outcomes.items() if outcome.passed)
    outcomes = {**found.outcomes, **{name: tried.outcomes[name] for name in passed}}
    by_model = {name: alone for name, alone in found.by_model.items() if name not in passed}
    taken = {**made, **{name: plain[name] for name in passed}}
    return QuantisationResult(found.pack, outcomes, by_model, passed), taken


def search_failed_int8(
    found: QuantisationResult,
    made: Mapping[str, ConvertedModels],
    calibration: CalibrationSet,
    studies: tuple[StudyCollection, StudyCollection],
    options: QuantiseOptions,
) -> tuple[QuantisationResult, dict[str, ConvertedModels]]:
    """Search for blocks to leave out of INT8 so that it passes the gate.

    Args:
        found: gate results of `made`, in which INT8 failed.
        made: models per precision.
        calibration: inputs that the models were calibrated on.
        studies: validation studies, and others on which the result of the search is confirmed.
        options: with those of the search.

    Returns:
        `found` with the record of the search, and `made`; both with the new INT8 models if some pass.

    Raises:
        StudiesError, PackError: see `quantise_pack`.
        OSError: the search log cannot be written.
    """
    if options.search is None:
        return found, dict(made)
    failed, alone = found.outcomes["int8"], found.by_model["int8"]
    task = SearchTask("int8", found.pack, made["int8"], failed, alone, calibration)
    result = search_mixed_precision(task, *studies, options.limits, options.search)
    if result.models is None or result.outcome is None:
        return replace(found, search=result.record), dict(made)
    outcomes = {**found.outcomes, "int8": result.outcome}
    by_model = {name: outcome for name, outcome in found.by_model.items() if name != "int8"}
    kept = replace(found, outcomes=outcomes, by_model=by_model, search=result.record)
    return kept, {**made, "int8": dict(result.models)}


def convert_models(
    pack: Pack, calibration: CalibrationSet, options: QuantiseOptions
) -> dict[str, ConvertedModels]:
    """Convert every model to every requested precision.

    Raises:
        PrecisionError: ModelOpt is not installed or cannot convert a model.
    """
    made: dict[str, ConvertedModels] = {name: {} for name in options.precisions}
    total, done = len(made) * len(pack.models), 0
    with show_progress("Converting", "models") as progress:
        progress.advance(0, total)
        for precision, models in made.items():
            for name in pack.models:
                data, inputs = pack.read_model(name), calibration.inputs[name]
                if precision == "fp16":
                    models[name] = to_fp16(data, inputs)
                else:
                    models[name] = to_int8(data, inputs, options.int8)
                    if options.squeeze_excite_rewrite != "off":
                        models[name] = rewrite_squeeze_excite(data, models[name], inputs)
                done += 1
                progress.advance(done, total)
    return made


def _run_gate(gate: Gate, candidates: Mapping[str, Pack]) -> dict[str, GateResult]:
    return gate.measure(candidates, f"Comparing {', '.join(candidates)} with FP32") if candidates else {}


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise FileExistsError(errno.EEXIST, "is there already; give a new folder with --out", str(out))
    check_writable(out)


def write_variants(
    out: Path,
    found: QuantisationResult,
    made: Mapping[str, ConvertedModels],
    how: Mapping[str, Any],
    key: PrivateKey | None = None,
) -> Pack:
    """Write a pack to a new folder, with the precisions that passed as variants of its models.

    Failed precisions are recorded under "refused" in pack.json. Plans and the signature are not copied: they
    belong to the original pack.

    Args:
        out: folder that must not exist.
        found: original pack and gate results. Its variants in other precisions are kept.
        made: models per precision.
        how: conversion record, stored under "quantised".
        key: signs the pack.

    Returns:
        The new pack.

    Raises:
        OSError: `out` exists or cannot be written.
        PackError: the written pack does not load.
    """
    _refuse_existing(out)
    pack, outcomes = found.pack, found.outcomes
    manifest = json.loads(pack.read_manifest())
    refused = {name: entry for name, entry in manifest.get("refused", {}).items() if name not in made}
    with staged_directory(out) as part:
        for name in pack.models:
            entry = manifest["models"][name]
            variants = {key: value for key, value in entry.get("variants", {}).items() if key not in made}
            files = {pack.models[name].file: pack.read_model(name)}
            files |= {pack.models[name].variants[key].file: pack.read_variant(name, key) for key in variants}
            for precision, models in made.items():
                if outcomes[precision].passed:
                    file = variant_file(name, precision)
                    variants[precision] = _variant_entry(file, models[name], outcomes[precision])
                    files[file] = models[name].data
            entry["variants"] = variants
            _write_models(part, f"{name}.weights", entry, files)
        for precision, by_model in found.by_model.items():
            refused[precision] = {
                **outcomes[precision].to_dict(),
                "by_model": {name: outcome.to_dict() for name, outcome in by_model.items()},
            }
        shared = any("weights" in entry for entry in manifest["models"].values())
        manifest["schema"] = SHARED_WEIGHTS_SCHEMA if shared else SCHEMA
        manifest |= {"refused": refused, "quantised": dict(how)}
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        _write_file(part / MANIFEST, text.encode())
        written = Pack.load(part)
        if key is not None:
            sign_pack(written, key)
        os.replace(part, out)
    return Pack.load(out)


def conversion_record(options: QuantiseOptions, calibration: CalibrationSet) -> dict[str, Any]:
    """How the variants were made, as JSON data for pack.json."""
    return {
        "precisions": list(options.precisions),
        "calibrator": options.int8.calibration_method,
        "percentile": options.int8.percentile if options.int8.calibration_method == "percentile" else None,
        "elsewhere": options.int8.high_precision_dtype,
        "rewrite": options.squeeze_excite_rewrite,
        "calibrated_on": calibration.source,
        "calibration_key": calibration.key,
        "inputs": {name: len(inputs) for name, inputs in calibration.inputs.items()},
        "versions": {name: package_version(name) for name in _VERSIONS},
    }


def _variant_entry(file: str, converted: ConvertedModel, outcome: GateResult) -> dict[str, Any]:
    """Entry of a variant in pack.json."""
    return {
        "file": file,
        "sha256": hashlib.sha256(converted.data).hexdigest(),
        "metrics": converted.metrics,
        "gate": outcome.to_dict(),
    }


def _write_models(folder: Path, location: str, entry: dict[str, Any], files: Mapping[str, bytes]) -> None:
    """Write the models of one role, with equal weights once, and name the file of weights in `entry`.

    Models in folders of their own are written whole.
    """
    flat = all(Path(file).parent == Path() for file in files)
    shared, weights = share_weights(files, location) if flat else (files, b"")
    for file, data in shared.items():
        _write_file(folder / file, data)
    entry.pop("weights", None)
    if weights:
        _write_file(folder / location, weights)
        entry["weights"] = {"file": location, "sha256": hashlib.sha256(weights).hexdigest()}


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, data)
