"""The run-time of stenosis-trt: what runs beside the scanner. Never imports torch."""

import os

# ONNX Runtime 1.32 notes in ~/.cache/Microsoft on which machine it runs, and sends that where it can: the
# address is in its library. It reads this once, when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
