"""One training loop for every network: seeded, resumable, logged.

The whole course is fixed by (seed, step): sample `i` of the run is drawn from generator `[seed, i]`,
the learning rate is a function of the step, and a checkpoint holds the rest. A run that is stopped
and started again goes on where its last checkpoint was.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler

Sample = tuple[npt.NDArray[np.float32], npt.NDArray[Any]]


class SampleSource(Protocol):
    """Draws sample number `index` of a run: network input float32 (C, H, W) and its target."""

    def __call__(self, rng: np.random.Generator) -> Sample: ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. The learning rate warms up linearly and falls to zero as a cosine.

    The network that comes out is a running average of the trained one, `average_decay` the share of the old
    average that each step keeps. With 0 it is the trained network itself: right for a deep network with
    batch normalisation, whose averaged statistics do not fit its averaged weights.
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

    def rate(self, step: int) -> float:
        """Learning rate of step `step` (0-based)."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        share = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


@dataclass(frozen=True)
class Task:
    """A network, what it learns from, and how it is judged.

    `loss` takes (network output, target); `validate` takes the averaged network in evaluation mode and
    returns figures by name.
    """

    name: str
    network: nn.Module
    source: SampleSource
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    validate: Callable[[nn.Module], dict[str, float]]
    schedule: Schedule


class _Samples(Dataset[Sample]):
    def __init__(self, source: SampleSource, seed: int) -> None:
        self.source, self.seed = source, seed

    def __getitem__(self, index: int) -> Sample:
        return self.source(np.random.default_rng([self.seed, index]))


class _From(Sampler[int]):
    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last))

    def __len__(self) -> int:
        return self.last - self.first


def _save(path: Path, state: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def train(task: Task, folder: Path, device: torch.device, loaders: int = 1) -> nn.Module:
    """Train `task`, or finish training it, and return the averaged network in evaluation mode.

    Args:
        task: what to train.
        folder: where `<name>.checkpoint.pt` and `<name>.log.jsonl` are kept.
        device: mixed precision is used on a GPU, float32 on a CPU.
        loaders: processes that draw samples.
    """
    schedule = task.schedule
    torch.manual_seed(schedule.seed)
    network = task.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(
        network,
        multi_avg_fn=get_ema_multi_avg_fn(schedule.average_decay),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=schedule.weight_decay)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, log = folder / f"{task.name}.checkpoint.pt", folder / f"{task.name}.log.jsonl"
    first = 0
    random_state: torch.Tensor | None = None
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        random_state = state["random"].cpu()
        first = int(state["step"])
    loader = DataLoader(
        _Samples(task.source, schedule.seed),
        batch_size=schedule.batch,
        sampler=_From(first * schedule.batch, schedule.steps * schedule.batch),
        num_workers=loaders,
        drop_last=True,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    network.train()
    running, since = 0.0, time.monotonic()
    batches = iter(loader)
    if random_state is not None:
        # After the loader's own draw, so that dropout goes on where it was.
        torch.set_rng_state(random_state)
    for step, (inputs, targets) in enumerate(batches, start=first):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        inputs = inputs.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.float16, enabled=device.type == "cuda"):
            loss = task.loss(network(inputs), targets.to(device))
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        scaler.step(optimiser)
        scaler.update()
        average.update_parameters(network)
        running = loss.item() if step == first else 0.98 * running + 0.02 * loss.item()
        done = step + 1
        if done % schedule.checkpoint_every == 0 or done == schedule.steps:
            _save(
                checkpoint,
                {
                    "network": network.state_dict(),
                    "average": average.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "random": torch.get_rng_state(),
                    "step": done,
                },
            )
        if done % schedule.validate_every == 0 or done == schedule.steps:
            figures = task.validate(average.module.eval())
            row = {
                "step": done,
                "loss": running,
                "rate": schedule.rate(step),
                "seconds_a_step": (time.monotonic() - since) / schedule.validate_every,
                **figures,
            }
            since = time.monotonic()
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            print(task.name, {key: round(value, 4) for key, value in row.items()}, flush=True)
    result: nn.Module = average.module.eval()
    return result
