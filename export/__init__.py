"""From training to a model pack: networks, recipes, ONNX export. May import torch."""
