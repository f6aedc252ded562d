"""Resumable training loop for all networks: seeded, logged, with early stopping.

A run is determined by (seed, step): sample `i` is drawn from generator `[seed, i]`, the learning rate is a
function of the step, and the checkpoint stores the rest. A repeated run continues from its last checkpoint.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler

from stenosis_trt.export.training.initial_weights import (
    freeze,
    load_initial_weights,
    set_training_mode,
    weights_record,
)
from stenosis_trt.export.training.logs import LOG_SUFFIX, append_row, truncate_log_after
from stenosis_trt.export.training.quantised import ActivationRanges, simulated_int8

Sample = tuple[npt.NDArray[np.float32], npt.NDArray[Any]]


class SampleSource(Protocol):
    """Draws a sample from a generator: network input float32 (C, H, W) and its target."""

    def __call__(self, rng: np.random.Generator) -> Sample: ...


@dataclass(frozen=True)
class TrainingSchedule:
    """Length and learning rate of a run: linear warm-up, then cosine decay to zero.

    The result is an exponential moving average of the network with decay `average_decay` per step. With 0 it
    is the trained network itself, which suits deep networks with batch normalisation, whose averaged
    statistics do not match averaged weights.

    Attributes:
        patience: consecutive validations without improvement before the run stops; 0 for never. The cosine
            always spans all `steps`, so a run that stops early misses the low rates: use a large part of the
            validations.
        frozen: prefixes of names of parameters that are not trained; frozen batch normalisations keep their
            statistics.
        observed: steps during which activation ranges are measured before INT8 is simulated.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 1e-4
    warm_up: int = 100
    average_decay: float = 0.995
    checkpoint_every: int = 100
    validate_every: int = 250
    seed: int = 0
    patience: int = 0
    frozen: tuple[str, ...] = ()
    observed: int = 16

    def rate(self, step: int) -> float:
        """Learning rate of step `step` (0-based)."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        share = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


@dataclass(frozen=True)
class TrainingTask:
    """A network with its samples, loss and validation.

    Attributes:
        loss: function of (network output, target).
        validate: takes the averaged network in evaluation mode, returns figures by name.
        selection_metric: figure that selects the best network; None to take the last one.
        higher_is_better: direction of that figure.
        initial_weights: .safetensors file; None for the network's own weights.
        quantise_from_step: step (0-based) from which ranges are measured for `TrainingSchedule.observed`
            steps, and INT8 is simulated afterwards. Only networks validated with INT8 can be selected. None
            for never.
        bfloat16: train with bfloat16 on a CPU; validation is in float32.
    """

    name: str
    network: nn.Module
    source: SampleSource
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    validate: Callable[[nn.Module], dict[str, float]]
    schedule: TrainingSchedule
    selection_metric: str | None = None
    higher_is_better: bool = True
    initial_weights: Path | None = None
    quantise_from_step: int | None = None
    bfloat16: bool = False

    def __post_init__(self) -> None:
        if self.schedule.patience and self.selection_metric is None:
            raise ValueError(f"{self.name} needs a figure for its patience. Set selection_metric.")
        if self.quantise_from_step is not None:
            last = self.schedule.steps - self.schedule.observed
            if not 0 <= self.quantise_from_step < last:
                raise ValueError(
                    f"{self.name} would never be trained with INT8: it has {self.schedule.steps} steps. "
                    f"Let quantise_from_step be 0 or more and below {last}."
                )


class _Samples(Dataset[Sample]):
    def __init__(self, source: SampleSource, seed: int) -> None:
        self.source, self.seed = source, seed

    def __getitem__(self, index: int) -> Sample:
        return self.source(np.random.default_rng([self.seed, index]))


class _StartingAt(Sampler[int]):
    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last))

    def __len__(self) -> int:
        return self.last - self.first


def train(task: TrainingTask, folder: Path, device: torch.device, loaders: int = 1) -> nn.Module:
    """Train `task`, or resume its training; returns the averaged network in evaluation mode.

    Args:
        task: the network to train.
        folder: receives `<name>.checkpoint.pt`, `<name>.log.jsonl` and, with a selection metric,
            `<name>.best.pt`.
        device: a GPU trains with float16 autocast, a CPU as the task says.
        loaders: number of processes that draw samples.

    Returns:
        The best network by `task.selection_metric`; the last one without a metric or a finite figure.

    Raises:
        ValueError: the schedule names unknown parameters, the task an unknown figure, or the run in `folder`
            started from other initial weights.
        CheckpointError: the initial weights cannot be read or do not fit the network.
        RuntimeError: the loss is not finite, or files in `folder` belong to something else.
    """
    run = _TrainingRun(task, folder, device)
    if not run.over:
        run.go_on(loaders)
    return run.result()


@dataclass
class _Progress:
    """State of a run besides its tensors: steps done, and validations since the best one (`poorer`)."""

    step: int = 0
    loss: float | None = None
    best_step: int | None = None
    best_figure: float | None = None
    poorer: int = 0
    stopped: bool = False


class _TrainingRun:
    def __init__(self, task: TrainingTask, folder: Path, device: torch.device) -> None:
        self.task, self.device = task, device
        schedule = task.schedule
        folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = folder / f"{task.name}.checkpoint.pt"
        self.best = folder / f"{task.name}.best.pt"
        self.log = folder / f"{task.name}{LOG_SUFFIX}"
        torch.manual_seed(schedule.seed)
        self.network = task.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        trained = freeze(self.network, schedule.frozen)
        resumed = self.checkpoint.exists()
        self.start: dict[str, str] | None = None
        if task.initial_weights is not None and not resumed:
            load_initial_weights(task.initial_weights, self.network)
            self.start = weights_record(task.initial_weights)
        self.average = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(schedule.average_decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        self.optimiser = torch.optim.AdamW(trained, lr=1.0, weight_decay=schedule.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        self.ranges = ActivationRanges(schedule.observed)
        self.progress = _Progress()
        self.random: dict[str, torch.Tensor] = {}
        if resumed:
            self._restore()
        truncate_log_after(self.log, self.progress.step)

    @property
    def over(self) -> bool:
        return self.progress.stopped or self.progress.step >= self.task.schedule.steps

    def go_on(self, loaders: int) -> None:
        """Train until the run is over."""
        schedule, first = self.task.schedule, self.progress.step
        loader = DataLoader(
            _Samples(self.task.source, schedule.seed),
            batch_size=schedule.batch,
            sampler=_StartingAt(first * schedule.batch, schedule.steps * schedule.batch),
            num_workers=loaders,
            drop_last=True,
        )
        set_training_mode(self.network, schedule.frozen)
        since, last = time.monotonic(), first
        batches = iter(loader)
        # After the loader's own draw, so that dropout continues reproducibly.
        self._set_random()
        for inputs, targets in batches:
            self._learn(inputs, targets)
            done = self.progress.step
            validated = done % schedule.validate_every == 0 or done == schedule.steps
            if validated:
                self._validate((time.monotonic() - since) / (done - last))
                since, last = time.monotonic(), done
            # Validations are saved at once, because they decide about the best network and stopping.
            if validated or done % schedule.checkpoint_every == 0:
                self._save()
            if self.over:
                return

    def result(self) -> nn.Module:
        """The trained network."""
        if self.progress.best_step is not None:
            if not self.best.exists():
                raise RuntimeError(
                    f"{self.best} is missing, the best network of the run. "
                    f"Remove {self.checkpoint} to train again."
                )
            best = torch.load(self.best, map_location=self.device, weights_only=True)
            self.average.module.load_state_dict(best["network"])
        network: nn.Module = self.average.module.eval()
        return network

    def _learn(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """One training step."""
        step = self.progress.step
        for group in self.optimiser.param_groups:
            group["lr"] = self.task.schedule.rate(step)
        inputs = inputs.to(self.device, memory_format=torch.channels_last)
        cuda = self.device.type == "cuda"
        form = torch.float16 if cuda else torch.bfloat16
        half = torch.autocast(self.device.type, dtype=form, enabled=cuda or self.task.bfloat16)
        quantised = self.task.quantise_from_step is not None and step >= self.task.quantise_from_step
        with half, self._int8_context(self.network, quantised):
            loss = self.task.loss(self.network(inputs).float(), targets.to(self.device))
        value = loss.item()
        if not math.isfinite(value):
            raise RuntimeError(self._not_finite_message(value, inputs, targets))
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update_parameters(self.network)
        before = self.progress.loss
        self.progress.loss = value if before is None else 0.98 * before + 0.02 * value
        self.progress.step = step + 1

    def _validate(self, seconds_a_step: float) -> None:
        """Validate the averaged network, keep it if it is the best so far, and log the figures."""
        task, progress = self.task, self.progress
        quantised = task.quantise_from_step is not None and self.ranges.fixed
        with self._int8_context(self.average.module.eval(), quantised) as network:
            figures = task.validate(network)
        if task.selection_metric is not None and (quantised or task.quantise_from_step is None):
            self._select_best(figures)
        row: dict[str, Any] = {
            "step": progress.step,
            "loss": progress.loss,
            "rate": task.schedule.rate(progress.step - 1),
            "seconds_a_step": seconds_a_step,
            "int8": quantised,
            **figures,
        }
        if progress.best_step is not None:
            row |= {
                "judged_by": task.selection_metric,
                "best_step": progress.best_step,
                "best_figure": progress.best_figure,
            }
        append_row(self.log, row)
        shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        print(task.name, shown, flush=True)
        if progress.stopped:
            print(f"{task.name} stops: {progress.poorer} validations were no better.", flush=True)

    def _select_best(self, figures: dict[str, float]) -> None:
        task, progress = self.task, self.progress
        if task.selection_metric not in figures:
            raise ValueError(
                f"{task.name} is judged by {task.selection_metric!r}, and its validation gives "
                f"{', '.join(figures)}. Name one of those."
            )
        figure = figures[task.selection_metric]
        best = progress.best_figure
        if math.isfinite(figure) and (
            best is None or (figure > best if task.higher_is_better else figure < best)
        ):
            progress.best_step, progress.best_figure, progress.poorer = progress.step, figure, 0
            state = {"network": self.average.module.state_dict(), "step": progress.step, "figure": figure}
            _save_atomically(self.best, state)
        else:
            progress.poorer += 1
            progress.stopped = 0 < task.schedule.patience <= progress.poorer

    def _int8_context(self, network: nn.Module, quantised: bool) -> AbstractContextManager[nn.Module]:
        return simulated_int8(network, self.ranges) if quantised else nullcontext(network)

    def _not_finite_message(self, value: float, inputs: torch.Tensor, targets: torch.Tensor) -> str:
        step, schedule = self.progress.step, self.task.schedule
        what = f"The loss of {self.task.name} is {value} in step {step}"
        first = step * schedule.batch
        numbers = f"samples {first} to {first + schedule.batch - 1} of seed {schedule.seed}"
        if not (torch.isfinite(inputs).all() and torch.isfinite(targets).all()):
            return f"{what}: {numbers} hold values that are not finite. Mend their source."
        return (
            f"{what}, on {numbers}, which are finite. Lower the learning rate or warm up for longer, "
            f"and remove {self.checkpoint} to begin anew: its weights may be on their way there."
        )

    def _save(self) -> None:
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random,
            "ranges": asdict(self.ranges),
            "progress": asdict(self.progress),
            "start": self.start,
        }
        _save_atomically(self.checkpoint, state)

    def _restore(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if "progress" not in state:
            raise RuntimeError(
                f"{self.checkpoint} was written by an older version of this recipe. Remove it to train anew."
            )
        self.start = state["start"]
        self._check_start()
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.ranges = ActivationRanges(**state["ranges"])
        self.progress = _Progress(**state["progress"])
        self.random = state["random"]

    def _check_start(self) -> None:
        """Raise ValueError if the run started from other initial weights than the task names."""
        given, began = self.task.initial_weights, self.start
        if given is None and began is None:
            return
        # The file itself is no longer needed; if it is gone, its name is compared.
        same = (
            given is not None
            and began is not None
            and (began == weights_record(given) if given.is_file() else began["name"] == given.name)
        )
        if not same:
            raise ValueError(
                f"The run in {self.checkpoint} began with {began['name'] if began else 'no file'}, and "
                f"{given or 'no file'} is named now, or holds other weights. Name that file again, or remove "
                "the checkpoint to begin anew."
            )

    def _set_random(self) -> None:
        if self.random:
            torch.set_rng_state(self.random["cpu"].cpu())
        if "cuda" in self.random:
            torch.cuda.set_rng_state(self.random["cuda"].cpu(), self.device)


def _save_atomically(path: Path, state: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
