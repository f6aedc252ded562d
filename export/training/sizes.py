"""Comparison of network and input sizes: accuracy against cost.

    python -m stenosis_trt.export.training.sizes --work W --volumes ../shared/data/volumes --out sizes.json

Each candidate is trained for a few hundred steps on the rendered studies of the recipe, and evaluated on the
left-out subject. That is too short for the best figures, but enough to rank candidates. Keypoint networks
start from random weights, graders from those of `--start`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from stenosis_trt.bench.roofline.layer_work import fold_fp16_weights, multiply_adds
from stenosis_trt.engine.packs.models import InputSpec
from stenosis_trt.export.models.keypoint import KeypointNet
from stenosis_trt.export.onnx.from_torch import export_network
from stenosis_trt.export.training.augmentation import Float32
from stenosis_trt.export.training.loops import TrainingTask, train
from stenosis_trt.export.training.recipe import (
    CORD_INPUT,
    GRADER_INPUT,
    LEVELS_INPUT,
    REFERENCE_RECIPE,
    VALIDATION_SEED,
)
from stenosis_trt.export.training.samples import StudyStore
from stenosis_trt.export.training.sets import StudyFolder, training_set
from stenosis_trt.export.training.tasks import (
    SPECIFICATIONS,
    grade_loss,
    heatmap_loss,
    make_network,
    make_source,
    make_validation,
)

_RUNS = 20


@dataclass(frozen=True)
class NetworkCandidate:
    """A network and its input. `stride` and `decoder` apply to keypoint networks."""

    model: str
    name: str
    source: InputSpec
    stride: int = 1
    decoder: int = 64


def _with_size(spec: InputSpec, size: int, spacing_mm: float) -> InputSpec:
    return replace(spec, height=size, width=size, spacing_mm=spacing_mm)


CANDIDATES = (
    NetworkCandidate("levels", "256² at 1 mm", LEVELS_INPUT, 4),
    NetworkCandidate("levels", "192² at 1.33 mm", _with_size(LEVELS_INPUT, 192, 4 / 3), 4),
    NetworkCandidate("levels", "256² at 1 mm, half the decoder", LEVELS_INPUT, 4, 32),
    NetworkCandidate("cord", "128² at 0.5 mm", CORD_INPUT, 2),
    NetworkCandidate("cord", "96² at 0.67 mm", _with_size(CORD_INPUT, 96, 2 / 3), 2),
    NetworkCandidate("cord", "128² at 0.5 mm, stride 4", CORD_INPUT, 4),
    NetworkCandidate("grader", "one slice", GRADER_INPUT),
    NetworkCandidate(
        "grader", "three neighbouring slices", replace(GRADER_INPUT, channel_source="neighbours")
    ),
)


@dataclass(frozen=True)
class CandidateResult:
    """Cost and figures of a candidate; `milliseconds` for one input on one thread of ONNX Runtime."""

    model: str
    name: str
    steps: int
    parameters: int
    multiply_adds: int
    milliseconds: float
    figures: dict[str, float]


def _keypoint_network(candidate: NetworkCandidate) -> KeypointNet:
    points = len(SPECIFICATIONS[candidate.model][1].names)
    return KeypointNet(candidate.source.channels, points, candidate.stride, candidate.decoder)


@dataclass(frozen=True)
class CandidateTraining:
    """How candidates are trained.

    Attributes:
        steps: number of steps.
        folder: rendered studies.
        left_out: subject to evaluate on.
        start: initial weights of graders.
        bfloat16: train keypoint networks with bfloat16 on a CPU.
    """

    steps: int
    folder: StudyFolder
    left_out: str
    start: Path
    bfloat16: bool


def train_candidate(candidate: NetworkCandidate, trial: CandidateTraining, place: Path) -> CandidateResult:
    """Train a candidate without the left-out subject and evaluate it; `place` gets checkpoint and log."""
    folder, steps = trial.folder, trial.steps
    training = training_set(folder, REFERENCE_RECIPE, REFERENCE_RECIPE.mixed, candidate.model, trial.left_out)
    judging = StudyStore(
        folder.anatomies(trial.left_out, VALIDATION_SEED, REFERENCE_RECIPE.validation_anatomies)
    )
    grader = candidate.model == "grader"
    torch.manual_seed(0)
    network = make_network("grader") if grader else _keypoint_network(candidate)
    source = make_source(candidate.model, training, candidate.source, candidate.stride)
    validate = make_validation(candidate.model, judging, candidate.source, candidate.stride)
    whole = REFERENCE_RECIPE.mixed.schedule(candidate.model)
    rate = whole.learning_rate if grader else 2e-3
    schedule = replace(
        whole, steps=steps, learning_rate=rate, validate_every=steps, checkpoint_every=steps, patience=0
    )
    task = TrainingTask(
        name=candidate.model,
        network=network,
        source=source,
        loss=grade_loss if grader else heatmap_loss,
        validate=validate,
        schedule=schedule,
        initial_weights=trial.start if grader else None,
        bfloat16=trial.bfloat16 and not grader,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = train(task, place, device, folder.workers - 1).to("cpu").eval()
    example = source(np.random.default_rng(0))[0][None]
    exported = export_network(trained, "classes" if grader else "heatmaps", example)
    graph = fold_fp16_weights(onnx.load_model_from_string(exported.data))
    return CandidateResult(
        model=candidate.model,
        name=candidate.name,
        steps=steps,
        parameters=sum(p.numel() for p in trained.parameters()),
        multiply_adds=sum(multiply_adds(graph).values()),
        milliseconds=_milliseconds(exported.data, example),
        figures=validate(trained),
    )


def _milliseconds(model: bytes, example: Float32) -> float:
    """Median time of one input on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name, times = session.get_inputs()[0].name, []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        session.run(None, {name: example})
        times.append(time.perf_counter() - begin)
    return 1000.0 * float(np.median(times))


def main() -> None:
    """Train all candidates, or those of one model, and write their results."""
    parser = argparse.ArgumentParser(description="Compare sizes of networks and inputs.")
    parser.add_argument("--work", type=Path, required=True, help="the recipe's work folder")
    parser.add_argument("--volumes", type=Path, required=True, help="folder with one folder a subject")
    parser.add_argument(
        "--left-out", default="errsm_30", choices=REFERENCE_RECIPE.subjects, help="subject to evaluate on"
    )
    parser.add_argument("--model", choices=("levels", "cord", "grader"), help="train only its candidates")
    parser.add_argument("--start", type=Path, help="initial weights of graders, .safetensors")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--bfloat16", action="store_true", help="see stenosis_trt.export.training.train")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file; candidates it contains are skipped"
    )
    arguments = parser.parse_args()
    folder = StudyFolder(arguments.work, arguments.volumes, arguments.workers)
    start = arguments.start or arguments.work / "phantoms_only" / "grader.safetensors"
    trial = CandidateTraining(arguments.steps, folder, arguments.left_out, start, arguments.bfloat16)
    kept = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else []
    done = {(item["model"], item["name"]) for item in kept}
    for candidate in CANDIDATES:
        if (candidate.model, candidate.name) in done or arguments.model not in (None, candidate.model):
            continue
        place = arguments.work / "sizes" / arguments.left_out / f"{candidate.model}, {candidate.name}"
        found = train_candidate(candidate, trial, place)
        kept.append(asdict(found))
        arguments.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(kept[-1], flush=True)


if __name__ == "__main__":
    main()
