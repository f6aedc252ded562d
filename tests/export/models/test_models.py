"""Networks: state-dict names, shapes, and output sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stenosis_trt.export.models.efficientnet import EfficientNetB5
from stenosis_trt.export.models.keypoint import KeypointNet

_NAMES = Path(__file__).parents[1] / "data" / "efficientnet_b5_names.txt"


def _listed() -> dict[str, tuple[int, ...]]:
    entries = {}
    for line in _NAMES.read_text(encoding="utf-8").splitlines():
        name, _, shape = line.partition(" ")
        entries[name] = tuple(int(size) for size in shape.split("x")) if shape else ()
    return entries


def test_efficientnet_has_every_name_and_shape_of_torchvisions() -> None:
    state = EfficientNetB5(1000).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == _listed()


def test_efficientnet_has_the_parameters_of_the_paper_with_four_and_a_thousand_classes() -> None:
    def count(classes: int) -> int:
        return sum(parameter.numel() for parameter in EfficientNetB5(classes).parameters())

    # torchvision's documentation gives 30,389,784 for EfficientNet_B5 with 1000 classes.
    assert count(1000) == 30_389_784
    assert count(4) == 28_348_980


@pytest.mark.parametrize(("size", "classes"), [(96, 4), (128, 7)])
def test_efficientnet_gives_one_logit_a_class(size: int, classes: int) -> None:
    with torch.inference_mode():
        assert EfficientNetB5(classes).eval()(torch.randn(2, 3, size, size)).shape == (2, classes)


@pytest.mark.parametrize("stride", [2, 4])
def test_keypoint_heatmaps_have_the_stride_asked_for(stride: int) -> None:
    network = KeypointNet(1, 5, stride).eval()
    with torch.inference_mode():
        logits = network(torch.randn(2, 1, 64, 96))
    assert logits.shape == (2, 5, 64 // stride, 96 // stride)
    assert logits.sigmoid().max() < 0.1, "before training there is no point anywhere"


def test_keypoint_network_sees_the_whole_image() -> None:
    """Levels are told apart by counting: a far corner must be able to change a heatmap's centre."""
    torch.manual_seed(0)
    network = KeypointNet(1, 6, 4).eval()
    image = torch.randn(1, 1, 256, 256, requires_grad=True)
    network(image)[0, :, 32, 32].sum().backward()
    assert image.grad is not None
    reached = image.grad[0, 0].abs() > 0
    assert reached[20, 20]
    assert reached[235, 235]


def test_another_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="Give 2 or 4"):
        KeypointNet(1, 4, 8)
