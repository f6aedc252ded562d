"""Packages of npm that tests of pages and viewers use: pinned, verified, and kept between runs.

`npm_packages.json` lists each package with its version and its integrity hash as npm's lock files write it.
A package is fetched with `npm pack`, which runs no script and brings no dependency, and is unpacked into
`$XDG_CACHE_HOME/stenosis-trt/viewers` (`~/.cache` where that variable is not set).

playwright-core 1.60 is the last release that runs on Node.js 18, which Debian 12 has.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_PINS = Path(__file__).with_name("npm_packages.json")
_TIMEOUT = 240.0
"""Limit of one download in seconds; the largest package has 50 MB."""


class CannotFetchError(Exception):
    """npm did not deliver a package, such as on a machine without a network."""


class WrongPackageError(Exception):
    """A package is not pinned, or what npm delivered is not what was pinned."""


@cache
def pins() -> Mapping[str, str]:
    """Integrity hash of each package, by `NAME@VERSION`."""
    found: dict[str, str] = json.loads(_PINS.read_text(encoding="utf-8"))
    return found


def pinned(name: str) -> list[str]:
    """Return the versions of a package that are pinned, newest first."""
    versions = [item.rpartition("@")[2] for item in pins() if item.rpartition("@")[0] == name]
    return sorted(versions, key=lambda version: [int(part) for part in version.split(".")], reverse=True)


def cache_folder() -> Path:
    """Return the folder that keeps unpacked packages."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "stenosis-trt" / "viewers"


def npm_package(name: str, version: str | None = None) -> Path:
    """Return the folder of an unpacked package, with its package.json; fetch it at the first call.

    Args:
        name: of the package, such as "playwright-core".
        version: one that is pinned; None for the newest of them.

    Raises:
        WrongPackageError: the package is not pinned, or its content has another hash.
        CannotFetchError: npm failed or took too long.
    """
    package = f"{name}@{version or (pinned(name) or [''])[0]}"
    if package not in pins():
        raise WrongPackageError(f"{package} is not in {_PINS.name}.")
    base = cache_folder()
    base.mkdir(parents=True, exist_ok=True)
    integrity = hashlib.sha256(pins()[package].encode("ascii")).hexdigest()[:12]
    folder = base / f"{package.replace('/', '+')}-{integrity}"
    with (base / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=base, prefix=".fetching-") as work:
                _unpack(_fetch(package, Path(work)), Path(work) / "unpacked")
                shutil.move(Path(work) / "unpacked" / "package", folder)
    return folder


def verify(archive: Path, integrity: str) -> None:
    """Compare an archive with its integrity hash: an algorithm's name, "-", and the digest in base64.

    Raises:
        WrongPackageError: they differ.
    """
    algorithm, _, expected = integrity.partition("-")
    with archive.open("rb") as stream:
        digest = hashlib.new(algorithm)
        while block := stream.read(1 << 20):
            digest.update(block)
    if base64.b64encode(digest.digest()).decode("ascii") != expected:
        raise WrongPackageError(f"{archive.name} is not the archive that {_PINS.name} pins.")


def _fetch(package: str, folder: Path) -> Path:
    command = ["npm", "pack", package, "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise CannotFetchError(f"npm did not deliver {package} within {_TIMEOUT:.0f} s.") from error
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise CannotFetchError(f"npm did not deliver {package}: {last}")
    verify(archives[0], pins()[package])
    return archives[0]


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as stream:
        # Python 3.11.2, which Debian 12 has, knows no filters. What is unpacked has been verified.
        if hasattr(tarfile, "data_filter"):
            stream.extraction_filter = tarfile.data_filter
        stream.extractall(folder)
    archive.unlink()
