"""EfficientNet-B5 of four libraries: names and shapes as they have them, and what they compute.

The lists of names and the logits in this folder were printed by timm 1.0.31 and efficientnet-pytorch 0.7.1
themselves, with the weights that `named_value` makes, and torchvision's list by torchvision.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from named_values import named_value
from torch import nn
from torch.nn import functional

from stenosis_trt.export.checkpoints.efficientnet_names import ANCHORS, NETWORKS, library_names
from stenosis_trt.export.models.efficientnet import EfficientNetB5, EfficientNetVariant

_HERE = Path(__file__).parents[1] / "data"
_LISTS = {
    "torchvision": "efficientnet_b5_names.txt",
    "timm": "timm_efficientnet_b5_names.txt",
    "efficientnet-pytorch": "efficientnet_pytorch_b5_names.txt",
}
_PRINTED: list[dict[str, Any]] = json.loads((_HERE / "efficientnet_b5_logits.json").read_text("utf-8"))


def _listed(library: str) -> dict[str, tuple[int, ...]]:
    entries = {}
    for line in (_HERE / _LISTS[library]).read_text(encoding="utf-8").splitlines():
        name, _, shape = line.partition(" ")
        entries[name] = tuple(int(size) for size in shape.split("x")) if shape else ()
    return entries


@pytest.mark.parametrize("library", list(_LISTS))
def test_every_tensor_of_a_library_is_one_of_ours_with_the_same_shape(library: str) -> None:
    listed = _listed(library)
    classes = 1000 if library == "torchvision" else 4
    ours = {name: tuple(value.shape) for name, value in EfficientNetB5(classes).state_dict().items()}
    names = library_names(ours, library)
    assert {names[name]: shape for name, shape in ours.items()} == listed
    assert ANCHORS[library] in listed


def test_a_library_is_known_by_a_name_that_no_other_has() -> None:
    for library, anchor in ANCHORS.items():
        assert [other for other in _LISTS if anchor in _listed(other)] == [library]


@pytest.mark.parametrize(
    "row", _PRINTED, ids=lambda row: f"{row['network']}-{row['built_for']}-{row['size']}"
)
def test_a_librarys_weights_give_the_logits_that_the_library_printed(row: dict[str, Any]) -> None:
    library, variant = NETWORKS[row["network"]]
    if library == "efficientnet-pytorch":
        variant = replace(variant, padding_image_size=tuple(row["built_for"]) if row["built_for"] else None)
    network = EfficientNetB5(4, variant=variant).eval()
    state = network.state_dict()
    names = library_names(state, library)
    network.load_state_dict(
        {key: named_value(names[key], tuple(value.shape)) for key, value in state.items()}
    )
    image = np.random.default_rng(5).standard_normal((2, 3, *row["size"])).astype(np.float32)
    with torch.inference_mode():
        logits = network(torch.from_numpy(image)).numpy()
    assert logits == pytest.approx(np.array(row["logits"]), abs=1e-5)


def test_the_printed_logits_tell_the_variants_apart() -> None:
    """Padding for 456 × 456, an epsilon and the side of the odd pixel each change the answer."""
    rows = {(row["network"], str(row["built_for"]), str(row["size"])): row["logits"] for row in _PRINTED}
    size = "[128, 128]"
    for one, other in (
        (("timm/efficientnet_b5", "None", size), ("timm/tf_efficientnet_b5", "None", size)),
        (
            ("efficientnet-pytorch/efficientnet-b5", "None", size),
            ("efficientnet-pytorch/efficientnet-b5", "[456, 456]", size),
        ),
    ):
        assert np.abs(np.array(rows[one]) - np.array(rows[other])).max() > 0.01


def _explicitly_padded(
    x: torch.Tensor, convolution: nn.Conv2d, sides: tuple[int, int, int, int]
) -> torch.Tensor:
    padded = functional.pad(x, sides)
    return functional.conv2d(padded, convolution.weight, None, convolution.stride, 0, 1, convolution.groups)


@pytest.mark.parametrize(
    ("size", "kernel", "sides"),
    [
        ((128, 128), 3, (0, 1, 0, 1)),  # an even size: ⌈128 / 2⌉ = 64 outputs need 129 pixels, one behind
        ((57, 64), 3, (0, 1, 1, 1)),  # 29 outputs need 59 rows: one on each side
        ((64, 29), 5, (2, 2, 1, 2)),  # 32 outputs need 67 rows, one before and two behind
    ],
)
def test_same_padding_is_that_of_tensorflow(
    size: tuple[int, int], kernel: int, sides: tuple[int, int, int, int]
) -> None:
    """`sides` is left, right, top, bottom by TensorFlow's rule, worked out by hand."""
    torch.manual_seed(0)
    network = EfficientNetB5(4, variant=EfficientNetVariant(same_padding=True)).eval()
    strided = (m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2))
    convolution = next(m for m in strided if m.kernel_size == (kernel, kernel))
    x = torch.randn(2, convolution.in_channels, *size)
    with torch.inference_mode():
        found, expected = convolution(x), _explicitly_padded(x, convolution, sides)
    assert found.shape[2:] == (-(-size[0] // 2), -(-size[1] // 2))
    assert torch.equal(found, expected)


def test_the_default_variant_pads_as_torchvision_does() -> None:
    network = EfficientNetB5(4)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.padding == (module.kernel_size[0] // 2, module.kernel_size[1] // 2)
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == 1e-3
