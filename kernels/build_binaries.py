"""Build the shipped binaries of the kernels: `python -m stenosis_trt.kernels.build_binaries [--check]`.

The compilers are NVRTC wheels of exact versions. Those that this Python environment lacks are installed with
pip into a cache folder outside the checkout, because PyTorch pins other versions. NVRTC is deterministic for
given sources and flags, which `--check` relies on.

The build fails if the compiler warns, or a kernel uses local memory (spills, indexed arrays, calls) or more
registers than its budget, by the report of ptxas.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from stenosis_trt.kernels.binaries import MANIFEST, PREBUILT_FOLDER, cache_folder
from stenosis_trt.kernels.nvrtc import Nvrtc, NvrtcError
from stenosis_trt.kernels.sources import FLAGS, Sources, load_sources
from stenosis_trt.kernels.sources import FOLDER as SOURCE_FOLDER

COMMAND = "python -m stenosis_trt.kernels.build_binaries"

REGISTER_BUDGET: Mapping[str, int] = {
    "cord_geometry_f16": 40,
    "cord_geometry_f32": 40,
    "decode_peaks_f16": 40,
    "decode_peaks_f32": 40,
    "input_contrast_f16": 40,
    "input_contrast_f32": 40,
    "order_statistics_lower": 48,
    "order_statistics_upper": 48,
    "preprocess_affine_f16": 40,
    "preprocess_affine_f32": 40,
    "preprocess_f16": 72,
    "preprocess_f32": 72,
}
"""Register budget per thread of each kernel, on any architecture. Registers are allocated in units of 8."""

_PTXAS_KERNEL = re.compile(
    r"ptxas info    : Compiling entry function '(\w+)' for '\w+'\n"
    r"ptxas info    : Function properties for \1\n"
    r"ptxas         \. +(\d+) bytes stack frame, \d+ bytes spill stores, \d+ bytes spill loads\n"
    r"ptxas info    : Used (\d+) registers, used \d+ barriers(?:, (\d+) bytes cumulative stack size)?"
    r"(?:, \d+ bytes (?:smem|cmem\[\d+\]))*\n"
)
_PTXAS_OTHER = re.compile(r"ptxas info    : (?:\d+ bytes gmem|Compile time).*\n")


@dataclass(frozen=True)
class Toolkit:
    """A pinned NVRTC wheel and the architectures built with it.

    Attributes:
        package: name in the package index.
        version: exact version.
        architectures: "sm_…" for a cubin, "compute_…" for PTX.
    """

    package: str
    version: str
    architectures: tuple[str, ...]


# The toolkit of JetPack 6 for all architectures that it supports, because its driver loads nothing newer; for
# the others the first one that numbers Thor 11.0.
TOOLKITS = (
    Toolkit(
        "nvidia-cuda-nvrtc-cu12",
        "12.6.85",
        ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "compute_75"),
    ),
    Toolkit("nvidia-cuda-nvrtc", "13.0.88", ("sm_100", "sm_110", "sm_120")),
)


def pinned_nvrtc(toolkit: Toolkit) -> Nvrtc:
    """Load the pinned NVRTC: from this environment, or from the cache folder after installing it there.

    Raises:
        NvrtcError: the wheel cannot be installed; the message ends with that of pip.
    """
    try:
        installed = metadata.distribution(toolkit.package)
    except metadata.PackageNotFoundError:
        installed = None
    if installed is not None and installed.version == toolkit.version:
        return Nvrtc(_library_below(Path(str(installed.locate_file("nvidia")))))
    folder = cache_folder() / "toolkits" / f"{toolkit.package}-{toolkit.version}"
    if not folder.is_dir():
        _fetch(toolkit, folder)
    return Nvrtc(_library_below(folder / "nvidia"))


def build_files(source: Sources) -> tuple[dict[str, bytes], dict[str, str]]:
    """Compile every image.

    Returns:
        The images and the manifest by file name, and the compiler log of each image by architecture.

    Raises:
        NvrtcError: a toolkit is not available, or the sources do not compile with it.
    """
    files: dict[str, bytes] = {}
    logs: dict[str, str] = {}
    images = []
    for toolkit in TOOLKITS:
        compiler = pinned_nvrtc(toolkit)
        for architecture in toolkit.architectures:
            kind = "cubin" if architecture.startswith("sm_") else "ptx"
            name = f"{architecture}.{kind}"
            compiled = compiler.compile(source, architecture, FLAGS)
            files[name], logs[architecture] = compiled.data, compiled.log
            images.append(
                {
                    "file": name,
                    "sha256": hashlib.sha256(files[name]).hexdigest(),
                    "toolkit": toolkit.version,
                    "architecture": architecture,
                    "kind": kind,
                    "flags": list(FLAGS),
                }
            )
    manifest = {"source_sha256": source.sha256, "images": images}
    files[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
    return files, logs


@dataclass(frozen=True)
class Resources:
    """Registers and bytes of local memory that a kernel uses per thread."""

    registers: int
    stack_bytes: int


def ptxas_resources(log: str) -> tuple[dict[str, Resources], str]:
    """Parse the report of `ptxas -v`.

    Returns:
        The resources of each kernel, in alphabetical order, and the part of the log that is no such report:
        warnings, or output of a form that is unknown here.
    """
    log = f"{log}\n" if log else ""
    found = {
        name: Resources(int(registers), max(int(frame), int(total or 0)))
        for name, frame, registers, total in _PTXAS_KERNEL.findall(log)
    }
    return dict(sorted(found.items())), _PTXAS_OTHER.sub("", _PTXAS_KERNEL.sub("", log)).strip()


def resource_problems(architecture: str, log: str, budget: Mapping[str, int]) -> Iterator[str]:
    """Problems with the kernels of one cubin, by its compiler log: one sentence each."""
    found, other = ptxas_resources(log)
    if other:
        yield f"{architecture}: the compiler reports:\n{other}"
    for kernel, used in found.items():
        what = f"{architecture}: {kernel}"
        registers = f"{used.registers} registers"
        if used.stack_bytes:
            yield (
                f"{what} uses {used.stack_bytes} bytes of local memory per thread: it spills registers, "
                "indexes an array that is not unrolled, or calls a function; change the kernel"
            )
        if kernel not in budget:
            yield f"{what} uses {registers} and has no budget: add it to REGISTER_BUDGET"
        elif used.registers > budget[kernel]:
            yield (
                f"{what} uses {registers}, more than its budget of {budget[kernel]}: change the kernel, "
                "or the budget with a reason"
            )
    for kernel in sorted(budget.keys() - found.keys()):
        yield f"{architecture} has no kernel {kernel}: remove it from REGISTER_BUDGET"


def stale_files(files: Mapping[str, bytes], folder: Path) -> Iterator[str]:
    """Differences between a folder of binaries and the built files: one sentence each."""
    there = {path.name for path in folder.glob("*")} if folder.is_dir() else set()
    for name in sorted(files.keys() | there):
        if name not in there:
            yield f"{name} is missing"
        elif name not in files:
            yield f"{name} is not built by this script"
        elif (folder / name).read_bytes() != files[name]:
            yield f"{name} differs from what the sources give"


def register_table(logs: Mapping[str, str]) -> str:
    """Text table of the registers of each kernel on each architecture, from the compiler logs."""
    cubins = {architecture: ptxas_resources(log)[0] for architecture, log in logs.items()}
    kernels = sorted({kernel for found in cubins.values() for kernel in found})
    width = max(map(len, kernels), default=0)
    lines = [" ".join([" " * width, *(f"{architecture:>7}" for architecture in cubins), " budget"])]
    for kernel in kernels:
        registers = [found[kernel].registers if kernel in found else 0 for found in cubins.values()]
        row = [f"{kernel:<{width}}", *(f"{number:>7}" for number in registers)]
        lines.append(" ".join([*row, f"{REGISTER_BUDGET.get(kernel, 0):>7}"]))
    return "\n".join(lines)


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Replace the content of a folder. The manifest is written last: without it the folder is rejected."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / MANIFEST, *folder.glob("*.cubin"), *folder.glob("*.ptx")):
        path.unlink(missing_ok=True)
    for name in sorted(files, key=lambda name: name == MANIFEST):
        (folder / name).write_bytes(files[name])


def main(
    arguments: list[str] | None = None, *, source_folder: Path = SOURCE_FOLDER, folder: Path = PREBUILT_FOLDER
) -> int:
    """Run the command. Returns the exit status: 0 if the binaries were built or are current, else 1."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Build the shipped binaries of the kernels.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the binaries differ")
    options = parser.parse_args(arguments)
    try:
        files, logs = build_files(load_sources(source_folder))
    except (NvrtcError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    # PTX is not assembled: ptxas reports nothing about it.
    logs = {architecture: log for architecture, log in logs.items() if architecture.startswith("sm_")}
    print(register_table(logs))
    problems = [
        problem
        for architecture, log in logs.items()
        for problem in resource_problems(architecture, log, REGISTER_BUDGET)
    ]
    if options.check:
        stale = list(stale_files(files, folder))
        problems += [*stale, *([f"rebuild with `{COMMAND}`"] if stale else [])]
    elif not problems:
        write_files(files, folder)
        print(f"{len(files)} files, {sum(map(len, files.values())):,} bytes, in {folder}")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


def _library_below(folder: Path) -> Path:
    found = sorted(folder.glob("*/lib/libnvrtc.so.[0-9]*"))
    if not found:
        raise NvrtcError(f"there is no libnvrtc below {folder}: remove its folder and run `{COMMAND}` again")
    return found[0]


def _fetch(toolkit: Toolkit, folder: Path) -> None:
    """Install a wheel into its own folder, atomically."""
    requirement = f"{toolkit.package}=={toolkit.version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--no-compile",
    ]
    try:
        answer = subprocess.run(
            [*command, "--target", str(part), requirement], capture_output=True, text=True
        )
        if answer.returncode:
            raise NvrtcError(
                f"pip cannot fetch {requirement}; install it by hand in this Python:\n{answer.stderr}"
            )
        os.replace(part, folder)
    except OSError:
        # Another process has installed the same.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
