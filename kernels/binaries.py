"""Compiled kernels for a device: shipped with the package, or compiled on this machine with NVRTC.

CUDA's compatibility rules: a cubin runs on devices of its major compute capability and at least its minor
one; a cubin of a Jetson runs only on the same capability, and a Jetson runs only its own. PTX runs on every
device of at least its capability. A driver loads binaries of toolkits up to its own CUDA version.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from stenosis_trt.kernels.nvrtc import Nvrtc, NvrtcError, find_nvrtc
from stenosis_trt.kernels.sources import FLAGS, Sources, load_sources

PREBUILT_FOLDER = Path(__file__).resolve().parent / "prebuilt"
"""Folder of the shipped binaries and their manifest. (A folder named like this module hides it from mypy.)"""

MANIFEST = "manifest.json"

MIN_COMPUTE_CAPABILITY = (7, 5)
"""Lowest supported compute capability: T4 and RTX 20."""

_JETSON = {(7, 2), (8, 7), (10, 1), (11, 0)}
"""Xavier, Orin, and Thor as numbered by CUDA 12 and by CUDA 13."""

_REBUILD = "rebuild with `python -m stenosis_trt.kernels.build_binaries`, or reinstall stenosis-trt"
_DIGEST_DIGITS = 64

Kind = Literal["cubin", "ptx"]
Version = tuple[int, int]


class BinaryError(RuntimeError):
    """No binary can be used on this machine. The message says why and what to do."""


@dataclass(frozen=True)
class KernelImage:
    """A compiled module, ready to load.

    Attributes:
        data: the cubin or PTX.
        kind: "cubin" or "ptx".
        architecture: target of the compilation, such as "sm_87" or "compute_75".
        origin: description of its source, for the record of a run.
    """

    data: bytes
    kind: Kind
    architecture: str
    origin: str


@dataclass(frozen=True)
class _Shipped:
    """One image of the manifest."""

    file: str
    sha256: str
    toolkit: str
    architecture: str
    kind: Kind

    @property
    def capability(self) -> Version:
        return divmod(int(self.architecture.split("_")[1]), 10)

    @property
    def toolkit_version(self) -> Version:
        major, minor = self.toolkit.split(".")[:2]
        return int(major), int(minor)

    def runs_on(self, capability: Version) -> bool:
        if self.kind == "ptx":
            return self.capability <= capability
        if self.capability in _JETSON or capability in _JETSON:
            return self.capability == capability
        return self.capability[0] == capability[0] and self.capability[1] <= capability[1]


def load_kernel_image(capability: Version, driver_version: int) -> KernelImage:
    """Get the kernels for a device: shipped, from the cache, or compiled here.

    Args:
        capability: compute capability of the device, (major, minor).
        driver_version: CUDA version of the driver as cuDriverGetVersion returns it (12060 is 12.6).

    Raises:
        BinaryError: the device is too old, or no shipped binary fits and none can be compiled.
    """
    _refuse_old(capability)
    try:
        return choose_shipped(capability, driver_version)
    except BinaryError as error:
        reason = str(error)
    try:
        image = compile_image(capability, driver_version)
    except BinaryError as error:
        raise BinaryError(
            f"there are no kernels for this GPU: {reason}. Nor can they be compiled: {error}"
        ) from None
    return replace(image, origin=f"{image.origin}, because {reason}")


def choose_shipped(
    capability: Version, driver_version: int, *, folder: Path = PREBUILT_FOLDER, source: Sources | None = None
) -> KernelImage:
    """Choose the shipped image for a device: the cubin of the nearest capability, else PTX.

    Args:
        capability: compute capability of the device, (major, minor).
        driver_version: CUDA version of the driver as cuDriverGetVersion returns it (12060 is 12.6).
        folder: folder of the binaries and their manifest.
        source: sources that they must be built from; None for the installed ones.

    Raises:
        BinaryError: no shipped image runs on the device, was built from these sources, or is intact.
    """
    _refuse_old(capability)
    source = source or load_sources()
    driver = _version(driver_version)
    usable = [
        image
        for image in _shipped(folder, source)
        if image.toolkit_version <= driver and image.runs_on(capability)
    ]
    if not usable:
        raise BinaryError(
            f"no shipped binary runs on compute capability {_dotted(capability)} with a driver for CUDA "
            f"{_dotted(driver)}"
        )
    best = max(usable, key=lambda image: (image.kind == "cubin", image.capability))
    try:
        data = (folder / best.file).read_bytes()
    except OSError as error:
        raise BinaryError(
            f"the shipped binary {best.file} cannot be read ({error.strerror}): {_REBUILD}"
        ) from error
    if hashlib.sha256(data).hexdigest() != best.sha256:
        raise BinaryError(f"the shipped binary {best.file} is not the one its manifest names: {_REBUILD}")
    origin = (
        f"shipped {best.kind} for {best.architecture} of CUDA {best.toolkit}, sources {source.sha256[:12]}"
    )
    return KernelImage(data, best.kind, best.architecture, origin)


def compile_image(
    capability: Version,
    driver_version: int | None = None,
    *,
    cache: Path | None = None,
    source: Sources | None = None,
) -> KernelImage:
    """Compile the kernels for exactly this device with NVRTC, or take them from the cache.

    Args:
        capability: compute capability of the device, (major, minor).
        driver_version: CUDA version of the driver; newer compilers are not used. None to use any.
        cache: folder of compiled images; None for the user's.
        source: sources to compile; None for the installed ones.

    Raises:
        BinaryError: no compiler succeeded; the message lists those tried and what to install.
    """
    _refuse_old(capability)
    source = source or load_sources()
    cache = cache or cache_folder() / "kernels"
    architecture = "sm_{}{}".format(*capability)
    failures: list[str] = []
    for compiler in _compilers(failures):
        if driver_version is not None and compiler.version > _version(driver_version):
            failures.append(f"{compiler.name} is newer than the driver")
            continue
        path = cache / _key(source, compiler.name, architecture)
        origin = f"compiled here for {architecture} by {compiler.name}, sources {source.sha256[:12]}"
        data = _cached(path)
        if data is not None:
            return KernelImage(data, "cubin", architecture, f"{origin}, taken from the cache")
        try:
            data = compiler.compile(source, architecture, FLAGS).data
        except NvrtcError as error:
            failures.append(str(error))
            continue
        try:
            _store(path, data)
        except OSError as error:
            origin += f", not cached ({error.strerror})"
        return KernelImage(data, "cubin", architecture, origin)
    raise BinaryError("; ".join([*(failures or ["NVRTC is not installed"]), _advice(driver_version)]))


def cache_folder() -> Path:
    """Folder of this program in the user's cache ($XDG_CACHE_HOME); it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification requires relative paths to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "stenosis-trt"


def _shipped(folder: Path, source: Sources) -> list[_Shipped]:
    """Read the images of the manifest and check that they were built from these sources and flags."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        built_from = manifest["source_sha256"]
        flags = {tuple(entry.pop("flags")) for entry in manifest["images"]}
        images = [_Shipped(**entry) for entry in manifest["images"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BinaryError(
            f"the manifest of the shipped binaries cannot be read ({error}): {_REBUILD}"
        ) from error
    if built_from != source.sha256 or flags != {FLAGS}:
        raise BinaryError(
            f"the shipped binaries were built from other sources or with other flags: {_REBUILD}"
        )
    return images


def _refuse_old(capability: Version) -> None:
    if capability < MIN_COMPUTE_CAPABILITY:
        raise BinaryError(
            f"a GPU of compute capability {_dotted(capability)} is too old: use one of "
            f"{_dotted(MIN_COMPUTE_CAPABILITY)} or later, or `--device cpu`"
        )


def _version(driver_version: int) -> Version:
    """(12, 6) of 12060."""
    return driver_version // 1000, driver_version % 1000 // 10


def _dotted(version: Version) -> str:
    return "{}.{}".format(*version)


def _compilers(failures: list[str]) -> Iterator[Nvrtc]:
    """Usable NVRTC libraries of this machine. Errors of the others are appended to `failures`."""
    for library in find_nvrtc():
        try:
            compiler = Nvrtc(library)
        except NvrtcError as error:
            failures.append(str(error))
            continue
        yield compiler


def _key(source: Sources, compiler: str, architecture: str) -> str:
    """File name in the cache, from everything that the image depends on."""
    parts = "\0".join([source.sha256, compiler, architecture, *FLAGS])
    return f"{architecture}-{hashlib.sha256(parts.encode()).hexdigest()[:32]}.image"


def _cached(path: Path) -> bytes | None:
    """Read an image that `_store` wrote; None if it is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, data = content[:_DIGEST_DIGITS], content[_DIGEST_DIGITS:]
    return data if hashlib.sha256(data).hexdigest().encode() == digest else None


def _store(path: Path, data: bytes) -> None:
    """Write an image, preceded by its hash, atomically to the cache."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(hashlib.sha256(data).hexdigest().encode() + data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _advice(driver_version: int | None) -> str:
    if driver_version is None:
        return "install it: `pip install nvidia-cuda-nvrtc`"
    version = _version(driver_version)
    # From 13 on, package names carry no version.
    package = "nvidia-cuda-nvrtc" if version >= (13, 0) else f"nvidia-cuda-nvrtc-cu{version[0]}"
    return f"install a version that the driver supports: `pip install '{package}=={_dotted(version)}.*'`"
