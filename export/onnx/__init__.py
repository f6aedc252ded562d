"""ONNX files: export from PyTorch, import of other people's, checks, graph helpers, and Polygraphy."""
