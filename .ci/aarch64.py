"""Check that every run-time dependency resolves to wheels for Jetson: aarch64, Python 3.10 and 3.12.

Nothing is installed. JetPack 6 has Python 3.10 and glibc 2.35, JetPack 7 has Python 3.12 and glibc 2.39.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

_GLIBC = {"3.10": 35, "3.12": 39}
_OLDEST_GLIBC = 17


def resolves(requirements: list[str], python: str) -> bool:
    """Whether pip finds a wheel for each requirement and all they need, for one Python on aarch64."""
    abi = "cp" + python.replace(".", "")
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(_GLIBC[python], _OLDEST_GLIBC - 1, -1)]
    with tempfile.TemporaryDirectory() as target:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
        command += ["--abi", abi, "--abi", "abi3", "--abi", "none", "--target", target]
        for platform in [*platforms, "manylinux2014_aarch64"]:
            command += ["--platform", platform]
        return subprocess.run([*command, *requirements], check=False).returncode == 0


def main() -> int:
    """Exit code 0 where all resolve."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    failed = [python for python in _GLIBC if not resolves(project["dependencies"], python)]
    for python in _GLIBC:
        print(
            f"aarch64, Python {python}: {'no wheel for some dependency' if python in failed else 'resolves'}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
