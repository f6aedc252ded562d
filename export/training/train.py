"""Training of the reference pack: three networks, cross-validation over subjects, and the pack.

    python -m stenosis_trt.export.training.train --work W --volumes ../shared/data/volumes --folds
    python -m stenosis_trt.export.training.train --work W --volumes ../shared/data/volumes --out PACK

All networks are first trained on ordinary phantoms, then on phantoms under varied conditions, and last on a
mix of those and of studies with real anatomy and simulated stenoses. `--folds` runs the last stage once
without each subject and evaluates on that subject (W/folds.json); `--out` runs it with all subjects and
writes the pack, with the temperature and figures of the folds.

Every step is seeded and resumes when the command is repeated. `--only levels` (or `cord`, `grader`) trains
one network; `--short` runs the whole recipe in minutes for tests. Trained weights stay in the work folder as
`levels.safetensors` etc., for `stenosis-trt export`; those of the grader's second run in `again`,
and the mean of both runs, which the pack has, in `mean`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stenosis_trt.export.checkpoints.files import write_checkpoint
from stenosis_trt.export.models.temperature import TemperatureScaled
from stenosis_trt.export.training.averaging import mean_network
from stenosis_trt.export.training.curves import plot_curves
from stenosis_trt.export.training.folds import (
    FoldResult,
    evaluate_held_out_subject,
    fold_figures,
    write_figures,
)
from stenosis_trt.export.training.initial_weights import weights_record
from stenosis_trt.export.training.loops import TrainingSchedule, TrainingTask, train
from stenosis_trt.export.training.packing import build_pack
from stenosis_trt.export.training.recipe import REFERENCE_RECIPE, SHORT_RECIPE, Recipe, TrainingStage
from stenosis_trt.export.training.sets import StudyFolder, training_set, validation_set
from stenosis_trt.export.training.tasks import NETWORKS, TrainingOptions, make_task


@dataclass(frozen=True)
class RecipeRun:
    """Options shared by all parts of the recipe.

    Attributes:
        recipe: see `Recipe`.
        folder: rendered studies and volumes.
        device: a GPU trains with mixed precision, a CPU in float32 or as `bfloat16` says.
        seed: of initial weights and the order of samples.
        only: networks to train.
        start: folder of `<network>.safetensors` that replace the first stage.
        int8_share: share of the last stage, at its end, with simulated INT8; 0 for none.
        bfloat16: train keypoint networks with bfloat16 on a CPU.
    """

    recipe: Recipe
    folder: StudyFolder
    device: torch.device
    seed: int
    only: tuple[str, ...]
    start: Path | None
    int8_share: float
    bfloat16: bool

    def train_network(
        self, name: str, stage: TrainingStage, place: Path, left_out: str | None
    ) -> tuple[nn.Module, TrainingTask]:
        """Train one network in one stage, or resume that."""
        schedule = replace(stage.schedule(name), seed=self.seed)
        start = self.weights_before(stage, name)
        last = stage is self.recipe.mixed and name != "grader"
        return self._train(name, stage, schedule, start, place, left_out, last)

    def train_grader_again(self, place: Path, left_out: str | None) -> tuple[nn.Module, TrainingTask]:
        """Train the grader for a second time in the last stage, or resume that."""
        schedule = replace(self.recipe.grader_again, seed=self.seed + 1)
        start = place / "grader.safetensors"
        return self._train("grader", self.recipe.mixed, schedule, start, place / "again", left_out, True)

    def _train(
        self,
        name: str,
        stage: TrainingStage,
        schedule: TrainingSchedule,
        start: Path | None,
        place: Path,
        left_out: str | None,
        last: bool,
    ) -> tuple[nn.Module, TrainingTask]:
        quantise_from = int(schedule.steps * (1.0 - self.int8_share)) if last and self.int8_share else None
        # Seeded before the network is created, so that its initial weights are reproducible.
        torch.manual_seed(schedule.seed)
        task = make_task(
            name,
            TrainingOptions(schedule, start, quantise_from, self.bfloat16),
            training_set(self.folder, self.recipe, stage, name, left_out),
            validation_set(self.folder, self.recipe, stage, left_out),
        )
        # On a CPU, sampling and training share the cores.
        workers = self.folder.workers
        network = train(task, place, self.device, workers if self.device.type == "cuda" else workers - 1)
        write_checkpoint(place / f"{name}.safetensors", network)
        return network, task

    def weights_before(self, stage: TrainingStage, name: str) -> Path | None:
        """Weights file with which a stage of `name` begins, trained if missing; None for the first stage."""
        if stage is self.recipe.varied_phantoms:
            return self.first_weights(name)
        if stage is not self.recipe.mixed:
            return None
        place = self.folder.work / "varied_phantoms"
        path = place / f"{name}.safetensors"
        if not path.exists():
            self.train_network(name, self.recipe.varied_phantoms, place, None)
        return path

    def first_weights(self, name: str) -> Path:
        """Weights file of `name` that replaces the first stage, or is its result."""
        place = self.start or self.folder.work / "phantoms_only"
        path = place / f"{name}.safetensors"
        if self.start is None and not path.exists():
            self.train_network(name, self.recipe.phantoms_only, place, None)
        return path

    def train_mixed(self, left_out: str | None) -> tuple[dict[str, nn.Module], dict[str, TrainingTask], Path]:
        """Run the last stage, without one subject or with all."""
        place = self.folder.work / (f"without_{left_out}" if left_out else "all")
        networks, tasks = {}, {}
        for name in self.only:
            networks[name], tasks[name] = self.train_network(name, self.recipe.mixed, place, left_out)
            if name == "grader":
                again, tasks[name] = self.train_grader_again(place, left_out)
                networks[name] = mean_network(networks[name], again)
                (place / "mean").mkdir(exist_ok=True)
                write_checkpoint(place / "mean" / "grader.safetensors", networks[name])
        return networks, tasks, place

    def evaluate_fold(self, subject: str) -> FoldResult:
        """Train without a subject and evaluate on it."""
        networks, tasks, place = self.train_mixed(subject)
        pack = build_pack(networks, tasks, place / "pack", self.recipe, {"left_out": subject})
        held_out = self.folder.work / "held_out" / subject
        return evaluate_held_out_subject(subject, pack.path, self.folder, self.recipe, held_out)

    @property
    def hardware(self) -> str:
        """Device and arithmetic, for the model card."""
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
            return f"{name}, mixed precision, PyTorch {torch.__version__}"
        arithmetic = ", bfloat16 for keypoints" if self.bfloat16 else ""
        return f"CPU{arithmetic}, PyTorch {torch.__version__}"


def command_line() -> argparse.ArgumentParser:
    """Parser of the command line."""
    parser = argparse.ArgumentParser(description="Train the reference pack.")
    parser.add_argument("--work", type=Path, required=True, help="renderings, checkpoints and logs")
    parser.add_argument("--volumes", type=Path, help="folder with one folder a subject")
    parser.add_argument("--folds", action="store_true", help="train without each subject and evaluate on it")
    parser.add_argument("--left-out", action="append", help="only these folds; repeatable")
    parser.add_argument("--out", type=Path, help="train with all subjects and write the pack here")
    parser.add_argument("--only", choices=NETWORKS, help="train one network and stop")
    parser.add_argument(
        "--start", type=Path, help="folder of initial weights, .safetensors, instead of phantom training"
    )
    parser.add_argument(
        "--as-int8", type=float, default=0.0, metavar="SHARE", help="simulate INT8 in this share of the steps"
    )
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="train keypoint networks in bfloat16 on a CPU; twice as fast with AMX",
    )
    parser.add_argument("--seed", type=int, default=0, help="initial weights and order of samples")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that render and draw samples"
    )
    parser.add_argument("--short", action="store_true", help="run the whole recipe in minutes, for tests")
    return parser


def read_fold_figures(path: Path) -> dict[str, Any]:
    """Figures of the folds; {} if `--folds` was not run."""
    if not path.exists():
        print(f"There is no {path}: the pack gets no temperature and no figures. Run --folds first.")
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def main() -> None:
    """Run or resume the recipe."""
    arguments = command_line().parse_args()
    run = RecipeRun(
        recipe=SHORT_RECIPE if arguments.short else REFERENCE_RECIPE,
        folder=StudyFolder(arguments.work, arguments.volumes, arguments.workers),
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        seed=arguments.seed,
        only=(arguments.only,) if arguments.only else NETWORKS,
        start=arguments.start,
        int8_share=arguments.as_int8,
        bfloat16=arguments.bfloat16,
    )
    if arguments.volumes is None:
        sys.exit("The recipe needs real volumes. Give --volumes.")
    if unknown := set(arguments.left_out or ()) - set(run.recipe.subjects):
        sys.exit(f"{min(unknown)} is no training subject. Leave out one of {', '.join(run.recipe.subjects)}.")
    if arguments.folds and arguments.only:
        sys.exit("A fold is evaluated with all three networks. Leave out --only, or --folds.")
    arguments.work.mkdir(parents=True, exist_ok=True)
    found = arguments.work / "folds.json"
    if arguments.folds:
        try:
            folds = [run.evaluate_fold(subject) for subject in arguments.left_out or run.recipe.subjects]
        except ValueError as error:
            sys.exit(str(error))
        write_figures(found, fold_figures(folds))
        print(found.read_text(encoding="utf-8"))
    elif arguments.only or not arguments.out:
        run.train_mixed(None)
    if arguments.out and not arguments.only:
        known = read_fold_figures(found)
        # Before the training, so that a missing file is reported at once.
        try:
            begun_with = [weights_record(run.first_weights(name)) for name in NETWORKS]
        except OSError as error:
            sys.exit(
                f"{error.filename} cannot be read ({error.strerror}). The model card names the --start files."
            )
        networks, tasks, _ = run.train_mixed(None)
        temperature = known["calibration"]["temperature"] if known else 1.0
        if temperature != 1.0:
            networks["grader"] = TemperatureScaled(networks["grader"], temperature)
        facts = {"trained_on": run.hardware, "begun_with": begun_with, "left_out_figures": known}
        pack = build_pack(networks, tasks, arguments.out, run.recipe, facts)
        print(f"{pack.path}: pack {pack.name} {pack.version}, SHA-256 {pack.sha256}")
    plot_curves(arguments.work, arguments.work / "curves.png")


if __name__ == "__main__":
    main()
