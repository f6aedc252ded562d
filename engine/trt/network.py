"""What TensorRT understood of an ONNX model: the types it will compute in, read off the parsed network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LAYERS_WITH_WEIGHTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_QUANTISING = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class ParsedLayer:
    """A layer that takes weights or quantises: its kind, such as "convolution", and the type it computes in.

    That is "int8" where both its input and its weights were quantised, and "" for what quantises.
    """

    name: str
    kind: str
    compute_type: str


@dataclass(frozen=True)
class ParsedNetwork:
    """A network as TensorRT understood it. `inputs` and `outputs` are the types of its tensors, by name."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    layers: tuple[ParsedLayer, ...]

    @property
    def layer_counts(self) -> dict[str, int]:
        """How often each kind of layer occurs, by kind and type: "convolution float32", "quantize"."""
        kinds = Counter(f"{layer.kind} {layer.compute_type}".rstrip() for layer in self.layers)
        return dict(sorted(kinds.items()))


def describe_network(network: Any) -> ParsedNetwork:
    """A network (`INetworkDefinition`) of either flavour after parsing."""
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
            # Weights that are no constants of the layer's own are its second input.
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
