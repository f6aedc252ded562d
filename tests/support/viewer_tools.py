"""What tests of pages and viewers need of a machine, and the reason for which they are skipped without it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from npm_packages import CannotFetchError, npm_package

DEBIAN_PACKAGES = {
    "Orthanc": "orthanc",
    "chromium": "chromium",
    "dciodvfy": "dicom3tools",
    "dcm2pnm": "dcmtk",
    "dsrdump": "dcmtk",
    "echoscu": "dcmtk",
    "ip": "iproute2",
    "node": "nodejs",
    "npm": "npm",
    "nsenter": "util-linux",
    "storescu": "dcmtk",
    "unshare": "util-linux",
}
"""Debian package of each command."""

CHROMIUM_FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""Chromium as root and without a GPU: no sandbox, WebGL computed by the processor."""

_REQUIRED = "VIEWER_TESTS_REQUIRED"
"""Environment variable that turns a skipped test into a failed one; `.ci/run` sets it."""


def skip_or_fail(reason: str) -> None:
    """Skip the test; fail it where the environment says that these tests have to run."""
    if os.environ.get(_REQUIRED):
        pytest.fail(f"{_REQUIRED} is set: {reason}", pytrace=False)
    pytest.skip(reason)


def need_commands(*names: str) -> None:
    """Skip the test where a command is missing; the reason names the Debian packages that bring it."""
    missing = [name for name in names if shutil.which(name, path=_search_path()) is None]
    if missing:
        skip_or_fail(f"needs {', '.join(missing)}: {install_advice(missing)}")


def install_advice(missing: Iterable[str]) -> str:
    """Return the command that installs what is missing on Debian."""
    packages = sorted({DEBIAN_PACKAGES[name] for name in missing})
    return f"apt-get install --no-install-recommends {' '.join(packages)}"


def command_path(name: str) -> str:
    """Return the path of a command, also where only root has its folder on PATH."""
    return shutil.which(name, path=_search_path()) or name


def need_package(name: str, version: str | None = None) -> Path:
    """Return the folder of a pinned npm package; skip the test where npm cannot deliver it."""
    need_commands("node", "npm")
    try:
        return npm_package(name, version)
    except CannotFetchError as error:
        skip_or_fail(f"needs {name} of npm: {error}")
        raise


def _search_path() -> str:
    """Folders of commands: PATH and root's, without this environment's, where pynetdicom has a storescu."""
    own = Path(sys.prefix, "bin")
    folders = (*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/sbin")
    return os.pathsep.join(folder for folder in folders if Path(folder) != own)
