"""Mean of the weights of two networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stenosis_trt.export.training.averaging import mean_network


def _network(weight: float, steps: int) -> nn.Module:
    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    with torch.no_grad():
        network[0].weight.fill_(weight)
    network[1].num_batches_tracked.fill_(steps)
    network[1].running_mean.fill_(10.0 * weight)
    return network.eval()


def test_weights_and_statistics_are_means_and_counters_those_of_the_second() -> None:
    one, other = _network(1.0, 4), _network(2.0, 7)
    mean = mean_network(one, other).state_dict()
    assert mean["0.weight"].tolist() == [[1.5, 1.5]]
    assert mean["1.running_mean"].tolist() == [15.0]
    assert int(mean["1.num_batches_tracked"]) == 7
    assert other.state_dict()["0.weight"].tolist() == [[2.0, 2.0]]


def test_networks_of_other_shapes_have_no_mean() -> None:
    with pytest.raises(ValueError, match="differ in their tensors"):
        mean_network(nn.Linear(2, 1), nn.Linear(3, 1))
