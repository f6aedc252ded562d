"""The backend of a CPU: `backend`, and the runtimes that run its models, one module each.

`onnxruntime` and `openvino` import their libraries, which other modules do not.
"""
