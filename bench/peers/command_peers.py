"""TensorRT's own commands as peers: trtexec and Polygraphy, each with an engine that it built itself.

A run is a process that repeats the network for about a second. Its time is what the command reports for one
pass: trtexec without copies to the device and back, Polygraphy with them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from stenosis_trt.bench.peers.pairing import Timer
from stenosis_trt.bench.peers.peer import PeerAbsent, Workload, one_line

COMMANDS = ("trtexec", "polygraphy")

_MORE_FOLDERS = "/usr/src/tensorrt/bin"
"""Where TensorRT's packages for Debian and Jetson put trtexec, outside of PATH."""

_BUILD_SECONDS = 120.0
_RUN_SECONDS = 60.0

_TRTEXEC_MEDIAN = re.compile(r"\bGPU Compute Time: .*?median = ([\d.]+) ms")
_POLYGRAPHY_MEAN = re.compile(r"Average inference time: ([\d.]+) ms")


def find(command: str) -> str | None:
    """Return the path of a command; None if there is none."""
    return shutil.which(command) or shutil.which(command, path=_MORE_FOLDERS)


def trtexec_seconds(output: str) -> float:
    """Return the median of trtexec's GPU compute time, in seconds: without copies to the device and back.

    Raises:
        PeerAbsent: there is none.
    """
    return _milliseconds(_TRTEXEC_MEDIAN, output, "trtexec") / 1000.0


def polygraphy_seconds(output: str) -> float:
    """Return the average inference time that `polygraphy run` prints, in seconds.

    Raises:
        PeerAbsent: there is none.
    """
    return _milliseconds(_POLYGRAPHY_MEAN, output, "polygraphy") / 1000.0


def _milliseconds(pattern: re.Pattern[str], output: str, command: str) -> float:
    found = pattern.search(output)
    if found is None:
        raise PeerAbsent(f"{command} printed no time.")
    return float(found[1])


def _call(arguments: Sequence[str], seconds: float) -> str:
    name = Path(arguments[0]).name
    try:
        done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise PeerAbsent(f"{name} was not done within the {seconds:.0f} s that it may take.") from error
    except OSError as error:
        raise PeerAbsent(f"{name} cannot be started: {one_line(error)}.") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise PeerAbsent(f"{name} failed: {lines[-1][:200].rstrip('.')}.")
    return done.stdout


def open_trtexec(workload: Workload, folder: Path) -> Timer:
    """Build an engine with trtexec for the workload's batch; the timer runs it for a second.

    Raises:
        PeerAbsent: it cannot be built.
    """
    command, engine, shapes = _prepared("trtexec", workload, folder, "x".join)
    build = (f"--onnx={workload.model}", f"--saveEngine={engine}", f"--shapes={shapes}")
    _call((command, *build, "--stronglyTyped", "--skipInference"), _BUILD_SECONDS)
    run = (command, f"--loadEngine={engine}", f"--shapes={shapes}", "--warmUp=200", "--duration=1")
    return lambda: trtexec_seconds(_call(run, _RUN_SECONDS))


def open_polygraphy(workload: Workload, folder: Path) -> Timer:
    """Build an engine with Polygraphy for the workload's batch; the timer runs it a hundred times.

    Raises:
        PeerAbsent: it cannot be built.
    """
    command, engine, shapes = _prepared("polygraphy", workload, folder, lambda shape: f"[{','.join(shape)}]")
    ranges = [part for end in ("min", "opt", "max") for part in (f"--trt-{end}-shapes", shapes)]
    build = ("convert", str(workload.model), "--convert-to", "trt", "--strongly-typed", "-o", engine)
    _call((command, *build, *ranges), _BUILD_SECONDS)
    run = (command, "run", engine, "--model-type", "engine", "--trt", "--input-shapes", shapes)
    repeated = (*run, "--sequential-runners", "--warm-up", "20", "--iterations", "100")
    return lambda: polygraphy_seconds(_call(repeated, _RUN_SECONDS))


def _prepared(
    name: str, workload: Workload, folder: Path, join: Callable[[Sequence[str]], str]
) -> tuple[str, str, str]:
    """The path of a command, a path for its engine, and the shape of the input as it takes it."""
    import onnxruntime

    command = find(name)
    if command is None:
        raise PeerAbsent(f"The command {name} was not found.")
    session = onnxruntime.InferenceSession(str(workload.model), providers=["CPUExecutionProvider"])
    shapes = f"{session.get_inputs()[0].name}:{join([str(size) for size in workload.batch.shape])}"
    return command, str(folder / f"{name}-{workload.model.stem}-{len(workload.batch)}.plan"), shapes
