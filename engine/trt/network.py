"""Types that a parsed network computes in, as TensorRT understood the ONNX model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LAYERS_WITH_WEIGHTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_QUANTISING = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class ParsedLayer:
    """A layer with weights, or a Q/DQ layer: name, kind such as "convolution", and compute type.

    The compute type is "int8" if both input and weights were quantised, and "" for Q/DQ layers.
    """

    name: str
    kind: str
    compute_type: str


@dataclass(frozen=True)
class ParsedNetwork:
    """A parsed network: types of inputs and outputs by tensor name, and its `ParsedLayer`s."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    layers: tuple[ParsedLayer, ...]

    @property
    def layer_counts(self) -> dict[str, int]:
        """Number of layers by kind and compute type: "convolution float32", "quantize"."""
        kinds = Counter(f"{layer.kind} {layer.compute_type}".rstrip() for layer in self.layers)
        return dict(sorted(kinds.items()))


def describe_network(network: Any) -> ParsedNetwork:
    """Describe a parsed network (`INetworkDefinition`) of either flavour."""
    layers = []
    quantised = set()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = layer.type.name
        if kind in _QUANTISING:
            layers.append(ParsedLayer(layer.name, kind.lower(), ""))
            if kind == "DEQUANTIZE":
                quantised.add(layer.get_output(0).name)
        elif kind in _LAYERS_WITH_WEIGHTS:
            # Weights that are not constants of the layer are its second input.
            factors = [layer.get_input(place) for place in range(min(2, layer.num_inputs))]
            int8 = len(factors) == 2 and all(factor.name in quantised for factor in factors)
            computes_in = "int8" if int8 else _type_name(factors[0].dtype)
            layers.append(ParsedLayer(layer.name, kind.lower(), computes_in))
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return ParsedNetwork(
        inputs={tensor.name: _type_name(tensor.dtype) for tensor in inputs},
        outputs={tensor.name: _type_name(tensor.dtype) for tensor in outputs},
        layers=tuple(layers),
    )


def _type_name(dtype: Any) -> str:
    name: str = dtype.name
    return {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}.get(name, name.lower())
