"""Export of a pack for `stenosis-trt export`: three checkpoints and a spec become a checked pack."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.model_checks import ModelOutputError
from stenosis_trt.engine.packs.keys import PrivateKey
from stenosis_trt.engine.packs.models import MODEL_NAMES
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support.atomic_files import check_writable
from stenosis_trt.engine.support.hashes import file_sha256
from stenosis_trt.export.checkpoints.networks import load_network
from stenosis_trt.export.checkpoints.unread import IgnoredKeys
from stenosis_trt.export.errors import ExportError
from stenosis_trt.export.onnx.from_onnx import SUFFIX, import_onnx
from stenosis_trt.export.onnx.from_torch import TOLERANCE, ExportedModel, export_network, torch_inference
from stenosis_trt.export.packs.check_inputs import random_inputs, slice_inputs
from stenosis_trt.export.packs.writer import ModelContent, PackContent, write_pack
from stenosis_trt.export.spec_file import UNKNOWN, ExportSpec, ModelDeclaration

_EQUAL_OUTPUTS = 1e-6
"""Outputs for different slices that differ by less are considered equal."""


@dataclass(frozen=True)
class _Model:
    """A network during the export.

    Attributes:
        exported: ONNX model with its error on random input.
        answer: runs the original network on a batch, in the pipeline's order and activated.
        facts: where it was read from.
    """

    exported: ExportedModel
    answer: Callable[[Float32Array], Float32Array]
    facts: Mapping[str, str]


def export_pack(
    checkpoints: Mapping[str, Path],
    spec: ExportSpec,
    out: Path,
    check: Path | None = None,
    report: Callable[[str], None] = print,
    key: PrivateKey | None = None,
    ignored: Sequence[str] = (),
) -> Pack:
    """Export the networks, check them on random input and on slices, and write the pack.

    Args:
        checkpoints: files of "levels", "grader" and "cord".
        spec: contents of the pack.
        out: folder of the pack, new or empty.
        check: folder of studies to check with; None for phantoms.
        report: called with a line for each network that was read or checked.
        key: signs the pack.
        ignored: keys of the checkpoints that are not read, from `--ignore-key`.

    Raises:
        ExportError: `out` is in use, a checkpoint cannot be used, or a model differs from its checkpoint.
        PackError: the run-time cannot use the models.
        OSError: `out` cannot be written or the disk is full; no part of the pack remains.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise _in_use(out)
    check_writable(out)
    models, left_out = {}, IgnoredKeys(ignored)
    for name in MODEL_NAMES:
        models[name] = _export(checkpoints[name], spec.models[name], spec.half_weights, left_out)
        report(f"{name}: {_describe(models[name].facts)}")
    if left_out.unused:
        raise ExportError(
            f"No checkpoint has {', '.join(left_out.unused)} beside its weights.",
            "Leave out that --ignore-key.",
        )
    studies = "phantoms" if check is None else "studies given with --check-studies"
    with TemporaryDirectory(prefix="stenosis-export-") as folder:
        # The product's backend opens and checks the models, and cuts the regions for the comparison.
        trial = write_pack(Path(folder) / "pack", _content(spec, models, {}, {}))
        with closing(CpuBackend(trial)) as backend:
            inputs = slice_inputs(check, {name: spec.models[name].input for name in MODEL_NAMES}, backend)
            errors = {
                name: _slice_error(name, models[name], batch, backend) for name, batch in inputs.items()
            }
    for name, model in models.items():
        line = f"{name}: largest error {model.exported.maximum_error:.2g} on random input"
        tried = f"{errors[name]:.2g} on {len(inputs[name])} slices of {studies}" if name in errors else ""
        report(f"{line}, {tried or f'not tried on slices: the {studies} have none for it'}")
    unknown = [key for key in ("name", "licence", "intended_use") if getattr(spec, key) == UNKNOWN]
    if unknown:
        options = " ".join(f"--{key.replace('_', '-')} TEXT" for key in unknown)
        report(f"The pack says {UNKNOWN!r} for {', '.join(unknown)}. To say it: {options}")
    metrics = {name: _metrics(model, errors.get(name)) for name, model in models.items()}
    card = {
        "exported_by": f"stenosis-trt {metadata.version('stenosis-trt')}",
        "exported_from": {name: dict(model.facts) for name, model in models.items()},
        "export_check": {
            "against": "the checkpoints, in PyTorch or as the ONNX file that was given",
            "slices_of": studies,
            "slices": {name: len(batch) for name, batch in inputs.items()},
            "tolerance": TOLERANCE,
        },
    }
    try:
        return write_pack(out, _content(spec, models, metrics, card), key, replacing=False)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _in_use(out) from error
        raise


def _in_use(out: Path) -> ExportError:
    return ExportError(f"{out} is there already.", "Give a new folder with --out, or remove it.")


def _export(path: Path, declaration: ModelDeclaration, half_weights: bool, ignored: IgnoredKeys) -> _Model:
    example = random_inputs(declaration.input)
    kind = declaration.output.kind
    if path.suffix.lower() == SUFFIX:
        exported, answer = import_onnx(path, declaration, example, half_weights)
        facts: dict[str, str] = {"network": "ONNX"}
    else:
        loaded = load_network(path, declaration, ignored)
        exported = export_network(loaded.network, kind, example, half_weights=half_weights)
        answer, facts = torch_inference(loaded.network, kind), dict(loaded.facts)
    return _Model(exported, answer, {"file": _file_name(path), "sha256": file_sha256(path), **facts})


def _file_name(path: Path) -> str:
    """File name as text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")


def _slice_error(name: str, model: _Model, batch: Float32Array, backend: CpuBackend) -> float:
    expected = model.answer(batch)
    if np.ptp(expected, axis=0).max() < _EQUAL_OUTPUTS:
        raise ExportError(
            (
                f"The model {name} returns the same output for all slices, which would hide any error of "
                "its export."
            ),
            "Check that the checkpoint is the trained one, and the spec's window, mean and std.",
        )
    try:
        found = backend.infer(name, batch)
    except ModelOutputError as failure:
        raise ExportError(
            f"The model {name} cannot be used: on slices {failure.fault}.",
            'Check the checkpoint; if its weights are good, write weights = "fp32" under [pack].',
        ) from failure
    error = float(np.abs(found - expected).max())
    if not error <= TOLERANCE:
        raise ExportError(
            (f"The model {name} differs from its checkpoint by {error:.2g} on slices, over {TOLERANCE:.2g}."),
            'Write weights = "fp32" under [pack].',
        )
    return error


def _metrics(model: _Model, slice_error: float | None) -> dict[str, float]:
    worst = max(model.exported.maximum_error, slice_error or 0.0)
    metrics = {"export_error_random": model.exported.maximum_error, "export_maximum_error": worst}
    return metrics if slice_error is None else {**metrics, "export_error_slices": slice_error}


def _content(
    spec: ExportSpec,
    models: Mapping[str, _Model],
    metrics: Mapping[str, Mapping[str, float]],
    card: Mapping[str, object],
) -> PackContent:
    return PackContent(
        name=spec.name,
        version=spec.version,
        licence=spec.licence,
        intended_use=spec.intended_use,
        clinical_use=spec.clinical_use,
        card={**spec.card, **card},
        models={
            name: ModelContent(
                model.exported.data,
                "fp32",
                spec.models[name].input,
                spec.models[name].output,
                {**spec.models[name].metrics, **metrics.get(name, {})},
            )
            for name, model in models.items()
        },
    )


def _describe(facts: Mapping[str, str]) -> str:
    parts = [f"{facts['file']}, {facts['network']}"]
    if "weights" in facts:
        parts.append(f"weights {facts['weights']}")
    if "not_read" in facts:
        parts.append(f"not read: {facts['not_read']}")
    if "temperature" in facts:
        parts.append(f"logits divided by the temperature {facts['temperature']}")
    return "; ".join(parts)
