"""From training to a model pack: networks, recipes, ONNX export. May import torch."""

# Sets what ONNX Runtime reads when it is imported.
import stenosis_trt.engine  # noqa: F401
