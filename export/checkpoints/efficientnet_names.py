"""Tensor names of EfficientNet-B5 in four libraries, mapped to this project's names.

Names and shapes come from torchvision, timm 1.0 and efficientnet-pytorch 0.7.1. Names do not tell everything:
timm's two networks share them but differ in padding and epsilon, and efficientnet-pytorch fixes its padding
for an image of 456 × 456 unless told otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stenosis_trt.export.models.efficientnet import EfficientNetVariant


@dataclass(frozen=True)
class LibraryNames:
    """Names of one library. `anchor`, the first convolution's weight, is unique to the library."""

    anchor: str
    stem: tuple[str, str]
    head: tuple[str, str]
    classifier: str
    expanded: tuple[str, ...]
    plain: tuple[str, ...]
    excitation: tuple[str, str]
    numbered: bool
    """True if blocks are counted through all stages instead of within each."""


TORCHVISION = "torchvision"
LIBRARY_NAMES: Mapping[str, LibraryNames] = {
    # `expanded` and `plain`: convolutions of a block and their normalisations, in our order.
    "timm": LibraryNames(
        anchor="conv_stem.weight",
        stem=("conv_stem", "bn1"),
        head=("conv_head", "bn2"),
        classifier="classifier",
        expanded=("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"),
        plain=("conv_dw", "bn1", "conv_pw", "bn2"),
        excitation=("se.conv_reduce", "se.conv_expand"),
        numbered=False,
    ),
    "efficientnet-pytorch": LibraryNames(
        anchor="_conv_stem.weight",
        stem=("_conv_stem", "_bn0"),
        head=("_conv_head", "_bn1"),
        classifier="_fc",
        expanded=("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"),
        plain=("_depthwise_conv", "_bn1", "_project_conv", "_bn2"),
        excitation=("_se_reduce", "_se_expand"),
        numbered=True,
    ),
}
ANCHORS: Mapping[str, str] = {
    TORCHVISION: "features.0.0.weight",
    **{name: library.anchor for name, library in LIBRARY_NAMES.items()},
}
"""Tensor that identifies a library; wrappers put their prefix in front of it."""

FIXED_PADDING_IMAGE = (456, 456)
"""Image size efficientnet-pytorch pads for, unless the network was made with `image_size`."""

NETWORKS: Mapping[str, tuple[str, EfficientNetVariant]] = {
    "torchvision/efficientnet_b5": (TORCHVISION, EfficientNetVariant()),
    "timm/efficientnet_b5": ("timm", EfficientNetVariant(epsilon=1e-5)),
    "timm/tf_efficientnet_b5": ("timm", EfficientNetVariant(same_padding=True)),
    "efficientnet-pytorch/efficientnet-b5": (
        "efficientnet-pytorch",
        EfficientNetVariant(same_padding=True, padding_image_size=FIXED_PADDING_IMAGE),
    ),
}
"""Library and variant of each supported network."""

_BLOCK = re.compile(r"features\.(\d+)\.(\d+)\.block\.(\d+)\.(.+)")
_STEM, _HEAD = "0", "8"


def library_names(ours: Iterable[str], library: str) -> dict[str, str]:
    """Map every name of `EfficientNetB5`'s state dict to the library's name.

    Raises:
        ValueError: a name is not one of that network's.
    """
    names = list(ours)
    if library == TORCHVISION:
        return {name: name for name in names}
    words = LIBRARY_NAMES[library]
    blocks: dict[tuple[str, str], int] = {}
    short: set[tuple[str, str]] = set()
    for name in names:
        if match := _BLOCK.fullmatch(name):
            blocks.setdefault((match[1], match[2]), len(blocks))
            if match[3] == "1" and match[4].startswith("fc"):
                short.add((match[1], match[2]))
    result = {}
    for name in names:
        match = _BLOCK.fullmatch(name)
        if match is None:
            result[name] = _outside(name, words)
            continue
        stage, row = match[1], match[2]
        place = f"_blocks.{blocks[stage, row]}" if words.numbered else f"blocks.{int(stage) - 1}.{row}"
        plain = (stage, row) in short
        result[name] = f"{place}.{_in_block(int(match[3]), match[4], words, plain)}"
    return result


def _outside(name: str, words: LibraryNames) -> str:
    """Name in the stem, head or classifier."""
    parts = name.split(".")
    if parts[:2] == ["classifier", "1"]:
        return f"{words.classifier}.{parts[2]}"
    if parts[0] == "features" and parts[1] in (_STEM, _HEAD):
        pair = words.stem if parts[1] == _STEM else words.head
        return f"{pair[int(parts[2])]}.{parts[3]}"
    raise ValueError(f"{name} is not a tensor of EfficientNet-B5.")


def _in_block(layer: int, rest: str, words: LibraryNames, plain: bool) -> str:
    """Part of a name behind the block's. Our `layer` counts squeeze-and-excitation, theirs does not."""
    excitation = 1 if plain else 2
    if layer == excitation:
        part, leaf = rest.split(".")
        return f"{words.excitation[int(part == 'fc2')]}.{leaf}"
    part, leaf = rest.split(".")
    place = 2 * (layer - (layer > excitation)) + int(part)
    return f"{(words.plain if plain else words.expanded)[place]}.{leaf}"
