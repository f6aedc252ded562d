"""Preparation of model packs: checkpoints, ONNX export, precision and training. Requires torch."""

# Sets what ONNX Runtime reads when it is imported.
import stenosis_trt.engine  # noqa: F401
