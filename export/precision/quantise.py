"""Quantisation of a pack: converts its models to FP16 and INT8 and publishes what passes the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stenosis_trt.engine.packs.keys import PrivateKey
from stenosis_trt.engine.packs.pack import PRECISIONS, Pack
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.export.precision.calibration import INPUTS_PER_MODEL, CalibrationSet, calibration_set
from stenosis_trt.export.precision.candidates import single_model_candidates, write_candidate
from stenosis_trt.export.precision.convert import Int8Options, require_modelopt, to_fp16, to_int8
from stenosis_trt.export.precision.evaluation import SearchTask
from stenosis_trt.export.precision.exclusion import LEFT_OUT_SHARE, leave_out_worst_blocks
from stenosis_trt.export.precision.gate import Gate
from stenosis_trt.export.precision.gate_result import GateLimits, GateResult
from stenosis_trt.export.precision.rewrites import REWRITE_MODES, RewrittenModel, rewrite_squeeze_excite
from stenosis_trt.export.precision.search import SearchOptions, search_mixed_precision
from stenosis_trt.export.precision.shares import int8_shares, stored_int8_share, with_int8_share
from stenosis_trt.export.precision.studies import (
    CALIBRATION_PHANTOMS,
    Studies,
    ValidationOptions,
    resolve_studies,
)
from stenosis_trt.export.precision.writing import (
    ConvertedModels,
    QuantisationResult,
    refuse_existing,
    write_variants,
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
        calibration_studies: folder of studies; None for phantoms.
        validation: studies of the gate.
        squeeze_excite_rewrite: one of `rewrites.REWRITE_MODES`, for INT8.
        left_out_share: largest share of the multiply-adds of a network to leave out of INT8, in the blocks
            that err most.
        signing_key: signs the new pack.
        search: options of the mixed-precision search if INT8 fails; None for no search.
    """

    precisions: tuple[str, ...] = CONVERTIBLE_PRECISIONS
    int8: Int8Options = field(default_factory=Int8Options)
    limits: GateLimits = field(default_factory=GateLimits)
    calibration_inputs: int = INPUTS_PER_MODEL
    calibration_studies: Path | None = None
    validation: ValidationOptions = field(default_factory=ValidationOptions)
    squeeze_excite_rewrite: str = REWRITE_MODES[0]
    left_out_share: float = LEFT_OUT_SHARE
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
        if not 0.0 <= self.left_out_share < 1.0:
            raise ValueError(f"{self.left_out_share} is no share to leave out of INT8. Give 0 up to 1.")
        if self.search is not None and "int8" not in self.precisions:
            raise ValueError("Only INT8 is searched. Give int8 among the precisions, or do not search.")


def quantise_pack(pack: Pack, out: Path, options: QuantiseOptions) -> QuantisationResult:
    """Convert a pack's models, measure them, and write the pack with every precision that passes to `out`.

    Raises:
        PrecisionError: ModelOpt is not installed or cannot convert a model.
        StudiesError: there are no studies to calibrate or validate on.
        PackError: the pack cannot be used.
        OSError: `out` exists or cannot be written.
    """
    require_modelopt()
    refuse_existing(out)
    studies = resolve_studies(options.calibration_studies, CALIBRATION_PHANTOMS)
    calibration = calibration_set(pack, studies, options.calibration_inputs)
    made = convert_models(pack, calibration, options)
    validation = options.validation.resolve()
    quantised = measure_precisions(pack, made, validation, options.limits)
    if options.squeeze_excite_rewrite == REWRITE_MODES[0]:
        quantised, made = retry_without_rewrites(quantised, made, validation, options.limits)
    if options.search is not None and "int8" in quantised.by_model:
        quantised, made = search_failed_int8(quantised, made, calibration, (validation, studies), options)
    quantised = replace(
        quantised,
        outcomes={
            precision: with_int8_share(
                outcome, int8_shares({name: model.metrics for name, model in made[precision].items()})
            )
            for precision, outcome in quantised.outcomes.items()
        },
    )
    how = {**conversion_record(options, calibration), "search": quantised.search}
    written = write_variants(out, quantised, made, how, options.signing_key)
    return replace(quantised, pack=written)


def repeat_gate(
    pack: Pack, validation: ValidationOptions, limits: GateLimits | None = None
) -> dict[str, GateResult]:
    """Measure the precisions that a pack contains again; returns a gate result for each.

    Raises:
        StudiesError, PackError: see `quantise_pack`.
    """
    candidates = {name: pack.in_precision(name) for name in pack.precisions[1:]}
    outcomes = _run_gate(Gate.on(pack, validation.resolve(), limits), candidates) if candidates else {}
    return {name: with_int8_share(outcome, stored_int8_share(pack)) for name, outcome in outcomes.items()}


def measure_precisions(
    pack: Pack, made: Mapping[str, ConvertedModels], validation: Studies, limits: GateLimits
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
        gate = Gate.on(pack, validation, limits)
        outcomes = _run_gate(gate, candidates)
        by_model = {
            name: _run_gate(gate, single_model_candidates(pack, candidates[name], name))
            for name, outcome in outcomes.items()
            if not outcome.passed
        }
    return QuantisationResult(pack, outcomes, by_model)


def retry_without_rewrites(
    found: QuantisationResult, made: Mapping[str, ConvertedModels], validation: Studies, limits: GateLimits
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
    studies: tuple[Studies, Studies],
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
                    models[name] = leave_out_worst_blocks(data, models[name], inputs, options.left_out_share)
                done += 1
                progress.advance(done, total)
    return made


def _run_gate(gate: Gate, candidates: Mapping[str, Pack]) -> dict[str, GateResult]:
    return gate.measure(candidates, f"Comparing {', '.join(candidates)} with FP32") if candidates else {}


def conversion_record(options: QuantiseOptions, calibration: CalibrationSet) -> dict[str, Any]:
    """How the variants were made, as JSON data for pack.json."""
    return {
        "precisions": list(options.precisions),
        "calibrator": options.int8.calibration_method,
        "percentile": options.int8.percentile if options.int8.calibration_method == "percentile" else None,
        "elsewhere": options.int8.high_precision_dtype,
        "rewrite": options.squeeze_excite_rewrite,
        "left_out_share": options.left_out_share,
        "calibrated_on": calibration.source,
        "calibration_key": calibration.key,
        "inputs": {name: len(inputs) for name, inputs in calibration.inputs.items()},
        "versions": {name: package_version(name) for name in _VERSIONS},
    }
