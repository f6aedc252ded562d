"""Builds the shipped binaries of the kernels: `python -m stenosis_trt.kernels.build_binaries [--check]`.

The toolkits are NVRTC wheels of exact versions. Those that are not in this Python's environment are fetched
with pip into a cache folder outside the checkout: PyTorch pins other versions, so an extra could not bring
them. NVRTC gives the same bytes for the same sources and flags, which is what `--check` relies on.

The build fails for a kernel that spills, keeps anything else in local memory, or takes more registers than
its budget.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from stenosis_trt.kernels.binaries import MANIFEST, PREBUILT_FOLDER, cache_folder
from stenosis_trt.kernels.cubin import resources
from stenosis_trt.kernels.nvrtc import Nvrtc, NvrtcError
from stenosis_trt.kernels.sources import FLAGS, Sources, load_sources
from stenosis_trt.kernels.sources import FOLDER as SOURCE_FOLDER

COMMAND = "python -m stenosis_trt.kernels.build_binaries"

REGISTER_BUDGET: Mapping[str, int] = {
    "cord_geometry_f16": 48,
    "cord_geometry_f32": 56,
    # Compute capability 7.5 alone needs the last eight: it keeps the map's address across the barrier.
    "decode_keypoints_f16": 48,
    "decode_keypoints_f32": 56,
    "input_contrast_f16": 40,
    "input_contrast_f32": 40,
    "maximal_compression": 56,
    "order_statistics_lower": 48,
    "order_statistics_upper": 48,
    "preprocess_affine_f16": 40,
    "preprocess_affine_f32": 40,
    "preprocess_f16": 72,
    "preprocess_f32": 72,
}
"""Most registers a thread of each kernel may take, on any architecture. They are handed out in eights."""


@dataclass(frozen=True)
class Toolkit:
    """A pinned NVRTC wheel, and what is built with it.

    Attributes:
        package: name in the package index.
        version: exact.
        architectures: "sm_…" for a cubin, "compute_…" for PTX.
    """

    package: str
    version: str
    architectures: tuple[str, ...]


# JetPack 6's own toolkit for all that it knows, because its driver loads nothing newer; for the rest the
# first one that knows Thor as 11.0.
TOOLKITS = (
    Toolkit(
        "nvidia-cuda-nvrtc-cu12",
        "12.6.85",
        ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "compute_75"),
    ),
    Toolkit("nvidia-cuda-nvrtc", "13.0.88", ("sm_100", "sm_110", "sm_120")),
)


def pinned_nvrtc(toolkit: Toolkit) -> Nvrtc:
    """The pinned NVRTC: from this environment, else from the cache folder, else fetched into it.

    Raises:
        NvrtcError: it cannot be fetched; the message ends with pip's.
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


def build_files(source: Sources, toolkits: tuple[Toolkit, ...] = TOOLKITS) -> dict[str, bytes]:
    """Every image and the manifest, by file name.

    Raises:
        NvrtcError: a toolkit cannot be had, or the sources do not compile with it.
    """
    files: dict[str, bytes] = {}
    images = []
    for toolkit in toolkits:
        compiler = pinned_nvrtc(toolkit)
        for architecture in toolkit.architectures:
            kind = "cubin" if architecture.startswith("sm_") else "ptx"
            name = f"{architecture}.{kind}"
            files[name] = compiler.compile(source, architecture, FLAGS).data
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
    return files


def resource_problems(name: str, image: bytes, budget: Mapping[str, int]) -> Iterator[str]:
    """What is wrong with the resources of a cubin's kernels, one sentence each."""
    found = resources(image)
    for kernel, taken in found.items():
        what = f"{name}: {kernel}"
        registers = f"{taken.registers} registers"
        if taken.stack_bytes:
            yield (
                f"{what} keeps {taken.stack_bytes} bytes a thread in local memory: it spills registers, "
                "indexes an array that is not unrolled, or calls a function; change the kernel"
            )
        if kernel not in budget:
            yield f"{what} takes {registers} and has no budget: add it to REGISTER_BUDGET"
        elif taken.registers > budget[kernel]:
            yield (
                f"{what} takes {registers} where its budget is {budget[kernel]}: change the kernel, "
                "or the budget with a reason"
            )
    for kernel in sorted(budget.keys() - found.keys()):
        yield f"{name} has no kernel {kernel}: remove it from REGISTER_BUDGET"


def stale_files(files: Mapping[str, bytes], folder: Path) -> Iterator[str]:
    """Where a folder of binaries is not what was built, one sentence each."""
    there = {path.name for path in folder.glob("*")} if folder.is_dir() else set()
    for name in sorted(files.keys() | there):
        if name not in there:
            yield f"{name} is missing"
        elif name not in files:
            yield f"{name} is not built by this script"
        elif (folder / name).read_bytes() != files[name]:
            yield f"{name} is not what the sources give"


def register_table(files: Mapping[str, bytes]) -> str:
    """Registers of each kernel on each architecture, as text."""
    cubins = {name.split(".")[0]: resources(data) for name, data in files.items() if name.endswith(".cubin")}
    kernels = sorted({kernel for found in cubins.values() for kernel in found})
    width = max(map(len, kernels), default=0)
    lines = [" ".join([" " * width, *(f"{architecture:>7}" for architecture in cubins), " budget"])]
    for kernel in kernels:
        registers = [found[kernel].registers if kernel in found else 0 for found in cubins.values()]
        row = [f"{kernel:<{width}}", *(f"{number:>7}" for number in registers)]
        lines.append(" ".join([*row, f"{REGISTER_BUDGET.get(kernel, 0):>7}"]))
    return "\n".join(lines)


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Make a folder hold these images and no others; it is refused until the manifest, the last, is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / MANIFEST, *folder.glob("*.cubin"), *folder.glob("*.ptx")):
        path.unlink(missing_ok=True)
    for name in sorted(files, key=lambda name: name == MANIFEST):
        (folder / name).write_bytes(files[name])


def main(
    arguments: list[str] | None = None, *, source_folder: Path = SOURCE_FOLDER, folder: Path = PREBUILT_FOLDER
) -> int:
    """The command. Returns the exit status: 0 built, or nothing to change; 1 not."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Build the shipped binaries of the kernels.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the binaries differ")
    options = parser.parse_args(arguments)
    try:
        files = build_files(load_sources(source_folder))
    except (NvrtcError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    print(register_table(files))
    problems = [
        problem
        for name, data in files.items()
        if name.endswith(".cubin")
        for problem in resource_problems(name, data, REGISTER_BUDGET)
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
    """Install a wheel into a folder of its own, which appears whole or not at all."""
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
        # Another process was faster; its folder holds the same.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
