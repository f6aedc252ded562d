"""Checks of an ONNX file's output against its spec. Messages name the option that solves the problem."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.engine.packs.models import MODEL_ROLES
from stenosis_trt.export.errors import ExportError
from stenosis_trt.export.spec_file import ModelDeclaration

_TOLERANCE = 1e-3
"""Tolerance of probabilities beyond 0 to 1, and of their sum."""


class OnnxError(ExportError):
    """An ONNX file that cannot be used. The message says what is wrong and how to solve it."""


def set_option(declaration: ModelDeclaration, entry: str, value: object) -> str:
    """Command-line option that sets `entry` of this network to `value`."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"--set {shlex.quote(f'{declaration.role}.{entry}={text}')}"


def map_size(declaration: ModelDeclaration) -> tuple[int, ...]:
    """(height, width) of the heatmaps according to the spec; () for classes."""
    spec, stride = declaration.input, declaration.output.stride
    return () if declaration.output.kind == "classes" else (spec.height // stride, spec.width // stride)


def check_network_output(path: Path, declaration: ModelDeclaration, given: int, raw: Any) -> None:
    """Check the output of the original file for a batch.

    Args:
        path: for messages.
        declaration: its part of the spec.
        given: images in the batch.
        raw: the output, of any shape and dtype.

    Raises:
        OnnxError: the shape differs from the spec's, or a value is not finite.
    """
    output = declaration.output
    wanted = (given, len(output.names), *map_size(declaration))
    if raw.shape != wanted:
        raise OnnxError(
            (
                f"The output of {path} is {_shape_text(raw.shape)}, and the spec asks for "
                f"{_shape_text(wanted)}."
            ),
            f"{_output_remedy(path, declaration, raw.shape)}",
        )
    finite = np.isfinite(raw)
    if not finite.all():
        raise OnnxError(
            (
                f"The output of {path} is not finite for noise within the spec's window: "
                f"{1 - finite.mean():.0%} of its values are NaN or infinite."
            ),
            (
                "Look at the network where it was exported; if it needs another range of input, correct "
                f"{declaration.role}.input.mean and std."
            ),
        )


def check_activation(path: Path, declaration: ModelDeclaration, raw: Any) -> None:
    """Check that the output of the original file needs the activation of the spec and no other.

    Args:
        path: for messages.
        declaration: its part of the spec.
        raw: finite output of the shape in the spec.

    Raises:
        OnnxError: the spec names none and one is missing, or it names one that the file already applies.
    """
    output = declaration.output
    is_probability = raw.min() >= -_TOLERANCE and raw.max() <= 1 + _TOLERANCE
    classes = output.kind == "classes"
    adds_up = not classes or np.abs(raw.sum(axis=1) - 1).max() <= _TOLERANCE
    ending = "softmax" if classes else "sigmoid"
    if declaration.activation is None and not (is_probability and adds_up):
        reason = (
            "the probabilities of its classes do not add up to 1"
            if is_probability
            else f"its output reaches from {raw.min():.3g} to {raw.max():.3g}, and has to lie between 0 and 1"
        )
        raise OnnxError(
            f"{path} cannot be used as the model {declaration.role}: {reason}.",
            (
                "If the network ends with logits, as PyTorch's networks mostly do: "
                f"{set_option(declaration, 'output.activation', ending)}"
            ),
        )
    if declaration.activation == ending and is_probability and adds_up:
        remedy = set_option(declaration, "output.activation", "none")
        raise OnnxError(
            (
                f"{path} already returns values from 0 to 1, to which the spec's activation {ending} "
                "would be applied again."
            ),
            f"If it ends with {ending}: {remedy}",
        )


def input_remedy(declaration: ModelDeclaration, sizes: Sequence[int | None]) -> str:
    """Advice for a file whose input has these channels, height and width."""
    spec = declaration.input
    channels, height, width = sizes
    if channels not in (None, spec.channels):
        return (
            f"It takes {channels} channels: {set_option(declaration, 'input.channels', channels)}, with as "
            "many numbers in input.mean and std; or export the network for them."
        )
    size = [height or spec.height, width or spec.width]
    return (
        f"If it was trained so: {set_option(declaration, 'input.size', size)}, with the spacing of that size."
    )


def _output_remedy(path: Path, declaration: ModelDeclaration, shape: Sequence[int]) -> str:
    output, role = declaration.output, MODEL_ROLES[declaration.role]
    if output.kind == "classes":
        if len(shape) != 2:
            return f"Export the network with an output of batch × {len(output.names)} classes."
        names = next((each for each in role.accepted_names if len(each) == shape[1]), None)
        if names is None:
            counts = " or ".join(str(len(each)) for each in role.accepted_names)
            return f"The grader has {counts} classes: {role.accepted_names_text}. Give such a network."
        return f"If its classes are these: {set_option(declaration, 'output.names', list(names))}"
    if len(shape) != 4:
        return (
            "A point's confidence is the height of its heatmap's peak: export the network with its heatmaps, "
            "batch × points × height × width, as output."
        )
    if shape[1] != len(output.names):
        names = next((each for each in role.accepted_names if len(each) == shape[1]), None)
        if names is not None:
            return f"If its points are these: {set_option(declaration, 'output.names', list(names))}"
        counts = " or ".join(str(len(each)) for each in role.accepted_names)
        return f"{declaration.role} has {counts} points: {role.accepted_names_text}. Export these."
    down, across = declaration.input.height / shape[2], declaration.input.width / shape[3]
    if down == across and down.is_integer():
        stride = set_option(declaration, "output.stride", int(down))
        return f"It has one pixel of heatmap for {down:g} of input: {stride}"
    return f"{path} has heatmaps of another shape than its input. Correct input.size, or export it again."


def _shape_text(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "one number"
