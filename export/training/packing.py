"""Packing of trained networks into the reference pack, with its model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.export.onnx.from_torch import export_network
from stenosis_trt.export.packs.writer import ModelContent, PackContent, write_pack
from stenosis_trt.export.training.loops import TrainingTask
from stenosis_trt.export.training.recipe import EXPORT_CHECK_SEED, TRAINING_SEED, VALIDATION_SEED, Recipe
from stenosis_trt.export.training.tasks import SPECIFICATIONS

_SOURCES = (
    {"data": "phantoms of stenosis_trt.bench.phantom", "licence": "Apache-2.0", "persons": 0},
    {
        "data": "T2 volumes errsm_11, errsm_18, errsm_20 (spinalcordtoolbox), errsm_30 (sct_testing_data), "
        "stenoses made by deformation",
        "licence": "MIT, (c) 2014 Ecole Polytechnique, Université de Montréal; NeuroPoly",
        "persons": 4,
    },
    {
        "data": "T2 template PAM50 (sct_testing_data), stenoses made by deformation",
        "licence": "MIT, (c) 2014 NeuroPoly",
        "persons": 0,
    },
)
_LIMITS = (
    "Four healthy adults, one scanner sequence and a template are all the real anatomy it has seen. No real "
    "stenosis, no operated, injured or tumorous spine, no child. Grades and ratios of patients were never "
    "compared with readers."
)
_INTENDED_USE = (
    "Trying, testing and measuring. Trained on synthetic and semi-synthetic data. Not for patients."
)
_NOT_FOR = "Diagnosis, triage, treatment or any decision about a patient."


def build_pack(
    networks: Mapping[str, nn.Module],
    tasks: Mapping[str, TrainingTask],
    out: Path,
    recipe: Recipe,
    facts: Mapping[str, Any],
) -> Pack:
    """Export trained networks and write them as a pack, with the validation figures as metrics.

    Args:
        networks: one for each of `NETWORKS`; the grader's logits are calibrated.
        tasks: the tasks they were trained with.
        out: folder of the pack, created or replaced.
        recipe: stored in the model card.
        facts: further entries of the model card, such as figures of the folds.
    """
    models = {}
    for name, (source, result) in SPECIFICATIONS.items():
        network = networks[name].to("cpu").eval()
        inputs = [tasks[name].source(np.random.default_rng([EXPORT_CHECK_SEED, k]))[0] for k in range(4)]
        exported = export_network(network, result.kind, np.stack(inputs))
        metrics = {**tasks[name].validate(network), "export_maximum_error": exported.maximum_error}
        models[name] = ModelContent(exported.data, "fp32", source, result, metrics)
    content = PackContent(
        name="reference",
        version=metadata.version("stenosis-trt"),
        licence="Apache-2.0",
        intended_use=_INTENDED_USE,
        card={
            "training_data": list(_SOURCES),
            "training_seed": TRAINING_SEED,
            "validation_seed": VALIDATION_SEED,
            "recipe": asdict(recipe),
            "limits": _LIMITS,
            "not_for": _NOT_FOR,
            **facts,
        },
        models=models,
    )
    return write_pack(out, content)
