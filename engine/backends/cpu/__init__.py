"""The backend of a CPU: `backend`, and the runtimes that run its models, one module each.

`onnxruntime` and `openvino` are the only importers of their libraries.
"""
