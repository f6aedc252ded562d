"""Make the reference pack: render phantoms, train three networks, export and write the pack.

    python -m stenosis_trt.export.train --work runs/reference --out engine/packs/reference

Every step is seeded and goes on where it was when the command is given again. `--only levels` (or `cord`,
`grader`) does one network; `--short` runs the whole path in a minute, to test it. What was trained is left in
the work folder as `levels.safetensors` and so on, for `stenosis-trt export`.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from stenosis_trt.engine.pack import OutputSpec, Pack
from stenosis_trt.export.checkpoints import write_checkpoint
from stenosis_trt.export.models.efficientnet import EfficientNetB5
from stenosis_trt.export.models.keypoint import KeypointNet
from stenosis_trt.export.onnx_export import export_network
from stenosis_trt.export.pack_writer import ModelContent, PackContent, write_pack
from stenosis_trt.export.training.loops import Task, train
from stenosis_trt.export.training.recipe import (
    CORD_INPUT,
    CORD_NAMES,
    CORD_STRIDE,
    EXPORT_CHECK_SEED,
    GRADE_NAMES,
    GRADER_INPUT,
    LEVEL_NAMES,
    LEVELS_INPUT,
    LEVELS_STRIDE,
    MINIMUM_PEAK,
    MINIMUM_PROBABILITY,
    REFERENCE,
    SHORT,
    TRAINING_SEED,
    VALIDATION_SEED,
    Recipe,
)
from stenosis_trt.export.training.rendering import render_set, rendered_path
from stenosis_trt.export.training.samples import CordSamples, GraderSamples, LevelSamples, StudyStore
from stenosis_trt.export.training.validation import GraderValidation, KeypointValidation

_SHORT_RUN_MOMENTUM = 0.05
NETWORKS = ("levels", "cord", "grader")
_POINT_WEIGHT = 30.0
"""How much more a pixel at a heatmap's peak counts than one far away; points cover little of the image."""


def heatmap_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy against soft targets, weighted towards the points; lowest where they agree."""
    weight = 1.0 + _POINT_WEIGHT * target
    return nn.functional.binary_cross_entropy_with_logits(logits, target, weight=weight)


def grade_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy, plus the squared error of the expected grade: a far miss costs more than a near one."""
    classes = torch.arange(logits.shape[1], device=logits.device, dtype=logits.dtype)
    expected = (logits.softmax(dim=1) * classes).sum(dim=1)
    distance = nn.functional.mse_loss(expected, target.to(logits.dtype))
    return nn.functional.cross_entropy(logits, target, label_smoothing=0.03) + 0.25 * distance


def _store(folder: Path, seed: int, count: int) -> StudyStore:
    return StudyStore([rendered_path(folder, seed, index) for index in range(count)])


def make_task(name: str, recipe: Recipe, rendered: Path) -> Task:
    """The network of that name with its samples, loss and validation."""
    validation = _store(rendered, VALIDATION_SEED, recipe.validation_studies)
    if name == "grader":
        store = _store(rendered, TRAINING_SEED, recipe.grader_studies)
        network = EfficientNetB5(len(GRADE_NAMES), dropout=0.2, stochastic_depth=0.05)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # A thousand steps are too few for statistics that follow with a hundredth a step.
                module.momentum = _SHORT_RUN_MOMENTUM
        return Task(
            name=name,
            network=network,
            source=GraderSamples(store, GRADER_INPUT),
            loss=grade_loss,
            validate=GraderValidation(validation, GRADER_INPUT),
            schedule=recipe.grader,
        )
    store = _store(rendered, TRAINING_SEED, recipe.keypoint_studies)
    if name == "levels":
        return Task(
            name=name,
            network=KeypointNet(LEVELS_INPUT.channels, len(LEVEL_NAMES), LEVELS_STRIDE),
            source=LevelSamples(store, LEVELS_INPUT, LEVELS_STRIDE),
            loss=heatmap_loss,
            validate=KeypointValidation(validation, LEVELS_INPUT, LEVELS_STRIDE),
            schedule=recipe.levels,
        )
    return Task(
        name=name,
        network=KeypointNet(CORD_INPUT.channels, len(CORD_NAMES), CORD_STRIDE),
        source=CordSamples(store, CORD_INPUT, CORD_STRIDE),
        loss=heatmap_loss,
        validate=KeypointValidation(validation, CORD_INPUT, CORD_STRIDE),
        schedule=recipe.cord,
    )


def build_pack(
    networks: dict[str, nn.Module], tasks: dict[str, Task], out: Path, recipe: Recipe, trained_on: str
) -> Pack:
    """Export the trained networks and write them as a pack; its metrics are those of the validation set."""
    specs = {
        "levels": (LEVELS_INPUT, OutputSpec("heatmaps", LEVEL_NAMES, LEVELS_STRIDE, MINIMUM_PEAK)),
        "cord": (CORD_INPUT, OutputSpec("heatmaps", CORD_NAMES, CORD_STRIDE, MINIMUM_PEAK)),
        "grader": (GRADER_INPUT, OutputSpec("classes", GRADE_NAMES, 1, MINIMUM_PROBABILITY)),
    }
    models = {}
    for name, (source, result) in specs.items():
        network = networks[name].to("cpu").eval()
        inputs = [tasks[name].source(np.random.default_rng([EXPORT_CHECK_SEED, k]))[0] for k in range(4)]
        exported = export_network(network, result.kind, np.stack(inputs))
        metrics = {**tasks[name].validate(network), "export_maximum_error": exported.maximum_error}
        models[name] = ModelContent(exported.data, "fp32", source, result, metrics)
    content = PackContent(
        name="reference",
        version=metadata.version("stenosis-trt"),
        licence="Apache-2.0",
        intended_use="Trying, testing and measuring. Trained on synthetic data. Not for patients.",
        card={
            "training_data": "phantoms of stenosis_trt.bench.phantom; no image of a person",
            "trained_on": trained_on,
            "training_seed": TRAINING_SEED,
            "validation_seed": VALIDATION_SEED,
            "recipe": asdict(recipe),
            "limits": "Has seen no real anatomy; what it says of a real study means nothing.",
        },
        models=models,
    )
    return write_pack(out, content)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, mixed precision, PyTorch {torch.__version__}"
    return f"CPU, PyTorch {torch.__version__}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the reference pack on phantoms.")
    parser.add_argument("--work", type=Path, required=True, help="renderings, checkpoints and logs")
    parser.add_argument("--out", type=Path, help="write the pack here; without it, only train")
    parser.add_argument("--only", choices=NETWORKS, help="train one network and stop")
    parser.add_argument("--seed", type=int, default=0, help="initial weights and order of samples")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that render and draw samples"
    )
    parser.add_argument("--short", action="store_true", help="the whole path in a minute, to test it")
    return parser.parse_args()


def main() -> None:
    """Run the recipe, or what is left of it."""
    arguments = _arguments()
    recipe = SHORT if arguments.short else REFERENCE
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rendered = arguments.work / "rendered"
    studies = recipe.keypoint_studies if arguments.only in ("levels", "cord") else recipe.grader_studies
    render_set(rendered, VALIDATION_SEED, range(recipe.validation_studies), arguments.workers)
    render_set(rendered, TRAINING_SEED, range(studies), arguments.workers)
    networks: dict[str, nn.Module] = {}
    tasks: dict[str, Task] = {}
    for name in [arguments.only] if arguments.only else NETWORKS:
        # Seeded before the network is made, so that its initial weights are the same every time.
        torch.manual_seed(arguments.seed)
        task = make_task(name, recipe, rendered)
        tasks[name] = replace(task, schedule=replace(task.schedule, seed=arguments.seed))
        # On a CPU drawing samples and learning from them share the cores.
        loaders = arguments.workers if device.type == "cuda" else max(1, arguments.workers - 1)
        networks[name] = train(tasks[name], arguments.work, device, loaders)
        write_checkpoint(arguments.work / f"{name}.safetensors", networks[name])
    if arguments.out and not arguments.only:
        pack = build_pack(networks, tasks, arguments.out, recipe, _device_name(device))
        print(f"{pack.path}: pack {pack.name} {pack.version}, SHA-256 {pack.sha256}")


if __name__ == "__main__":
    main()
