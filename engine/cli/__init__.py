"""The command `stenosis-trt`, with one module per command. Only this package imports `bench` and `export`."""

from stenosis_trt.engine.cli.app import app, main

__all__ = ["app", "main"]
