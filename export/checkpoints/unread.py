"""Content of a checkpoint beside the weights: records are ignored, possible parameters reported."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from stenosis_trt.export.checkpoints.plain_data import PickledArray

_TRAINING_STATE_WORDS = """
accuracy auroc averaged confmat criterion ema loss losses metric metrics optimiser optimizer optimizers
scheduler shadow swa
"""
"""Words in names of tensors, within a set of weights, that do not affect the network's output."""

_RECORD_WORDS = """
acc amp args arguments auc average batch best callback callbacks cfg checkpoint config confusion curve
curves date decay dice dropout duration early elapsed epoch epochs error errors eval f1 fitness fold global
grad history hparams hyper hyperparameters iou iter iteration iterations iters kappa log logs loop loops lr
mae momentum monitor mse optim opt options opts patience precision qwk random recall rmse rng roc samples
saved scaler sched schedulers score scores seed sensitivity specificity step steps test time train training
val valid validation version wandb warmup
"""
"""Words in names of other content that training scripts store."""

_TRAINING_STATE = frozenset(_TRAINING_STATE_WORDS.split())
_RECORDS = _TRAINING_STATE | frozenset(_RECORD_WORDS.split())
_CALIBRATION = ("temperature", "calibrat", "platt")
"""Parts of names of values that change probabilities."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[a-z]+\d+")
_MAX_DEPTH = 6
"""Maximum nesting of mappings and lists that is searched."""


class IgnoredKeys:
    """Keys given with `--ignore-key`; each covers itself and everything below it."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = tuple(names)
        self._used: set[str] = set()

    def covers(self, *paths: str) -> bool:
        """True if one of these paths, all of the same value, was given."""
        found = {name for name in self.names for path in paths if f"{path}.".startswith(f"{name}.")}
        self._used |= found
        return bool(found)

    @property
    def unused(self) -> tuple[str, ...]:
        """Keys that covered nothing."""
        return tuple(name for name in self.names if name not in self._used)


def is_training_state(name: str) -> bool:
    """True if a tensor belongs to a loss, a metric or an average."""
    return not _is_calibration(name) and bool(_words(name) & _TRAINING_STATE)


def possible_parameters(content: Mapping[Any, Any], copies: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of everything outside the sets of weights that may be a parameter.

    Args:
        content: content of the file.
        copies: paths of mappings with sets of weights, whose tensors are skipped.
    """
    for name, value in _leaves(content, "", copies, _MAX_DEPTH):
        if _is_parameter(value) and (_is_calibration(name) or not _words(name) & _RECORDS):
            yield name, value


def ignore_options(names: Sequence[str], weights: str) -> str:
    """Options that ignore these names, joined where several share a module.

    Args:
        names: full names of unread values.
        weights: path and prefix of the weights themselves.
    """
    roots: dict[str, list[str]] = {}
    around = weights.split(".")
    for name in names:
        parts = name.split(".")
        shared = 0
        while shared < min(len(parts) - 1, len(around)) and parts[shared] == around[shared]:
            shared += 1
        roots.setdefault(".".join(parts[: shared + 1]), []).append(name)
    shown = (below[0] if len(below) == 1 else root for root, below in roots.items())
    return " ".join(f"--ignore-key {shlex.quote(name)}" for name in shown)


def _leaves(value: Any, place: str, copies: Sequence[str], depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping) and depth:
        for key, item in value.items():
            if not (place in copies and isinstance(item, torch.Tensor)):
                yield from _leaves(item, f"{place}.{key}" if place else str(key), copies, depth - 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        # The first number stands for all.
        found = next((item for item in value if _is_parameter(item)), None)
        if found is not None:
            yield place, found
        elif depth:
            for item in value:
                if isinstance(item, (Mapping, list, tuple, argparse.Namespace)):
                    yield from _leaves(item, place, copies, depth - 1)
    else:
        yield place, value


def _is_parameter(value: Any) -> bool:
    """True for floating-point numbers, tensors and arrays; integers are counters."""
    if isinstance(value, torch.Tensor):
        return value.is_floating_point() or value.is_complex()
    if isinstance(value, PickledArray):
        return value.dtype.is_float or any(map(_is_parameter, value.items))
    return isinstance(value, (float, complex))


def _is_calibration(name: str) -> bool:
    return any(part in name.lower() for part in _CALIBRATION)


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}
