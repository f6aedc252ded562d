"""The command `stenosis-trt`: one module a command. The only room that imports `bench` and `export`."""

from stenosis_trt.engine.cli.app import app, main

__all__ = ["app", "main"]
